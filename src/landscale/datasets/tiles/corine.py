"""Labels from CORINE Land Cover: the share of each class in the area of a patch, from a raster or a GeoPackage.

A raster (100 m) holds grid codes 1…44, the rank of a class of level 3, as the official one does, or the codes 111…523
themselves; no number is both, so none has to be told which. A GeoPackage has one layer of polygons with a column such as
`CODE_18`. Land that CORINE leaves without a class (codes 990, 995, 999; grid codes 48, 49, 50) counts as not covered.

A patch is sampled every 10 m, as the reference maps of BigEarthNet v2 are. The raster is sampled where it lies, in
its own projection: the corners of a patch are projected exactly, and what is within is bilinear between them, at 1.2 km
true to centimetres. Polygons are burnt on a grid of 10 m in the CRS of the patches. A share of a patch of 1.2 km is then
right to 0.002, or 0.006 where polygons meet patches that do not lie on one lattice of 10 m, as those of a tile do. A
sliver of less than 0.0005 of the patch may be missed, and a seam between polygons may leave a sample of 14,400 uncovered.

CORINE codes and grid codes: Copernicus Land Monitoring Service, CLC nomenclature and the legend of the official raster.
Well-known binary of polygons: OGC 06-103r4, 8.2.
"""

from __future__ import annotations

import re
import struct
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.features import rasterize
from rasterio.warp import transform, transform_bounds
from rasterio.windows import Window

from landscale.errors import BadInput, reason
from landscale.vocabulary.nomenclatures import CLC43, Nomenclature

STEP = 10.0  # m between samples
_WKB_POLYGON, _WKB_MULTIPOLYGON = 3, 6
_BLOCK = 24_000.0  # m: patches whose corners lie in one square of this side are done together
_BATCH = 32  # patches whose samples fit a core's cache
_LOOK = 1000  # cells a side of the part of a raster that is looked at when it is opened

GLACIERS = 335  # of the 44 classes the one that is not among CLC43
CODES = (*(c.code for c in CLC43.classes), GLACIERS)

_NONE, _UNKNOWN = 0, 255
_UNCLASSIFIED = (990, 995, 999)
_COLUMN = np.full(1001, _UNKNOWN, np.uint8)  # column of CODES + 1 by a raster's value; the last is for all others
_COLUMN[[0, 48, 49, 50, 128, 255, *_UNCLASSIFIED]] = _NONE  # 128 is -128, the official raster's nodata, as uint8
for _rank, _code in enumerate(sorted(CODES), start=1):
    _COLUMN[[_rank, _code]] = CODES.index(_code) + 1
_CODE_TEXTS = {str(code) for code in (*CODES, *_UNCLASSIFIED)}
_AREAS = re.compile("Polygon|Surface|Unknown")
_CODE_COLUMN = re.compile(r"(?:clc_?)?code(?:_?\d\d|_?\d{4})?|clc_?(?:\d\d|\d{4})", re.IGNORECASE)

Bounds = tuple[float, float, float, float]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Cells:
    """A part of the map: the column of CODES + 1 of every cell, 0 where there is none; (rows, columns) uint8."""

    values: NDArray[np.uint8]
    transform: Affine
    crs: CRS


class Corine(ABC):
    """A CORINE map. Holds no open file, so that it crosses process borders."""

    path: Path

    def shares(self, crs: str, left_top: Floats, side: float = 1200.0) -> Floats:
        """The share of each class in the area of each patch: (n, 44) in 0…1, columns as CODES.

        The sum of a row is the share of the patch that the map covers.

        Args:
            crs: of the patches, in metres.
            left_top: (n, 2) x and y of their upper left corners.
            side: in metres.

        Raises:
            BadInput: the file is damaged, or holds what is no CORINE class.
        """
        shares = np.zeros((len(left_top), len(CODES)))
        place = CRS.from_user_input(crs)
        for block in _blocks(left_top):
            corners = left_top[block]
            (left, bottom), (right, top) = corners.min(axis=0), corners.max(axis=0)
            cells = self._cells(place, (left, bottom - side, right + side, top))
            if cells is not None:
                shares[block] = _sample(cells, place, corners, side)
        return shares

    @abstractmethod
    def _cells(self, crs: CRS, bounds: Bounds) -> _Cells | None:
        """The part of the map that holds `bounds` (left, bottom, right, top), in a grid of any CRS; None beyond the map."""


