"""What training, evaluation and `info` ask of a store, whatever its pixels are kept in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadStore, UnknownName
from landscale.store.layout import BAD, COLUMNS, SPLITS, SUPER, WHOLE, Layout, Plane
from landscale.vocabulary.bands import BANDS


@dataclass(frozen=True)
class PatchStore(ABC):
    """A store, open for reading. Holds no handle of a library, so it may cross a fork.

    classes (N, C) uint8, splits and states (N,) uint8. statistics: by band, mean and standard deviation over the train
    split; without the bands that have none. proof: what `damaged` goes by.
    """

    proof: ClassVar[str]

    path: Path
    layout: Layout
    classes: NDArray[np.uint8]
    splits: NDArray[np.uint8]
    states: NDArray[np.uint8]
    statistics: Mapping[str, tuple[float, float]]
    attributes: dict[str, Any]

    @abstractmethod
    def gather(self, rows: NDArray[np.int64], into: Mapping[str, NDArray[np.generic]]) -> None:
        """Copy the pixels of some patches, in the order of `rows` (n,).

        Args:
            rows: indices in the store.
            into: by the key of a plane, where its pixels go: (n, bands, side, side), C-contiguous, of the plane's dtype.
        """

    @abstractmethod
    def column(self, key: str) -> NDArray[Any]:
        """One of `COLUMNS`, such as `name`, `tile`, `crs` or `origin`, of all patches (N, ...); text as str.

        Raises:
            UnknownName: no such column.
        """

    def _check_column(self, key: str) -> None:
        if key not in COLUMNS:
            raise UnknownName("column", key, COLUMNS)

    @abstractmethod
    def damaged(self) -> Iterator[tuple[int, bool]]:
        """For every whole patch its index, and whether it is damaged, by the store's `proof`.

        Raises:
            BadStore: what all patches share is damaged.
        """

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes on disk."""

    def __len__(self) -> int:
        return int((self.states == WHOLE).sum())

    def pixels(self, key: str, rows: Sequence[int] | NDArray[np.int64] | None = None) -> NDArray[np.generic]:
        """One plane of some patches, or of all of them (n, bands, side, side), in new memory.

        Raises:
            UnknownName: no such plane.
        """
        planes = {plane.key: plane for plane in self.layout.planes}
        if key not in planes:
            raise UnknownName("plane", key, planes)
        chosen = np.arange(len(self.states)) if rows is None else np.asarray(rows, np.int64)
        out = np.empty((len(chosen), *planes[key].shape), planes[key].dtype)
        self.gather(chosen, {key: out})
        return out

    def patches(self, split: str) -> NDArray[np.int64]:
        """Indices of the whole patches of a split, in order.

        Raises:
            UnknownName: no such split. BadStore: the store has no patch of it.
        """
        if split not in SPLITS:
            raise UnknownName("split", split, SPLITS[1:])
        found = np.flatnonzero((self.splits == SPLITS.index(split)) & (self.states == WHOLE))
        if not len(found):
            raise BadStore(self.path, f"holds no patch of the split '{split}'; it has {self._splits_in_words()}")
        return found

    def has_split(self, split: str) -> bool:
        return bool(((self.splits == SPLITS.index(split)) & (self.states == WHOLE)).any())

    def split_sizes(self) -> dict[str, int]:
        counts = np.bincount(self.splits[self.states == WHOLE], minlength=len(SPLITS))
        return {name: int(n) for name, n in zip(SPLITS, counts, strict=True) if n}

    def _splits_in_words(self) -> str:
        return ", ".join(f"{n} {name}" for name, n in self.split_sizes().items()) or "none at all"

    def planes_for(self, bands: Sequence[str], upsampled: bool = False) -> tuple[Plane, ...]:
        """The planes that hold `bands`: the native ones, or the one that was upsampled when the store was prepared.

        Raises:
            BadStore: a band is missing, or the store has no upsampled ones.
        """
        if upsampled and all(p.key != SUPER for p in self.layout.planes):
            raise BadStore(self.path, f"has no {SUPER}; prepare it with --upsample bilinear, bicubic or dsen2")
        missing = [band for band in bands if band not in self.layout.bands]
        if missing:
            raise BadStore(self.path, f"lacks {', '.join(missing)}; it has {', '.join(self.layout.bands)}")
        return tuple(p for p in self.layout.planes if set(p.bands) & set(bands) and (p.key == SUPER) == upsampled)

    def summary(self) -> dict[str, Any]:
        """What `info` tells, ready for JSON."""
        return {
            "kind": "store",
            "path": str(self.path),
            "patches": len(self),
            "skipped": int((self.states == BAD).sum()),
            "splits": self.split_sizes(),
            "bands": [b for b in BANDS if b in self.layout.bands],
            "side": self.layout.side,
            "planes": {p.key: [len(self.states), *p.shape] for p in self.layout.planes},
            "classes": list(self.layout.classes),
            "nomenclature": self.layout.nomenclature,
            "multi_label": self.layout.multi_label,
            "counts": {
                name: int(n)
                for name, n in zip(self.layout.classes, self.classes[self.states == WHOLE].sum(0), strict=True)
            },
            "statistics": {band: {"mean": m, "std": s} for band, (m, s) in self.known_statistics().items()},
            "bytes": self.size,
            "provenance": self.attributes.get("provenance", {}),
        }

    def known_statistics(self) -> Mapping[str, tuple[float, float]]:
        """The statistics, where they need no reading of pixels."""
        return self.statistics
