"""Creating a store and filling it from any number of processes, without locks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput, reason
from landscale.files import sync
from landscale.store.layout import FORMAT, SPLITS, STATES, WHOLE, Layout, description_seal, seals

_TEXT = {"tile": 8, "crs": 16, "date": 20, "country": 40}


def create(path: Path, layout: Layout, columns: Mapping[str, NDArray[Any]], attributes: dict[str, Any]) -> None:
    """Write an empty store whose space is all allocated and whose patches are all pending.

    Args:
        path: the file; its folder exists.
        layout: planes and classes.
        columns: what is known before pixels are read: `name`, `split`, and any of `tile`, `date`, `country`, `snow`, `cloud`.
        attributes: of the file.

    Raises:
        BadInput: it cannot be written, as on a full disk; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.new")  # always the same: what a kill leaves, the next call overwrites
    try:
        _write_empty(temporary, layout, columns, attributes)
        with temporary.open("r+b") as raw:
            os.posix_fallocate(raw.fileno(), 0, temporary.stat().st_size)  # a full disk shows now, not after hours
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except (OSError, RuntimeError) as error:  # h5py raises either
        what = getattr(error, "strerror", None) or reason(error)
        raise BadInput(path, f"cannot be written ({what}); its pixels need {_pixels(layout, columns)}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _pixels(layout: Layout, columns: Mapping[str, NDArray[Any]]) -> str:
    a_patch = sum(int(np.prod(p.shape)) * np.dtype(p.dtype).itemsize for p in layout.planes)
    return f"{len(columns['name']) * a_patch / 1e9:.3g} GB"


def _write_empty(path: Path, layout: Layout, columns: Mapping[str, NDArray[Any]], attributes: dict[str, Any]) -> None:
    names = np.char.encode(np.asarray(columns["name"], dtype=str), "utf-8")
    n = len(names)
    with h5py.File(path, "w", libver="latest") as file:

        def dataset(key: str, shape: tuple[int, ...], dtype: Any) -> Any:
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_layout(h5py.h5d.CONTIGUOUS)
            plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # the file system's zeros serve
            plist.set_obj_track_times(False)  # the same content is the same bytes, whenever it is written
            dtype = h5py.h5t.py_create(np.dtype(dtype), logical=True)
            h5py.h5d.create(file.id, key.encode(), dtype, h5py.h5s.create_simple(shape), plist)
            return file[key]

        for plane in layout.planes:
            dataset(plane.key, (n, *plane.shape), plane.dtype).attrs["bands"] = list(plane.bands)
        dataset("classes", (n, len(layout.classes)), np.uint8)
        dataset("name", (n,), names.dtype)
        split = h5py.enum_dtype({s: k for k, s in enumerate(SPLITS)}, basetype="u1")
        dataset("split", (n,), split)
        for key, length in _TEXT.items():
            dataset(key, (n,), f"S{length}")
        dataset("origin", (n, 2), np.float64)
        dataset("snow", (n,), np.uint8)
        dataset("cloud", (n,), np.uint8)
        dataset("moments", (n, len(layout.bands), 2), np.float64)
        dataset("checksum", (n,), np.uint64)
        dataset("seal", (n + 1,), np.uint64)
        dataset("statistics", (len(layout.bands), 2), np.float64)
        dataset("state", (n,), h5py.enum_dtype({s: k for k, s in enumerate(STATES)}, basetype="u1"))
        for key, values in columns.items():
            text = file[key].dtype.kind == "S"
            file[key][...] = np.char.encode(np.asarray(values, dtype=str), "utf-8") if text else values
        described = json.dumps(asdict(layout))
        seal = description_seal(described, *(str(attributes.get(key, "")) for key in ("plan", "provenance")))
        file.attrs.update(format=FORMAT, layout=described, **attributes, classes=list(layout.classes), seal=seal)


class Writer:
    """Writes ranges of a created store. Any number of them, in any processes, may write disjoint patches at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with h5py.File(path, "r") as file:
            self._place = {
                key: (file[key].id.get_offset(), file[key].dtype, int(np.prod(file[key].shape[1:], dtype=np.int64)))
                for key in file
            }
        self._file = os.open(path, os.O_RDWR)

    def put(self, start: int, columns: dict[str, NDArray[np.generic]]) -> None:
        """Write consecutive patches from `start` on; the states of whole patches follow only after their bytes are on disk."""
        columns = dict(columns)
        state = columns.pop("state")
        for key, values in columns.items():
            self._write(key, start, values)
        os.fdatasync(self._file)
        self._write("state", start, state)

    def finish(self) -> None:
        """Once all patches are in: statistics of the train split, and the seals. All of the file is on disk then."""
        self._write("statistics", 0, train_statistics(self._path))
        with h5py.File(self._path, "r") as file:
            found = seals(file)
        self._write("seal", 0, found)
        os.fsync(self._file)

    def _write(self, key: str, start: int, values: NDArray[np.generic]) -> None:
        offset, dtype, items = self._place[key]
        data = np.ascontiguousarray(values, dtype=dtype).data.cast("B")
        position = offset + start * items * dtype.itemsize
        while data:
            try:
                written = os.pwrite(self._file, data, position)
            except OSError as error:
                raise BadInput(self._path, f"cannot be written ({error.strerror})") from None
            data, position = data[written:], position + written

    def close(self) -> None:
        os.close(self._file)


def train_statistics(path: Path) -> NDArray[np.float64]:
    """Mean and standard deviation of each band over the whole patches of the train split (bands, 2); NaN without any."""
    with h5py.File(path, "r") as file:
        layout_bands = file["moments"].shape[1]
        planes = json.loads(file.attrs["layout"])["planes"]
        pixels = np.concatenate([[p["side"] ** 2] * len(p["bands"]) for p in planes])
        chosen = np.flatnonzero((file["split"][...] == SPLITS.index("train")) & (file["state"][...] == WHOLE))
        total: list[list[float]] = [[0, 0] for _ in range(layout_bands)]
        for start in range(0, len(chosen), 4096):
            rows = chosen[start : start + 4096]
            part = file["moments"][rows[0] : rows[-1] + 1][rows - rows[0]]
            for b in range(layout_bands):
                for k in range(2):
                    # Integers have no limit: exact, so the order of patches cannot show. Radar's floats are summed in order.
                    exact = bool((part[:, b, k] % 1 == 0).all())
                    total[b][k] += sum(int(v) for v in part[:, b, k]) if exact else float(part[:, b, k].sum())
        if not len(chosen):
            return np.full((layout_bands, 2), np.nan)
        result = np.empty((layout_bands, 2))
        for b, (first, second) in enumerate(total):
            count = int(pixels[b]) * len(chosen)
            # With the division last, integers stay exact to here: subtracting squares of means would lose small deviations.
            result[b] = first / count, max((count * second - first * first) / count**2, 0.0) ** 0.5
        return result
