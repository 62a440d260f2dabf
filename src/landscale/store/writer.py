"""Create a store and fill it from any number of processes, without locks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput, reason
from landscale.runtime.files import exclusive_lock, sync
from landscale.runtime.portability import reserve_space
from landscale.store.checksums import digests, seals
from landscale.store.direct import PAGE, DirectFile
from landscale.store.file import StoreFile
from landscale.store.layout import FORMAT, FORMAT_WITH_MAPS, SHARES, SPLITS, WHOLE, Layout
from landscale.store.statistics import PART, mean_and_deviation
from landscale.store.structure import TEXT, dataset_shapes, read_structure


def create_store(
    path: str | Path, layout: Layout, columns: Mapping[str, NDArray[Any]], attributes: Mapping[str, str]
) -> None:
    """Create a store with all its space allocated and all patches pending.

    Args:
        path: the file; its folder exists.
        layout: planes and classes.
        columns: those that are known before pixels are read: `name`, `split`, and any of `tile`, `date`, `country`, `snow`,
            `cloud` and `SHARES`; each (N,).
        attributes: `plan` and `provenance`, as text.

    Raises:
        BadInput: the file cannot be written, as on a full disk; nothing is left behind.
    """
    path = Path(path)
    columns = typed_columns(columns)
    shapes = dataset_shapes(layout, len(columns["name"]), columns["name"].itemsize)
    size = sum(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize for shape, dtype in shapes.values())
    temporary = path.with_name(
        f".{path.name}.new"
    )  # a fixed name, so that the next call overwrites the file of a killed process
    with exclusive_lock(temporary):
        try:
            _reserve(temporary, size + 2**16)  # before HDF5 writes, as HDF5 crashes when the disk becomes full
            write_structure(temporary, layout, shapes, columns, attributes)
            _reserve(temporary, temporary.stat().st_size)  # an error now rather than after hours
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        except (OSError, RuntimeError) as error:  # h5py raises either
            problem = getattr(error, "strerror", None) or reason(error)
            raise BadInput(path, f"cannot be written ({problem}); it needs {size / 1e9:.3g} GB") from None
        finally:
            temporary.unlink(missing_ok=True)


def typed_columns(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Columns with the dtypes of the store; missing `SHARES` are filled with NaN."""
    columns = {key: np.full(len(columns["name"]), np.nan) for key in SHARES} | dict(columns)
    dtypes = {"name": str, **dict.fromkeys(TEXT, str), **dict.fromkeys(SHARES, np.float32)}
    return {
        key: _texts(list(v)) if dtypes.get(key) is str else np.asarray(v, dtypes.get(key, np.uint8))
        for key, v in columns.items()
    }


def _reserve(path: Path, size: int) -> None:
    with path.open("ab") as file:
        reserve_space(file.fileno(), size)


def write_structure(
    path: Path,
    layout: Layout,
    shapes: Mapping[str, tuple[tuple[int, ...], Any]],
    columns: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, str],
    *,
    offsets: Mapping[str, int] | None = None,
) -> None:
    """Write a file with all datasets and attributes; only the values of `columns` are written.

    Args:
        offsets: by key, where a dataset must start, in bytes; the smallest leaves enough space for HDF5's headers. Without,
            HDF5 places the datasets.

    Raises:
        RuntimeError: HDF5 placed a dataset elsewhere.
    """
    offsets = offsets or {}
    block = min(offsets.values(), default=0) // 2  # makes HDF5 keep its headers together, at the beginning
    # The format of HDF5 1.10 is the oldest with checksums in all headers, and common tools can read it.
    options: dict[str, Any] = {"libver": ("v110", "v110"), "locking": False, "meta_block_size": block or None}
    if not offsets:
        options |= {"alignment_threshold": PAGE, "alignment_interval": PAGE}
    with h5py.File(path, "w", **options) as file:
        gaps: list[h5py.h5d.DatasetID] = []  # unnamed datasets, which keep space free as long as the file is open
        for key, (shape, dtype) in shapes.items():
            end = file.id.get_filesize()
            while (gap := offsets.get(key, 0) - end) > 0 and len(gaps) < 2 * len(offsets):
                gaps.append(_allocate(file, None, (gap,), np.uint8))
                # Before the offset, if HDF5 placed the gap in the rest of a block of small datasets: then another gap follows.
                end = gaps[-1].get_offset() + gap
            dataset = _allocate(file, key, shape, dtype)
            if key in offsets and dataset.get_offset() != offsets[key]:
                raise RuntimeError(f"HDF5 put {key} at {dataset.get_offset()}, expected {offsets[key]}")
        for plane in layout.planes:
            file[plane.key].attrs["bands"] = _texts(plane.bands)
        for key, values in columns.items():
            file[key][...] = values
        texts = {"layout": json.dumps(layout.to_json()), **attributes}
        file.attrs.update(
            format=FORMAT_WITH_MAPS if layout.has_reference else FORMAT,
            classes=_texts(layout.classes),
            **{k: _texts([t])[0] for k, t in texts.items()},
        )


