"""Read the raster attribute table of a file by the GDAL that rasterio brings, which has no function for it."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import pytest
import rasterio


@cache
def _gdal() -> ctypes.CDLL:
    found = [*Path(rasterio.__file__).parents[1].glob("rasterio.libs/libgdal*")]
    if not found:
        pytest.skip("rasterio was not installed with its own GDAL")
    library = ctypes.CDLL(str(found[0]))
    for name, result in {
        "GDALOpen": ctypes.c_void_p,
        "GDALGetRasterBand": ctypes.c_void_p,
        "GDALGetDefaultRAT": ctypes.c_void_p,
        "GDALRATGetNameOfCol": ctypes.c_char_p,
        "GDALRATGetValueAsString": ctypes.c_char_p,
    }.items():
        getattr(library, name).restype = result
    library.GDALAllRegister()
    return library


def attribute_table(path: Path) -> list[dict[str, str]]:
    """The rows of the table of the first band: text by the name of the column."""
    gdal = _gdal()
    dataset = ctypes.c_void_p(gdal.GDALOpen(str(path).encode(), 0))
    table = ctypes.c_void_p(gdal.GDALGetDefaultRAT(ctypes.c_void_p(gdal.GDALGetRasterBand(dataset, 1))))
    assert table, "the raster has no attribute table"
    names = [gdal.GDALRATGetNameOfCol(table, k).decode() for k in range(gdal.GDALRATGetColumnCount(table))]
    rows = [
        {name: gdal.GDALRATGetValueAsString(table, row, k).decode() for k, name in enumerate(names)}
        for row in range(gdal.GDALRATGetRowCount(table))
    ]
    gdal.GDALClose(dataset)
    return rows
