"""A CORINE map as a GeoPackage: layers of polygons that have a column of codes such as `CODE_18`.

The official one has a layer for Europe and one for each French overseas department.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from shapely.errors import ShapelyError

from landscale.datasets.corine_codes import CODE_TEXTS, NO_CLASS, UNKNOWN, cells_by_values
from landscale.datasets.tiles.corine.areas import SAMPLE_STEP, Bounds, Cells, CorineMap, project, project_bounds
from landscale.errors import BadInput, reason

_AREA_TYPES = re.compile("Polygon|Surface|Unknown")  # layers of type Unknown may have polygons
_CODE_COLUMN = re.compile(r"(?:clc_?)?code(?:_?\d\d|_?\d{4})?|clc_?(?:\d\d|\d{4})|grid_?code", re.IGNORECASE)
_YEAR = re.compile(r"(?:clc|code)_?(?:\d\d)?(\d\d)(?!\d)", re.IGNORECASE)  # CLC18, CLC2018, Code_18
_CODE_TEXT = re.compile(r"(\d+)(?:\.0*)?|(\d)\.(\d)\.(\d)")  # 112, 112.0, 1.1.2


@dataclass(frozen=True)
class _Layer:
    """A layer of polygons and its column of codes. year: two digits, "" if neither name has one."""

    name: str
    column: str
    crs: CRS
    year: str
    extent: Bounds | None


@dataclass(frozen=True)
class _PolygonMap(CorineMap):
    path: Path
    layers: tuple[_Layer, ...]

    def read_cells(self, crs: CRS, bounds: Bounds) -> Cells | None:
        parts = [self._polygons(layer, crs, bounds) for layer in self.layers]
        polygons, values = (np.concatenate(part) for part in zip(*parts, strict=True))
        if not len(polygons):
            return None
        left, bottom, right, top = bounds
        shape = int(np.ceil((top - bottom) / SAMPLE_STEP)) + 1, int(np.ceil((right - left) / SAMPLE_STEP)) + 1
        grid = Affine(SAMPLE_STEP, 0, left, 0, -SAMPLE_STEP, top)
        shapes = zip(polygons.tolist(), values.tolist(), strict=True)
        return Cells(rasterize(shapes, out_shape=shape, transform=grid, dtype="uint8"), grid, crs)

    def _polygons(self, layer: _Layer, crs: CRS, bounds: Bounds) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """The polygons of a layer, single parts, that may intersect `bounds` (both in `crs`), and the cell value of each."""
        projected = project_bounds(crs, layer.crs, bounds)
        if projected is None:
            return np.empty(0, object), np.empty(0, np.uint8)
        polygons, values = self._read_polygons(layer, projected)
        try:
            return shapely.transform(polygons, partial(project, layer.crs, crs)), values
        except Exception as error:  # GDAL's; rasterio has no public name for their class
            raise BadInput(self.path, f"has a polygon outside the domain of {crs} ({reason(error)})") from None

    def _read_polygons(self, layer: _Layer, bounds: Bounds) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """As `_polygons`, with `bounds` and polygons in the layer's CRS."""
        from pyogrio.raw import read

        try:
            _, _, geometries, (codes,) = read(
                self.path, layer=layer.name, columns=[layer.column], bbox=bounds, force_2d=True
            )
            geometries = shapely.from_wkb(geometries)
        except (RuntimeError, ShapelyError) as error:
            raise BadInput(self.path, f"cannot be read ({reason(error)})") from None
        values = self._cells(codes, layer.column)
        is_area = np.isin(
            shapely.get_type_id(geometries), (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
        )
        kept = is_area & (values != NO_CLASS)
        polygons, origin = shapely.get_parts(geometries[kept], return_index=True)
        not_empty = ~shapely.is_empty(polygons)
        return polygons[not_empty], values[kept][origin[not_empty]]

    def _cells(self, codes: NDArray[Any], column: str) -> NDArray[np.uint8]:
        """The cell value of each code: a number or text; grid codes only from a column that is called so."""
        known: dict[Any, int] = {}
        for code in {str(code) for code in codes}:
            match = _CODE_TEXT.fullmatch(code.strip())
            number = int("".join(part or "" for part in match.groups())) if match else -1
            is_grid_code = column.lower().startswith("grid") and cells_by_values(np.array([number])) != UNKNOWN
            if str(number) not in CODE_TEXTS and not is_grid_code:
                raise BadInput(self.path, f"has a polygon with the code {code}, expected a CORINE class (111…523)")
            known[code] = number
        return cells_by_values(np.array([known[str(code)] for code in codes], np.int64))


def open_polygon_map(path: Path, choice: str = "") -> CorineMap:
    """Open a GeoPackage of CORINE polygons. Layers of one year and one column are parts of one map, see `_are_parts`.

    Args:
        path: the file.
        choice: the layer or the column to use, or both as LAYER.COLUMN, where there are several maps; empty for the only one.

    Raises:
        BadInput: damaged, without a coordinate reference system, or with no or several maps that fit `choice`.
    """
    from pyogrio import list_layers, read_info

    try:
        infos = [read_info(path, layer=name) for name, kind in list_layers(path) if _AREA_TYPES.search(str(kind))]
    except RuntimeError as error:
        raise BadInput(path, f"is a damaged GeoPackage ({reason(error).rpartition('; ')[2]})") from None
    columns = [(info, str(field)) for info in infos for field in info["fields"]]
    layers = [_layer(info, field) for info, field in columns if _CODE_COLUMN.fullmatch(field)]
    if choice:
        chosen = [one for one in layers if choice in (one.name, one.column, f"{one.name}.{one.column}")]
        named = (_layer(info, field) for info, field in columns if choice in (field, f"{info['layer_name']}.{field}"))
        layers = chosen or list(named)
    if not layers:
        fields = ", ".join(sorted({field for _, field in columns})) or "none"
        problem = (
            f"has no layer or column {choice}" if choice else "has no layer of polygons with a column such as CODE_18"
        )
        raise BadInput(path, f"{problem}; its columns: {fields}; choose one: --corine {path}:COLUMN")
    if not _are_parts(layers):
        several = ", ".join(f"{one.name}.{one.column}" for one in layers)
        raise BadInput(path, f"has several maps: {several}; choose one: --corine {path}:LAYER or {path}:LAYER.COLUMN")
    if not all(one.crs.is_projected or one.crs.is_geographic for one in layers):
        raise BadInput(path, "has no coordinate reference system")
    return _PolygonMap(path, tuple(layers))


def _layer(info: dict[str, Any], column: str) -> _Layer:
    name = str(info["layer_name"])
    crs = CRS.from_user_input(info["crs"]) if info["crs"] else CRS()
    year = _YEAR.search(column) or _YEAR.search(name)
    bounds = info.get("total_bounds")
    extent = None if bounds is None or not np.isfinite(bounds).all() else tuple(np.asarray(bounds, float).tolist())
    return _Layer(name, column, crs, year[1] if year else "", extent)


def _are_parts(layers: list[_Layer]) -> bool:
    """Whether layers are parts of one map: of one year and one column, and apart or with names of one stem.

    The layers of the official file are called as the first one, and overseas `_FR_GLP` and so on.
    """
    first = layers[0]
    if any((one.column.lower(), one.year) != (first.column.lower(), first.year) for one in layers):
        return False
    stem = min((one.name for one in layers), key=len)
    return all(one.name.startswith(stem) for one in layers) or not any(
        _overlap(a, b) for a, b in combinations(layers, 2)
    )


def _overlap(a: _Layer, b: _Layer) -> bool:
    if a.extent is None or b.extent is None or a.crs != b.crs:
        return a.name == b.name
    return all(a.extent[k] < b.extent[k + 2] and b.extent[k] < a.extent[k + 2] for k in (0, 1))
