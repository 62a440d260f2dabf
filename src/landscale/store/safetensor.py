"""Copy patches that are stored as safetensors, one tensor per band, into planes.

Format (https://github.com/huggingface/safetensors): the length of the header (8 bytes, little-endian); the header, JSON with the
dtype, shape, begin and end of each tensor by name; the data. The tensors fill the data without gaps or overlaps.

Patches of one data set have equal headers, so a header that was parsed once is recognised by its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from landscale.store.layout import Plane

_DTYPES = {"uint16": "U16", "float32": "F32"}
_MAX_HEADER = 1 << 20  # bytes; that of a patch has about 1,000
_CACHED_HEADERS = 64  # data sets written by one program have a few different headers


class _Piece(NamedTuple):
    """Bytes [begin, end) of a value, and their offset `target` in the patch's plane, which has `patch` bytes."""

    plane: str
    begin: int
    end: int
    target: int
    patch: int


class SafetensorsDecoder:
    """Copies values into planes and checks the header and length of each value.

    Args:
        planes: the planes whose bands each value must hold; it may hold other bands as well.
    """

    def __init__(self, planes: Sequence[Plane]) -> None:
        self._planes = tuple(planes)
        self._known: dict[bytes, tuple[int, tuple[_Piece, ...]]] = {}

    def copy(self, value: memoryview, arrays: Mapping[str, memoryview], row: int) -> None:
        """Copy one value to a row of a batch.

        Args:
            value: the patch as safetensors.
            arrays: by key of a plane, the bytes of the batch's array; planes that are missing are not copied.
            row: the row of the batch.

        Raises:
            ValueError: the value is damaged; the message completes a sentence that names the value.
        """
        announced = int.from_bytes(value[:8], "little")
        if _MAX_HEADER < announced <= len(value):
            raise ValueError(f"has a header of {announced:,} bytes, expected at most {_MAX_HEADER:,}")
        header = value[: 8 + announced].tobytes()
        size, pieces = self._known.get(header) or self._parse_new(header, value)
        if len(value) != size:
            raise ValueError(f"has {len(value)} bytes, its header announces {size}")
        for key, begin, end, target, patch in pieces:
            if key in arrays:
                at = row * patch + target
                arrays[key][at : at + end - begin] = value[begin:end]

    def _parse_new(self, header: bytes, value: memoryview) -> tuple[int, tuple[_Piece, ...]]:
        tensors, size = _parse(header, len(value))
        pieces: list[_Piece] = []
        for plane in self._planes:
            band_bytes = plane.side**2 * np.dtype(plane.dtype).itemsize
            for k, band in enumerate(plane.bands):
                if band not in tensors:
                    raise ValueError(f"lacks {band}; it has {', '.join(tensors) or 'nothing'}")
                begin = _begin(band, tensors[band], plane, band_bytes)
                last = pieces[-1] if pieces else None
                if last and (last.plane, last.end) == (
                    plane.key,
                    begin,
                ):  # adjacent in the value and in the plane: one copy
                    pieces[-1] = last._replace(end=begin + band_bytes)
                else:
                    pieces.append(
                        _Piece(plane.key, begin, begin + band_bytes, k * band_bytes, len(plane.bands) * band_bytes)
                    )
        if len(self._known) == _CACHED_HEADERS:
            self._known.clear()
        self._known[header] = size, tuple(pieces)
        return self._known[header]


def _parse(header: bytes, size: int) -> tuple[dict[str, dict[str, Any]], int]:
    """The tensors of a header by name, with `data_offsets` counted from the start of the value, and the expected length."""
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
        raise ValueError("is not valid safetensors: its header is damaged") from None
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached or end < begin:
            raise ValueError("is not valid safetensors: tensors overlap or leave a gap, according to its header")
        reached = end
    return found, start + reached


def _begin(band: str, tensor: Mapping[str, Any], plane: Plane, band_bytes: int) -> int:
    """Offset of a band in a value, once its dtype, shape and length are those of its plane."""
    dtype, shape = _DTYPES[plane.dtype], [plane.side, plane.side]
    if (tensor.get("dtype"), tensor.get("shape")) != (dtype, shape):
        raise ValueError(f"has {band} of {tensor.get('dtype')} {tensor.get('shape')}, expected {dtype} {shape}")
    begin, end = tensor["data_offsets"]
    if end - begin != band_bytes:
        raise ValueError(f"has {band} in {end - begin} bytes, expected {band_bytes}")
    return int(begin)
