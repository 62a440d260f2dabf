"""`landscale verify`: recompute the checksums of a store."""

from __future__ import annotations

import argparse
from pathlib import Path

from landscale.commands.command import AddCommand, print_result


def add_command(add: AddCommand) -> None:
    parser = add(
        "verify",
        _verify_store,
        "recompute every checksum of a store; exit code 1 if one is wrong",
        "landscale verify ben.h5",
    )
    parser.add_argument("store", type=Path, metavar="STORE.h5")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _verify_store(options: argparse.Namespace) -> int:
    from landscale.runtime.progress import progress_bar
    from landscale.store import open_store

    store = open_store(options.store, check=False)  # in order to name what is damaged
    columns = list(store.damaged_columns())
    wrong = []
    with progress_bar("verify", len(store)) as advance:
        for index, damaged in store.damaged():
            if damaged:
                wrong.append(index)
            advance(1)
    names = [str(name) for name in store.column("name")[wrong]] if wrong else []
    content = {
        "store": str(options.store),
        "patches": len(store),
        "damaged": names,
        "columns": columns,
        "proof": store.proof,
    }

    def text() -> None:
        for name in names:
            print(f"damaged: {name}")
        if columns:
            print(f"damaged columns: {', '.join(columns)}")
        print(f"{options.store}: {len(store)} patches, {len(names) or 'none'} damaged, checked by {store.proof}")

    print_result(options, content, text)
    return 1 if names or columns else 0
