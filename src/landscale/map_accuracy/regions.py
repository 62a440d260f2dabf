"""Regions of a map: polygons of a vector file, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from landscale.errors import BadInput, reason
from landscale.formats.vectors import read_vector


@dataclass(frozen=True)
class Region:
    """name: of the region. polygons: in the coordinate reference system of a map. top, bottom: of all of them."""

    name: str
    polygons: tuple[Any, ...]
    top: float
    bottom: float

    def inside(self, grid: Affine, window: Window) -> NDArray[np.bool_] | None:
        """(height, width): whether the centres of pixels lie in the region; None if it lies above or below the window."""
        place = window_transform(window, grid)
        if self.bottom >= place.f or self.top <= place.f + place.e * window.height:
            return None
        shape = (window.height, window.width)
        return np.asarray(rasterize(self.polygons, out_shape=shape, transform=place, fill=0, default_value=1) == 1)


def read_regions(path: Path, column: str, crs: CRS) -> list[Region]:
    """The regions of a vector file, in the order of their names; polygons of the same name are one region.

    Raises:
        BadInput: the file cannot be read, lacks the column, or has no polygon.
    """
    layer = read_vector(path)
    if column not in layer.columns:
        found_columns = ", ".join(layer.columns) or "none"
        raise BadInput(path, f"has the columns {found_columns}, expected {column}; name another by --region-column")

    def project(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transform(layer.crs, crs, xy[:, 0], xy[:, 1]))

    found: dict[str, list[Any]] = {}
    for value, shape in zip(layer.columns[column], layer.shapes, strict=True):
        if shape is None or pd.isna(value):
            continue
        parts = [part for part in shapely.get_parts(shape).tolist() if part.geom_type == "Polygon"]
        try:
            found.setdefault(str(value), []).extend(shapely.transform(part, project) for part in parts)
        except Exception as error:  # GDAL's; rasterio has no public name for their class
            raise BadInput(path, f"has a polygon outside the domain of {crs} ({reason(error)})") from None
    regions = []
    for name in sorted(found):
        if found[name]:
            _, bottom, _, top = shapely.total_bounds(found[name]).tolist()
            regions.append(Region(name, tuple(found[name]), top, bottom))
    if not regions:
        raise BadInput(path, "has no polygon with a name, expected regions")
    return regions
