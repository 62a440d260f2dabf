"""Classification by the nearest training patches, as torchgeo-bench 0.4 does it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

NEIGHBOURS = 5
_MOST_DISTANCES = 1 << 24  # held in memory at once


def neighbour_probabilities(
    train: NDArray[np.float32], targets: NDArray[np.uint8], test: NDArray[np.float32], device: torch.device
) -> NDArray[np.float32]:
    """The fraction (n, C) of the 5 nearest training patches that have a class; of fewer, if there are fewer.

    Distances are Euclidean, and every neighbour has one vote. The class of highest fraction is the first one of equal ones; a
    multi-label class is predicted above 0.5.

    Args:
        train: features (m, F). targets: their classes (m, C), 0 or 1. test: features (n, F).
    """
    k = min(NEIGHBOURS, len(train))
    # Differences of large squares lose digits, so that distances are computed in float64 and from the mean.
    points = torch.from_numpy(train).to(device, torch.float64)
    centre = points.mean(0)
    points -= centre
    squares = points.square().sum(1)
    found = np.empty((len(test), targets.shape[1]), np.float32)
    step = max(_MOST_DISTANCES // len(train), 1)
    for start in range(0, len(test), step):
        queries = torch.from_numpy(test[start : start + step]).to(device, torch.float64) - centre
        nearest = (squares - 2 * queries @ points.T).topk(k, largest=False).indices.cpu().numpy()
        found[start : start + step] = targets[nearest].mean(axis=1)
    return found
