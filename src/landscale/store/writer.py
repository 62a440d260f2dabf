"""Creating a store and filling it from any number of processes, without locks."""

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
from landscale.store.direct import PAGE, DirectFile
from landscale.store.layout import FORMAT, SHARES, SPLITS, STATES, WHOLE, Layout, seals
from landscale.store.statistics import PART, mean_and_deviation

_TEXT = {"tile": 8, "crs": 16, "date": 20, "country": 40}


def create_store(
    path: str | Path, layout: Layout, columns: Mapping[str, NDArray[Any]], attributes: Mapping[str, str]
) -> None:
    """Write an empty store whose space is all allocated and whose patches are all pending.

    Args:
        path: the file; its folder exists.
        layout: planes and classes.
        columns: what is known before pixels are read: `name`, `split`, and any of `tile`, `date`, `country`, `snow`, `cloud`,
            and the shares.
        attributes: texts about the whole of it.

    Raises:
        BadInput: it cannot be written, as on a full disk; nothing is left behind.
    """
    path = Path(path)
    columns = typed_columns(columns)
    shapes = dataset_shapes(layout, columns["name"])
    size = sum(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize for shape, dtype in shapes.values())
    temporary = path.with_name(f".{path.name}.new")  # always the same: what a kill leaves, the next call overwrites
    with exclusive_lock(temporary):
        try:
            _reserve(temporary, size + 2**16)  # tried before, as HDF5 does not survive a disk that gets full under it
            write_structure(temporary, layout, shapes, columns, attributes)
            _reserve(temporary, temporary.stat().st_size)  # a full disk shows now, not after hours
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        except (OSError, RuntimeError) as error:  # h5py raises either
            what = getattr(error, "strerror", None) or reason(error)
            raise BadInput(path, f"cannot be written ({what}); it needs {size / 1e9:.3g} GB") from None
        finally:
            temporary.unlink(missing_ok=True)


def typed_columns(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What is known before pixels are read, with the dtypes of the store; shares that nobody knows are NaN."""
    columns = {key: np.full(len(columns["name"]), np.nan) for key in SHARES} | dict(columns)
    kinds = {"name": str, **dict.fromkeys(_TEXT, str), **dict.fromkeys(SHARES, np.float32)}
    return {
        key: _texts(list(v)) if kinds.get(key) is str else np.asarray(v, kinds.get(key, np.uint8))
        for key, v in columns.items()
    }


def _reserve(path: Path, size: int) -> None:
    with path.open("ab") as file:
        reserve_space(file.fileno(), size)


def dataset_shapes(layout: Layout, names: NDArray[np.bytes_]) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of every dataset, in the order in which they lie in the file."""
    n, bands = len(names), len(layout.bands)
    return {
        **{plane.key: ((n, *plane.shape), plane.dtype) for plane in layout.planes},
        "classes": ((n, len(layout.classes)), np.uint8),
        "name": ((n,), names.dtype),
        "split": ((n,), h5py.enum_dtype({s: k for k, s in enumerate(SPLITS)}, basetype="u1")),
        **{key: ((n,), f"S{length}") for key, length in _TEXT.items()},
        "origin": ((n, 2), np.float64),
        "snow": ((n,), np.uint8),
        "cloud": ((n,), np.uint8),
        **dict.fromkeys(SHARES, ((n,), np.float32)),
        "moments": ((n, bands, 2), np.float64),
        "checksum": ((n,), np.uint64),
        "seal": ((n + 1,), np.uint64),
        "statistics": ((bands, 2), np.float64),
        "state": ((n,), h5py.enum_dtype({s: k for k, s in enumerate(STATES)}, basetype="u1")),
    }


def write_structure(
    path: Path,
    layout: Layout,
    shapes: Mapping[str, tuple[tuple[int, ...], Any]],
    columns: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, str],
    *,
    places: Mapping[str, int] | None = None,
) -> None:
    """Write the file with all its datasets and attributes, of whose values only `columns` are told.

    Args:
        places: where datasets must begin, if it matters; the first of them after all that HDF5 has to say.
    """
    places = places or {}
    block = min(places.values(), default=0) // 2  # HDF5 then keeps its headers together, in front
    # HDF5 1.10's format: the oldest with checksums in all its headers, and what the tools people have can read.
    how: dict[str, Any] = {"libver": ("v110", "v110"), "locking": False, "meta_block_size": block or None}
    if not places:
        how |= {"alignment_threshold": PAGE, "alignment_interval": PAGE}
    with h5py.File(path, "w", **how) as file:
        gaps: list[
            h5py.h5d.DatasetID
        ] = []  # datasets without a name: they keep their place free as long as the file is open
        for key, (shape, dtype) in shapes.items():
            end = file.id.get_filesize()
            while (gap := places.get(key, 0) - end) > 0 and len(gaps) < 2 * len(places):
                gaps.append(_allocate(file, None, (gap,), np.uint8))
                end = (
                    gaps[-1].get_offset() + gap
                )  # short of the place if HDF5 used the rest of a block of small datasets
            made = _allocate(file, key, shape, dtype)
            if key in places and made.get_offset() != places[key]:
                raise RuntimeError(f"HDF5 put {key} at {made.get_offset()}, expected {places[key]}")
        for plane in layout.planes:
            file[plane.key].attrs["bands"] = _texts(plane.bands)
        for key, values in columns.items():
            file[key][...] = values
        texts = {"layout": json.dumps(layout.to_json()), **attributes}
        file.attrs.update(
            format=FORMAT, classes=_texts(layout.classes), **{k: _texts([t])[0] for k, t in texts.items()}
        )


