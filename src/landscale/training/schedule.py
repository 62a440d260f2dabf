"""The learning rate, as a function of the fraction of the training that is done."""

from __future__ import annotations

import math

from landscale.training.recipe import Recipe


def highest_rate(recipe: Recipe, world: int) -> float:
    """The highest learning rate; with `rate_batch`, in proportion to the patches of a step over all ranks (Goyal et al. 2017)."""
    if recipe.rate_batch is None:
        return recipe.rate
    return recipe.rate * recipe.batch * recipe.accumulate * world / recipe.rate_batch


def rate_in_words(recipe: Recipe, world: int) -> str:
    """Text for the terminal: the highest rate, how it is computed, and the warm-up."""
    size = recipe.batch * recipe.accumulate * world
    product = "" if recipe.rate_batch is None else f"{recipe.rate:g}·{size}/{recipe.rate_batch} = "
    warm = f" after {recipe.warmup_epochs:g} epochs of warm-up" if recipe.warmup_epochs else ""
    return f"rate {product}{highest_rate(recipe, world):.3g}{warm}"


def rate_factor(recipe: Recipe, progress: float) -> float:
    """The rate as a fraction of the highest rate, in 0…1, when the fraction `progress` of the training is done.

    Epochs of the warm-up and milestones count as fractions of `recipe.epochs`, so that a training shortened by --max-time keeps
    the shape of its schedule.
    """
    warm = recipe.warmup_epochs / recipe.epochs
    if progress < warm:
        return (progress + 1e-3) / (warm + 1e-3)
    done = (progress - warm) / max(1.0 - warm, 1e-9)
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    if recipe.schedule == "polynomial":
        return float((1 - min(done, 1.0)) ** 2)
    if recipe.schedule == "step":
        return float(0.1 ** sum(progress * recipe.epochs >= epoch - 1e-6 for epoch in recipe.milestones))
    return 1.0
