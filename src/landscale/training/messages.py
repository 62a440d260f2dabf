"""What a training prints besides its progress bar: its settings, a line an epoch where there is no terminal, and its plan."""

from __future__ import annotations

from typing import Any

from torch import nn

from landscale.distributed import Ranks
from landscale.models.classifier import Description
from landscale.training.checkpoint import TrainingState
from landscale.training.recipe import Recipe
from landscale.training.schedule import rate_in_words
from landscale.training.vicreg import VicReg
from landscale.vocabulary.headline import HEADLINE_NAMES


def settings_line(
    recipe: Recipe,
    description: Description,
    network: nn.Module,
    patches: int,
    ranks: Ranks,
    how: str,
    step: int,
) -> str:
    """Recipe, network, input, data, batch and rate, then `how`: precision, device, and where the patches are kept."""
    d, begun = description, f", resumes at step {step}" if step else ""
    sizes = [(p.numel() / 1e6, p.requires_grad) for p in network.parameters()]
    millions, trained = sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)
    size = f"{millions:.2f} M parameters"
    if trained < millions:
        size += f", {trained:.2f} M of them trained" + (" at first" if recipe.unfreeze_every else "")
    parts = f"{ranks.world}×{recipe.batch}" + (f"×{recipe.accumulate}" if recipe.accumulate > 1 else "")
    return (
        f"{recipe.name}: {d.model} ({size}), {len(d.bands)} bands at {d.side} px,"
        f" {f'{len(d.classes)} classes' if d.classes else 'no labels'}; {patches:,} patches, {parts} a step,"
        f" {rate_in_words(recipe, ranks.world)}, {how}{begun}"
    )


def epoch_line(row: dict[str, Any], state: TrainingState, epochs: int, patches: int) -> str:
    """An epoch's row of the metrics, with its rate and the time left."""
    scores = [f"{name} {row[f'val_{key}']:.4f}" for key, name in HEADLINE_NAMES.items() if f"val_{key}" in row]
    left = state.seconds / max(state.step, 1) * max(state.total - state.step, 0)
    rate = patches / max(row["train_seconds"], 1e-3)
    figures = [f"{name} {row[name]:.4f}" for name in VicReg.figures if name in row]
    words = [f"loss {row['loss']:.4f}", *figures, *scores[:2], f"{rate:,.0f} patches/s", f"{_duration(left)} left"]
    return f"epoch {row['epoch']} of {epochs}, step {row['step']} of {state.total}: {', '.join(words)}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
