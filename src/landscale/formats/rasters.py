"""The formats in which rasters are opened: an explicit list, as other formats of GDAL refer to other files and to URLs (VRT)."""

from __future__ import annotations

import stat
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from landscale.errors import BadInput
from landscale.formats.zip_or_folder import gdal_name, split_zip

MAX_ZIPPED = 8 << 30  # bytes of a raster in a zip; all bands of a whole tile as float32 have 6.3 GB
RASTER_DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".jp2": "JP2OpenJPEG", ".img": "HFA"}  # names of GDAL


def raster_driver(path: str | Path) -> str:
    """The name of GDAL's driver for a raster, by the suffix of its name.

    Raises:
        BadInput: there is none for this suffix, or the path is a pipe or a device.
    """
    driver = RASTER_DRIVERS.get(PurePosixPath(path).suffix.lower())
    if driver is None:
        raise BadInput(path, f"has the wrong suffix for a raster, expected {', '.join(RASTER_DRIVERS)}")
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):  # a member of an archive, or a missing file, which GDAL reports
        return driver
    if not stat.S_ISREG(mode):
        raise BadInput(path, "is not a regular file")
    return driver


def open_raster_file(path: str | Path) -> Any:
    """Open a raster in the format of its suffix, also one in a zip. One without a place is opened without rasterio's warning.

    Raises:
        BadInput: as `raster_driver`; or it is in a zip, and GDAL cannot read it there. rasterio.errors.RasterioError: it cannot
            be read in this format.
    """
    driver, zipped = raster_driver(path), split_zip(Path(path))
    name = gdal_name(*zipped, MAX_ZIPPED) if zipped else path
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning):
        return rasterio.open(name, driver=driver)
