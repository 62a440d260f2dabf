"""Which training patches are used when there are to be fewer labels: functions of the labels, the size and the seed alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw_fraction(targets: NDArray[np.uint8], fraction: float, seed: int) -> NDArray[np.int64]:
    """Positions, ascending, of about `fraction` of the patches, in which every class has about this fraction of its patches.

    This is iterative stratification (Sechidis et al. 2011, ECML PKDD, algorithm 1) into the patches that are drawn and the
    others, for single-label and multi-label patches alike. Unlike there, every class that occurs keeps at least one patch.

    Args:
        targets: (n, C), 0 or 1; one 1 per row in a single-label store.
        fraction: above 0, at most 1.
        seed: of the order in which patches are considered, and of ties.
    """
    n = len(targets)
    if fraction >= 1:
        return np.arange(n)
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    labels = [np.flatnonzero(row) for row in targets]
    remaining = targets.sum(axis=0, dtype=np.int64)
    drawn = np.where(remaining > 0, np.maximum(fraction * remaining, 1.0), 0.0)
    wanted = np.stack([drawn, remaining - fraction * remaining])  # patches of each class that each part still needs
    size = np.array([fraction * n, n - fraction * n])  # patches that each part still needs
    part = np.full(n, -1)

    def assign(patch: int, need: NDArray[np.float64]) -> None:
        """Give a patch to the part of the greatest need; of equal ones to that which needs more patches, or at random."""
        best = np.flatnonzero(need == need.max())
        best = best[size[best] == size[best].max()]
        chosen = best[0] if len(best) == 1 else rng.choice(best)
        part[patch] = chosen
        wanted[chosen, labels[patch]] -= 1
        size[chosen] -= 1
        remaining[labels[patch]] -= 1

    while remaining.any():
        rarest = int(np.argmin(np.where(remaining > 0, remaining, n + 1)))
        for patch in order[(part[order] < 0) & (targets[order, rarest] > 0)]:
            assign(patch, wanted[:, rarest])
    for patch in order[part[order] < 0]:  # those without a class
        assign(patch, size)
    return np.flatnonzero(part == 0)


def draw_shots(targets: NDArray[np.uint8], shots: int, seed: int) -> NDArray[np.int64]:
    """Positions, ascending, of patches drawn at random until every class has `shots` of them, or all it has.

    Beginning with the rarest class; a patch counts for all its classes, so that multi-label classes may have more.

    Args:
        targets: (n, C), 0 or 1. shots: patches of a class, from 1. seed: of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    chosen = np.zeros(len(targets), bool)
    for c in np.argsort(targets.sum(axis=0, dtype=np.int64), kind="stable"):
        missing = shots - int(targets[chosen, c].sum(dtype=np.int64))
        candidates = order[(targets[order, c] > 0) & ~chosen[order]]
        chosen[candidates[: max(missing, 0)]] = True
    return np.flatnonzero(chosen)
