"""Which keys of a recipe need labels, and which need labels of patches."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from landscale.errors import LandscaleError

if TYPE_CHECKING:
    from landscale.training.recipe import Recipe

_WITH_LABELS = (
    *("task", "labels", "head", "head_options", "loss", "smoothing", "balance", "balance_beta", "oversample"),
    *("mixup", "cutmix", "augment_until", "views", "thresholds", "select", "evaluate_every"),
    *("freeze", "unfreeze_every", "layer_decay", "lora"),
)
_OF_PATCHES = ("head", "loss", "zoom", "mixup", "cutmix", "thresholds")


def check_objective(recipe: Recipe) -> None:
    """Refuse keys that the recipe's objective or task does not take.

    Raises:
        LandscaleError: a key that needs labels has another value than by default, with an objective without labels; or one that
            needs labels of patches, with those of pixels.
    """
    default, given = asdict(type(recipe)()), asdict(recipe)
    refused: tuple[str, ...] = ()
    of = ""
    if recipe.objective != "labels":
        refused, of = _WITH_LABELS, f"the objective {recipe.objective}"
    elif recipe.task == "pixels":
        refused, of = _OF_PATCHES, "the task pixels"
    for key in refused:
        if given[key] != default[key]:
            raise LandscaleError(
                f"--{key.replace('_', '-')}: found {given[key]}, which {of} does not take; expected {default[key]}"
            )
