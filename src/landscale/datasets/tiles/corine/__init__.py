"""CORINE Land Cover: the fraction of each class in the area of a patch, and labels from it; from a raster or a GeoPackage."""

from __future__ import annotations

from pathlib import Path

from landscale.datasets.corine_codes import CODES, GLACIERS, corine_labels
from landscale.datasets.tiles.corine.areas import CorineMap
from landscale.datasets.tiles.corine.polygon_map import open_polygon_map
from landscale.datasets.tiles.corine.raster_map import open_raster_map
from landscale.errors import BadInput
from landscale.formats.rasters import RASTER_DRIVERS
from landscale.runtime.files import check_regular

__all__ = ["CODES", "GLACIERS", "CorineMap", "corine_labels", "open_corine"]

_SQLITE = b"SQLite format 3\0"  # the first bytes of every GeoPackage


def open_corine(path: Path) -> CorineMap:
    """Open a CORINE map: a GeoPackage of polygons, or a raster.

    Args:
        path: the file; `FILE.gpkg:LAYER`, `FILE.gpkg:COLUMN` or `FILE.gpkg:LAYER.COLUMN` for one of several maps in a GeoPackage.

    Raises:
        BadInput: missing, in another format, without a coordinate reference system, or without CORINE classes.
    """
    file, choice = path, ""
    if not path.exists() and ":" in path.name:
        name, _, choice = path.name.partition(":")
        file = path.with_name(name)
    if not file.exists():
        raise BadInput(file, "no such file")
    check_regular(file)
    try:
        with file.open("rb") as opened:
            start = opened.read(len(_SQLITE))
    except OSError as error:
        raise BadInput(file, f"cannot be read ({error.strerror})") from None
    if start == _SQLITE:
        return open_polygon_map(file, choice)
    if choice:
        raise BadInput(file, f"is not a GeoPackage, so it has no layer {choice}")
    if file.suffix.lower() not in RASTER_DRIVERS:
        raise BadInput(file, f"is neither a GeoPackage nor a raster ({', '.join(RASTER_DRIVERS)})")
    return open_raster_map(file)
