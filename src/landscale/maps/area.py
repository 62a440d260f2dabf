"""The area to be mapped: polygons of a vector file, in any coordinate reference system."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from landscale.errors import BadInput, reason
from landscale.formats.vectors import read_vector
from landscale.maps.frame import Bounds, Frame


class Area:
    """The polygons of a vector file in the coordinate reference system of a map; the other geometries of the file are ignored.

    Args:
        path: a file that GDAL reads, such as GeoJSON or a GeoPackage; of several layers, the first.
        crs: of the map.

    Raises:
        BadInput: the file cannot be read, has no coordinate reference system or no polygon, or has one where `crs` is undefined.
    """

    def __init__(self, path: Path, crs: CRS) -> None:
        layer = read_vector(path)
        own, geometries = layer.crs, [shape for shape in layer.shapes if shape is not None]
        polygons = [part for part in shapely.get_parts(geometries).tolist() if part.geom_type == "Polygon"]
        if not polygons:
            raise BadInput(path, "has no polygon, expected the area to be mapped")

        def project(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.column_stack(transform(own, crs, xy[:, 0], xy[:, 1]))

        self.path = path
        try:
            self._polygons = [shapely.transform(polygon, project) for polygon in polygons]
        except Exception as error:  # GDAL's; rasterio has no public name for their class
            raise BadInput(path, f"has a polygon outside the domain of {crs} ({reason(error)})") from None
        bounds = shapely.total_bounds(self._polygons)
        if not np.isfinite(bounds).all():
            raise BadInput(path, f"has a polygon outside the domain of {crs}")
        left, bottom, right, top = bounds.tolist()
        self.bounds: Bounds = (left, bottom, right, top)

    def outside(self, frame: Frame, top: int, rows: int) -> NDArray[np.bool_]:
        """(rows, width): whether the centres of pixels lie outside the area, in the rows from `top` on."""
        strip = window_transform(Window(0, top, frame.width, rows), frame.transform)
        inside = rasterize(self._polygons, out_shape=(rows, frame.width), transform=strip, fill=0, default_value=1)
        return np.asarray(inside == 0)
