"""benchmark: what networks cost on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from landscale.commands.benchmark_ranks import add_kinds
from landscale.commands.command import Add, tell
from landscale.errors import LandscaleError


def add_commands(add: Add) -> None:
    p = add("benchmark", _zoo, "measure this machine", "landscale benchmark zoo wide_resnet_eca_b4 resnet50")
    kinds = p.add_subparsers(dest="kind", metavar="WHAT", required=True)
    about = "every network of the zoo: training and inference images/s, peak memory; the same command again goes on"
    p = kinds.add_parser("zoo", help=about, description=about, allow_abbrev=False)
    p.set_defaults(command=_zoo)
    p.add_argument("models", nargs="*", metavar="NAME", help="networks of the zoo or of timm (default: the whole zoo)")
    p.add_argument("--family", metavar="F", help="only networks of this family")
    p.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU where there is one")
    p.add_argument("--batch", type=int, help="patches a step (default: 16 on a CPU, 256 on a GPU)")
    p.add_argument("--seconds", type=float, default=3.0, help="for each network; at least one step (default: 3)")
    p.add_argument("--bands", default="s2-10", metavar="SET", help="default: s2-10")
    p.add_argument("--classes", type=int, default=19, help="default: 19")
    p.add_argument(
        "--out", type=Path, default=Path("zoo.json"), metavar="RESULTS.json", help="default: %(default)s here"
    )
    p.add_argument(
        "--markdown", type=Path, metavar="ZOO.md", help="write the page of what RESULTS.json holds, measure nothing"
    )
    p.add_argument("--learning", type=Path, metavar="LEARNING.json", help="of `benchmark learning`, for that page")
    p.add_argument("--json", action="store_true")
    about = "whether every network learns: some steps on the same few patches; the same command again goes on"
    p = kinds.add_parser("learning", help=about, description=about, allow_abbrev=False)
    p.set_defaults(command=_learning)
    p.add_argument("models", nargs="*", metavar="NAME", help="networks of the zoo or of timm (default: the whole zoo)")
    p.add_argument("--family", metavar="F", help="only networks of this family")
    p.add_argument("--store", type=Path, metavar="STORE.h5", help="with clc43 (default: a synthetic landscape's)")
    p.add_argument("--steps", type=int, default=12, help="default: 12")
    p.add_argument("--batch", type=int, default=8, help="patches, the same in every step (default: 8)")
    p.add_argument(
        "--out", type=Path, default=Path("learning.json"), metavar="LEARNING.json", help="default: %(default)s here"
    )
    p.add_argument(
        "--markdown", type=Path, metavar="PAGE.md", help="write a page of what LEARNING.json holds, train nothing"
    )
    p.add_argument("--json", action="store_true")
    add_kinds(kinds)


def _zoo(options: argparse.Namespace) -> int:
    from landscale.vocabulary.bands import band_set

    _check_batch(options.batch)
    if not 0 < options.seconds < float("inf"):
        raise LandscaleError(f"--seconds: found {options.seconds:g}, expected a number above 0")
    if options.classes < 1:
        raise LandscaleError(f"--classes: found {options.classes}, expected at least 1")
    bands = band_set(options.bands).names
    if options.markdown is not None:
        return _page(options)
    if options.learning is not None:
        raise LandscaleError("--learning: found without --markdown, for whose page it is")
    names = _names(options)

    import torch

    from landscale.studies.zoo.measure import OUT_OF_MEMORY
    from landscale.studies.zoo.speed import measure_zoo

    if options.device == "cuda" and not torch.cuda.is_available():
        raise LandscaleError("--device: found cuda, but torch sees no GPU here; expected cpu")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    batch = options.batch or (256 if device == "cuda" else 16)
    content = measure_zoo(names, options.out, device, batch, options.seconds, bands, options.classes)
    tell(options, content, lambda: _show(content, options.out))
    rows = [*content["models"], *content["comparison"]]
    failed = {row["name"]: row["failed"] for row in rows if row.get("failed", OUT_OF_MEMORY) != OUT_OF_MEMORY}
    for name, why in failed.items():
        print(f"landscale: {name} failed: {why}; the same command tries again", file=sys.stderr)
    return 1 if failed else 0


def _check_batch(batch: int | None) -> None:
    if batch is not None and batch < 2:
        raise LandscaleError(f"--batch: found {batch}, expected at least 2, which batch norms need")


def _names(options: argparse.Namespace) -> list[str]:
    from landscale.models.catalogue import listing

    if options.models and options.family:
        raise LandscaleError("--family: found beside names of networks, expected one of them")
    return options.models or [row["name"] for row in listing(family=options.family)]


def _learning(options: argparse.Namespace) -> int:
    _check_batch(options.batch)
    from landscale.runtime.files import write_text
    from landscale.studies.results import read_results
    from landscale.studies.zoo.learning import LEAST_STEPS, measure_learning
    from landscale.studies.zoo.learning_page import page

    if options.steps < LEAST_STEPS:
        raise LandscaleError(f"--steps: found {options.steps}, expected at least {LEAST_STEPS}")
    if options.markdown is not None:
        command = f"landscale benchmark learning --out {options.out} --markdown {options.markdown}"
        write_text(options.markdown, page(read_results(options.out, "learning"), command))
        said = {"page": str(options.markdown), "results": str(options.out)}
        return tell(options, said, lambda: print(options.markdown))
    content = measure_learning(_names(options), options.out, options.store, options.steps, options.batch)
    tell(options, content, lambda: _show_learning(content, options.out))
    failed = [row for row in content["models"] if not row.get("learns")]
    for row in failed:
        why = row.get("failed") or f"the loss does not fall enough, {row['first']:.3f} → {row['last']:.3f}"
        sizes = f"{row['bands']} bands, {row['classes']} classes"
        print(f"landscale: {row['name']} failed, {sizes}: {why}", file=sys.stderr)
    return 1 if failed else 0


def _show_learning(content: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from landscale.studies.zoo.learning_page import columns, table_cells, verdict

    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table(*columns(content))
    for cells in table_cells(content):
        table.add_row(*(cell.replace("*", "").strip("`") for cell in cells))
    console.print(table)
    for line in [*verdict(content), f"{out}: all of it"]:
        console.print(line, highlight=False)


def _page(options: argparse.Namespace) -> int:
    from landscale.runtime.files import write_text
    from landscale.studies.results import read_results
    from landscale.studies.zoo.page import page

    content = read_results(options.out)
    learning = read_results(options.learning, "learning") if options.learning else None
    also = f" --learning {options.learning}" if options.learning else ""
    command = f"landscale benchmark zoo --out {options.out}{also} --markdown {options.markdown}"
    write_text(options.markdown, page(content, command, learning))
    said = {"page": str(options.markdown), "results": str(options.out)}
    return tell(options, said, lambda: print(options.markdown))


def _show(content: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from landscale.studies.zoo.page import speed_cells
    from landscale.studies.zoo.speed import verdict

    console = Console(width=None if sys.stdout.isatty() else 140)
    s, e = content["settings"], content["environment"]
    machine = e["gpu"] if s["device"] == "cuda" else e["processor"]
    table = Table(title=f"{machine}, batches of {s['batch']}, {len(s['bands'])} bands", title_justify="left")
    for column in ("network", "family", "parameters", "GFLOPs", "px", "training/s", "inference/s", "peak MB", "%"):
        table.add_column(column, justify="left" if column in ("network", "family") else "right")
    for row in content["models"]:
        sizes = ["", ""] if "failed" in row else [f"{row['parameters']:,}", f"{row['flops'] / 1e9:.3g}"]
        table.add_row(row["name"], row["family"], *sizes, str(row["side"]), *speed_cells(row))
    console.print(table)
    for line in verdict(content):
        console.print(line, highlight=False)
    console.print(f"{out}: all of it", highlight=False)
