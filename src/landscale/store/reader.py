"""Opening a store: its columns in memory, its pixels mapped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from landscale.bands import BANDS
from landscale.errors import BadStore, UnknownName, reason
from landscale.store.layout import BAD, FORMAT, PENDING, SPLITS, WHOLE, Layout, Plane, checksum, seals


@dataclass(frozen=True)
class PatchStore:
    """A finished store, open for reading. Holds no HDF5 handle, so it may cross a fork.

    planes: by key, the mapped pixels (N, bands, side, side). classes (N, C) uint8, splits and states (N,) uint8.
    statistics: by band, mean and standard deviation over the train split; empty where the store has none.
    """

    path: Path
    layout: Layout
    planes: dict[str, NDArray[np.generic]]
    classes: NDArray[np.uint8]
    splits: NDArray[np.uint8]
    states: NDArray[np.uint8]
    statistics: dict[str, tuple[float, float]]
    attributes: dict[str, Any]

    def __len__(self) -> int:
        return int((self.states == WHOLE).sum())

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

    def column(self, key: str) -> NDArray[Any]:
        """A column of the store by its key, such as `name`, `tile`, `crs`, `origin`; text as str."""
        with _hdf5(self.path) as file:
            values = file[key][...]
        return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values

    def planes_for(self, bands: Sequence[str]) -> tuple[Plane, ...]:
        """The planes that hold `bands`.

        Raises:
            BadStore: a band is missing.
        """
        missing = [band for band in bands if band not in self.layout.bands]
        if missing:
            raise BadStore(self.path, f"lacks {', '.join(missing)}; it has {', '.join(self.layout.bands)}")
        return tuple(p for p in self.layout.planes if set(p.bands) & set(bands))

    def damaged(self) -> Iterator[tuple[int, bool]]:
        """For every whole patch its index, and whether its bytes differ from its checksum and seal.

        Patches that are not whole come up only if their seal is broken.

        Raises:
            BadStore: the statistics, or structures of the file, are damaged.
        """
        with _hdf5(self.path) as file:
            expected = file["checksum"][...]
            broken = seals(file) != file["seal"][...]
        if broken[-1]:
            raise BadStore(self.path, "its statistics are damaged; prepare it again")
        for i in np.flatnonzero((self.states == WHOLE) | broken[:-1]):
            found = checksum([self.planes[p.key][i] for p in self.layout.planes], self.classes[i])
            yield int(i), bool(broken[i]) or found != int(expected[i])

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
            "planes": {p.key: [int(s) for s in self.planes[p.key].shape] for p in self.layout.planes},
            "classes": list(self.layout.classes),
            "nomenclature": self.layout.nomenclature,
            "multi_label": self.layout.multi_label,
            "counts": {
                name: int(n)
                for name, n in zip(self.layout.classes, self.classes[self.states == WHOLE].sum(0), strict=True)
            },
            "statistics": {band: {"mean": m, "std": s} for band, (m, s) in self.statistics.items()},
            "bytes": self.path.stat().st_size,
            "provenance": self.attributes.get("provenance", {}),
        }


def open_store(path: Path, *, unfinished: bool = False) -> PatchStore:
    """Open a store.

    Raises:
        BadStore: missing, truncated, no patch store, of a later format, or not finished (unless `unfinished` is allowed).
    """
    if path.exists() and not path.is_file():
        raise BadStore(path, "is no file, expected a patch store")
    if not path.exists():
        partial = path.with_name(path.name + ".partial")
        hint = f"; {partial.name} is its beginning: run the same prepare again" if partial.exists() else ""
        raise BadStore(path, f"no such store{hint}")
    with _hdf5(path) as file:
        if "layout" not in file.attrs:
            raise BadStore(path, "is an HDF5 file but no patch store")
        if file.attrs["format"] != FORMAT:
            raise BadStore(path, f"has format {file.attrs['format']}, this program reads {FORMAT}; prepare it again")
        texts = {key: file.attrs.get(key, b"").decode() for key in ("layout", "plan", "provenance")}
        described = json.loads(texts["layout"])
        planes = tuple(Plane(**{**p, "bands": tuple(p["bands"])}) for p in described.pop("planes"))
        layout = Layout(planes, tuple(described.pop("classes")), **described)
        places = {p.key: (file[p.key].id.get_offset(), file[p.key].shape, file[p.key].dtype) for p in planes}
        classes, splits, states = (file[key][...] for key in ("classes", "split", "state"))
        statistics = file["statistics"][...]
        attributes = {"plan": texts["plan"], "provenance": json.loads(texts["provenance"] or "{}")}
    pending = int((states == PENDING).sum())
    if pending and not unfinished:
        raise BadStore(
            path, f"is unfinished: {pending} of {len(states)} patches are pending; run the same prepare again"
        )
    maps = {key: _mapped(path, *place) for key, place in places.items()}
    known = zip(layout.bands, statistics, strict=True)
    by_band = {band: (float(m), float(s)) for band, (m, s) in known if np.isfinite(m) and (m, s) != (0, 0)}
    return PatchStore(path, layout, maps, classes, splits, states, by_band, attributes)


@contextmanager
def _hdf5(path: Path) -> Iterator[h5py.File]:
    """The open file; what HDF5 or we stumble over in it is a BadStore."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise BadStore(path, f"is not a whole HDF5 patch store ({reason(error)})") from None


def _mapped(path: Path, offset: int | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[np.generic]:
    if not shape[0]:
        return np.empty(shape, dtype)
    if offset is None or path.stat().st_size < offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise BadStore(path, "is truncated: its pixels end after the end of the file")
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
