"""Logistic regression on features, as torchgeo-bench 0.4 fits it: L-BFGS on all patches at once, and a search of C on val."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from landscale.errors import Diverged
from landscale.inference.metrics import average_precision

STRENGTHS = tuple(float(c) for c in 10 ** np.linspace(-6, 4, 40))
_SEARCH, _FINAL = 2000, 4000  # largest number of iterations
_TOLERANCE = 1e-7  # of the gradient, and of the change of loss or weights


@dataclass(frozen=True)
class LinearProbe:
    """weight (K, F) and bias (K,) of the classes at the columns `present` (K,) among `classes`; c: inverse regularisation."""

    weight: Tensor
    bias: Tensor
    present: NDArray[np.int64]
    classes: int
    multi_label: bool
    c: float

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, C) in 0…1; 0 for a class that no training patch had, in a single-label store."""
        logits = torch.from_numpy(features).to(self.weight.device) @ self.weight.T + self.bias
        values = logits.sigmoid() if self.multi_label else logits.softmax(1)
        found = np.zeros((len(features), self.classes), np.float32)
        found[:, self.present] = values.cpu().numpy()
        return found


def fit_linear(
    features: NDArray[np.float32],
    targets: NDArray[np.uint8],
    c: float,
    device: torch.device,
    *,
    multi_label: bool,
    iterations: int = _FINAL,
) -> LinearProbe:
    """Minimise the sum over patches of the cross-entropy, plus ‖weight‖² / 2C; the bias is free.

    Multi-label targets have a binary cross-entropy for each class, so this is one regression for each class (one versus rest)
    with the same C. The weights begin at 0 and the result does not depend on a seed.

    If the loss is not finite, neither are the probabilities of the result.

    Args:
        features: (n, F). targets: (n, C), 0 or 1. c: inverse strength of the regularisation, as in scikit-learn.
    """
    n, classes = targets.shape
    present = np.arange(classes) if multi_label else np.flatnonzero(targets.any(axis=0))
    x = torch.from_numpy(features).to(device)
    if multi_label:
        wanted = torch.from_numpy(targets).to(device, torch.float32)
    else:
        wanted = torch.from_numpy(targets[:, present].argmax(axis=1)).to(device)
    weight = torch.zeros(len(present), features.shape[1], device=device, requires_grad=True)
    bias = torch.zeros(len(present), device=device, requires_grad=True)
    # Both losses are means, of which the penalty must be the same part as of the sum.
    penalty = 0.5 / c / (n * classes if multi_label else n)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=iterations,
        history_size=10,
        line_search_fn="strong_wolfe",
        tolerance_grad=_TOLERANCE,
        tolerance_change=_TOLERANCE,
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = x @ weight.T + bias
        error = F.binary_cross_entropy_with_logits(logits, wanted) if multi_label else F.cross_entropy(logits, wanted)
        total: Tensor = error + penalty * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    try:
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    except RuntimeError:  # a step that overflows
        if torch.isfinite(loss()):
            raise
        weight.data.fill_(torch.nan)
    return LinearProbe(weight.detach(), bias.detach(), present, classes, multi_label, c)


def choose_strength(
    train: tuple[NDArray[np.float32], NDArray[np.uint8]],
    val: tuple[NDArray[np.float32], NDArray[np.uint8]],
    device: torch.device,
    *,
    multi_label: bool,
) -> float:
    """The C of `STRENGTHS` of highest accuracy (multi-label: micro average precision) on val; of equal ones the smallest.

    Args:
        train, val: features (n, F) and targets (n, C).

    Raises:
        Diverged: with none of them the probabilities are finite.
    """
    best, chosen = -1.0, None
    for c in STRENGTHS:
        fitted = fit_linear(*train, c, device, multi_label=multi_label, iterations=_SEARCH)
        found = fitted.probabilities(val[0])
        if not np.isfinite(found).all():
            continue
        if multi_label:
            score = average_precision(found.ravel(), val[1].ravel().astype(bool))
        else:
            score = float(val[1][np.arange(len(found)), found.argmax(axis=1)].mean())
        if score > best:
            best, chosen = score, c
    if chosen is None:
        raise Diverged("the linear probe gives probabilities that are not finite, with every C")
    return chosen
