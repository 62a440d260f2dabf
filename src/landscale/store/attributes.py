"""The attributes of a store's file, which are not trusted: read with their kinds and sizes checked, then their content."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import h5py
import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from landscale.store.layout import READABLE, Layout

_MAX_BYTES = 1 << 26  # of one attribute; the longest are the provenance of many tiles


class NotAStoreError(ValueError):
    """An HDF5 file that is not a store, or one of another format; the message completes a sentence about the file."""


class _KnownProvenance(TypedDict, total=False):
    """The fields of `provenance` that are used; a store may have others."""

    source: str
    version: str
    synthetic: bool


@dataclass(frozen=True)
class Attributes:
    """The attributes of a store. digest: xxh3-64 of all of them, as they are in the file."""

    format: int
    layout: Layout
    plan: str
    provenance: dict[str, Any]
    digest: int


def read_attributes(file: h5py.File) -> Attributes:
    """The attributes of an open HDF5 file.

    Raises:
        NotAStoreError: it has no layout, or another format. KeyError, ValueError: an attribute is missing, of another kind, or
        out of range.
    """
    if "layout" not in file.attrs:
        raise NotAStoreError("is an HDF5 file but not a patch store: it has no attribute layout")
    number = int(_attribute(file.id, "format", np.dtype(np.int64))[()])
    if number not in READABLE:
        raise NotAStoreError(
            f"has format {number}, this program reads {READABLE[0]} to {READABLE[-1]}; prepare it again"
        )
    texts = {key: _text(file, key) for key in ("layout", "plan", "provenance")}
    layout = Layout.from_json(_json_object("layout", texts["layout"]))
    provenance = _json_object("provenance", texts["provenance"] or "{}")
    try:
        msgspec.convert(provenance, _KnownProvenance)
    except msgspec.ValidationError as error:
        raise ValueError(f"attribute provenance: {str(error).replace('`', '')}") from None
    if names_in(file.id, "classes") != layout.classes:
        raise ValueError("the attribute classes differs from the classes in layout")
    return Attributes(number, layout, texts["plan"], provenance, _digest(number, texts))


def _digest(number: int, texts: Mapping[str, str]) -> int:
    """Of the format and the texts; `classes` and `bands` are in `layout` as well, and equal to it."""
    return xxhash.xxh3_64_intdigest("\0".join([str(number), *texts.values()]).encode())


def _json_object(key: str, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError(f"the attribute {key} is nested too deeply") from None
    if not isinstance(content, dict):
        raise TypeError(f"the attribute {key} is not a JSON object")
    return content


def _text(file: h5py.File, key: str) -> str:
    return bytes(_attribute(file.id, key)[()]).decode()


def names_in(of: h5py.h5g.GroupID | h5py.h5d.DatasetID, key: str) -> tuple[str, ...]:
    """The texts of an attribute that is a list of text.

    Raises:
        KeyError, TypeError, ValueError: the attribute is missing, or of another kind.
    """
    return tuple(text.decode() for text in _attribute(of, key, dimensions=1).tolist())


def _attribute(
    of: h5py.h5g.GroupID | h5py.h5d.DatasetID,
    key: str,
    expected: np.dtype[Any] | None = None,
    *,
    dimensions: int = 0,
) -> NDArray[Any]:
    """The value of an attribute, which has the dtype `expected` or is text of fixed length.

    The kind is checked before the value is read: HDF5 would follow references to other places for text of variable length.
    """
    attribute = h5py.h5a.open(of, key.encode())
    kind = attribute.get_type()
    if expected is None:
        expected = np.dtype(f"S{max(kind.get_size(), 1)}")
    if (
        kind != h5py.h5t.py_create(expected, logical=True)
        or attribute.get_space().get_simple_extent_ndims() != dimensions
    ):
        raise TypeError(f"the attribute {key} is of another kind than in a store")
    shape = attribute.shape
    if expected.itemsize * math.prod(shape) > _MAX_BYTES:
        raise ValueError(f"the attribute {key} is longer than {_MAX_BYTES:,} bytes")
    value = np.zeros(shape, expected)
    attribute.read(value)
    return value
