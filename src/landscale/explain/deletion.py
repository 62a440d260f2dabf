"""The deletion test: does removing what a heat map marks lower the probability faster than removing other pixels?

Petsiuk et al. 2018 (RISE: randomized input sampling for explanation of black-box models). A growing fraction of the pixels of the
network's input is replaced by the band means, and the probability of the class is computed again. The smaller the area under this
curve, the better the pixels explain the class. Two other orders are compared:

    moved      the same heat map at another place (shifted by a random distance across the borders): pixels of the same shapes
    scattered  single pixels at random

Scattered pixels also destroy the texture of the whole patch, to which networks react strongly, so their curve may fall fastest.
The fair comparison is with `moved`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscale.models.classifier import Classifier

ORDERS = ("marked", "moved", "scattered")
FRACTIONS = tuple(k / 10 for k in range(11))
DRAWS = 3  # random orders of each kind for a patch
_BATCH = 64


@dataclass(frozen=True)
class Deletion:
    """Curves of n patches: by order, probabilities (n, len(FRACTIONS)) of the class at each removed fraction."""

    curves: dict[str, NDArray[np.float64]]

    def areas(self) -> dict[str, NDArray[np.float64]]:
        """By order, the area (n,) under the curve of each patch: its mean probability over all removed fractions."""
        return {order: np.asarray(np.trapezoid(curve, FRACTIONS, axis=1)) for order, curve in self.curves.items()}

    def summary(self) -> dict[str, float | int]:
        """The mean area by order, number of patches, and in how many of them `marked` has a smaller area than `moved`."""
        areas = self.areas()
        lower = int((areas["marked"] < areas["moved"]).sum())
        return {
            **{o: float(a.mean()) for o, a in areas.items()},
            "patches": len(areas["marked"]),
            "faster_than_moved": lower,
        }


@torch.inference_mode()
def delete(classifier: Classifier, values: Tensor, heat: Tensor, classes: Sequence[int], seed: int) -> Deletion:
    """The deletion test of n patches.

    Args:
        classifier: in eval mode.
        values: input of the network (n, channels, side, side), as the input stage computes it; 0 is the mean of a band.
        heat: (n, side, side), the heat map of the class.
        classes: (n,) numbers of classes.
        seed: of the random orders.
    """
    curves: dict[str, list[NDArray[np.float64]]] = {order: [] for order in ORDERS}
    for k, wanted in enumerate(classes):
        rng = np.random.default_rng([seed, k])
        for order in ORDERS:
            draws = [_ranks(heat[k], order, rng) for _ in range(1 if order == "marked" else DRAWS)]
            curves[order].append(np.mean([_curve(classifier, values[k], ranks, wanted) for ranks in draws], axis=0))
    return Deletion({order: np.stack(found) for order, found in curves.items()})


def _ranks(heat: Tensor, order: str, rng: np.random.Generator) -> Tensor:
    """The number (side, side) of each pixel in the order of removal, from 0; equal values are removed in a random order."""
    side = heat.shape[-1]
    shuffled = torch.from_numpy(rng.permutation(heat.numel())).to(heat.device)
    if order == "moved":  # by at least a quarter of the side along each axis
        heat = heat.roll(rng.integers(side // 4, side - side // 4, 2).tolist(), (0, 1))
    sequence = shuffled
    if order != "scattered":
        sequence = shuffled[heat.flatten()[shuffled].argsort(descending=True, stable=True)]
    ranks = torch.empty_like(sequence)
    ranks[sequence] = torch.arange(len(sequence), device=heat.device)
    return ranks.view(side, side)


def _curve(classifier: Classifier, values: Tensor, ranks: Tensor, wanted: int) -> NDArray[np.float64]:
    """The probability of a class at each of `FRACTIONS`, for one view."""
    counts = [round(fraction * ranks.numel()) for fraction in FRACTIONS]
    stack = torch.stack([values * (ranks >= count) for count in counts])
    parts = [classifier.activate(classifier.network(part))[:, wanted] for part in torch.split(stack, _BATCH)]
    return torch.cat(parts).cpu().numpy().astype(np.float64)
