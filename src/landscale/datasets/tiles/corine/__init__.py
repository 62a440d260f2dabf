"""CORINE Land Cover: the fraction of each class in the area of a patch, and labels from it; from a raster or a GeoPackage."""

from __future__ import annotations

from pathlib import Path

from landscale.datasets.tiles.corine.areas import CorineMap
from landscale.datasets.tiles.corine.classes import CODES, GLACIERS, corine_labels
from landscale.datasets.tiles.corine.polygon_map import open_polygon_map
from landscale.datasets.tiles.corine.raster_map import open_raster_map
from landscale.errors import BadInput
from landscale.formats.rasters import RASTER_DRIVERS

__all__ = ["CODES", "GLACIERS", "CorineMap", "corine_labels", "open_corine"]

_SQLITE = b"SQLite format 3\0"  # the first bytes of every GeoPackage


def open_corine(path: Path) -> CorineMap:
    """Open a CORINE map: a GeoPackage of polygons, or a raster.

    Raises:
        BadInput: missing, in another format, without a coordinate reference system, or without CORINE classes.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_SQLITE))
    except OSError as error:
        raise BadInput(path, f"cannot be read ({error.strerror})") from None
    if start == _SQLITE:
        return open_polygon_map(path)
    if path.suffix.lower() not in RASTER_DRIVERS:
        raise BadInput(path, f"is neither a GeoPackage nor a raster ({', '.join(RASTER_DRIVERS)})")
    return open_raster_map(path)
