"""Read small GeoTIFFs at the speed of the file system.

A patch of BigEarthNet is twelve single-band, uncompressed GeoTIFFs whose headers differ only in the tie point. So the header of
the last such file is kept as a template: one system call reads the header, and the pixels directly into the output array, and
comparing the header with the template replaces parsing it. A file that does not match is parsed. If it is plain, its header
becomes the template; if it is compressed, tiled or has several bands, rasterio decodes it. Before that its header is checked
for consistency, because GDAL decodes without an error a file whose strips overlap the header after a flipped bit.
TIFF 6.0 (Adobe 1992), OGC GeoTIFF 1.1 (19-008r4).
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput, reason
from landscale.formats.content import read_content, wrong_format
from landscale.runtime.portability import read_into

_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)  # opening a pipe would otherwise wait for a process that writes
_TYPE_SIZE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TYPE_CODE = {1: "B", 2: "B", 3: "H", 4: "I", 12: "d"}
_INTEGERS = (3, 4)
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIP_OFFSETS, _SAMPLES, _STRIP_BYTES = 256, 257, 258, 259, 273, 277, 279
_PREDICTOR, _TILE_OFFSETS, _TILE_BYTES, _SAMPLE_FORMAT = 317, 324, 325, 339
_ROWS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT = 278, 284, 322, 323
_SCALE, _TIE, _KEYS = 33550, 33922, 34735
_COLOURS, _ORIENTATION = 262, 274
_REFUSED_COLOURS = {0: "stores white as 0", 3: "has a palette", 4: "is a mask", 5: "is in CMYK", 8: "is in CIELab"}
_YCBCR, _JPEG = 6, (6, 7)  # GDAL converts YCbCr to RGB if it is compressed as JPEG
_DTYPES = {(8, 1): "uint8", (16, 1): "uint16", (32, 3): "float32"}


class Place(NamedTuple):
    """Location of a raster: CRS as `EPSG:n` (empty if unknown), and x, y of the outer upper left corner in its units."""

    crs: str = ""
    x: float = float("nan")
    y: float = float("nan")


@dataclass
class _Template:
    """The header of a plain file before and after its tie point, and its content."""

    before: bytes
    tie: int  # offset of the x of the tie point; x and y take 16 bytes
    after: bytes
    pixels: int  # offset of the pixels
    size: int
    shape: tuple[int, int]
    dtype: np.dtype[np.generic]
    crs: str
    last: tuple[bytes | bytearray, Place | None] = b"", None  # all bands of a patch have the same header

    def place(self, header: bytes | bytearray) -> Place | None:
        """The location in a header that equals this one except for the tie point; else None."""
        if header == self.last[0]:
            return self.last[1]
        if not (header.startswith(self.before) and header.endswith(self.after)):
            return None
        x, y = struct.unpack_from("<2d", header, self.tie)
        place = Place(self.crs, x, y)
        self.last = header, place
        return place


_templates: dict[tuple[tuple[int, ...], np.dtype[np.generic]], _Template] = {}  # by shape and dtype of the pixels


def read_band(path: str | Path, out: NDArray[np.generic]) -> Place:
    """Read a single-band raster into `out` (side, side), which is C-contiguous.

    Raises:
        BadInput: the file is missing or damaged, or has another shape or dtype than `out`.
    """
    path = str(path)
    template = _templates.get((out.shape, out.dtype))
    if template is not None:
        header = bytearray(template.pixels)
        try:
            handle = os.open(path, _READ)
            try:  # one byte more, to detect a file that is too long
                length = read_into(handle, [header, out.data, bytearray(1)], 0)
            finally:
                os.close(handle)
        except OSError:
            length = -1  # `read_content` reports the reason
        if length == template.size and (place := template.place(header)) is not None:
            return place
    return _decode_unknown(path, read_content(path), out)


def decode_band(path: str, data: memoryview, out: NDArray[np.generic]) -> Place:
    """As `read_band`, for a member of an archive.

    Args:
        path: name for error messages.
        data: content of the file.
        out: (side, side), C-contiguous.

    Raises:
        BadInput: the file is damaged, or has another shape or dtype than `out`.
    """
    template = _templates.get((out.shape, out.dtype))
    if template is not None and len(data) == template.size:
        place = template.place(bytes(data[: template.pixels]))
        if place is not None:
            out.data.cast("B")[:] = data[template.pixels :]
            return place
    return _decode_unknown(path, bytes(data), out)


def _decode_unknown(path: str, data: bytes, out: NDArray[np.generic]) -> Place:
    header = _parse(path, data, exact=True)
    template = None if header is None else _template(header, data)
    if template is None:
        return _read_by_rasterio(path, io.BytesIO(data), out[np.newaxis])
    if template.shape != out.shape or template.dtype != out.dtype:
        raise BadInput(path, _mismatch((1, *template.shape), template.dtype.name, out[np.newaxis]))
    if len(data) != template.size:
        raise BadInput(path, f"has {len(data)} bytes, its header announces {template.size}")
    _templates[out.shape, out.dtype] = template
    out[...] = np.frombuffer(data, template.dtype, offset=template.pixels).reshape(template.shape)
    x, y = struct.unpack_from("<2d", data, template.tie)
    return Place(template.crs, x, y)


def read_bands(path: str, data: bytes, out: NDArray[np.generic]) -> Place:
    """Decode the content of a file into `out` (bands, height, width).

    Args:
        path: name for error messages.
        data: content of the file.
        out: array of the expected shape and dtype.

    Raises:
        BadInput: the file is damaged, or has another shape or dtype than `out`.
    """
    _parse(path, data, exact=False)
    return _read_by_rasterio(path, io.BytesIO(data), out)


def _read_by_rasterio(path: str, file: io.BytesIO, out: NDArray[np.generic]) -> Place:
    import rasterio  # takes a second to import, and plain files do not need it

    try:
        with warnings.catch_warnings(action="ignore", category=rasterio.errors.NotGeoreferencedWarning):
            image = rasterio.open(file, driver="GTiff")
        with image:
            shape, dtypes = (int(image.count), int(image.height), int(image.width)), set(image.dtypes)
            if shape != out.shape or dtypes != {out.dtype.name}:
                raise BadInput(path, _mismatch(shape, " and ".join(sorted(dtypes)), out))
            image.read(out=out)
            crs = f"EPSG:{image.crs.to_epsg()}" if image.crs and image.crs.to_epsg() else ""
            return Place(crs, image.transform.c, image.transform.f)
    except rasterio.errors.RasterioError as error:
        raise BadInput(path, f"cannot be decoded ({reason(error.__cause__ or error)})") from None


def _mismatch(shape: tuple[int, ...], dtype: str, out: NDArray[np.generic]) -> str:
    if shape[0] != out.shape[0]:
        return f"has {shape[0]} bands, expected {out.shape[0]}"
    return f"is {shape[2]}×{shape[1]} {dtype}, expected {out.shape[2]}×{out.shape[1]} {out.dtype.name}"


@dataclass(frozen=True)
class _Header:
    """The first directory of a TIFF: byte order; value, type and offset by tag; whether another directory follows."""

    order: str
    tags: dict[int, tuple[float, ...]]
    kinds: dict[int, int]
    places: dict[int, int]
    parts: list[tuple[int, int]]  # begin and end of everything except pixels
    more: bool


def _parse(path: str, data: bytes, *, exact: bool) -> _Header | None:
    """The header of a TIFF, checked for consistency; None for a BigTIFF, which rasterio decodes.

    `exact`: refuse an uncompressed file with more bytes than its first directory names. BigEarthNet's files have none, so they
    are damaged. Files of other programs may have more: UC Merced's end with the directory of an Exif block.

    Raises:
        BadInput: the file is not a TIFF, or is truncated or damaged.
    """
    if not data:
        raise BadInput(path, "is empty")
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        raise BadInput(path, wrong_format(data, "a TIFF file"))
    if data[2:3] == b"+" or data[3:4] == b"+":
        return None
    try:
        header = _directory(data, "<" if data[:2] == b"II" else ">")
    except struct.error:
        raise BadInput(path, "is a TIFF whose header is truncated or damaged") from None
    _check_colours(path, header.tags)
    _check_blocks(path, len(data), header, exact=exact)
    return header


def check_colours(path: str, data: bytes) -> None:
    """Refuse the content of a TIFF whose pixels are no values of bands, or are not stored row by row from the top left.

    Raises:
        BadInput: a palette, CMYK or other colours, pixels of 1 to 4 bits, another orientation; or damaged.
    """
    _parse(path, data, exact=False)


def _check_colours(path: str, tags: dict[int, tuple[float, ...]]) -> None:
    colours, bits, orientation = (int((tags.get(key) or (1,))[0]) for key in (_COLOURS, _BITS, _ORIENTATION))
    if bits < 8:
        raise BadInput(path, f"has {bits}-bit pixels, expected at least 8 bits")
    if colours == _YCBCR and (tags.get(_COMPRESSION) or (1,))[0] not in _JPEG:
        raise BadInput(path, "is in YCbCr, expected values of bands; convert it to RGB")
    if colours in _REFUSED_COLOURS:
        raise BadInput(path, f"{_REFUSED_COLOURS[colours]}, expected values of bands; convert it to grey or RGB")
    if orientation != 1:
        raise BadInput(path, f"is stored rotated or mirrored (orientation {orientation}), expected rows from the top")


def _directory(data: bytes, order: str) -> _Header:
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    end = start + 2 + 12 * count
    (following,) = struct.unpack_from(f"{order}I", data, end)
    header = _Header(order, {}, {}, {}, [(0, 8), (start, end + 4)], following != 0)
    if following:
        header.parts.append((following, following + 2))
    for at in range(start + 2, end, 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, at)
        size = _TYPE_SIZE.get(kind, 0) * number
        (place,) = (at + 8,) if size <= 4 else struct.unpack_from(f"{order}I", data, at + 8)
        header.kinds[tag], header.places[tag] = kind, place
        if size > 4:
            header.parts.append((place, place + size))
        if kind in _TYPE_CODE and number < len(data):
            header.tags[tag] = struct.unpack_from(f"{order}{number}{_TYPE_CODE[kind]}", data, place)
    return header


def _check_blocks(path: str, size: int, header: _Header, *, exact: bool) -> None:
    """Refuse a header whose pixels overlap the header or each other, or extend beyond the end of the file."""
    tiled = _TILE_OFFSETS in header.tags
    keys = (_TILE_OFFSETS, _TILE_BYTES) if tiled else (_STRIP_OFFSETS, _STRIP_BYTES)
    offsets, lengths = (header.tags.get(key, ()) for key in keys)
    integers = all(header.kinds.get(key) in _INTEGERS for key in keys)
    if not integers or not offsets or len(offsets) != len(lengths):
        raise BadInput(path, "is a TIFF whose header is damaged: it lacks the offsets of its pixels")
    plain = (header.tags.get(_COMPRESSION) or (1,))[0] == 1
    if not _fit(header.tags, offsets, lengths, tiled=tiled, plain=plain):
        raise BadInput(
            path,
            "is a TIFF whose header is damaged: its blocks have fewer or more pixels than width and height require",
        )
    # Blocks of zeros may be omitted, and equal blocks may be stored once.
    blocks = {(int(a), int(a + n)) for a, n in zip(offsets, lengths, strict=True)} - {(0, 0)}
    last = max(end for _, end in [*blocks, *header.parts])
    if last > size:
        raise BadInput(path, f"has {size} bytes, its header announces {last}")
    reached, reached_by_pixels = 0, False
    for begin, end, pixels in sorted([(*b, True) for b in blocks] + [(*p, False) for p in header.parts]):
        if begin < reached and (pixels or reached_by_pixels):
            raise BadInput(path, "is a TIFF whose header is damaged: its pixels overlap other data")
        if end > reached:
            reached, reached_by_pixels = end, pixels
    if exact and plain and not header.more and reached < size:
        raise BadInput(path, f"has {size} bytes, its header announces {reached}")


def _fit(
    tags: dict[int, tuple[float, ...]],
    offsets: tuple[float, ...],
    lengths: tuple[float, ...],
    *,
    tiled: bool,
    plain: bool,
) -> bool:
    """Whether the number of blocks fits width and height, and their size if they are uncompressed and not omitted.

    GDAL would fill missing pixels with zeros.
    """
    try:
        width, height, samples = (int((tags.get(key) or (1,))[0]) for key in (_WIDTH, _HEIGHT, _SAMPLES))
        planes, samples = (samples, 1) if (tags.get(_PLANAR) or (1,))[0] == 2 else (1, samples)
        wide, high = (int(tags[key][0]) for key in (_TILE_WIDTH, _TILE_HEIGHT)) if tiled else (width, height)
        if not tiled:
            high = min(int((tags.get(_ROWS) or (height,))[0]), height)
        row = -(-wide * samples * int(tags[_BITS][0]) // 8)
        across, down = -(-width // wide), -(-height // high)
    except (KeyError, IndexError, ZeroDivisionError):
        return False
    last = high if tiled else height - (down - 1) * high
    plane_lengths = [high * row] * (across * (down - 1)) + [last * row] * across
    if len(lengths) != planes * len(plane_lengths):
        return False
    expected = zip(offsets, lengths, plane_lengths * planes, strict=True)
    return not plain or all(length == whole or offset == length == 0 for offset, length, whole in expected)


def _template(header: _Header, data: bytes) -> _Template | None:
    """The template of a plain file; None for other files."""
    tags = header.tags
    try:
        bits, kind = int(tags[_BITS][0]), int(tags.get(_SAMPLE_FORMAT, (1,))[0])
        shape = (int(tags[_HEIGHT][0]), int(tags[_WIDTH][0]))
        offsets, lengths = tags[_STRIP_OFFSETS], tags[_STRIP_BYTES]
        pixels = int(offsets[0])
        plain = (
            header.order == "<"
            and not header.more
            and all(end <= pixels for _, end in header.parts)  # so that the template contains every value
            and tags.get(_COMPRESSION, (1,))[0] == 1
            and tags.get(_SAMPLES, (1,))[0] == 1
            and tags.get(_PREDICTOR, (1,))[0] == 1
            and (bits, kind) in _DTYPES
            and all(a + n == b for a, n, b in zip(offsets, lengths, offsets[1:], strict=False))
            and sum(lengths) == shape[0] * shape[1] * bits // 8
            and tags[_TIE][:3] == (0.0, 0.0, 0.0)
            and (len(tags[_TIE]), header.kinds[_TIE]) == (6, 12)
            and tags[_SCALE][0] > 0
            and _geokeys(tags).get(1025, 1) == 1  # otherwise the tie point is the centre of a pixel
        )
    except (KeyError, IndexError):
        return None
    if not plain:
        return None
    tie = header.places[_TIE] + 24
    return _Template(
        before=data[:tie],
        tie=tie,
        after=data[tie + 16 : pixels],
        pixels=pixels,
        size=pixels + int(sum(lengths)),
        shape=shape,
        dtype=np.dtype(_DTYPES[bits, kind]),
        crs=_crs(_geokeys(tags)),
    )


def _geokeys(tags: dict[int, tuple[float, ...]]) -> dict[int, int]:
    """The GeoKeyDirectory: by key the value, or the offset of the value."""
    words = tags.get(_KEYS, ())
    return {int(words[k]): int(words[k + 3]) for k in range(4, len(words) - 3, 4)}


def _crs(keys: dict[int, int]) -> str:
    """EPSG code of the projected (key 3072) or geographic (2048) coordinate system."""
    code = keys.get(3072, keys.get(2048, 0))
    return f"EPSG:{code}" if 0 < code < 32767 else ""
