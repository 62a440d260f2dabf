"""Which patches, in which order, on which rank.

Pure functions of (seed, epoch) and (rank, world), so that a checkpoint needs no state of the order.
"""

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
    """The patches in the order of an epoch, a function of the arguments alone.

    Without weights it is a permutation. With weights (len(patches),) it has as many patches; each occurs weight / mean(weights)
    times on average over the epochs, and in each epoch that number rounded down or up. This is systematic resampling: evenly
    spaced points with a random start on the cumulated weights (Kitagawa 1996, JCGS 5(1)).
    """
    if weights is not None:
        cumulated = np.cumsum(weights)
        cumulated *= len(patches) / cumulated[-1]
        points = np.arange(len(patches)) + np.random.default_rng([seed, epoch, 1]).random()
        patches = patches.take(np.searchsorted(cumulated, points, side="right"), mode="clip")
    return np.random.default_rng([seed, epoch]).permutation(patches)


def rare_class_weights(targets: NDArray[np.uint8], power: float) -> NDArray[np.float64]:
    """Weights (N,) for drawing patches, with mean 1, by the rarest class of each.

    (1 / fraction of patches with the class)^power, the largest over a patch's classes: the repeat factor of LVIS (Gupta et
    al. 2019, arXiv:1908.03195, appendix B.2, with power ½) without its threshold. A patch without a class gets the smallest
    weight of the others.

    Args:
        targets: (N, C) multi-hot. power: with 0 all weights are 1.
    """
    frequencies = np.count_nonzero(targets, axis=0) / max(len(targets), 1)
    factors = np.where(frequencies > 0, frequencies, 1.0) ** -power
    weights: NDArray[np.float64] = np.where(targets, factors, 0.0).max(axis=1, initial=0.0)
    weights[weights == 0] = weights[weights > 0].min() if weights.any() else 1.0
    weights /= weights.mean()
    return weights


def train_steps(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """The rows of each step, `size` patches over all ranks.

    Patches at the end that do not fill a step are left out; in another epoch these are other patches. A split that is smaller
    than a step gives one smaller step.
    """
    if len(order) < size:
        return [order] if len(order) else []
    return [order[k : k + size] for k in range(0, len(order) - size + 1, size)]


def evaluation_steps(patches: NDArray[np.int64], batch: int, rank: int = 0, world: int = 1) -> list[NDArray[np.int64]]:
    """The batches of one rank; the batches of all ranks together hold every patch once, without padding.

    The batches do not depend on the number of ranks, and each goes to one rank as a whole. So a patch is computed in the same
    batch, with the same kernels and the same probabilities, on any number of ranks.
    """
    return [patches[k : k + batch] for k in range(rank * batch, len(patches), world * batch)]


def targets_by_name(store: PatchStore, classes: Sequence[str]) -> NDArray[np.uint8]:
    """The store's labels as columns of `classes` (N, C) uint8, matched by name; finer classes are merged into coarser ones.

    Raises:
        BadStore: the store lacks a class.
    """
    if tuple(classes) == store.layout.classes:
        return store.classes
    if not classes:
        return np.empty((len(store.classes), 0), np.uint8)
    try:
        columns = columns_by_name(classes, store.layout.classes)
    except UnknownName as error:
        raise BadStore(store.path, f"lacks some of the requested classes: {error}") from None
    return np.stack([store.classes[:, c].max(axis=1) for c in columns], axis=1)


def labelled_patches(store: PatchStore, split: str, classes: Sequence[str]) -> NDArray[np.int64]:
    """The rows of a split, without patches whose labels all lie outside `classes`, whose targets would be empty.

    Without classes, labels are ignored, and all rows of the split are returned. Of BigEarthNet v1, 57 patches have none of the
    19 classes; Papoutsis et al. 2022 left them out as well.

    Raises:
        BadStore: the store lacks a class, or no patch of the split has one of them. UnknownName: no such split.
    """
    patches = store.patches(split)
    if not classes or tuple(classes) == store.layout.classes:
        return patches
    left = patches[targets_by_name(store, classes)[patches].any(axis=1) | ~store.classes[patches].any(axis=1)]
    if not len(left):
        raise BadStore(store.path, f"has no patch in {split} with any of the {len(classes)} classes")
    return left
