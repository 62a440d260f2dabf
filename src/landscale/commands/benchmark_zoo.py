"""`landscale benchmark zoo`: the speed and memory of networks on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from landscale.commands.command import AddCommand, print_result, seconds_left
from landscale.errors import LandscaleError

BUSIEST = 0.5  # load average for each core above which other programs are certainly computing


def add_command(add: AddCommand) -> None:
    parser = add(
        "zoo",
        _measure_zoo,
        "measure images/s in training and inference and peak memory of networks; run the same command again to resume",
        "landscale benchmark zoo wide_resnet_eca_b4 resnet50",
    )
    parser.add_argument(
        "models", nargs="*", metavar="NAME", help="networks of landscale or timm (default: landscale's)"
    )
    parser.add_argument("--family", metavar="F", help="only networks of this family")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU if there is one")
    parser.add_argument("--batch", type=int, help="patches per step (default: 16 on a CPU, 256 on a GPU)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often each network is measured, in turns (default: 3)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        help="time of one measurement, half of it training; at least one step of each kind is measured (default: 1)",
    )
    parser.add_argument(
        "--max-time",
        metavar="25m",
        help="begin no further measurement after this time: 90s, 45m, 2h (default: no limit)",
    )
    parser.add_argument("--bands", default="s2-10", metavar="SET", help="input bands (default: s2-10)")
    parser.add_argument("--classes", type=int, default=19, help="number of classes (default: 19)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("zoo.json"),
        metavar="RESULTS.json",
        help="file of results (default: %(default)s)",
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="ZOO.md", help="write a page from the results in RESULTS.json; measure nothing"
    )
    parser.add_argument(
        "--learning", type=Path, metavar="LEARNING.json", help="results of `benchmark learning` to add to that page"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _measure_zoo(options: argparse.Namespace) -> int:
    from landscale.vocabulary.bands import band_set

    check_batch(options.batch)
    if not 0 < options.seconds < float("inf"):
        raise LandscaleError(f"--seconds: found {options.seconds:g}, expected a number above 0")
    if options.rounds < 1:
        raise LandscaleError(f"--rounds: found {options.rounds}, expected at least 1")
    if options.max_time:
        seconds_left(options.max_time)  # refuse a malformed time before the slow import of torch
    if options.classes < 1:
        raise LandscaleError(f"--classes: found {options.classes}, expected at least 1")
    bands = band_set(options.bands).names
    if options.markdown is not None:
        return _write_page(options)
    if options.learning is not None:
        raise LandscaleError("--learning: found without --markdown, expected both: it adds a section to that page")
    names = chosen_networks(options)

    import torch

    from landscale.runtime.portability import usable_cores
    from landscale.studies.zoo.measure import OUT_OF_MEMORY
    from landscale.studies.zoo.speed import measure_zoo, missing_measurements

    if options.device == "cuda" and not torch.cuda.is_available():
        raise LandscaleError("--device: found cuda, but torch finds no GPU; expected cpu")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    batch = options.batch or (256 if device == "cuda" else 16)
    job = {"device": device, "batch": batch, "seconds": options.seconds, "bands": bands, "classes": options.classes}
    limit = seconds_left(options.max_time) if options.max_time else float("inf")
    content = measure_zoo(names, options.out, job, options.rounds, limit)
    print_result(options, content, lambda: _show_speeds(content, options.out))
    if content["load"] > BUSIEST * usable_cores():
        print(
            f"landscale: the load average was {content['load']:.1f} at the beginning: other programs were computing,"
            " so the rates are too low",
            file=sys.stderr,
        )
    rows = [*content["models"], *content["measurements"]]
    failed = {row["name"]: row["failed"] for row in rows if row.get("failed", OUT_OF_MEMORY) != OUT_OF_MEMORY}
    for name, why in failed.items():
        print(f"landscale: {name} failed: {why}; run the same command again to retry", file=sys.stderr)
    if missing := missing_measurements(content, options.rounds):
        print(f"landscale: {missing} measurements are missing; run the same command again to do them", file=sys.stderr)
    return 1 if failed else 0


def check_batch(batch: int | None) -> None:
    """Refuse a batch of one patch.

    Raises:
        LandscaleError: batch normalisation needs at least two patches.
    """
    if batch is not None and batch < 2:
        raise LandscaleError(f"--batch: found {batch}, expected at least 2, because of batch normalisation")


def chosen_networks(options: argparse.Namespace) -> list[str]:
    """The networks that the user named, those of the chosen family, or all.

    Raises:
        LandscaleError: both names and a family. UnknownName: no such family.
    """
    from landscale.models.catalogue import zoo_rows

    if options.models and options.family:
        raise LandscaleError("--family: found together with names of networks, expected only one of the two")
    return options.models or [row["name"] for row in zoo_rows(family=options.family)]


def _write_page(options: argparse.Namespace) -> int:
    from landscale.runtime.files import write_text
    from landscale.runtime.outputs import begins_with, check_output
    from landscale.studies.results import read_results
    from landscale.studies.zoo.page import zoo_page

    content = read_results(options.out)
    learning = read_results(options.learning, "learning") if options.learning else None
    also = f" --learning {options.learning}" if options.learning else ""
    command = f"landscale benchmark zoo --out {options.out}{also} --markdown {options.markdown}"
    page = zoo_page(content, command, learning)
    inputs = [path for path in (options.out, options.learning) if path]
    check_output(options.markdown, "a page of `benchmark zoo`", begins_with(page.split("\n")[0]), inputs)
    write_text(options.markdown, page)
    written = {"page": str(options.markdown), "results": str(options.out)}
    return print_result(options, written, lambda: print(options.markdown))


def _show_speeds(content: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from landscale.studies.zoo.page import BUSY, speed_cells
    from landscale.studies.zoo.summary import comparison_sentences, speed_of

    console = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 140)
    s, e = content["settings"], content["environment"]
    machine = e["gpu"] if s["device"] == "cuda" else e["processor"]
    table = Table(title=f"{machine}, batches of {s['batch']}, {len(s['bands'])} bands", title_justify="left")
    for column in ("network", "family", "parameters", "GFLOPs", "px", "training/s", "inference/s", "peak MB", "%"):
        table.add_column(column, justify="left" if column in ("network", "family") else "right")
    for row in content["models"]:
        sizes = ["", ""] if "failed" in row else [f"{row['parameters']:,}", f"{row['flops'] / 1e9:.3g}"]
        cells = speed_cells(speed_of(content, row))
        table.add_row(row["name"], row["family"], *sizes, str(row["side"]), *cells)
    console.print(table)
    for line in comparison_sentences(content):
        console.print(line, highlight=False)
    console.print(f"Rates are medians over the rounds (lowest–highest); {BUSY}: the machine was busy.", highlight=False)
    console.print(f"{out}: contains all results", highlight=False)
