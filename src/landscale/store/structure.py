"""Which datasets a store has, and where they lie in its file.

A store may come from anywhere, and HDF5 follows what a file contains: pointers of values of variable length, links, and datasets
whose values lie in other files. So the kind, shape and place of every dataset are compared with what a store has, from HDF5's
headers, before any value is read. Values are then read from plain ranges of bytes, without HDF5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from landscale.errors import BadStore, reason
from landscale.store.attributes import Attributes, NotAStoreError, names_in, read_attributes
from landscale.store.layout import SHARES, SPLITS, STATES, Layout

TEXT = {"tile": 8, "crs": 16, "date": 20, "country": 40}  # columns of text, and their length in a new store
DIGESTED = (
    *("classes", "name", "split", "state", *TEXT, "origin", "snow", "cloud", *SHARES),
    *("statistics", "moments", "checksum", "seal"),
)  # in this order in the dataset `digests`, before the attributes
_MAX_TEXT = 4096  # bytes of a value of a column of text
_MAX_PATCHES, _MAX_LABELS = 10**8, 1 << 31  # BigEarthNet has 590,326 patches; labels are read into memory, a byte each


@dataclass(frozen=True)
class Place:
    """A dataset as a range of bytes of the file, from `offset` on."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row: of one patch, in most datasets."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Structure:
    """The attributes of a store and the places of its datasets."""

    attributes: Attributes
    places: dict[str, Place]

    @property
    def patches(self) -> int:
        return self.places["state"].shape[0]


def dataset_shapes(layout: Layout, patches: int, name_bytes: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of every dataset, in the order in which they are placed in the file.

    Args:
        layout: planes and classes. patches: their number. name_bytes: length of the column `name`.
    """
    n, bands = patches, len(layout.bands)
    return {
        **{plane.key: ((n, *plane.shape), plane.dtype) for plane in layout.planes},
        "classes": ((n, len(layout.classes)), np.uint8),
        "name": ((n,), f"S{name_bytes}"),
        "split": ((n,), h5py.enum_dtype({s: k for k, s in enumerate(SPLITS)}, basetype="u1")),
        **{key: ((n,), f"S{length}") for key, length in TEXT.items()},
        "origin": ((n, 2), np.float64),
        "snow": ((n,), np.uint8),
        "cloud": ((n,), np.uint8),
        **dict.fromkeys(SHARES, ((n,), np.float32)),
        "moments": ((n, bands, 2), np.float64),
        "checksum": ((n,), np.uint64),
        "seal": ((n + 1,), np.uint64),
        "statistics": ((bands, 2), np.float64),
        "digests": ((len(DIGESTED) + 1,), np.uint64),
        "state": ((n,), h5py.enum_dtype({s: k for k, s in enumerate(STATES)}, basetype="u1")),
    }


def read_structure(path: Path) -> Structure:
    """Check the headers of a store.

    Raises:
        BadStore: it is no HDF5 file, or differs from a store in its attributes or in a dataset.
    """
    with _as_bad_store(path), h5py.File(path, "r", locking=False) as file:
        attributes = read_attributes(file)
        size = path.stat().st_size
        state = _open(file, "state")
        patches = state.shape[0] if state.rank == 1 else -1
        if not 0 <= patches <= _MAX_PATCHES:
            raise ValueError(f"state has the shape {state.shape}, expected (N,) of at most {_MAX_PATCHES:,} patches")
        if patches * len(attributes.layout.classes) > _MAX_LABELS:
            raise ValueError(f"{patches:,} patches of {len(attributes.layout.classes):,} classes, too many labels")
        expected = dataset_shapes(attributes.layout, patches, 1)
        if attributes.format < 4:
            del expected["digests"]
        places = {key: _place(_open(file, key), key, *of, size) for key, of in expected.items()}
        for plane in attributes.layout.planes:
            if names_in(_open(file, plane.key), "bands") != plane.bands:
                raise ValueError(f"the attribute bands of {plane.key} differs from the bands in layout")
        return Structure(attributes, places)


def _open(file: h5py.File, key: str) -> h5py.h5d.DatasetID:
    if key.encode() not in file.id:
        raise ValueError(f"it has no dataset {key}")
    if file.id.links.get_info(key.encode()).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{key} is a link to another place")
    return h5py.h5d.open(file.id, key.encode())


def _place(dataset: h5py.h5d.DatasetID, key: str, shape: tuple[int, ...], dtype: Any, size: int) -> Place:
    """Where a dataset lies, once it is what a store has under this key.

    Args:
        shape, dtype: as expected; of text, the length may be another one. size: bytes of the file.
    """
    kind, expected = dataset.get_type(), np.dtype(dtype)
    if expected.kind == "S":
        expected = np.dtype(f"S{min(max(kind.get_size(), 1), _MAX_TEXT)}")
    if kind != h5py.h5t.py_create(expected, logical=True):
        raise TypeError(f"{key} has another type than in a store")
    if dataset.shape != shape:
        raise ValueError(f"{key} has the shape {dataset.shape}, expected {shape}")
    creation = dataset.get_create_plist()
    if creation.get_layout() != h5py.h5d.CONTIGUOUS or creation.get_nfilters() or creation.get_external_count():
        raise ValueError(f"{key} is compressed, in pieces or in another file, expected one range of bytes of this file")
    offset = dataset.get_offset() if math.prod(shape) else 0
    place = Place(-1 if offset is None else offset, shape, expected)
    if not 0 <= place.offset <= size - place.nbytes:
        raise ValueError(f"{key} extends beyond the end of the file")
    return place


@contextmanager
def _as_bad_store(path: Path) -> Iterator[None]:
    """Raise any error of HDF5, or in what the file contains, as BadStore."""
    try:
        yield
    except NotAStoreError as error:
        raise BadStore(path, str(error)) from None
    except KeyError as error:  # its text would be in quotation marks
        raise BadStore(path, f"is not a complete HDF5 patch store ({error.args[0]})") from None
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError, MemoryError) as error:
        raise BadStore(path, f"is not a complete HDF5 patch store ({reason(error)})") from None
