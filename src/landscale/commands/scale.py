"""scale: compound scaling by search."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscale.commands.command import AddCommand, print_result, seconds_left
from landscale.errors import LandscaleError

if TYPE_CHECKING:
    from landscale.training.recipe import Recipe


def add_command(add: AddCommand) -> None:
    p = add(
        "scale",
        scale_command,
        "compound scaling: search depth, width and resolution, then train the sizes; the same command again goes on",
        "landscale scale wide_resnet_eca --store ben.h5 --out scaling --recipe papoutsis2022 --epochs 5",
        remaining="recipe keys",
    )
    p.add_argument("base", metavar="BASE", help="the unscaled network")
    p.add_argument("--store", type=Path, required=True, metavar="STORE.h5")
    p.add_argument("--out", type=Path, metavar="DIR", help="folder of the study")
    p.add_argument("--flops", default="2x", metavar="2x|NUMBER", help="budget at φ = 1: a multiple of BASE's, or FLOPs")
    p.add_argument("--step", type=float, default=0.1, help="of the grid of α, β and γ (default: 0.1)")
    p.add_argument("--phi", default="1,2,3", metavar="1,2,3", help="the sizes (default: 1,2,3)")
    p.add_argument("--seeds", metavar="1,2", help="train each network by all of them, compare means")
    p.add_argument("--workers", type=int, default=1, help="trainings at a time (default: 1)")
    p.add_argument("--recipe", help="shipped recipe or YAML file, as for train")
    p.add_argument("--max-time", metavar="30m", help="end well within, all trainings together: 90s, 45m, 2h")
    p.add_argument("--plan", action="store_true", help="only show the candidates")
    p.add_argument("--json", action="store_true")
    p.add_argument_group("keys of the recipe", "each may be given as --key value, but for model and side")


def scale_command(options: argparse.Namespace) -> int:
    flops, is_multiple = _flops(options.flops)
    phis = _numbers("--phi", options.phi, float, above=0)
    if not 0.01 <= options.step <= 1:
        raise LandscaleError(f"--step: found {options.step:g}, expected 0.01 to 1")
    if options.workers < 1:
        raise LandscaleError(f"--workers: found {options.workers}, expected at least 1")
    if options.out is None and not options.plan:
        raise LandscaleError("--out: a folder is required; see landscale scale --help")
    if options.max_time:
        seconds_left(options.max_time)  # refuses a wrong one before torch is there
    recipe = _recipe(options, options.remaining)
    seeds = _numbers("--seeds", options.seeds, int, above=-1) if options.seeds else (recipe.seed,)

    from landscale.runtime.files import write_text
    from landscale.store import open_store
    from landscale.studies.compound_scaling.plots import compound_scaling_svg
    from landscale.studies.compound_scaling.study import Plan, candidates_of, study
    from landscale.studies.compound_scaling.tables import markdown

    store = open_store(options.store)
    plan = Plan(recipe, flops, is_multiple, options.step, phis, seeds)
    if options.plan:
        content = candidates_of(plan, store)
        return print_result(options, content, lambda: _show(content))
    seconds = seconds_left(options.max_time) if options.max_time else None
    content = study(plan, store, options.out, options.workers, seconds)
    write_text(options.out / "scaling.md", markdown(content))
    write_text(options.out / "scaling.svg", compound_scaling_svg(content))

    def text() -> None:
        _show(content)
        print("the sizes, as rows of a family's table:", *content["registration"], sep="\n  ")
        print(f"{options.out}: scaling.md, scaling.svg and scaling.json are in it")

    print_result(options, content, text)
    if content["failed"]:
        print(f"landscale: {len(content['failed'])} trainings failed; the same command tries again", file=sys.stderr)
        return 1
    return 0


def _recipe(options: argparse.Namespace, overrides: list[str]) -> Recipe:
    from landscale.training.recipe import load_recipe

    for word in overrides:
        key = word.partition("=")[0]
        if key in ("--model", "--side"):
            raise LandscaleError(f"{key}: scale sets it itself; expected BASE as the first word and no {key}")
        if key == "--seed" and options.seeds:
            raise LandscaleError("--seed: found beside --seeds, expected one of them")
    return load_recipe(options.recipe, [*overrides, f"--model={options.base}"])


def _flops(text: str) -> tuple[float, bool]:
    """The number, and whether it is a multiple."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)(x?)", text)
    if not match or not 1 < float(match[1]) < 1e18:
        raise LandscaleError(f"--flops: found '{text}', expected a multiple above 1, as in 2x, or a number, as in 6e8")
    return float(match[1]), bool(match[2])


def _numbers(flag: str, text: str, kind: type, above: float) -> tuple[Any, ...]:
    try:
        numbers = tuple(sorted({kind(word) for word in text.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or not all(above < number <= 1e9 for number in numbers):
        what = "whole numbers from 0 up, as in 1,2" if kind is int else "numbers above 0, as in 1,2,3"
        raise LandscaleError(f"{flag}: found '{text}', expected {what}")
    return numbers


def _show(content: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from landscale.studies.compound_scaling.tables import tables

    console = Console(width=None if sys.stdout.isatty() else 140)
    for table in tables(content):
        shown = Table(title=table.title, title_justify="left")
        for column in table.columns:
            shown.add_column(column, justify="left" if column == "axis" else "right")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
