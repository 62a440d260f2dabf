"""Checksums of a store: of the pixels and labels of each patch, of everything else about it, and of whole columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from landscale.store.file import StoreFile
from landscale.store.layout import SHARES
from landscale.store.structure import DIGESTED, Structure

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


def seals(file: StoreFile, structure: Structure) -> NDArray[np.uint64]:
    """The values of the dataset `seal` (N + 1,), computed from the other datasets."""
    n, places = structure.patches, structure.places
    found = np.empty(n + 1, np.uint64)
    for start in range(0, n, _ROWS):
        columns = [file.rows(places[key], start, start + _ROWS) for key in SEALED]
        rows = np.concatenate([c.view(np.uint8).reshape(len(c), -1) for c in columns], axis=1)
        found[start : start + len(rows)] = [xxhash.xxh3_64_intdigest(row.data) for row in rows]
    found[n] = xxhash.xxh3_64_intdigest(file.rows(places["statistics"]).data)
    return found


def digests(file: StoreFile, structure: Structure, keys: Sequence[str] = DIGESTED) -> dict[str, int]:
    """The values of the dataset `digests`, computed from the datasets `keys` and, as `attributes`, from the attributes."""
    return {key: _digest(file.blocks(structure.places[key])) for key in keys} | {
        "attributes": structure.attributes.digest
    }


def stored_digests(file: StoreFile, structure: Structure) -> dict[str, int]:
    """The dataset `digests`, by key; empty for a store of a format without it."""
    place = structure.places.get("digests")
    return dict(zip((*DIGESTED, "attributes"), file.rows(place).tolist(), strict=True)) if place else {}


def _digest(blocks: Iterable[NDArray[np.uint8]]) -> int:
    total = xxhash.xxh3_64()
    for block in blocks:
        total.update(block.data)
    return total.intdigest()
