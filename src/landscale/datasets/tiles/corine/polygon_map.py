"""A CORINE map as a GeoPackage: one layer of polygons that has a column of codes such as `CODE_18`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from shapely.errors import ShapelyError

from landscale.datasets.tiles.corine.areas import SAMPLE_STEP, Bounds, Cells, CorineMap, project, project_bounds
from landscale.datasets.tiles.corine.classes import CODE_TEXTS, NO_CLASS, cells_by_values
from landscale.errors import BadInput, reason

_AREA_TYPES = re.compile("Polygon|Surface|Unknown")  # layers of type Unknown may have polygons
_CODE_COLUMN = re.compile(r"(?:clc_?)?code(?:_?\d\d|_?\d{4})?|clc_?(?:\d\d|\d{4})", re.IGNORECASE)


@dataclass(frozen=True)
class _PolygonMap(CorineMap):
    path: Path
    layer: str
    column: str
    crs: CRS

    def read_cells(self, crs: CRS, bounds: Bounds) -> Cells | None:
        projected = project_bounds(crs, self.crs, bounds)
        if projected is None:
            return None
        polygons, values = self._read_polygons(projected)
        if not len(polygons):
            return None
        try:
            polygons = shapely.transform(polygons, partial(project, self.crs, crs))
        except Exception as error:  # GDAL's; rasterio has no public name for their class
            raise BadInput(self.path, f"has a polygon outside the domain of {crs} ({reason(error)})") from None
        left, bottom, right, top = bounds
        shape = int(np.ceil((top - bottom) / SAMPLE_STEP)) + 1, int(np.ceil((right - left) / SAMPLE_STEP)) + 1
        grid = Affine(SAMPLE_STEP, 0, left, 0, -SAMPLE_STEP, top)
        shapes = zip(polygons.tolist(), values.tolist(), strict=True)
        return Cells(rasterize(shapes, out_shape=shape, transform=grid, dtype="uint8"), grid, crs)

    def _read_polygons(self, bounds: Bounds) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """The polygons, single parts, that may intersect `bounds` (in the layer's CRS), and the cell value of each."""
        from pyogrio.raw import read

        try:
            _, _, geometries, (codes,) = read(
                self.path, layer=self.layer, columns=[self.column], bbox=bounds, force_2d=True
            )
            geometries = shapely.from_wkb(geometries)
        except (RuntimeError, ShapelyError) as error:
            raise BadInput(self.path, f"cannot be read ({reason(error)})") from None
        for code in codes:
            if str(code) not in CODE_TEXTS:
                raise BadInput(self.path, f"has a polygon with the code {code}, expected a CORINE class (111…523)")
        values = cells_by_values(np.array([int(code) for code in codes], np.int64))
        is_area = np.isin(
            shapely.get_type_id(geometries), (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
        )
        kept = is_area & (values != NO_CLASS)
        polygons, origin = shapely.get_parts(geometries[kept], return_index=True)
        not_empty = ~shapely.is_empty(polygons)
        return polygons[not_empty], values[kept][origin[not_empty]]


def open_polygon_map(path: Path) -> CorineMap:
    """Open a GeoPackage of CORINE polygons.

    Raises:
        BadInput: damaged, without a coordinate reference system, or with no or several columns of codes.
    """
    from pyogrio import list_layers, read_info

    try:
        infos = [read_info(path, layer=name) for name, kind in list_layers(path) if _AREA_TYPES.search(str(kind))]
    except RuntimeError as error:
        raise BadInput(path, f"is a damaged GeoPackage ({reason(error).rpartition('; ')[2]})") from None
    found = [(info, str(field)) for info in infos for field in info["fields"] if _CODE_COLUMN.fullmatch(str(field))]
    if not found:
        fields = sorted({str(field) for info in infos for field in info["fields"]})
        raise BadInput(
            path, f"has no layer of polygons with a column such as CODE_18; its columns: {', '.join(fields) or 'none'}"
        )
    if len(found) > 1:
        several = ", ".join(f"{info['layer_name']}.{field}" for info, field in found)
        raise BadInput(path, f"has several columns of codes, expected one: {several}")
    ((info, field),) = found
    crs = CRS.from_user_input(info["crs"]) if info["crs"] else CRS()
    if not (crs.is_projected or crs.is_geographic):
        raise BadInput(path, "has no coordinate reference system")
    return _PolygonMap(path, info["layer_name"], field, crs)
