"""Image files of a folder or a zip archive: GeoTIFF by rasterio, PNG and JPEG by pillow; also large rasters read by windows.

All data sets open their rasters and pictures here. The accepted formats are listed explicitly, so that a file whose content is
of another format than its suffix (for example a VRT, which refers to other files) is refused.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from landscale.datasets.survey import PatchDetails
from landscale.errors import BadInput, reason
from landscale.formats.content import MAX_FILE, wrong_format
from landscale.formats.geotiff import Place, check_colours, read_bands
from landscale.formats.rasters import open_raster_file, raster_driver
from landscale.formats.zip_or_folder import read_member
from landscale.vocabulary.bands import ALIASES, band_set

TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
IMAGE_SUFFIXES = TIFF_SUFFIXES | {".png", ".jpg", ".jpeg"}
PICTURE_FORMATS = ("PNG", "JPEG")  # names of pillow
_PICTURE_MODES = {"L": (1, "uint8"), "RGB": (3, "uint8"), "I;16": (1, "uint16")}  # bands and dtype by pillow's mode
_REFUSED_MODES = {
    "1": "has 1 bit a pixel",
    "P": "has a palette",
    "PA": "has a palette",
    "LA": "has an alpha channel",
    "RGBA": "has an alpha channel",
    "CMYK": "is in CMYK",
}
MAX_SIDE = 8192  # px of a picture or patch: 80 km at 10 m
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_EXIF = {"exif", "Raw profile type exif"}  # where pillow keeps it
ASSUMED_GSD = 10.0  # metres per pixel, for images without georeference
GSD_IS_ASSUMED = f"not in the files; {ASSUMED_GSD:g} m a pixel are assumed"  # in the provenance of a store
_METRES_PER_DEGREE = math.pi * 6_378_137.0 / 180  # along the equator of WGS 84


@dataclass(frozen=True)
class ImageHeader:
    """Shape, dtype and metadata of an image.

    shape: bands, height, width.
    dtype: name of the dtype; "a and b" where the bands differ.
    band_names: the description of each band, "" for a band without one; empty for a picture.
    gsd: metres per pixel; None if the file is not georeferenced.
    scale: the factor from pixels to physical values that a GeoTIFF declares (GDAL's scale of its first band); 1 without one.
    """

    shape: tuple[int, int, int]
    dtype: str
    band_names: tuple[str, ...] = ()
    gsd: float | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class ImageReader:
    """Reads an image into the plane called `key`."""

    key: str

    def __call__(
        self,
        location: str,
        planes: Mapping[str, NDArray[np.generic]],
        classes: NDArray[np.uint8],  # noqa: ARG002  the survey has filled them in
    ) -> PatchDetails:
        return PatchDetails(read_image_into(location, planes[self.key]))


def plane_key(gsd: float) -> str:
    """The name of a plane of images: `data_10m`, or `data_0.3048m` for pixels of one foot."""
    return f"data_{gsd:g}m"


@contextmanager
def open_raster(path: str | Path, data: bytes | None = None) -> Iterator[Any]:
    """Open a raster by rasterio, to be read by windows. Its format is that of its suffix in `formats.rasters.RASTER_DRIVERS`.

    Args:
        path: the file.
        data: its content, if that has been read already.

    Raises:
        BadInput: missing, damaged or of another format; also if decoding fails later, within the `with` statement.
    """
    import rasterio  # takes a second to import; pictures do not need it

    driver = raster_driver(path)
    try:
        if data is None:
            image = open_raster_file(path)
        else:
            with warnings.catch_warnings(action="ignore", category=rasterio.errors.NotGeoreferencedWarning):
                image = rasterio.open(io.BytesIO(data), driver=driver)
        with image:
            yield image
    except rasterio.errors.RasterioError as error:
        raise BadInput(path, f"cannot be decoded as {driver} ({reason(error.__cause__ or error)})") from None


def read_header(location: str) -> ImageHeader:
    """Read the header of an image.

    Args:
        location: a path, or `archive.zip::member`.

    Raises:
        BadInput: missing, damaged, larger than a patch can be, or with colours other than grey of 8 or 16 bits and RGB.
    """
    return _decode_header(location, read_member(location))


def read_image(location: str) -> tuple[NDArray[np.generic], Place]:
    """Read an image of any shape and dtype: pixels (bands, height, width), and where they lie.

    Raises:
        BadInput: as `read_header` and `read_image_into`.
    """
    data = read_member(location)
    header = _decode_header(location, data)
    out = np.empty(header.shape, header.dtype)
    return out, _decode_into(location, data, out)


def read_image_into(location: str, out: NDArray[np.generic]) -> Place:
    """Read an image into `out` (bands, height, width); returns where its pixels lie.

    Raises:
        BadInput: missing, damaged, of another shape or dtype than `out`, or with pixels that are not finite.
    """
    return _decode_into(location, read_member(location), out)


def name_bands(location: str | Path, count: int, described: Sequence[str], bands: str | None) -> tuple[str, ...]:
    """The names of an image's bands: those of `bands`; else its descriptions; else red, green and blue if it has three.

    Args:
        location: the image, for error messages.
        count: number of bands of the image.
        described: the descriptions that the file has for its bands.
        bands: the user's choice, a band set or a list.

    Raises:
        BadInput: `bands` has another number of names than the image has bands, or none of the three rules applies.
    """
    if bands is not None:
        names = band_set(bands).names
        if len(names) != count:
            raise BadInput(location, f"has {count} bands, but --bands names {len(names)}: {','.join(names)}")
        return names
    known = [ALIASES[name.strip().upper()] for name in described if name.strip().upper() in ALIASES]
    if len(known) == len({*known}) == count:
        return tuple(known)
    if count == 3:
        return band_set("rgb").names
    raise BadInput(location, f"has {count} bands without names; name them in the file's order: --bands B02,B03,…")


def _decode_header(location: str, data: bytes) -> ImageHeader:
    if not data:
        raise BadInput(location, "is empty")
    if not _is_tiff(location):
        mode, (width, height), _ = _decode_picture(location, data)
        bands, dtype = _PICTURE_MODES[mode]
        return ImageHeader((bands, height, width), dtype)
    check_colours(location, data)
    with open_raster(location, data) as image:
        _check_pages_and_size(location, image)
        names = tuple(name or "" for name in image.descriptions)
        dtypes = " and ".join(sorted({*image.dtypes}))
        return ImageHeader((image.count, image.height, image.width), dtypes, names, _gsd(image), image.scales[0])


def _gsd(image: Any) -> float | None:
    """Metres per pixel of an open raster, or None; for pixels that are not square, the square root of their area."""
    if not image.crs or image.transform.is_identity:
        return None
    pixel = math.sqrt(abs(image.transform.determinant))
    try:
        if image.crs.is_geographic:  # three digits: metres per degree vary with the latitude
            gsd = float(f"{pixel * _METRES_PER_DEGREE:.3g}")
        else:
            gsd = float(f"{pixel * image.crs.linear_units_factor[1]:.6g}")
    except ValueError:  # the CRS is damaged, or has no unit of length
        return None
    return gsd if 0 < gsd < 1e6 else None


def _decode_into(location: str, data: bytes, out: NDArray[np.generic]) -> Place:
    if _is_tiff(location):
        place = read_bands(location, data, out)
        if out.dtype.kind == "f" and not np.isfinite(out).all():
            raise BadInput(location, "has pixels that are not a number, or infinite")
        return place
    bands, height, width = out.shape
    kind = (bands, out.dtype.name)
    expected = next((mode for mode, of_mode in _PICTURE_MODES.items() if of_mode == kind), f"{bands}-band {out.dtype}")
    mode, size, pixels = _decode_picture(location, data)
    if (mode, size) != (expected, (width, height)):
        raise BadInput(location, f"is {size[0]}×{size[1]} {mode}, expected {width}×{height} {expected}")
    out[...] = pixels.reshape(height, width, bands).transpose(2, 0, 1)
    return Place()


def _is_tiff(location: str) -> bool:
    return PurePosixPath(location).suffix.lower() in TIFF_SUFFIXES


def _check_pages_and_size(location: str, image: Any) -> None:
    """Refuse a raster of several pages, or larger than a patch can be, also in one block, which is decoded as a whole."""
    if len(image.subdatasets) > 1:
        raise BadInput(location, f"has {len(image.subdatasets)} pages, expected one image with all bands")
    height, width = np.max([image.shape, *image.block_shapes], axis=0)
    size = image.count * height * width * max(np.dtype(dtype).itemsize for dtype in image.dtypes)
    if max(height, width) > MAX_SIDE or size > MAX_FILE:
        problem = f"has {image.count} bands of {image.width}×{image.height} px in blocks of {width}×{height} px"
        raise BadInput(location, f"{problem}, expected at most {MAX_SIDE} px a side and {MAX_FILE:,} bytes")


def _decode_picture(location: str, data: bytes) -> tuple[str, tuple[int, int], NDArray[np.generic]]:
    """Mode, (width, height) and pixels of a PNG or JPEG, turned as its Exif data require."""
    if not data:
        raise BadInput(location, "is empty")
    if data[:8] == _PNG and data[24:25] == b"\x10" and data[25:26] != b"\0":  # bit depth and colour type, in IHDR
        raise BadInput(location, "is a colour PNG of 16 bits, of which 8 would be lost; convert it to GeoTIFF")
    if data[:8] != _PNG and data[:3] != _JPEG:
        raise BadInput(location, wrong_format(data, f"a {' or '.join(PICTURE_FORMATS)}"))
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(data), formats=PICTURE_FORMATS)
        with image:
            if max(image.size) > MAX_SIDE:
                raise BadInput(location, f"has {image.width}×{image.height} px, expected at most {MAX_SIDE} px a side")
            if image.mode not in _PICTURE_MODES:
                problem = _REFUSED_MODES.get(image.mode, f"has the mode {image.mode}")
                raise BadInput(location, f"{problem}, expected grey of 8 or 16 bits, or RGB; convert it to one of them")
            image.load()  # the Exif data of a PNG may follow its pixels
            turned = ImageOps.exif_transpose(image) if _EXIF & {*image.info} else image
            return turned.mode, turned.size, np.asarray(turned)
    except Image.DecompressionBombError:
        raise BadInput(location, f"is too large, expected at most {MAX_SIDE} px a side") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise BadInput(location, f"cannot be decoded as {' or '.join(PICTURE_FORMATS)} ({reason(error)})") from None