def open_corine(path: Path) -> Corine:
    """The CORINE map in a raster or a GeoPackage.

    Raises:
        BadInput: missing, neither of both, without CRS or codes.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(16)
    except OSError as error:
        raise BadInput(path, f"cannot be read ({error.strerror})") from None
    return _open_polygons(path) if begin == b"SQLite format 3\0" else _open_raster(path)


def label(shares: Floats, nomenclature: Nomenclature, min_share: float) -> NDArray[np.uint8]:
    """The classes of each patch, (n, C): those whose share is at least `min_share`, or any where that is 0.

    The shares of classes that become one in `nomenclature` are summed first.

    Raises:
        UnknownName: a nomenclature that CORINE's classes do not map to.
    """
    summed = np.zeros((len(shares), len(nomenclature.classes)))
    for column, name in enumerate(CLC43.names):
        for target in nomenclature.columns([name]):
            summed[:, target] += shares[:, column]
    return ((summed > 0) & (summed >= min_share - 1e-9)).astype(np.uint8)  # sums of tenths fall short of a tenth


def _blocks(left_top: Floats) -> list[NDArray[np.intp]]:
    """Patches that are neighbours, so that a part of the map serves many and its size is bounded."""
    if not len(left_top):
        return []
    square = np.floor((left_top - left_top.min(axis=0)) / _BLOCK)
    _, of, counts = np.unique(square, axis=0, return_inverse=True, return_counts=True)
    return np.split(np.argsort(of.ravel(), kind="stable"), np.cumsum(counts)[:-1])


def _sample(cells: _Cells, crs: CRS, left_top: Floats, side: float) -> Floats:
    """Shares (n, 44) of patches whose ground `cells` hold."""
    corners = left_top[:, None] + side * np.array([[0, 0], [1, 0], [0, -1], [1, -1]])
    points = _project(crs, cells.crs, corners.reshape(-1, 2))
    column, row = _in_cells(cells.transform, points).astype(np.float32).reshape(2, -1, 4)
    count = int(np.ceil(side / STEP))
    at = (np.arange(count, dtype=np.float32) + 0.5) / np.float32(count)
    flat, kinds = cells.values.ravel(), len(CODES) + 1
    shares = np.empty((len(left_top), len(CODES)))
    for first in range(0, len(left_top), _BATCH):
        some = slice(first, first + _BATCH)
        index = _bilinear(row[some], at) * cells.values.shape[1] + _bilinear(column[some], at)
        patches = len(index)
        found = flat.take(index.reshape(patches, -1)) + kinds * np.arange(patches)[:, None]
        counts = np.bincount(found.ravel(), minlength=kinds * patches).reshape(patches, kinds)
        shares[some] = counts[:, 1:] / count**2
    return shares


def _bilinear(corner: NDArray[np.float32], at: NDArray[np.float32]) -> NDArray[np.int32]:
    """Between four corners (n, 4) at `at` (k,) down and across: (n, k, k), whole cells."""
    left, right = (corner[:, k, None] + at * (corner[:, k + 2] - corner[:, k])[:, None] for k in (0, 1))
    across: NDArray[np.float32] = left[:, :, None] + at * (right - left)[:, :, None]
    return across.astype(np.int32)


def _in_cells(grid: Affine, points: Floats) -> Floats:
    """Columns and rows, (2, n), of points (n, 2) in a grid."""
    inverse, (x, y) = ~grid, points.T
    return np.stack([inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f])


def _project(source: CRS, target: CRS, points: Floats) -> Floats:
    """Points (n, 2) in another CRS."""
    return points if source == target else np.stack(transform(source, target, *points.T), axis=1)


def _project_bounds(source: CRS, target: CRS, bounds: Bounds) -> Bounds | None:
    """The extent of `bounds` in another CRS; None where that has no place for them."""
    projected: Bounds = transform_bounds(source, target, *bounds)
    return projected if np.isfinite(projected).all() else None


@dataclass(frozen=True)
class _Raster(Corine):
    path: Path

    def _cells(self, crs: CRS, bounds: Bounds) -> _Cells | None:
        with rasterio.open(self.path) as image:
            projected = _project_bounds(crs, image.crs, bounds)
            if projected is None:
                return None
            left, bottom, right, top = projected
            corners = np.array([[left, top], [right, top], [left, bottom], [right, bottom]])
            column, row = _in_cells(image.transform, corners)
            # A cell more on each side: rounding must not leave the part.
            window = Window.from_slices(
                (int(row.min()) - 2, int(row.max()) + 3),
                (int(column.min()) - 2, int(column.max()) + 3),
                boundless=True,
            )
            return self.read(image, window)

    def read(self, image: Any, window: Window) -> _Cells | None:
        """The cells in `window`, which may lie across the raster's edge; None beyond it."""
        rows = slice(max(0, window.row_off), min(image.height, window.row_off + window.height))
        columns = slice(max(0, window.col_off), min(image.width, window.col_off + window.width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        try:
            values = image.read(1, window=Window.from_slices(rows, columns))
        except RasterioError as error:
            raise BadInput(self.path, f"cannot be decoded ({reason(error.__cause__ or error)})") from None
        known = _COLUMN[np.clip(values.astype(np.int64), -1, 1000)]
        known[values == (-128 if image.nodata is None else image.nodata)] = _NONE
        if (known == _UNKNOWN).any():
            value = values[known == _UNKNOWN][0]
            raise BadInput(self.path, f"holds the value {value}, expected classes of CORINE (1…44 or 111…523)")
        cells = np.zeros((window.height, window.width), np.uint8)
        down, across = rows.start - window.row_off, columns.start - window.col_off
        cells[down : down + known.shape[0], across : across + known.shape[1]] = known
        return _Cells(cells, image.window_transform(window), image.crs)


def _open_raster(path: Path) -> Corine:
    """Its middle is looked at, so that a raster of something else is refused at once."""
    try:
        with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning):
            image = rasterio.open(path)
    except RasterioError as error:
        raise BadInput(path, f"is no CORINE raster and no GeoPackage ({reason(error)})") from None
    with image:
        if image.count != 1:
            raise BadInput(path, f"has {image.count} bands, expected one, of CORINE classes")
        if np.dtype(image.dtypes[0]).kind not in "iu":
            raise BadInput(path, f"holds {image.dtypes[0]} numbers, expected codes of CORINE classes (whole ones)")
        if image.crs is None or image.transform.is_identity:
            raise BadInput(path, "is not georeferenced")
        corine = _Raster(path)
        height, width = min(image.height, _LOOK), min(image.width, _LOOK)
        middle = Window((image.width - width) // 2, (image.height - height) // 2, width, height)
        cells = corine.read(image, middle)
        if (height, width) == (image.height, image.width) and (cells is None or not cells.values.any()):
            raise BadInput(path, "holds no CORINE class")
    return corine


@dataclass(frozen=True)
class _Polygons(Corine):
    path: Path
    layer: str
    column: str
    crs: CRS

    def _cells(self, crs: CRS, bounds: Bounds) -> _Cells | None:
        projected = _project_bounds(crs, self.crs, bounds)
        if projected is None:
            return None
        polygons = list(self._read(projected))
        if not polygons:
            return None
        rings = [ring for _, polygon in polygons for ring in polygon]
        try:
            points = _project(self.crs, crs, np.concatenate(rings))
        except CPLE_BaseError as error:
            raise BadInput(self.path, f"has a polygon that {crs} has no place for ({reason(error)})") from None
        rest = zip(*points.T.tolist(), strict=True)
        shapes = [
            ({"type": "Polygon", "coordinates": [list(islice(rest, len(ring))) for ring in polygon]}, value)
            for value, polygon in polygons
        ]
        left, bottom, right, top = bounds
        shape = int(np.ceil((top - bottom) / STEP)) + 1, int(np.ceil((right - left) / STEP)) + 1
        grid = Affine(STEP, 0, left, 0, -STEP, top)
        return _Cells(rasterize(shapes, out_shape=shape, transform=grid, dtype="uint8"), grid, crs)

    def _read(self, bounds: Bounds) -> Iterator[tuple[int, list[Floats]]]:
        """Column of CODES + 1 and rings of each polygon whose extent meets `bounds`, which are in the layer's CRS."""
        from pyogrio.raw import read

        try:
            _, _, geometries, (codes,) = read(
                self.path, layer=self.layer, columns=[self.column], bbox=bounds, force_2d=True
            )
        except RuntimeError as error:
            raise BadInput(self.path, f"cannot be read ({reason(error)})") from None
        for geometry, code in zip(geometries, codes, strict=True):
            if str(code) not in _CODE_TEXTS:
                raise BadInput(self.path, f"has a polygon with the code {code}, expected a CORINE class (111…523)")
            value = int(_COLUMN[int(code)])
            if value != _NONE and geometry is not None:
                for polygon in _polygons(geometry):
                    yield value, polygon


def _polygons(wkb: bytes) -> Iterator[list[Floats]]:
    """The polygons of a polygon or multipolygon, without z: a ring (k, 2) for the outline, then one for each hole."""
    order = "<" if wkb[0] else ">"
    kind, count = struct.unpack_from(f"{order}2I", wkb, 1)
    at = 9 if kind == _WKB_MULTIPOLYGON else 0
    for _ in range(count if kind == _WKB_MULTIPOLYGON else kind == _WKB_POLYGON):
        (holes,) = struct.unpack_from(f"{order}I", wkb, at + 5)
        at += 9
        rings = []
        for _ in range(holes):
            (length,) = struct.unpack_from(f"{order}I", wkb, at)
            rings.append(np.frombuffer(wkb, f"{order}f8", 2 * length, at + 4).reshape(-1, 2))
            at += 4 + 16 * length
        if rings:
            yield rings


def _open_polygons(path: Path) -> Corine:
    from pyogrio import list_layers, read_info

    try:
        infos = [read_info(path, layer=name) for name, kind in list_layers(path) if _AREAS.search(str(kind))]
    except RuntimeError as error:
        raise BadInput(path, f"is a damaged GeoPackage ({reason(error).rpartition('; ')[2]})") from None
    found = [(info, str(field)) for info in infos for field in info["fields"] if _CODE_COLUMN.fullmatch(str(field))]
    if not found:
        fields = sorted({str(field) for info in infos for field in info["fields"]})
        raise BadInput(
            path, f"has no layer of polygons with a column such as CODE_18; columns: {', '.join(fields) or '-'}"
        )
    if len(found) > 1:
        several = ", ".join(f"{info['layer_name']}.{field}" for info, field in found)
        raise BadInput(path, f"has several columns of codes, expected one: {several}")
    ((info, field),) = found
    crs = CRS.from_user_input(info["crs"]) if info["crs"] else CRS()
    if not (crs.is_projected or crs.is_geographic):
        raise BadInput(path, "has no coordinate reference system")
    return _Polygons(path, info["layer_name"], field, crs)
