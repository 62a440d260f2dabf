"""The interface of an open store, the same for HDF5 files and LMDB environments."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from landscale.errors import BadStore, UnknownName
from landscale.store.layout import BAD, COLUMNS, REFERENCE, SPLITS, SUPER, WHOLE, Layout, Plane
from landscale.vocabulary.bands import BANDS


@dataclass(frozen=True)
class PatchStore(ABC):
    """A store that is open for reading. It holds no handle of a library, so it works after a fork.

    Pickled, it holds its path, not its content: another process opens the file again, and refuses one that has changed since.

    path: the file or folder. layout: planes and classes. classes: (N, C) uint8 of 0 and 1. splits, states: (N,) uint8, indices
    in `SPLITS` and `STATES`. statistics: by band, mean and standard deviation over the train split; bands that are 0 everywhere
    are missing, and so are all bands if there is no train split. attributes: `plan` and `provenance`. proof: text for users
    about what `damaged` compares.
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
    def gather(self, rows: NDArray[np.int64], arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Copy the pixels of some patches, in the order of `rows`.

        Args:
            rows: indices of patches in the store (n,).
            arrays: by key of a plane, the array to fill: (n, bands, side, side), C-contiguous, of the plane's dtype.
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
        """Read every whole patch, in order: its index, and whether it is damaged. `proof` states how that is checked.

        Patches that are not whole are included only if they are damaged.

        Raises:
            BadStore: something that all patches share is damaged.
        """

    def damaged_columns(self) -> tuple[str, ...]:
        """Which columns, such as `name`, differ from their checksums; none where a store has no checksums of columns."""
        return ()

    @property
    @abstractmethod
    def size(self) -> int:
        """Size of the file in bytes."""

    def __len__(self) -> int:
        """Number of whole patches."""
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
            UnknownName: there is no such split. BadStore: the store has no whole patch of it.
        """
        if split not in SPLITS:
            raise UnknownName("split", split, SPLITS[1:])
        found = np.flatnonzero((self.splits == SPLITS.index(split)) & (self.states == WHOLE))
        if not len(found):
            raise BadStore(self.path, f"holds no patch of the split '{split}'; it has {self._describe_splits()}")
        return found

    def fingerprint(self) -> str:
        """A checksum of what the store's patches, labels, splits and statistics are, without their pixels, in hexadecimal."""
        total = xxhash.xxh3_128(json.dumps([self.attributes["plan"], sorted(self.statistics.items())]).encode())
        for values in (self.classes, self.splits, self.states):
            total.update(np.ascontiguousarray(values).data)
        return total.hexdigest()

    def has_split(self, split: str) -> bool:
        return bool(((self.splits == SPLITS.index(split)) & (self.states == WHOLE)).any())

    def split_sizes(self) -> dict[str, int]:
        """Number of whole patches by split, without empty splits."""
        counts = np.bincount(self.splits[self.states == WHOLE], minlength=len(SPLITS))
        return {name: int(n) for name, n in zip(SPLITS, counts, strict=True) if n}

    def _describe_splits(self) -> str:
        return ", ".join(f"{n} {name}" for name, n in self.split_sizes().items()) or "none at all"

    def planes_for(self, bands: Sequence[str], upsampled: bool = False) -> tuple[Plane, ...]:
        """The planes that hold `bands`: native ones, or with `upsampled` the plane `data_super`.

        Raises:
            BadStore: the store lacks a band, or `data_super`.
        """
        if upsampled and all(p.key != SUPER for p in self.layout.planes):
            raise BadStore(self.path, f"has no {SUPER}; prepare it with --upsample bilinear, bicubic or dsen2")
        missing = [band for band in bands if band not in self.layout.bands]
        if missing == [REFERENCE]:
            raise BadStore(self.path, "has no reference maps, the classes of pixels; prepare it with --reference-maps")
        if missing:
            raise BadStore(self.path, f"lacks {', '.join(missing)}; it has {', '.join(self.layout.image_bands)}")
        planes = (p for p in self.layout.planes if set(p.bands) & set(bands))
        return tuple(p for p in planes if (p.key == SUPER) == upsampled or p.key == REFERENCE)

    def summary(self) -> dict[str, Any]:
        """What `landscale info` prints: patches, splits, bands, classes, statistics; can be written as JSON."""
        return {
            "kind": "store",
            "path": str(self.path),
            "patches": len(self),
            "skipped": int((self.states == BAD).sum()),
            "splits": self.split_sizes(),
            "bands": [b for b in BANDS if b in self.layout.bands],
            "side": self.layout.side,
            "planes": {p.key: [len(self.states), *p.shape] for p in self.layout.planes},
            "units": {p.key: p.unit for p in self.layout.planes},
            "stretches": self.layout.stretches(),
            "level": self.layout.level,
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
        """The statistics, or nothing if computing them would require reading pixels."""
        return self.statistics
