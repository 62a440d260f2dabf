"""An open store with fewer patches to train on, as experiments with few labels need it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from landscale.store.layout import SPLITS
from landscale.store.patches import PatchStore


@dataclass(frozen=True)
class _Subset(PatchStore):
    """whole: the store from which everything but the splits is read. train: the rows of the train split."""

    proof = "the whole store"

    whole: PatchStore
    train: NDArray[np.int64]

    def gather(self, rows: NDArray[np.int64], arrays: Mapping[str, NDArray[np.generic]]) -> None:
        self.whole.gather(rows, arrays)

    def column(self, key: str) -> NDArray[Any]:
        return self.splits if key == "split" else self.whole.column(key)

    def damaged(self) -> Iterator[tuple[int, bool]]:
        return self.whole.damaged()

    def damaged_columns(self) -> tuple[str, ...]:
        return self.whole.damaged_columns()

    @property
    def size(self) -> int:
        return self.whole.size

    def known_statistics(self) -> Mapping[str, tuple[float, float]]:
        return self.whole.known_statistics()

    def __reduce__(self) -> tuple[Any, ...]:
        return subset, (self.whole, self.train)


def subset(store: PatchStore, train: NDArray[np.int64]) -> PatchStore:
    """The store with only some patches in its train split; the others there belong to no split.

    Pixels, labels, rows and the other splits are those of the store, and so are the statistics of its whole train split, which
    need no labels. Digest and plan differ from those of the store and of other subsets, so that a run on one is not resumed on
    another.

    Args:
        store: an open store.
        train: rows of patches of its train split; in any order, each once.

    Raises:
        ValueError: a row is not of the train split, or is given twice.
    """
    kept, before = np.sort(np.asarray(train, np.int64)), store.patches("train")
    if len(np.unique(kept)) < len(kept) or not np.isin(kept, before).all():
        raise ValueError("the rows of a subset must be different rows of the train split")
    splits = store.splits.copy()
    splits[np.setdiff1d(before, kept)] = SPLITS.index("none")
    plan = xxhash.xxh3_128_hexdigest(f"{store.attributes['plan']} subset ".encode() + kept.tobytes())
    values = {field.name: getattr(store, field.name) for field in fields(PatchStore)}
    values |= {"splits": splits, "attributes": {**store.attributes, "plan": plan}}
    return _Subset(**values, whole=store, train=kept)
