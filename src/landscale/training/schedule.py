"""The learning rate, as a function of the fraction of the training that is done."""

from __future__ import annotations

import math

from landscale.training.recipe import Recipe


def highest_rate(recipe: Recipe, world: int) -> float:
    """The highest learning rate of a training on `world` ranks, by the recipe's `rate_rule`."""
    if recipe.rate_rule == "workers":
        return recipe.rate * world
    if recipe.rate_batch is None:
        return recipe.rate
    ratio = _patches_of_a_step(recipe, world) / recipe.rate_batch
    return recipe.rate * (math.sqrt(ratio) if recipe.rate_rule == "sqrt" else ratio)


def _patches_of_a_step(recipe: Recipe, world: int) -> int:
    return recipe.batch * recipe.accumulate * world


def rate_in_words(recipe: Recipe, world: int) -> str:
    """Text for the terminal: the highest rate, how it is computed, the warm-up, and when the rate falls in steps."""
    if recipe.rate_rule == "workers":
        product = f"{recipe.rate:g}·{world} = " if world > 1 else ""
    elif recipe.rate_batch is None:
        product = ""
    else:
        ratio = f"{_patches_of_a_step(recipe, world)}/{recipe.rate_batch}"
        product = f"{recipe.rate:g}·" + (f"√({ratio})" if recipe.rate_rule == "sqrt" else ratio) + " = "
    words = f"rate {product}{highest_rate(recipe, world):.3g}"
    if recipe.warmup_epochs:
        words += f" after {recipe.warmup_epochs:.3g} epochs of warm-up"
    if recipe.schedule == "step" and recipe.milestones:
        words += f", divided by 10 after epoch {', '.join(f'{epoch:.3g}' for epoch in recipe.milestones)}"
    return words


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
