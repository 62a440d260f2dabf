"""Loss functions: from logits (…, C) and targets of the same shape in 0…1 to a scalar.

The losses of a multi-label store are one formula. With p = σ(logit), y the target and q = max(p − m, 0),

    L = w·y·(1 − p)^γ₊·(−log p) + (1 − y)·q^γ₋·(−log(1 − q)),

averaged over patches and classes:

    bce         γ₊ = γ₋ = 0, m = 0
    focal       γ₊ = γ₋ = 2, m = 0: Lin et al. 2017, eq. 4, with w in place of their α
    asymmetric  γ₊ = 0, γ₋ = 4, m = 0.05: Ridnik et al. 2021, whose margin m gives the easiest negatives no loss at all

The formula is linear in y, so the loss of a mixture of labels (mixup, smoothing) is the mixture of their losses. timm's
asymmetric loss is the same for y of 0 and 1 only, and clips p at 1e-8, below which a confident mistake has no gradient.

To add a loss, decorate a function with `register_loss`; its name is then allowed as the recipe's `loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from landscale.errors import LandscaleError
from landscale.store import NO_CLASS

if TYPE_CHECKING:
    from landscale.training.recipe import Recipe

Loss = Callable[[Tensor, Tensor], Tensor]

# Smallest and largest weight of a class: more would not be justified by a handful of patches.
_SMALLEST_WEIGHT, _LARGEST_WEIGHT = 0.05, 20.0


class LabelLoss(Protocol):
    """A loss of multi-label training: logits (…, C), targets (…, C) in 0…1, class weights (C,) of positives → (…, C) float32."""

    def __call__(self, logits: Tensor, targets: Tensor, *, weight: Tensor | None = None) -> Tensor: ...


LOSSES: dict[str, LabelLoss] = {}


def register_loss(name: str) -> Callable[[LabelLoss], LabelLoss]:
    """Make a multi-label loss available as `loss: name` in recipes and `--loss name`.

    Raises:
        ValueError: the name is taken.
    """

    def register(loss: LabelLoss) -> LabelLoss:
        if name in LOSSES:
            raise ValueError(f"a loss named '{name}' is registered already")
        LOSSES[name] = loss
        return loss

    return register


def build_loss(recipe: Recipe, targets: NDArray[np.uint8], *, multi_label: bool, device: torch.device) -> Loss:
    """The loss of a recipe. Class weights come from targets (N, C), those of the train split.

    Raises:
        LandscaleError: `balance_beta` without `balance`, where it has no effect.
    """
    beta = 1.0 if recipe.balance_beta is None else recipe.balance_beta
    if recipe.balance_beta is not None and not recipe.balance:
        raise LandscaleError(
            f"--balance-beta: found {recipe.balance_beta} without --balance, expected --balance 1 as well"
        )
    weights = positive_weights if multi_label else class_weights
    weight = weights(targets, recipe.balance, beta).to(device) if recipe.balance else None
    smoothing = recipe.smoothing

    def softmax_loss(logits: Tensor, targets: Tensor) -> Tensor:
        logits, targets = logits.float().flatten(0, -2), targets.flatten(0, -2)
        return F.cross_entropy(logits, targets, weight, label_smoothing=smoothing)

    def sigmoid_loss(logits: Tensor, targets: Tensor) -> Tensor:
        return LOSSES[recipe.loss](logits, targets * (1 - smoothing) + smoothing / 2, weight=weight).mean()

    return sigmoid_loss if multi_label else softmax_loss


def build_pixel_loss(recipe: Recipe, pixels: NDArray[np.int64], device: torch.device) -> Loss:
    """Cross-entropy over the pixels that have a class: logits (n, C, side, side), maps (n, side, side) uint8 → a scalar.

    Args:
        recipe: has `balance`, `balance_beta` and `smoothing`.
        pixels: number of pixels of each class in the train split (C,), for class weights.
        device: of the training.
    """
    beta = 1.0 if recipe.balance_beta is None else recipe.balance_beta
    weight = class_weights(pixels[None], recipe.balance, beta).to(device) if recipe.balance else None

    def pixel_loss(logits: Tensor, maps: Tensor) -> Tensor:
        targets = maps.long()
        losses = F.cross_entropy(
            logits.float(), targets, weight, ignore_index=NO_CLASS, label_smoothing=recipe.smoothing, reduction="none"
        )
        return losses.sum() / (targets != NO_CLASS).sum().clamp(min=1)  # a batch may have no pixel with a class

    return pixel_loss


def binary_loss(
    logits: Tensor,
    targets: Tensor,
    gamma_positive: float = 0.0,
    gamma_negative: float = 0.0,
    margin: float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """The formula above for every patch and class, in float32; `weight` (C,) is w. Shapes: (…, C), (…, C) → (…, C)."""
    x = logits.float()
    p = x.sigmoid()
    positive = -F.logsigmoid(x)
    if gamma_positive:
        positive = positive * (-x).sigmoid() ** gamma_positive
    if weight is not None:
        positive = positive * weight
    q = (p - margin).clamp(min=0) if margin else p
    negative = (
        -torch.log1p(-q) if margin else -F.logsigmoid(-x)
    )  # without a margin, 1 − p may round to 0 and its logarithm to −∞
    if gamma_negative:
        negative = negative * q**gamma_negative
    return targets * positive + (1 - targets) * negative


register_loss("bce")(binary_loss)
register_loss("focal")(partial(binary_loss, gamma_positive=2.0, gamma_negative=2.0))
register_loss("asymmetric")(partial(binary_loss, gamma_negative=4.0, margin=0.05))


def mean_binary_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy in float32, the mean over patches and classes."""
    return F.binary_cross_entropy_with_logits(logits.float(), targets)


def effective_number(counts: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """(1 − βⁿ) / (1 − β): the effective number of n patches (Cui et al. 2019, eq. 2); n itself for β = 1."""
    return counts if beta == 1 else (1 - beta**counts) / (1 - beta)


def positive_weights(targets: NDArray[np.uint8], power: float, beta: float = 1.0) -> Tensor:
    """Weights of positive labels: (E(negatives) / E(positives))^power, E the effective number, clipped to 0.05…20.

    A class without positives has weight 1. Shapes: (N, C) → (C,).
    """
    positives = targets.sum(0).astype(np.float64)
    present, absent = effective_number(positives, beta), effective_number(len(targets) - positives, beta)
    ratio = np.where(positives > 0, absent / np.maximum(present, 1), 1.0)
    return torch.tensor(np.clip(ratio**power, _SMALLEST_WEIGHT, _LARGEST_WEIGHT), dtype=torch.float32)


def class_weights(targets: NDArray[np.integer], power: float, beta: float = 1.0) -> Tensor:
    """Weights of the classes of a single-label store: E(n)^−power for n patches, E the effective number, clipped to 0.05…20.

    They are divided by their mean over all patches, so that the mean loss keeps its size; a power of 1 with β < 1 is Cui et
    al. 2019 up to one factor. A class without patches has weight 1. Shapes: (N, C) → (C,).
    """
    counts = targets.sum(0).astype(np.float64)
    weights = np.maximum(effective_number(counts, beta), 1) ** -power
    weights *= counts.sum() / (counts * weights).sum()
    return torch.tensor(
        np.where(counts > 0, np.clip(weights, _SMALLEST_WEIGHT, _LARGEST_WEIGHT), 1.0), dtype=torch.float32
    )
