"""What training makes small: from logits (…, C) and targets of the same shape in 0…1 to a scalar.

The losses of a multi-label store are one formula. With p = σ(logit), y the target and q = max(p − m, 0),

    L = w·y·(1 − p)^γ₊·(−log p) + (1 − y)·q^γ₋·(−log(1 − q)),

averaged over patches and classes:

    bce         γ₊ = γ₋ = 0, m = 0
    focal       γ₊ = γ₋ = 2, m = 0: Lin et al. 2017, eq. 4, with w in place of their α
    asymmetric  γ₊ = 0, γ₋ = 4, m = 0.05: Ridnik et al. 2021, whose margin m drops the easiest negatives altogether

It is linear in y, so the loss of a mixture of labels (mixup, smoothing) is the mixture of their losses. timm's asymmetric
loss is the same for y of 0 and 1 only, and cuts p off at 1e-8, where a confident mistake no longer has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from landscale.errors import LandscaleError
from landscale.training.recipe import Recipe

Loss = Callable[[Tensor, Tensor], Tensor]

FOCUS = {"bce": (0.0, 0.0, 0.0), "focal": (2.0, 2.0, 0.0), "asymmetric": (0.0, 4.0, 0.05)}  # γ₊, γ₋, m
_LEAST, _MOST = 0.05, 20.0  # of a weight: what a handful of patches says is not trusted further


def build_loss(recipe: Recipe, targets: NDArray[np.uint8], *, multi_label: bool, device: torch.device) -> Loss:
    """The loss of a recipe; targets (N, C) of the train split give the balance of classes.

    Raises:
        LandscaleError: a `balance_beta` that nothing uses.
    """
    beta = 1.0 if recipe.balance_beta is None else recipe.balance_beta
    if recipe.balance_beta is not None and not recipe.balance:
        raise LandscaleError(
            f"--balance-beta: found {recipe.balance_beta} without --balance, expected --balance 1 beside it"
        )
    weights = positive_weights if multi_label else class_weights
    weight = weights(targets, recipe.balance, beta).to(device) if recipe.balance else None
    smoothing = recipe.smoothing

    def softmax_loss(logits: Tensor, wanted: Tensor) -> Tensor:
        logits, wanted = logits.float().flatten(0, -2), wanted.flatten(0, -2)
        return F.cross_entropy(logits, wanted, weight, label_smoothing=smoothing)

    def sigmoid_loss(logits: Tensor, wanted: Tensor) -> Tensor:
        return binary_loss(logits, wanted * (1 - smoothing) + smoothing / 2, *FOCUS[recipe.loss], weight).mean()

    return sigmoid_loss if multi_label else softmax_loss


def binary_loss(
    logits: Tensor,
    wanted: Tensor,
    gamma_positive: float = 0.0,
    gamma_negative: float = 0.0,
    margin: float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """The formula above for every decision, in float32; `weight` (C,) is w. Shapes: (…, C), (…, C) → (…, C)."""
    x = logits.float()
    p = x.sigmoid()
    positive = -F.logsigmoid(x)
    if gamma_positive:
        positive = positive * (-x).sigmoid() ** gamma_positive
    if weight is not None:
        positive = positive * weight
    q = (p - margin).clamp(min=0) if margin else p
    negative = -torch.log1p(-q) if margin else -F.logsigmoid(-x)  # without a margin 1 − p may round to 0
    if gamma_negative:
        negative = negative * q**gamma_negative
    return wanted * positive + (1 - wanted) * negative


def mean_binary_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy in float32, the mean over patches and classes."""
    return F.binary_cross_entropy_with_logits(logits.float(), targets)


def effective_number(counts: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """(1 − βⁿ) / (1 − β): how many of n patches say something new (Cui et al. 2019, eq. 2); n itself for β = 1."""
    return counts if beta == 1 else (1 - beta**counts) / (1 - beta)


def positive_weights(targets: NDArray[np.uint8], power: float, beta: float = 1.0) -> Tensor:
    """Multi-label: (E(negatives) / E(positives))^power a class, E the effective number; between 0.05 and 20.

    Classes never seen keep 1. Shapes: (N, C) → (C,).
    """
    positives = targets.sum(0).astype(np.float64)
    found, missing = effective_number(positives, beta), effective_number(len(targets) - positives, beta)
    ratio = np.where(positives > 0, missing / np.maximum(found, 1), 1.0)
    return torch.tensor(np.clip(ratio**power, _LEAST, _MOST), dtype=torch.float32)


def class_weights(targets: NDArray[np.uint8], power: float, beta: float = 1.0) -> Tensor:
    """Single-label: E(n)^−power for a class of n patches, over its mean over all patches; between 0.05 and 20.

    So the mean loss keeps its size, and a power of 1 with β < 1 is Cui et al. 2019 up to one factor. Classes never seen
    keep 1. Shapes: (N, C) → (C,).
    """
    counts = targets.sum(0).astype(np.float64)
    weights = np.maximum(effective_number(counts, beta), 1) ** -power
    weights *= counts.sum() / (counts * weights).sum()
    return torch.tensor(np.where(counts > 0, np.clip(weights, _LEAST, _MOST), 1.0), dtype=torch.float32)
