"""`landscale benchmark transfer`: how many labels trained encoders save, on several stores."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from landscale.commands.command import AddCommand, add_probing, list_of, print_result
from landscale.runtime.signals import requeued_by_signals

FRACTIONS = [0.01, 0.1, 1.0]  # of the labels, unless --fraction or --shots are given


def add_command(add: AddCommand) -> None:
    parser = add(
        "transfer",
        _measure_transfer,
        "compare encoders on stores with few and all labels, next to training from scratch; run it again to resume",
        "landscale benchmark transfer eurosat.h5 ben.h5 --encoders runs/eca,bundled:eurosat-rgb --fraction 0.01,0.1,1",
        remaining="recipe keys",
    )
    parser.add_argument(
        "stores", type=Path, nargs="+", metavar="STORE.h5", help="stores with the splits train, val and test"
    )
    parser.add_argument(
        "--encoders",
        type=list_of(str),
        required=True,
        metavar="NAMES",
        help="folders of runs or of weights, or names that `landscale models --encoders` lists",
    )
    add_probing(parser, "knn,linear,fine-tune,scratch", "the fractions 0.01, 0.1 and 1")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("transfer"),
        metavar="DIR",
        help="folder of the study: tables, charts, page and probes (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def _measure_transfer(options: argparse.Namespace) -> int:
    with requeued_by_signals("stopped; finished cells are kept; run the same command again to resume"):
        return _measure_or_resume(options)


def _measure_or_resume(options: argparse.Namespace) -> int:
    from landscale.runtime.files import atomic_file, write_text
    from landscale.studies.transfer.page import PAGE_FILE, transfer_page
    from landscale.studies.transfer.plots import store_png
    from landscale.studies.transfer.study import TransferPlan, run_transfer

    plan = TransferPlan(
        stores=tuple(map(str, options.stores)),
        encoders=tuple(options.encoders),
        protocols=tuple(options.protocol),
        fractions=tuple(options.fraction or ([] if options.shots else FRACTIONS)),
        shots=tuple(options.shots),
        seeds=options.seeds,
        recipe=options.recipe,
        words=tuple(options.remaining),
    )
    content = run_transfer(plan, options.out)
    for store in content["stores"]:
        picture = store_png(content, store)
        with atomic_file(options.out / store["chart"]) as temporary:
            temporary.write_bytes(picture)
    write_text(options.out / PAGE_FILE, transfer_page(content))
    return print_result(options, content, lambda: _show(content, options.out))


def _show(content: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from landscale.studies.transfer.page import multiples_table

    console = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 140)
    for store in content["stores"]:
        columns, rows = multiples_table(content, store)
        if not rows:
            continue
        table = Table(
            *columns, title=f"{store['store']}: as good as scratch with n times the labels", title_justify="left"
        )
        for cells in rows:
            table.add_row(*cells)
        console.print(table)
    console.print(f"{out}: contains the page transfer.md, tables, charts and probes", highlight=False)