def _allocate(file: h5py.File, key: str | None, shape: tuple[int, ...], dtype: Any) -> h5py.h5d.DatasetID:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # the file system's zeros serve
    plist.set_obj_track_times(False)  # the same content is the same bytes, whenever it is written
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    return h5py.h5d.create(file.id, key and key.encode(), kind, h5py.h5s.create_simple(shape), plist)


def _texts(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """Text of fixed length, which stands in checksummed headers. HDF5's heap for text of any length has no checksum: after
    one flipped bit in it, the library may search it for ever.
    """
    return np.array([str(text).encode() for text in texts], dtype=bytes)


class StoreWriter:
    """Writes ranges of a created store. Any number of them, in any processes, may write disjoint patches at once.

    Raises:
        BadInput: there is no such store, or none any more.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path = Path(path)
        try:
            with h5py.File(path, "r") as file:
                self._place = {
                    key: (file[key].id.get_offset(), file[key].dtype, int(np.prod(file[key].shape[1:], dtype=np.int64)))
                    for key in file
                }
                self._patches = len(file["state"])
            self._file = DirectFile(path)
        except OSError as error:
            raise BadInput(path, f"cannot be opened ({reason(error)})") from None

    def put(self, start: int, columns: dict[str, NDArray[np.generic]]) -> None:
        """Write consecutive patches from `start` on; the states of whole patches follow only after their bytes are on disk."""
        columns = dict(columns)
        state = columns.pop("state")
        for key, values in columns.items():
            self._write(key, start, values)
        self._file.sync()
        self._write("state", start, state)
        for key, values in columns.items():
            offset, dtype, items = self._place[key]
            size = items * dtype.itemsize
            self._file.forget(offset + start * size, len(values) * size)

    def states(self) -> NDArray[np.uint8]:
        """The states of all patches as they are in the file at every moment (N,)."""
        offset, dtype, _ = self._place["state"]
        return np.memmap(self._path, dtype, "r", offset, (self._patches,))

    def finish(self) -> None:
        """Once all patches are in: statistics of the train split, and the seals. All of the file is on disk then."""
        self._write("statistics", 0, train_statistics(self._path))
        with h5py.File(self._path, "r") as file:
            found = seals(file)
        self._write("seal", 0, found)
        self._file.sync(whole=True)

    def _write(self, key: str, start: int, values: NDArray[np.generic]) -> None:
        offset, dtype, items = self._place[key]
        self._file.write(np.ascontiguousarray(values, dtype=dtype), offset + start * items * dtype.itemsize)

    def close(self) -> None:
        self._file.close()


def train_statistics(path: str | Path) -> NDArray[np.float64]:
    """Mean and standard deviation of each band over the whole patches of the train split (bands, 2); NaN without any."""
    with h5py.File(path, "r") as file:
        planes = json.loads(file.attrs["layout"])["planes"]
        chosen = np.flatnonzero((file["split"][...] == SPLITS.index("train")) & (file["state"][...] == WHOLE))
        parts = (chosen[k : k + PART] for k in range(0, len(chosen), PART))
        moments = (file["moments"][rows[0] : rows[-1] + 1][rows - rows[0]] for rows in parts)
        return mean_and_deviation(moments, [p["side"] ** 2 for p in planes for _ in p["bands"]])
