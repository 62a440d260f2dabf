"""Which patches, in which order, by which rank: pure functions of (seed, epoch) and (rank, world). Nothing to save or lose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadStore, UnknownName
from landscale.labels import columns_by_name
from landscale.store import PatchStore


def epoch_order(patches: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """The patches in the order of an epoch: a permutation that depends on nothing but its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(patches)


def train_steps(order: NDArray[np.int64], batch: int, rank: int = 0, world: int = 1) -> list[NDArray[np.int64]]:
    """The rows of each step for one rank. A step's global batch is the same set for any number of ranks of its size.

    What does not fill a global batch is left to later epochs; a split smaller than one is a batch of its own.
    """
    size = batch * world
    if len(order) < size:
        return [order[rank::world]] if len(order) >= world else []
    return [order[k : k + size][rank::world] for k in range(0, len(order) - size + 1, size)]


def evaluation_steps(patches: NDArray[np.int64], batch: int, rank: int = 0, world: int = 1) -> list[NDArray[np.int64]]:
    """All patches once, dealt to the ranks without padding."""
    mine = patches[rank::world]
    return [mine[k : k + batch] for k in range(0, len(mine), batch)]


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
