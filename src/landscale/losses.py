"""What training makes small: from logits (…, C) and targets of the same shape in 0…1 to a scalar."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from landscale.recipe import Recipe

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(recipe: Recipe, targets: NDArray[np.uint8], *, multi_label: bool, device: torch.device) -> Loss:
    """The loss of a recipe; targets (N, C) of the train split give the balance of classes."""
    if not multi_label:
        return lambda logits, wanted: F.cross_entropy(logits.float(), wanted, label_smoothing=recipe.smoothing)
    weight = _positive_weights(targets, recipe.balance).to(device) if recipe.balance else None

    def loss(logits: Tensor, wanted: Tensor) -> Tensor:
        logits, wanted = logits.float(), wanted * (1 - recipe.smoothing) + recipe.smoothing / 2
        plain = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none", pos_weight=weight)
        return (plain * _focus(recipe.loss, logits, wanted)).mean()

    return loss


def _focus(kind: str, logits: Tensor, wanted: Tensor) -> Tensor | float:
    """Weight of each decision: focal (Lin et al. 2017, γ = 2), asymmetric (Ridnik et al. 2021, γ₊ = 0, γ₋ = 4, detached)."""
    if kind == "bce":
        return 1.0
    p = logits.detach().sigmoid()
    if kind == "focal":
        return (wanted - p).abs() ** 2
    return wanted + (1 - wanted) * p**4


def _positive_weights(targets: NDArray[np.uint8], power: float) -> Tensor:
    """(negatives / positives)^power a class, at most 20; classes never seen keep 1."""
    positives = targets.sum(0).astype(np.float64)
    ratio = np.where(positives > 0, (len(targets) - positives) / np.maximum(positives, 1), 1.0)
    return torch.tensor(np.clip(ratio**power, 0.05, 20.0), dtype=torch.float32)
