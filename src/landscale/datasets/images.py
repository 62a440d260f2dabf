"""One image of a folder or zip, whatever its format: GeoTIFF by rasterio, PNG and JPEG by pillow."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landscale.datasets.survey import Found
from landscale.errors import BadInput, reason
from landscale.formats.geotiff import Place, read_bands
from landscale.formats.zip_or_folder import content
from landscale.vocabulary.bands import ALIASES, band_set

TIFF = frozenset({".tif", ".tiff"})
SUFFIXES = TIFF | {".png", ".jpg", ".jpeg"}
_MODES = {"L": (1, "uint8"), "RGB": (3, "uint8"), "I;16": (1, "uint16")}  # pillow's, of pictures


@dataclass(frozen=True)
class Header:
    """What an image says before its pixels are read. `names`: its bands' descriptions, empty where it has none. `gsd`:
    metres a pixel, None where the file does not have it.
    """

    shape: tuple[int, int, int]  # bands, height, width
    dtype: str
    names: tuple[str, ...] = ()
    gsd: float | None = None


@dataclass(frozen=True)
class ImageReader:
    """Reads an image into the plane called `key`."""

    key: str

    def __call__(
        self,
        where: str,
        planes: Mapping[str, NDArray[np.generic]],
        classes: NDArray[np.uint8],  # noqa: ARG002  the survey knows them
    ) -> Found:
        return Found(read_image(where, planes[self.key]))


def read_image(where: str, out: NDArray[np.generic]) -> Place:
    """Decode an image into `out` (bands, height, width).

    Raises:
        BadInput: missing, damaged, of another shape or dtype than `out`, or with pixels that are not finite.
    """
    data = content(where)
    return _decode(where, data, out)


def read_array(where: str) -> tuple[NDArray[np.generic], Place]:
    """An image of any shape and dtype, as (bands, height, width)."""
    data = content(where)
    header = _header(where, data)
    out = np.empty(header.shape, header.dtype)
    return out, _decode(where, data, out)


def read_header(where: str) -> Header:
    """Shape, dtype and the bands' names of an image.

    Raises:
        BadInput: missing, damaged, or a picture of a mode that is no band of numbers, such as a palette.
    """
    return _header(where, content(where))


def name_bands(where: str | Path, count: int, described: Sequence[str], wanted: str | None) -> tuple[str, ...]:
    """The bands of an image: those `wanted`; else as it describes them; else red, green and blue if there are three.

    Raises:
        BadInput: another number than the image has, or none of the three.
    """
    if wanted is not None:
        names = band_set(wanted).names
        if len(names) != count:
            raise BadInput(where, f"has {count} bands, --bands names {len(names)}: {','.join(names)}")
        return names
    known = [ALIASES[name.strip().upper()] for name in described if name.strip().upper() in ALIASES]
    if len(known) == len({*known}) == count:
        return tuple(known)
    if count == 3:
        return band_set("rgb").names
    raise BadInput(where, f"has {count} bands and does not say which; name them in its order: --bands B02,B03,…")


def _header(where: str, data: bytes) -> Header:
    if not data:
        raise BadInput(where, "is empty")
    if PurePosixPath(where).suffix.lower() not in TIFF:
        mode, (width, height) = _picture(where, data)[:2]
        if mode not in _MODES:
            raise BadInput(where, f"is a picture of mode {mode}, expected {', '.join(_MODES)}")
        bands, dtype = _MODES[mode]
        return Header((bands, height, width), dtype)
    import rasterio  # a second to import, and pictures never need it

    try:
        with warnings.catch_warnings(action="ignore", category=rasterio.errors.NotGeoreferencedWarning):
            image = rasterio.open(io.BytesIO(data), driver="GTiff")
        with image:
            names = tuple(name or "" for name in image.descriptions)
            dtypes = " and ".join(sorted({*image.dtypes}))
            return Header((image.count, image.height, image.width), dtypes, names, _gsd(image))
    except rasterio.errors.RasterioError as error:
        raise BadInput(where, f"cannot be decoded ({reason(error.__cause__ or error)})") from None


def _gsd(image: Any) -> float | None:
    """Metres a pixel of an open raster; None where its CRS is not projected."""
    with suppress(ValueError):  # a damaged CRS
        if image.crs and image.crs.is_projected:
            gsd = round(abs(image.transform.a) * image.crs.linear_units_factor[1], 6)
            return gsd if 0 < gsd < 1e6 else None
    return None


def _decode(where: str, data: bytes, out: NDArray[np.generic]) -> Place:
    if PurePosixPath(where).suffix.lower() in TIFF:
        place = read_bands(where, data, out)
        if out.dtype.kind == "f" and not np.isfinite(out).all():
            raise BadInput(where, "holds pixels that are not a number, or infinite")
        return place
    bands, height, width = out.shape
    expected = next((m for m, kind in _MODES.items() if kind == (bands, out.dtype.name)), f"{bands}-band {out.dtype}")
    mode, size, pixels = _picture(where, data)
    if (mode, size) != (expected, (width, height)):
        raise BadInput(where, f"is {size[0]}×{size[1]} {mode}, expected {width}×{height} {expected}")
    out[...] = pixels.reshape(height, width, bands).transpose(2, 0, 1)
    return Place()


def _picture(where: str, data: bytes) -> tuple[str, tuple[int, int], NDArray[np.generic]]:
    """Mode, width and height, and pixels of a PNG or JPEG."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.mode, image.size, np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise BadInput(where, f"cannot be decoded ({reason(error)})") from None
