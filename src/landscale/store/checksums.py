"""Checksums of a store: of the pixels and labels of each patch, and of everything else about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from landscale.store.layout import SHARES

SEALED = (
    "name",
    "split",
    "state",
    "tile",
    "crs",
    "origin",
    "date",
    "country",
    "snow",
    "cloud",
    *SHARES,
    "moments",
    "checksum",
)
_ROWS = 4096  # read at once


def checksum(planes: list[NDArray[np.generic]], classes: NDArray[np.uint8]) -> int:
    """xxh3-64 of the bytes of one patch: its planes (bands, side, side) in the layout's order, then its classes (C,)."""
    digest = xxhash.xxh3_64()
    for plane in planes:
        digest.update(plane.data)
    digest.update(classes.data)
    return digest.intdigest()


def seals(file: Mapping[str, Any]) -> NDArray[np.uint64]:
    """The values of the dataset `seal` (N + 1,), computed from the other columns of an open HDF5 store."""
    n = len(file["state"])
    found = np.empty(n + 1, np.uint64)
    for start in range(0, n, _ROWS):
        columns = [np.ascontiguousarray(file[key][start : start + _ROWS]) for key in SEALED]
        rows = np.concatenate([c.view(np.uint8).reshape(len(c), -1) for c in columns], axis=1)
        found[start : start + len(rows)] = [xxhash.xxh3_64_intdigest(row.data) for row in rows]
    found[n] = xxhash.xxh3_64_intdigest(np.ascontiguousarray(file["statistics"][...]).data)
    return found