def _allocate(file: h5py.File, key: str | None, shape: tuple[int, ...], dtype: Any) -> h5py.h5d.DatasetID:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # the file system provides zeros
    plist.set_obj_track_times(False)  # so that the file does not depend on the time
    dtype_id = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    return h5py.h5d.create(file.id, key and key.encode(), dtype_id, h5py.h5s.create_simple(shape), plist)


def _texts(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """Text of fixed length, which HDF5 stores in headers with checksums.

    Text of variable length is stored in a heap without checksums: after one flipped bit in it the library may never return.
    """
    return np.array([str(text).encode() for text in texts], dtype=bytes)


class StoreWriter:
    """Writes patches of a store that `create_store` made. Any number of writers, in any processes, may write disjoint patches.

    Raises:
        BadInput: the store is missing, cannot be opened, or is none.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path = Path(path)
        if not path.is_file():
            raise BadInput(path, "no such store")
        self._places = read_structure(path).places
        try:
            self._file = DirectFile(path)
        except OSError as error:
            raise BadInput(path, f"cannot be opened ({reason(error)})") from None

    def put(self, start: int, columns: dict[str, NDArray[np.generic]]) -> None:
        """Write consecutive patches from `start` on, by column. Their states are written once all other bytes are on the disk."""
        columns = dict(columns)
        state = columns.pop("state")
        for key, values in columns.items():
            self._write(key, start, values)
        self._file.sync()
        self._write("state", start, state)
        for key, values in columns.items():
            place = self._places[key]
            self._file.drop_from_cache(place.offset + start * place.row_bytes, len(values) * place.row_bytes)

    def states(self) -> NDArray[np.uint8]:
        """The states of all patches (N,), mapped: the array shows what any writer has written."""
        place = self._places["state"]
        return np.memmap(self._path, place.dtype, "r", place.offset, place.shape)

    def finish(self) -> None:
        """Write the statistics of the train split, the seals and the digests, once all patches are written, and sync the file."""
        self._write("statistics", 0, train_statistics(self._path))
        structure, file = read_structure(self._path), StoreFile(self._path, changes=True)
        self._write("seal", 0, seals(file, structure))
        if "digests" in self._places:  # not in a store that an earlier version has begun
            self._write("digests", 0, np.array([*digests(file, structure).values()], np.uint64))
        self._file.sync(metadata=True)

    def _write(self, key: str, start: int, values: NDArray[np.generic]) -> None:
        place = self._places[key]
        self._file.write(np.ascontiguousarray(values, dtype=place.dtype), place.offset + start * place.row_bytes)

    def close(self) -> None:
        self._file.close()


def train_statistics(path: str | Path) -> NDArray[np.float64]:
    """Mean and standard deviation of each band over the whole patches of the train split (bands, 2); NaN without any."""
    structure, file = read_structure(Path(path)), StoreFile(Path(path), changes=True)
    places, planes = structure.places, structure.attributes.layout.planes
    splits, states = file.rows(places["split"]), file.rows(places["state"])
    chosen = np.flatnonzero((splits == SPLITS.index("train")) & (states == WHOLE))
    parts = (chosen[k : k + PART] for k in range(0, len(chosen), PART))
    moments = (file.rows(places["moments"], rows[0], rows[-1] + 1)[rows - rows[0]] for rows in parts)
    return mean_and_deviation(moments, [p.side**2 for p in planes for _ in p.bands])
