"""The unit of a scene's pixels.

Bands are read as digital numbers, also where files hold reflectance, or declare another scale and offset (GDAL's, reflectance =
number · scale + offset). 8-bit pictures stay as they are, because they cannot be converted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from landscale.errors import BadInput, reason
from landscale.formats.rasters import open_raster_file
from landscale.vocabulary.units import PER_REFLECTANCE, RANGES, Unit, unit_name

Scaling = tuple[float, float]  # digital number = pixel · first + second
_WINDOW, _PLACES = 128, (0.1, 0.5, 0.9)  # px of a sampled window, and where its centre lies in a raster
_BRIGHTEST = 2.0  # reflectance: 99% of the pixels are darker than this; sunlit clouds reach 1.5
# Reflectance: the brightest 1% of water are above this; less was multiplied by a declared scale twice.
_FAINTEST = 0.005
_LEAST_NUMBER = 255.0  # the brightest 1% of a scene's digital numbers are above this, a reflectance of 0.0255
_DARKEST_BAND = 1.0  # the brightest 1% of a band's digital numbers are above this, even in B10


def has_own_scale(file: Any, k: int = 0) -> bool:
    """Whether pixels of band k (from 0) must be converted into digital numbers: floats, or a declared scale of another unit."""
    return np.dtype(file.dtypes[k]).kind == "f" or not _is_digital(file.scales[k])


def _is_digital(scale: float) -> bool:
    return scale == 1 or math.isclose(scale * PER_REFLECTANCE, 1, rel_tol=1e-6)


def find_unit(
    files: Mapping[str, Path], indexes: Mapping[str, int], *, from_product: bool
) -> tuple[Unit, dict[str, Scaling]]:
    """The unit of the pixels in a scene's files, and the bands that are converted into digital numbers.

    Integers without a declared scale are digital numbers if names or metadata are those of a product, else of unknown unit.
    The unit of floats is that in whose range they lie.

    Args:
        files: by band.
        indexes: of the bands in rasters of several, from 1.
        from_product: whether names or metadata of a product were found, or the user has given the offset.

    Raises:
        BadInput: a file cannot be read, or is in no unit of reflectance; or bands have different units.
    """
    units: dict[str, Unit] = {}
    measured: dict[str, tuple[float, float]] = {}
    scalings: dict[str, Scaling] = {}
    for band, path in files.items():
        k = indexes.get(band, 1) - 1
        try:
            with open_raster_file(path) as file:
                scale, offset, dtype = file.scales[k], file.offsets[k], np.dtype(file.dtypes[k])
                if has_own_scale(file, k):
                    measured[band] = _quantiles(file, k, scale, offset)
                    scalings[band] = (scale, offset)
                elif scale != 1 or (from_product and dtype.itemsize > 1):
                    units[band] = "digital number"
                else:
                    units[band] = "8-bit" if dtype == np.uint8 else "unknown"
        except RasterioError as error:
            raise BadInput(path, f"cannot be read ({reason(error)})") from None
    units |= _by_range(files, measured)
    for band in scalings.keys() & {band for band, unit in units.items() if unit == "reflectance"}:
        scalings[band] = (scalings[band][0] * PER_REFLECTANCE, scalings[band][1] * PER_REFLECTANCE)
    found: dict[Unit, str] = {unit: band for band, unit in units.items()}
    if found.keys() == {"unknown", "digital number"}:
        return "unknown", scalings
    if len(found) > 1:
        (first, a), (second, b), *_ = found.items()
        raise BadInput(files[b], f"holds {unit_name(second)}, but {a} holds {unit_name(first)}; expected one unit")
    return next(iter(found)), scalings


def _by_range(files: Mapping[str, Path], measured: Mapping[str, tuple[float, float]]) -> dict[str, Unit]:
    """The unit of bands by the range of their values, together, because some bands, such as B10, may be dark everywhere.

    Raises:
        BadInput: the values are those of neither reflectance nor digital numbers, or of both.
    """
    if not measured:
        return {}
    lowest = min(measured, key=lambda band: measured[band][0])
    brightest = max(measured, key=lambda band: measured[band][1])
    low, high = measured[lowest][0], measured[brightest][1]
    if low >= RANGES["reflectance"][0] and (_FAINTEST <= high <= _BRIGHTEST or low == high == 0):
        return dict.fromkeys(measured, "reflectance")
    if low >= RANGES["digital number"][0] and high > _LEAST_NUMBER:
        return {
            band: "reflectance" if 0 < top <= _DARKEST_BAND else "digital number" for band, (_, top) in measured.items()
        }
    raise BadInput(
        files[lowest if low < RANGES["reflectance"][0] else brightest],
        f"holds values from {low:.4g} to {high:.4g}, expected reflectance (0 to 1) or digital numbers (reflectance × 10,000)",
    )


def _quantiles(file: Any, k: int, scale: float, offset: float) -> tuple[float, float]:
    """The values below and above which 1% of the sampled pixels of band k of an open raster lie; 0, 0 without data."""
    values = _sampled(file, k).astype(np.float64) * scale + offset
    low, high = np.quantile(values, (0.01, 0.99)).tolist() if len(values) else (0.0, 0.0)
    return low, high


def _sampled(file: Any, k: int) -> NDArray[Any]:
    """Pixels with data from nine windows of band k of an open raster; a whole float raster may have half a gigabyte."""
    parts = []
    for y in _PLACES:
        for x in _PLACES:
            height, width = min(_WINDOW, file.height), min(_WINDOW, file.width)
            top, left = round(y * (file.height - height)), round(x * (file.width - width))
            values = file.read(k + 1, window=Window(left, top, width, height))
            parts.append(values[~_is_empty(values, file.nodatavals[k])])
    return np.concatenate(parts)


def _is_empty(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    empty: NDArray[np.bool_] = ~np.isfinite(values) | (values == 0)
    return empty if nodata is None else empty | (values == nodata)


def to_digital_numbers(path: Path, values: NDArray[Any], nodata: float | None, scaling: Scaling) -> NDArray[np.uint16]:
    """Pixels as digital numbers, 1 to 65535; 0 where there is no data: 0, not a number, or the file's own nodata value.

    Raises:
        BadInput: pixels outside the range of digital numbers, such as a nodata value that the file does not declare.
    """
    empty = _is_empty(values, nodata)
    numbers = np.where(empty, 0, values * np.float32(scaling[0]) + np.float32(scaling[1]))
    least, largest = RANGES["digital number"]
    if numbers.size and not least <= numbers.min() <= numbers.max() < largest + 1:
        raise BadInput(
            path,
            f"holds pixels that are digital numbers of {numbers.min():.6g} to {numbers.max():.6g}, expected at most"
            f" {largest}; if one of them marks pixels without data, declare it (gdal_edit.py -a_nodata)",
        )
    rounded: NDArray[np.uint16] = np.rint(numbers.clip(1, largest)).astype(np.uint16)
    rounded[empty] = 0
    return rounded
