"""Open a store. Columns of an HDF5 store are compared with their digests and read into memory, its pixels are mapped."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadStore
from landscale.runtime.progress import console
from landscale.store.checksums import checksum, digests, seals, stored_digests
from landscale.store.file import StoreFile
from landscale.store.layout import PENDING, REFERENCE, SPLITS, STATES, WHOLE, Layout
from landscale.store.lmdb import is_environment
from landscale.store.patches import PatchStore
from landscale.store.structure import DIGESTED, Structure, read_structure

_READ_BY_VERIFY = ("moments", "checksum", "seal")  # the only columns that nothing but `damaged` reads
_CHUNK = 64  # patches that `damaged` reads at once


@dataclass(frozen=True)
class Hdf5Store(PatchStore):
    """A store in an HDF5 file, from whose plain ranges of bytes columns are read and patches copied, without HDF5."""

    proof = "checksums"

    _file: StoreFile
    _structure: Structure
    _how: tuple[bool, bool]  # `unfinished` and `check` of `open_store`

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def gather(self, rows: NDArray[np.int64], arrays: Mapping[str, NDArray[np.generic]]) -> None:
        self._file.check_unchanged()
        for key, out in arrays.items():
            self._file.take(self._structure.places[key], rows, out)

    def column(self, key: str) -> NDArray[Any]:
        self._check_column(key)
        self._file.check_unchanged()
        values = self._file.rows(self._structure.places[key])
        if values.dtype.kind != "S":
            return values
        _, check = self._how
        try:
            return np.char.decode(values, "utf-8", "strict" if check else "backslashreplace")
        except UnicodeDecodeError:
            raise BadStore(self.path, f"column {key} is damaged: it holds bytes that are not UTF-8") from None

    def damaged(self) -> Iterator[tuple[int, bool]]:
        """Compare checksums and seals."""
        stored = stored_digests(self._file, self._structure)
        if stored and stored["attributes"] != self._structure.attributes.digest:
            raise BadStore(self.path, "its attributes are damaged (their digest differs); prepare it again")
        broken = seals(self._file, self._structure) != self._file.rows(self._structure.places["seal"])
        if broken[-1]:
            raise BadStore(self.path, "its statistics are damaged (the seal differs); prepare it again")
        expected = self._file.rows(self._structure.places["checksum"])
        rows = np.flatnonzero((self.states == WHOLE) | broken[:-1])
        buffers = self.layout.buffers(min(_CHUNK, len(rows)))
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            planes = {key: buffer[: len(chunk)] for key, buffer in buffers.items()}
            self.gather(chunk, planes)
            for k, i in enumerate(chunk.tolist()):
                found = checksum([planes[p.key][k] for p in self.layout.planes], self.classes[i])
                yield i, bool(broken[i]) or found != int(expected[i])

    def damaged_columns(self) -> tuple[str, ...]:
        return _differing(self._file, self._structure, DIGESTED)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, *self._how, self._file.version)


def open_store(path: str | Path, *, unfinished: bool = False, check: bool = True) -> PatchStore:
    """Open a store that `landscale prepare` wrote, or a published LMDB environment of BigEarthNet v2.

    What is used besides the pixels is compared with its checksums: labels, names, splits, statistics, attributes.

    Args:
        path: the HDF5 file, or the folder or file of the environment.
        unfinished: also open an HDF5 store that has pending patches; it has no checksums yet.
        check: False opens a damaged HDF5 store, too, in order to find the damage.

    Raises:
        BadStore: it is missing, truncated, damaged, neither of the two, of another format, or has pending patches.
    """
    path = Path(path)
    if is_environment(path):
        from landscale.store.reben import open_reben  # pandas takes a second to import

        return open_reben(path)
    return _open_hdf5(path, unfinished, check)


def _reopen(path: Path, unfinished: bool, check: bool, version: tuple[int, int]) -> Hdf5Store:
    """The store of another process, whose file had the given size and time of change."""
    store = _open_hdf5(path, unfinished, check)
    if not unfinished and store._file.version != version:
        raise BadStore(path, "was changed or replaced while it was being read; start again")
    return store


def _open_hdf5(path: Path, unfinished: bool, check: bool) -> Hdf5Store:
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
    file = StoreFile(path, changes=unfinished)
    structure = read_structure(path)
    file.check_unchanged()  # HDF5 opened the same file
    classes, splits, states, statistics = (
        file.rows(structure.places[key]) for key in ("classes", "split", "state", "statistics")
    )
    pending = int((states == PENDING).sum())
    if pending and not unfinished and not file.rows(structure.places["seal"]).any():  # a finished store has seals
        raise BadStore(
            path,
            f"is unfinished: {pending} of {len(states)} patches are pending; run the same `landscale prepare` again to resume",
        )
    if check and not unfinished:
        _check_digests(path, file, structure)
    if check:
        _check_values(path, structure.attributes.layout, classes, splits, states, statistics)
    by_band: dict[str, tuple[float, float]] = {}
    for band, (m, s) in zip(structure.attributes.layout.bands, statistics, strict=True):
        if band != REFERENCE and np.isfinite(m) and (m, s) != (0, 0):
            by_band.setdefault(band, (float(m), float(s)))  # of the native plane, which comes before data_super
    about = structure.attributes
    attributes = {"plan": about.plan, "provenance": about.provenance}
    return Hdf5Store(
        path, about.layout, classes, splits, states, by_band, attributes, file, structure, (unfinished, check)
    )


def _differing(file: StoreFile, structure: Structure, keys: tuple[str, ...]) -> tuple[str, ...]:
    """Which of some datasets, and of the attributes, do not match their digests; none in a store that has no digests."""
    stored = stored_digests(file, structure)
    return tuple(key for key, found in digests(file, structure, keys).items() if stored and found != stored[key])


def _check_digests(path: Path, file: StoreFile, structure: Structure) -> None:
    if "digests" in structure.places:
        wrong = _differing(file, structure, tuple(key for key in DIGESTED if key not in _READ_BY_VERIFY))
        if wrong:
            raise BadStore(path, _is_damaged(", ".join(wrong)))
        return
    broken = seals(file, structure) != file.rows(structure.places["seal"])
    if broken[-1]:
        raise BadStore(path, _is_damaged("statistics"))
    if broken.any():
        raise BadStore(path, _is_damaged(f"the columns of {broken.sum()} of {structure.patches} patches"))
    if multiprocessing.parent_process() is None:
        _print_once(
            f"landscale: {path}: has format {structure.attributes.format}, whose labels only `landscale verify` can check;"
            " prepare it again to have them checked whenever it is opened"
        )


def _is_damaged(what: str) -> str:
    return f"is damaged (checksums differ): {what}; `landscale verify` shows where; copy or prepare it again"


@cache
def _print_once(line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)


def _check_values(
    path: Path,
    layout: Layout,
    classes: NDArray[np.uint8],
    splits: NDArray[np.uint8],
    states: NDArray[np.uint8],
    statistics: NDArray[np.float64],
) -> None:
    """Refuse values that no store has, as in one that was not written by `landscale prepare`."""
    for key, values, largest in (
        ("classes", classes, 1),
        ("split", splits, len(SPLITS) - 1),
        ("state", states, len(STATES) - 1),
    ):
        if values.max(initial=0) > largest:
            raise BadStore(path, f"is not a patch store: {key} holds {values.max()}, expected at most {largest}")
    dtypes = [np.dtype(plane.dtype) for plane in layout.planes for _ in plane.bands]
    for band, dtype, (mean, deviation) in zip(layout.bands, dtypes, statistics.tolist(), strict=True):
        limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        low, high = float(limits.min), float(limits.max)
        if not (np.isnan(mean) or (low <= mean <= high and 0 <= deviation <= high - low)):
            raise BadStore(path, f"is not a patch store: {band} has the mean {mean:g} and the deviation {deviation:g}")
