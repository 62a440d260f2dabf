"""Open a store. Columns of an HDF5 store are read into memory, its pixels are mapped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadStore, reason
from landscale.store.checksums import checksum, seals
from landscale.store.layout import PENDING, READABLE, WHOLE, Layout
from landscale.store.lmdb import is_environment
from landscale.store.patches import PatchStore


@dataclass(frozen=True)
class MappedStore(PatchStore):
    """An HDF5 store whose pixels are mapped into memory."""

    proof = "checksums"

    _maps: dict[str, NDArray[np.generic]]  # by plane, (N, bands, side, side)

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def gather(self, rows: NDArray[np.int64], arrays: Mapping[str, NDArray[np.generic]]) -> None:
        for key, out in arrays.items():
            np.take(self._maps[key], rows, axis=0, out=out, mode="clip")  # other modes copy once more

    def column(self, key: str) -> NDArray[Any]:
        self._check_column(key)
        with _hdf5(self.path) as file:
            values = file[key][...]
        try:
            return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
        except UnicodeDecodeError:
            raise BadStore(self.path, f"column {key} is damaged: it holds bytes that are not UTF-8") from None

    def damaged(self) -> Iterator[tuple[int, bool]]:
        """Compare checksums and seals."""
        with _hdf5(self.path) as file:
            expected = file["checksum"][...]
            broken = seals(file) != file["seal"][...]
        if broken[-1]:
            raise BadStore(self.path, "its statistics are damaged (the seal differs); prepare it again")
        for i in np.flatnonzero((self.states == WHOLE) | broken[:-1]):
            found = checksum([self._maps[p.key][i] for p in self.layout.planes], self.classes[i])
            yield int(i), bool(broken[i]) or found != int(expected[i])


def open_store(path: str | Path, *, unfinished: bool = False) -> PatchStore:
    """Open a store that `landscale prepare` wrote, or a published LMDB environment of BigEarthNet v2.

    Args:
        path: the HDF5 file, or the folder or file of the environment.
        unfinished: also open an HDF5 store that has pending patches.

    Raises:
        BadStore: it is missing, truncated, neither of the two, of another format, or has pending patches.
    """
    path = Path(path)
    if is_environment(path):
        from landscale.store.reben import open_reben  # pandas takes a second to import

        return open_reben(path)
    return _open_mapped(path, unfinished=unfinished)


def _open_mapped(path: Path, *, unfinished: bool) -> MappedStore:
    if path.exists() and not path.is_file():
        raise BadStore(path, "is not a file, expected a patch store")
    if not path.exists():
        partial = path.with_name(path.name + ".partial")
        hint = (
            f"; {partial.name} is unfinished: run the same `landscale prepare` again to resume"
            if partial.exists()
            else ""
        )
        raise BadStore(path, f"no such store{hint}")
    with _hdf5(path) as file:
        if "layout" not in file.attrs:
            raise BadStore(path, "is an HDF5 file but not a patch store: it has no attribute layout")
        if file.attrs["format"] not in READABLE:
            readable = f"{READABLE[0]} to {READABLE[-1]}"
            raise BadStore(path, f"has format {file.attrs['format']}, this program reads {readable}; prepare it again")
        texts = {key: file.attrs.get(key, b"").decode() for key in ("layout", "plan", "provenance")}
        layout = Layout.from_json(json.loads(texts["layout"]))
        places = {p.key: (file[p.key].id.get_offset(), file[p.key].shape, file[p.key].dtype) for p in layout.planes}
        classes, splits, states = (file[key][...] for key in ("classes", "split", "state"))
        statistics = file["statistics"][...]
        attributes = {"plan": texts["plan"], "provenance": json.loads(texts["provenance"] or "{}")}
    pending = int((states == PENDING).sum())
    if pending and not unfinished:
        raise BadStore(
            path,
            f"is unfinished: {pending} of {len(states)} patches are pending; run the same `landscale prepare` again to resume",
        )
    maps = {key: _mapped(path, *place) for key, place in places.items()}
    by_band: dict[str, tuple[float, float]] = {}
    for band, (m, s) in zip(layout.bands, statistics, strict=True):
        if np.isfinite(m) and (m, s) != (0, 0):
            by_band.setdefault(band, (float(m), float(s)))  # of the native plane, which comes before data_super
    return MappedStore(path, layout, classes, splits, states, by_band, attributes, maps)


@contextmanager
def _hdf5(path: Path) -> Iterator[h5py.File]:
    """The open file; any error of HDF5 or in the structure of the file is raised as BadStore."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise BadStore(path, f"is not a complete HDF5 patch store ({reason(error)})") from None


def _mapped(path: Path, offset: int | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[np.generic]:
    if not shape[0]:
        return np.empty(shape, dtype)
    if offset is None or path.stat().st_size < offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise BadStore(path, "is truncated: its pixels extend beyond the end of the file")
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
