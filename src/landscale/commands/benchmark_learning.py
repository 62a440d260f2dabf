"""`landscale benchmark learning`: check that every network learns."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from landscale.commands.benchmark_zoo import check_batch, chosen_networks
from landscale.commands.command import AddCommand, print_result
from landscale.errors import LandscaleError


def add_command(add: AddCommand) -> None:
    parser = add(
        "learning",
        _measure_learning,
        "check that every network learns, by some steps on the same few patches; run the same command again to resume",
        "landscale benchmark learning resnet50 --steps 120",
    )
    parser.add_argument(
        "models", nargs="*", metavar="NAME", help="networks of landscale or timm (default: landscale's)"
    )
    parser.add_argument("--family", metavar="F", help="only networks of this family")
    parser.add_argument(
        "--store", type=Path, metavar="STORE.h5", help="a store with the classes of clc43 (default: a synthetic one)"
    )
    parser.add_argument("--steps", type=int, default=24, help="training steps of a network (default: 24)")
    parser.add_argument("--batch", type=int, default=8, help="patches, the same ones in every step (default: 8)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("learning.json"),
        metavar="LEARNING.json",
        help="file of results (default: %(default)s)",
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="PAGE.md", help="write a page from the results in LEARNING.json; train nothing"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _measure_learning(options: argparse.Namespace) -> int:
    check_batch(options.batch)
    from landscale.runtime.files import write_text
    from landscale.runtime.outputs import begins_with, check_output
    from landscale.studies.results import read_results
    from landscale.studies.zoo.learning import LEARNT_RATIO, LEAST_STEPS, measure_learning
    from landscale.studies.zoo.learning_page import learning_page

    if options.steps < LEAST_STEPS:
        raise LandscaleError(f"--steps: found {options.steps}, expected at least {LEAST_STEPS}")
    if options.markdown is not None:
        command = f"landscale benchmark learning --out {options.out} --markdown {options.markdown}"
        page = learning_page(read_results(options.out, "learning"), command)
        check_output(
            options.markdown, "a page of `benchmark learning`", begins_with(page.split("\n")[0]), [options.out]
        )
        write_text(options.markdown, page)
        written = {"page": str(options.markdown), "results": str(options.out)}
        return print_result(options, written, lambda: print(options.markdown))
    content = measure_learning(chosen_networks(options), options.out, options.store, options.steps, options.batch)
    print_result(options, content, lambda: _show_learning(content, options.out))
    failed = [row for row in content["models"] if not row.get("learns")]
    for row in failed:
        why = row.get("failed") or (
            f"the loss fell from {row['first']:.3f} to {row['last']:.3f}, expected less than {LEARNT_RATIO:g} times the"
            f" {row['constant']:.3f} of a constant prediction"
        )
        sizes = f"{row['bands']} bands, {row['classes']} classes"
        print(f"landscale: {row['name']} failed, {sizes}: {why}", file=sys.stderr)
    return 1 if failed else 0


def _show_learning(content: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from landscale.studies.zoo.learning_page import learning_columns, learning_rows, learning_summary

    console = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 140)
    table = Table(*learning_columns(content))
    for cells in learning_rows(content):
        table.add_row(*(cell.replace("*", "").strip("`") for cell in cells))
    console.print(table)
    for line in [*learning_summary(content), f"{out}: contains all results"]:
        console.print(line, highlight=False)
