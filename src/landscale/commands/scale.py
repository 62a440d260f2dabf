"""`landscale scale`: compound scaling by search."""

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
    parser = add(
        "scale",
        _scale_network,
        "compound scaling: search the best depth, width and resolution, then train larger sizes; run the same command again"
        " to resume",
        "landscale scale wide_resnet_eca --store ben.h5 --recipe papoutsis2022 --epochs 5",
        remaining="recipe keys",
    )
    parser.add_argument("base", metavar="BASE", help="the network to scale")
    parser.add_argument("--store", type=Path, required=True, metavar="STORE.h5", help="the patch store to train on")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("compound-scaling"),
        metavar="DIR",
        help="folder of the study (default: %(default)s)",
    )
    parser.add_argument(
        "--flops",
        default="2x",
        metavar="2x|NUMBER",
        help="budget at φ = 1: a multiple of BASE's FLOPs, or FLOPs (default: 2x)",
    )
    parser.add_argument("--step", type=float, default=0.1, help="step of the grid of α, β and γ (default: 0.1)")
    parser.add_argument("--phi", default="1,2,3", metavar="1,2,3", help="values of φ to train (default: 1,2,3)")
    parser.add_argument(
        "--seeds", metavar="1,2", help="train each network with each of these seeds and compare the means"
    )
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time (default: 1)")
    parser.add_argument("--recipe", help="a YAML file, or the name of a built-in recipe, as for `landscale train`")
    parser.add_argument("--max-time", metavar="30m", help="finish the whole study within this time: 90s, 45m, 2h")
    parser.add_argument("--plan", action="store_true", help="only list the candidates; train nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument_group("recipe keys", "set any key of the recipe except model and side as --key value")


def _scale_network(options: argparse.Namespace) -> int:
    flops, is_multiple = _flops(options.flops)
    phis = _numbers("--phi", options.phi, float, above=0)
    if not 0.01 <= options.step <= 1:
        raise LandscaleError(f"--step: found {options.step:g}, expected 0.01 to 1")
    if options.workers < 1:
        raise LandscaleError(f"--workers: found {options.workers}, expected at least 1")
    if options.max_time:
        seconds_left(options.max_time)  # refuse a malformed time before the slow import of torch
    recipe = _recipe(options)
    seeds = _numbers("--seeds", options.seeds, int, above=-1) if options.seeds else (recipe.seed,)

    from landscale.runtime.files import write_text
    from landscale.store import open_store
    from landscale.studies.compound_scaling.page import compound_scaling_page
    from landscale.studies.compound_scaling.plots import compound_scaling_svg
    from landscale.studies.compound_scaling.study import CompoundScalingPlan, list_candidates, run_compound_scaling

    store = open_store(options.store)
    plan = CompoundScalingPlan(recipe, flops, is_multiple, options.step, phis, seeds)
    if options.plan:
        content = list_candidates(plan, store)
        return print_result(options, content, lambda: _show_tables(content))
    seconds = seconds_left(options.max_time) if options.max_time else None
    content = run_compound_scaling(plan, store, options.out, options.workers, seconds)
    write_text(options.out / "compound-scaling.md", compound_scaling_page(content))
    write_text(options.out / "compound-scaling.svg", compound_scaling_svg(content))

    def text() -> None:
        _show_tables(content)
        print("The sizes as rows of the family's table of sizes:", *content["registration"], sep="\n  ")
        print(f"{options.out}: contains compound-scaling.md, compound-scaling.svg and compound-scaling.json")

    print_result(options, content, text)
    if content["failed"]:
        print(
            f"landscale: {len(content['failed'])} trainings failed; run the same command again to retry",
            file=sys.stderr,
        )
        return 1
    return 0


def _recipe(options: argparse.Namespace) -> Recipe:
    """The recipe of all trainings.

    Raises:
        LandscaleError: its keys set what the study sets itself.
    """
    from landscale.training.recipe import load_recipe

    for word in options.remaining:
        key = word.partition("=")[0]
        if key in ("--model", "--side"):
            raise LandscaleError(f"{key}: the study sets it itself; expected BASE as the first argument and no {key}")
        if key == "--seed" and options.seeds:
            raise LandscaleError("--seed: found together with --seeds, expected only one of the two")
    return load_recipe(options.recipe, [*options.remaining, f"--model={options.base}"])


def _flops(text: str) -> tuple[float, bool]:
    """The number, and whether it is a multiple of the unscaled network's FLOPs."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)(x?)", text)
    if not match or not 1 < float(match[1]) < 1e18:
        raise LandscaleError(f"--flops: found '{text}', expected a multiple above 1, as in 2x, or a number, as in 6e8")
    return float(match[1]), bool(match[2])


def _numbers(option: str, text: str, number_type: type, above: float) -> tuple[Any, ...]:
    try:
        numbers = tuple(sorted({number_type(word) for word in text.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or not all(above < number <= 1e9 for number in numbers):
        expected = "whole numbers from 0 up, as in 1,2" if number_type is int else "numbers above 0, as in 1,2,3"
        raise LandscaleError(f"{option}: found '{text}', expected {expected}")
    return numbers


def _show_tables(content: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from landscale.studies.compound_scaling.page import compound_scaling_tables

    console = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 140)
    for table in compound_scaling_tables(content):
        shown = Table(title=table.title, title_justify="left")
        for column in table.columns:
            shown.add_column(column, justify="left" if column == "axis" else "right")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
