"""Which patches, in which order, by which rank: pure functions of (seed, epoch) and (rank, world). Nothing to save or lose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadStore, UnknownName
from landscale.store import PatchStore
from landscale.vocabulary.nomenclatures import columns_by_name


def epoch_order(
    patches: NDArray[np.int64], seed: int, epoch: int, weights: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """The patches in the order of an epoch, which depends on nothing but the arguments.

    Without weights, a permutation. With weights (len(patches),) as many patches, each as often as its weight says: in the
    mean exactly, and in every epoch that number rounded down or up (a weight of 1 is the mean one's). Systematic
    resampling: evenly spaced points, begun at random, on the cumulated weights (Kitagawa 1996, JCGS 5(1)).
    """
    if weights is not None:
        until = np.cumsum(weights)
        until *= len(patches) / until[-1]
        points = np.arange(len(patches)) + np.random.default_rng([seed, epoch, 1]).random()
        patches = patches.take(np.searchsorted(until, points, side="right"), mode="clip")
    return np.random.default_rng([seed, epoch]).permutation(patches)


def rare_class_weights(targets: NDArray[np.uint8], power: float) -> NDArray[np.float64]:
    """How often a patch should be seen (N,), in the mean once, by the rarest of its classes.

    (1 / share of patches with the class)^power, the largest over a patch's classes: the repeat factor of LVIS (Gupta et
    al. 2019, arXiv:1908.03195, appendix B.2, where power is ½) without its threshold. A patch without class weighs as the
    least of the others.

    Args:
        targets: (N, C) multi-hot. power: 0: all weigh 1.
    """
    shares = np.count_nonzero(targets, axis=0) / max(len(targets), 1)
    factors = np.where(shares > 0, shares, 1.0) ** -power
    weights: NDArray[np.float64] = np.where(targets, factors, 0.0).max(axis=1, initial=0.0)
    weights[weights == 0] = weights[weights > 0].min() if weights.any() else 1.0
    weights /= weights.mean()
    return weights


def train_steps(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """The rows of each step, of all ranks together: `size` patches, of which a rank takes every world-th.

    What does not fill a step is left to later epochs; fewer patches than one step are a step of their own.
    """
    if len(order) < size:
        return [order] if len(order) else []
    return [order[k : k + size] for k in range(0, len(order) - size + 1, size)]


def evaluation_steps(patches: NDArray[np.int64], batch: int, rank: int = 0, world: int = 1) -> list[NDArray[np.int64]]:
    """All patches once, without padding: the same batches on any number of ranks, dealt whole to them.

    A patch so meets the same neighbours and the same kernels whoever evaluates it, and its probability is the same.
    """
    return [patches[k : k + batch] for k in range(rank * batch, len(patches), world * batch)]


def targets_by_name(store: PatchStore, classes: Sequence[str]) -> NDArray[np.uint8]:
    """The store's labels as columns of `classes` (N, C) uint8, matched by name, finer classes gathered.

    Raises:
        BadStore: a class that the store does not have.
    """
    if tuple(classes) == store.layout.classes:
        return store.classes
    try:
        columns = columns_by_name(classes, store.layout.classes)
    except UnknownName as error:
        raise BadStore(store.path, f"cannot give the classes asked for: {error}") from None
    return np.stack([store.classes[:, c].max(axis=1) for c in columns], axis=1)
