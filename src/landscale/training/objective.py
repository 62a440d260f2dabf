"""Which keys of a recipe are only for training with labels."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from landscale.errors import LandscaleError

if TYPE_CHECKING:
    from landscale.training.recipe import Recipe

_WITH_LABELS = (
    *("labels", "head", "head_options", "loss", "smoothing", "balance", "balance_beta", "oversample"),
    *("mixup", "cutmix", "augment_until", "views", "thresholds", "select", "evaluate_every"),
    *("freeze", "unfreeze_every", "layer_decay", "lora"),
)


def check_objective(recipe: Recipe) -> None:
    """Refuse keys that the recipe's objective does not take.

    Raises:
        LandscaleError: a key that needs labels has another value than by default, with an objective without labels.
    """
    default, given = asdict(type(recipe)()), asdict(recipe)
    for key in _WITH_LABELS if recipe.objective != "labels" else ():
        if given[key] != default[key]:
            raise LandscaleError(
                f"--{key.replace('_', '-')}: found {given[key]}, which the objective {recipe.objective} does not take; expected"
                f" {default[key]}"
            )
