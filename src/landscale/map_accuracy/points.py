"""Reference points: where they lie, and which class each of them has in truth."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform
from rasterio.windows import Window

from landscale.errors import BadInput, UnknownName, reason
from landscale.formats.content import read_text
from landscale.formats.vectors import read_vector
from landscale.map_accuracy.class_map import ClassMap, open_class_map
from landscale.map_accuracy.estimates import SampleEstimates, estimate
from landscale.maps.encoding import NODATA
from landscale.vocabulary.nomenclatures import columns_by_name

COLUMN = "class"  # of the class that an interpreter has given a point
_XY = (("x", "y"), ("lon", "lat"), ("longitude", "latitude"))


@dataclass(frozen=True)
class MapSample:
    """The result of `score_points`. left_out: number of points by why they do not count."""

    estimates: SampleEstimates
    left_out: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return {**self.estimates.to_json(), "left_out": self.left_out}


def score_points(map_path: str | Path, points: str | Path, column: str = COLUMN) -> MapSample:
    """Accuracy of a class map and areas of its classes, from reference points in strata that are the classes of the map.

    Args:
        map_path: the class map.
        points: a vector file of points, or a csv with `x` and `y` in the coordinates of the map, or `lon` and `lat`. A column
            `crs` of the csv, such as EPSG:3035 in every row, names another coordinate reference system.
        column: which holds the class of a point, by its name, or by its number in the map. Points without one do not count.

    Raises:
        BadInput: a file cannot be read, lacks a column, or no point with a class lies on the map.
        UnknownName: a class is none of the map. LandscaleError: a class of the map has no point.
    """
    points = Path(points)
    with open_class_map(map_path) as one:
        x, y, names = _read_points(points, one.file.crs, column)
        truth = _numbers(names, one)
        mapped = _values_at(one, x, y)
        counts = np.zeros((len(one.classes),) * 2, np.int64)
        used = (truth >= 0) & (mapped != NODATA)
        np.add.at(counts, (mapped[used], truth[used]), 1)
        if not used.any():
            raise BadInput(points, f"has no point with a class on the mapped pixels of {map_path}")
        left_out = {"without a class": int((truth < 0).sum()), "outside the map": int(((truth >= 0) & ~used).sum())}
        return MapSample(estimate(counts, one.pixels() * one.hectares, one.classes), left_out)


def _numbers(names: list[str], of: ClassMap) -> NDArray[np.int64]:
    """The number of each class, −1 for an empty name. Finer classes of the nomenclature belong to those that contain them."""
    found = {"": -1} | {str(k): k for k in range(len(of.classes))}
    known = sorted(set(names) - found.keys())
    for number, name in enumerate(of.classes):
        try:
            (columns,) = columns_by_name([name], known)
        except UnknownName:
            continue
        found |= {known[column]: number for column in columns}
    for name in known:
        if name not in found:
            raise UnknownName("class", name, of.classes)
    return np.array([found[name] for name in names], np.int64)


def _values_at(of: ClassMap, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The value of the map at each point; NODATA outside of it."""
    grid = of.file.transform
    columns = np.floor((x - grid.c) / grid.a).astype(np.int64)
    rows = np.floor((y - grid.f) / grid.e).astype(np.int64)
    inside = (rows >= 0) & (rows < of.file.height) & (columns >= 0) & (columns < of.file.width)
    values = np.full(len(x), NODATA, np.uint8)
    for window in of.windows():
        here = inside & (rows >= window.row_off) & (rows < window.row_off + window.height)
        if here.any():
            part = of.read(Window(0, window.row_off, of.file.width, window.height))
            values[here] = part[rows[here] - window.row_off, columns[here]]
    return values


def _read_points(path: Path, crs: CRS, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """x and y in the coordinate reference system of the map, and the names of classes."""
    x, y, own, names = _read_table(path, column) if path.suffix.lower() == ".csv" else _read_vector(path, column)
    if not len(x):
        raise BadInput(path, "has no point")
    if own is not None and own != crs:
        try:
            x, y = (np.array(values) for values in transform(own, crs, x, y))
        except Exception as error:  # GDAL's; rasterio has no public name for their class
            raise BadInput(path, f"has a point outside the domain of {crs} ({reason(error)})") from None
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise BadInput(path, "has a point without finite coordinates")
    return x, y, names


def _read_table(path: Path, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64], CRS | None, list[str]]:
    try:
        table = pd.read_csv(StringIO(read_text(path)), dtype=str, keep_default_na=False, skipinitialspace=True)
    except (ValueError, pd.errors.ParserError) as error:
        raise BadInput(path, f"is no table ({reason(error)})") from None
    named = {str(name).strip().lower(): name for name in table}
    pair = next((pair for pair in _XY if set(pair) <= named.keys()), None)
    if pair is None or column.lower() not in named:
        raise BadInput(
            path,
            f"has the columns {', '.join(map(str, table))}, expected x and y, or lon and lat, and {column} (--column)",
        )
    try:
        x, y = (np.asarray(table[named[name]].astype(float), np.float64) for name in pair)
    except ValueError as error:
        raise BadInput(path, f"has a coordinate that is no number ({reason(error)})") from None
    own = None if pair == _XY[0] else CRS.from_epsg(4326)
    if "crs" in named:
        own = _one_crs(path, {str(value).strip() for value in table[named["crs"]]})
    return x, y, own, [str(name).strip() for name in table[named[column.lower()]]]


def _one_crs(path: Path, found: set[str]) -> CRS:
    """The coordinate reference system that every row of a table names."""
    if len(found) != 1 or not all(found):
        raise BadInput(path, f"crs: found {', '.join(sorted(found)[:3]) or 'none'}, expected the same one in every row")
    (name,) = found
    try:
        return CRS.from_user_input(name)
    except CRSError as error:
        raise BadInput(path, f"crs: found '{name}', expected a code such as EPSG:3035 ({reason(error)})") from None


def _read_vector(path: Path, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64], CRS | None, list[str]]:
    layer = read_vector(path)
    if column not in layer.columns:
        raise BadInput(path, f"has the columns {', '.join(layer.columns)}, expected {column}; name another by --column")
    if any(shape is None or shape.geom_type != "Point" for shape in layer.shapes):
        raise BadInput(path, "holds something else than points, expected a sample of reference points")
    values = layer.columns[column]
    texts = ["" if pd.isna(value) else str(value).strip().removesuffix(".0") for value in values]
    return shapely.get_x(layer.shapes), shapely.get_y(layer.shapes), layer.crs, texts
