"""Read scenes in MATLAB files of version 7.3, as published with DSen2 (Lanaras et al. 2018).

`im10` has B04, B03, B02, B08 (the order in which GDAL lists the 10 m bands of a product), `im20` B05, B06, B07, B8A, B11, B12,
and `im60` B01, B09. MATLAB stores columns first, so that the shape in HDF5 is (bands, columns, rows). There is no georeference:
the upper left corner is set to 0, 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from landscale.errors import BadInput, reason
from landscale.vocabulary.bands import BANDS

IMAGES = {
    "im10": ("B04", "B03", "B02", "B08"),
    "im20": ("B05", "B06", "B07", "B8A", "B11", "B12"),
    "im60": ("B01", "B09"),
}


def matlab_bands(path: str | Path) -> tuple[str, ...]:
    """The bands in a MATLAB file.

    Raises:
        BadInput: the file is not a MATLAB file of version 7.3, or an image in it has another number of bands.
    """
    try:
        with h5py.File(path) as file:
            shapes = {name: file[name].shape for name in IMAGES if isinstance(file.get(name), h5py.Dataset)}
    except OSError as error:
        raise BadInput(path, f"is not a MATLAB file of version 7.3 ({reason(error)})") from None
    if not shapes:
        raise BadInput(path, f"holds none of {', '.join(IMAGES)}")
    for name, shape in shapes.items():
        if len(shape) != 3 or shape[0] != len(IMAGES[name]):
            raise BadInput(path, f"{name} has shape {shape}, expected ({len(IMAGES[name])}, columns, rows)")
    return tuple(band for name in shapes for band in IMAGES[name])


def open_matlab_band(path: str | Path, band: str) -> Any:
    """One band as an open rasterio dataset in memory, uint16.

    Raises:
        BadInput: the band cannot be read, or has values that are not 16-bit digital numbers.
    """
    name = next(name for name, bands in IMAGES.items() if band in bands)
    try:
        with h5py.File(path) as file:
            values = file[name][IMAGES[name].index(band)].T
    except (OSError, KeyError) as error:
        raise BadInput(path, f"{name} cannot be read ({reason(error)})") from None
    return _raster(_digital_numbers(path, name, values), BANDS[band].gsd)


def _digital_numbers(path: str | Path, name: str, values: NDArray[Any]) -> NDArray[np.uint16]:
    """Round to integers: simulated images (published with a ground truth) have means of digital numbers."""
    if values.dtype.kind not in "iuf":
        raise BadInput(path, f"{name} holds {values.dtype} values, expected digital numbers")
    numbers: NDArray[Any] = np.rint(values)
    if not np.isfinite(values).all() or numbers.min() < 0 or numbers.max() > np.iinfo(np.uint16).max:
        raise BadInput(path, f"{name} holds values outside 0 to 65535, expected 16-bit digital numbers")
    if numbers.max() <= 2 and (numbers != values).any():
        raise BadInput(path, f"{name} holds reflectances, expected digital numbers (reflectance × 10,000)")
    return numbers.astype(np.uint16)


def _raster(values: NDArray[np.uint16], gsd: int) -> Any:
    height, width = values.shape
    memory = MemoryFile()
    with memory.open(
        driver="GTiff", width=width, height=height, count=1, dtype="uint16", transform=from_origin(0, 0, gsd, gsd)
    ) as file:
        file.write(values, 1)
    return memory.open()
