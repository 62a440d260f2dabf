"""One patch as safetensors, a tensor a band: where its bands lie among the bytes, and how they get to their planes.

safetensors, https://github.com/huggingface/safetensors: the length of a header (8 bytes, little-endian), the header (JSON: by
name a dtype, a shape, and begin and end among the data), the data. The data of all tensors fill the rest without gap or overlap.

Patches share their headers, so one that was seen before need not be parsed again: its length and bytes tell all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from landscale.store.layout import Plane

_DTYPES = {"uint16": "U16", "float32": "F32"}
_HEADERS = 64  # remembered; a dataset that one program wrote has a few


class _Piece(NamedTuple):
    """Bytes [begin, end) of a value, and where they go in a patch's plane, which has `patch` bytes."""

    plane: str
    begin: int
    end: int
    there: int
    patch: int


class SafetensorsDecoder:
    """Copies values into planes, checking each one's header and length.

    Args:
        planes: all bands that a value must hold; it may hold others.
    """

    def __init__(self, planes: Sequence[Plane]) -> None:
        self._planes = tuple(planes)
        self._known: dict[bytes, tuple[int, tuple[_Piece, ...]]] = {}

    def copy(self, value: memoryview, into: Mapping[str, memoryview], row: int) -> None:
        """Copy the planes that `into` has, by key as bytes of a batch, to its `row`.

        Raises:
            ValueError: what is wrong with the value.
        """
        header = value[: 8 + int.from_bytes(value[:8], "little")].tobytes()
        size, pieces = self._known.get(header) or self._learn(header, value)
        if len(value) != size:
            raise ValueError(f"has {len(value)} bytes, its header announces {size}")
        for key, begin, end, there, patch in pieces:
            if key in into:
                here = row * patch + there
                into[key][here : here + end - begin] = value[begin:end]

    def _learn(self, header: bytes, value: memoryview) -> tuple[int, tuple[_Piece, ...]]:
        tensors, size = _parse(header, len(value))
        pieces: list[_Piece] = []
        for plane in self._planes:
            each = plane.side**2 * np.dtype(plane.dtype).itemsize
            for k, band in enumerate(plane.bands):
                if band not in tensors:
                    raise ValueError(f"lacks {band}; it has {', '.join(tensors) or 'nothing'}")
                begin = _begin(band, tensors[band], plane, each)
                last = pieces[-1] if pieces else None
                if last and (last.plane, last.end) == (plane.key, begin):  # neighbours there and here: one copy
                    pieces[-1] = last._replace(end=begin + each)
                else:
                    pieces.append(_Piece(plane.key, begin, begin + each, k * each, len(plane.bands) * each))
        if len(self._known) == _HEADERS:
            self._known.clear()
        self._known[header] = size, tuple(pieces)
        return self._known[header]


def _parse(header: bytes, size: int) -> tuple[dict[str, dict[str, Any]], int]:
    """The tensors of a header by name, their `data_offsets` counted from the beginning of the value; and its whole length."""
    start = len(header)
    if size < 8 or start < 8 + int.from_bytes(header[:8], "little"):
        raise ValueError(f"has {size} bytes, too few for a header of safetensors")
    try:
        tensors = json.loads(header[8:].decode("utf-8"))
        tensors.pop("__metadata__", None)
        found = {name: dict(tensor) for name, tensor in tensors.items()}
        spans = []
        for tensor in found.values():
            begin, end = tensor["data_offsets"]
            if type(begin) is not int or type(end) is not int:
                raise TypeError
            spans.append((begin, end))
            tensor["data_offsets"] = start + begin, start + end
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("is no safetensors: its header is damaged") from None
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached or end < begin:
            raise ValueError("is no safetensors: by its header, tensors overlap or leave a gap")
        reached = end
    return found, start + reached


def _begin(band: str, tensor: Mapping[str, Any], plane: Plane, each: int) -> int:
    """Where a band begins among the bytes of a value, seen to be what its plane holds."""
    dtype, shape = _DTYPES[plane.dtype], [plane.side, plane.side]
    if (tensor.get("dtype"), tensor.get("shape")) != (dtype, shape):
        raise ValueError(f"has {band} of {tensor.get('dtype')} {tensor.get('shape')}, expected {dtype} {shape}")
    begin, end = tensor["data_offsets"]
    if end - begin != each:
        raise ValueError(f"has {band} in {end - begin} bytes, expected {each}")
    return int(begin)
