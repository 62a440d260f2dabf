"""Small GeoTIFFs read at the speed of the file system.

BigEarthNet is twelve single-band, uncompressed GeoTIFFs a patch, whose headers are equal but for the tie point. So the
header of the last such file is a template: one `preadv` brings the header and the pixels, straight into their place, and
comparing the header with the template replaces parsing it. Whatever does not match goes the long way: it is parsed and,
if it is plain, becomes a template; if not (compressed, tiled, several bands), rasterio reads it.
TIFF 6.0 (Adobe 1992), OGC GeoTIFF 1.1 (19-008r4).
"""

from __future__ import annotations

import os
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput, reason

_TYPE_SIZE = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 11: 4, 12: 8}
_TYPE_CODE = {1: "B", 2: "B", 3: "H", 4: "I", 12: "d"}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIP_OFFSETS, _SAMPLES, _STRIP_BYTES = 256, 257, 258, 259, 273, 277, 279
_PREDICTOR, _SAMPLE_FORMAT, _SCALE, _TIE, _KEYS = 317, 339, 33550, 33922, 34735
_DTYPES = {(8, 1): "uint8", (16, 1): "uint16", (32, 3): "float32"}


@dataclass(frozen=True)
class Place:
    """Where pixels lie: CRS as `EPSG:n` (empty where unknown), and the x, y of the outer upper left corner in its units."""

    crs: str = ""
    x: float = float("nan")
    y: float = float("nan")


@dataclass(frozen=True)
class _Template:
    """A plain file's header before and after its tie point, and what it says."""

    before: bytes
    tie: int  # where the tie point's x begins; 16 bytes: x, y
    after: bytes
    pixels: int  # where the pixels begin
    size: int
    shape: tuple[int, int]
    dtype: str
    crs: str


_templates: dict[int, _Template] = {}  # by the bytes of pixels they announce


def read_band(path: str, out: NDArray[np.generic]) -> Place:
    """Read a single-band raster into `out` (side, side), a C-contiguous view of the wanted dtype.

    Raises:
        BadInput: missing, damaged, or of another shape or dtype than `out`.
    """
    template = _templates.get(out.nbytes)
    if template is not None and out.shape == template.shape and out.dtype == template.dtype:
        header = bytearray(template.pixels)
        try:
            handle = os.open(path, os.O_RDONLY)
            try:  # the last byte tells a file that is too long
                length = os.preadv(handle, [header, out.data, bytearray(1)], 0)
            finally:
                os.close(handle)
        except OSError as error:
            raise BadInput(path, f"cannot be read ({error.strerror})") from None
        tie = template.tie
        if length == template.size and header[:tie] == template.before and header[tie + 16 :] == template.after:
            x, y = struct.unpack_from("<2d", header, tie)
            return Place(template.crs, x, y)
    return _read_unknown(path, out)


def _read_unknown(path: str, out: NDArray[np.generic]) -> Place:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BadInput(path, f"cannot be read ({error.strerror})") from None
    if not data:
        raise BadInput(path, "is empty")
    template = _parse(path, data)
    if template is None:
        return _read_by_rasterio(path, out)
    if template.shape != out.shape or template.dtype != out.dtype.name:
        raise BadInput(path, _mismatch(template.shape, template.dtype, out))
    if len(data) != template.size:
        raise BadInput(path, f"has {len(data)} bytes, its header announces {template.size}")
    _templates[out.nbytes] = template
    out[...] = np.frombuffer(data, template.dtype, offset=template.pixels).reshape(template.shape)
    x, y = struct.unpack_from("<2d", data, template.tie)
    return Place(template.crs, x, y)


def _mismatch(shape: tuple[int, ...], dtype: str, out: NDArray[np.generic]) -> str:
    return f"is {shape[1]}×{shape[0]} {dtype}, expected {out.shape[1]}×{out.shape[0]} {out.dtype.name}"


