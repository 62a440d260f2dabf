"""`landscale train`: train a model on a store."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscale.commands.command import AddCommand, add_timeout, print_result, seconds_left
from landscale.runtime.signals import requeued_by_signals
from landscale.vocabulary.headline import shortened

if TYPE_CHECKING:
    from landscale.training.recipe import Recipe


def add_command(add: AddCommand) -> None:
    parser = add(
        "train",
        _train_model,
        "train a model; run the same command again to resume",
        "landscale train --recipe papoutsis2022 --store ben.h5",
        remaining="recipe keys",
    )
    recipes = sorted(path.stem for path in (Path(__file__).parents[1] / "training" / "recipes").glob("*.yaml"))
    parser.add_argument("--recipe", help=f"a YAML file, or the name of a built-in recipe: {', '.join(recipes)}")
    add_training_options(parser)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add what every training takes besides `--recipe`."""
    parser.add_argument("--store", type=Path, required=True, metavar="STORE.h5", help="the patch store to train on")
    parser.add_argument(
        "--run",
        "--run-dir",  # torchrun before Python 3.12 reads --run as an abbreviation of one of its own options
        dest="folder",
        type=Path,
        metavar="DIR",
        help="folder of the run (default: runs/RECIPE-MODEL-SEED); with torchrun write --run-dir",
    )
    parser.add_argument("--max-time", metavar="45m", help="finish within this time: 90s, 45m, 2h")
    add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    keys = parser.add_argument_group("recipe keys", "set any key of the recipe as --key value")
    keys.add_argument("--keys", action=_ListRecipeKeys, nargs=0, help="list the keys of a recipe and exit")


class _ListRecipeKeys(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from landscale.training.recipe import parser as recipe_parser

        recipe_parser().print_help()
        parser.exit()


def _train_model(options: argparse.Namespace) -> int:
    def read() -> Recipe:
        from landscale.training.recipe import load_recipe

        return load_recipe(options.recipe, options.remaining)

    return run_training(options, read)


def run_training(options: argparse.Namespace, read_recipe: Callable[[], Recipe]) -> int:
    """Train by a recipe, or resume; print the scores. `options` are those of `add_training_options`."""
    # Within its steps, a training defers signals by itself.
    with requeued_by_signals(
        "stopped outside the training steps, no step is lost; run the same command again to resume"
    ):
        return _train_or_resume(options, read_recipe())


def _train_or_resume(options: argparse.Namespace, recipe: Recipe) -> int:
    from landscale.distributed import process_group
    from landscale.inference.scores_table import show_scores
    from landscale.store import open_store
    from landscale.training.runs import Run, default_run

    store = open_store(options.store)
    from landscale.training.training import train  # imports torch, after recipe and store have been checked

    seconds = seconds_left(options.max_time) if options.max_time else None
    run = Run(options.folder or default_run(recipe))
    with process_group(options.timeout) as ranks:
        scores = train(recipe, store, run.folder, ranks=ranks, max_time=seconds)
    if not ranks.first:
        return 0
    content = {"run": str(run.folder), "scores": scores.to_json() if scores else {}}

    def text() -> None:
        if scores:
            show_scores(scores)
        cut = f"; {shortened(scores.steps)}" if scores and scores.steps else ""
        scored = " and scores" if recipe.objective == "labels" else " of an encoder"
        print(f"{run.folder}: contains the weights{scored}{cut}")

    return print_result(options, content, text)
