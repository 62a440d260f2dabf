"""`landscale pretrain`: train an encoder on a store without labels."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from landscale.commands.command import AddCommand
from landscale.commands.train import add_training_options, run_training
from landscale.errors import LandscaleError

if TYPE_CHECKING:
    from landscale.training.recipe import Recipe


def add_command(add: AddCommand) -> None:
    parser = add(
        "pretrain",
        _pretrain,
        "train an encoder without labels, for `train --init`; run the same command again to resume",
        "landscale pretrain --store tiles.h5 --run runs/encoder --model resnet18",
        remaining="recipe keys",
    )
    parser.add_argument("--recipe", default="vicreg", help="a YAML file, or the built-in recipe vicreg (default)")
    add_training_options(parser)


def _pretrain(options: argparse.Namespace) -> int:
    def read() -> Recipe:
        from landscale.training.recipe import load_recipe

        recipe = load_recipe(options.recipe, options.remaining)
        if recipe.objective == "labels":
            raise LandscaleError(
                f"--recipe {options.recipe}: learns from labels, expected the objective vicreg; use `landscale train`"
            )
        return recipe

    return run_training(options, read)