def _parse(path: str, data: bytes) -> _Template | None:
    """The template of a plain file; None for a TIFF of any other kind."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        raise BadInput(path, "is not a TIFF file")
    if data[:4] != b"II*\0":
        return None
    try:
        entries, more = _entries(data)
        tags = _tags(data, entries)
        bits, kind = int(tags[_BITS][0]), int(tags.get(_SAMPLE_FORMAT, (1,))[0])
        shape = (int(tags[_HEIGHT][0]), int(tags[_WIDTH][0]))
        offsets, lengths = tags[_STRIP_OFFSETS], tags[_STRIP_BYTES]
        plain = (
            tags.get(_COMPRESSION, (1,))[0] == 1
            and tags.get(_SAMPLES, (1,))[0] == 1
            and tags.get(_PREDICTOR, (1,))[0] == 1
            and (bits, kind) in _DTYPES
            and all(a + n == b for a, n, b in zip(offsets, lengths, offsets[1:], strict=False))
            and sum(lengths) == shape[0] * shape[1] * bits // 8
            and tags[_TIE][:3] == (0.0, 0.0, 0.0)
            and tags[_SCALE][0] > 0
            and _geokeys(tags).get(1025, 1) == 1  # else the tie point is the centre of a pixel
        )
        pixels = int(offsets[0])
        # Every tag's value must stand before the pixels to be part of the template.
        if not plain or more or any(entry.end > pixels for entry in entries.values()):
            return None
        tie = entries[_TIE].place + 24
        return _Template(
            before=data[:tie],
            tie=tie,
            after=data[tie + 16 : pixels],
            pixels=pixels,
            size=pixels + int(sum(lengths)),
            shape=shape,
            dtype=_DTYPES[bits, kind],
            crs=_crs(_geokeys(tags)),
        )
    except (KeyError, IndexError):
        return None
    except struct.error:
        raise BadInput(path, "is a TIFF whose header is cut off or damaged") from None


@dataclass(frozen=True)
class _Entry:
    """One tag of a directory: type and number of its values, where they begin and end."""

    kind: int
    number: int
    place: int
    end: int


def _entries(data: bytes) -> tuple[dict[int, _Entry], bool]:
    """The first directory by tag, and whether another one follows."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = {}
    for k in range(count):
        at = start + 2 + 12 * k
        tag, kind, number = struct.unpack_from("<HHI", data, at)
        size = _TYPE_SIZE.get(kind, 9) * number
        place = at + 8 if size <= 4 else struct.unpack_from("<I", data, at + 8)[0]
        entries[tag] = _Entry(kind, number, place, place + size)
    return entries, struct.unpack_from("<I", data, start + 2 + 12 * count) != (0,)


def _tags(data: bytes, entries: dict[int, _Entry]) -> dict[int, tuple[float, ...]]:
    return {
        tag: struct.unpack_from(f"<{e.number}{_TYPE_CODE[e.kind]}", data, e.place)
        for tag, e in entries.items()
        if e.kind in _TYPE_CODE and e.number < len(data)
    }


def _geokeys(tags: dict[int, tuple[float, ...]]) -> dict[int, int]:
    """The GeoKeyDirectory: key and value, or where the value stands."""
    words = tags.get(_KEYS, ())
    return {int(words[k]): int(words[k + 3]) for k in range(4, len(words) - 3, 4)}


def _crs(keys: dict[int, int]) -> str:
    """EPSG code of the projected (3072) or geographic (2048) system."""
    code = keys.get(3072, keys.get(2048, 0))
    return f"EPSG:{code}" if 0 < code < 32767 else ""


def _read_by_rasterio(path: str, out: NDArray[np.generic]) -> Place:
    import rasterio  # a second to import, and plain archives never need it

    try:
        with warnings.catch_warnings(action="ignore", category=rasterio.errors.NotGeoreferencedWarning):
            file = rasterio.open(path, driver="GTiff")
        with file:
            shape = (int(file.height), int(file.width))
            if file.count != 1:
                raise BadInput(path, f"has {file.count} bands, expected 1")
            if shape != out.shape or file.dtypes[0] != out.dtype.name:
                raise BadInput(path, _mismatch(shape, file.dtypes[0], out))
            file.read([1], out=out[np.newaxis])  # a view of its own: rasterio leaves another shape behind when it fails
            crs = f"EPSG:{file.crs.to_epsg()}" if file.crs and file.crs.to_epsg() else ""
            return Place(crs, file.transform.c, file.transform.f)
    except rasterio.errors.RasterioError as error:
        raise BadInput(path, f"cannot be decoded ({reason(error.__cause__ or error)})") from None
