"""The squares of ground that patches cover, as polygons in longitude and latitude."""

from __future__ import annotations

import math

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform

from landscale.store import PatchStore

Floats = NDArray[np.float64]

_LONGITUDE_LATITUDE = CRS.from_epsg(4326)
_METRES_PER_DEGREE = math.pi * 6_378_137.0 / 180  # as `datasets.images` has it for images in degrees
# Corners in units of the side, counter-clockwise from the upper left one, which is the patch's origin.
_CORNERS = np.array([(0, 0), (0, -1), (1, -1), (1, 0)], np.float64)


def footprint_corners(store: PatchStore, rows: NDArray[np.int64]) -> Floats:
    """Longitude and latitude (n, 4, 2) of the corners of some patches, in degrees, counter-clockwise; NaN without a place.

    A patch has a place if the store holds its coordinate reference system and its corner, as those of BigEarthNet v1 and of
    georeferenced images do; the published LMDB and pictures have none. Longitudes of a patch that crosses the 180th meridian
    are above 180, so that its polygon is one piece.
    """
    systems, origins = store.column("crs")[rows], store.column("origin")[rows]
    corners = np.full((len(rows), 4, 2), np.nan)
    for name in np.unique(systems):
        here = (systems == name) & np.isfinite(origins).all(axis=1)
        if not name or not here.any():
            continue
        side = side_in_units(name, float(store.layout.ground))
        if side is None:
            continue
        try:
            crs = CRS.from_string(name)
        except CRSError:
            continue
        corners[here] = _transformed(crs, origins[here, None, :] + side * _CORNERS)
    corners[~np.isfinite(corners).all(axis=(1, 2))] = np.nan  # outside the projection
    crosses = np.ptp(corners[:, :, 0], axis=1) > 180
    corners[crosses, :, 0] += np.where(corners[crosses, :, 0] < 0, 360.0, 0.0)
    return corners


def _transformed(crs: CRS, corners: Floats) -> Floats:
    """Longitude and latitude (n, 4, 2) of corners in a coordinate reference system; NaN for patches outside its projection."""
    try:
        longitudes, latitudes = transform(crs, _LONGITUDE_LATITUDE, *corners.reshape(-1, 2).T)
    except Exception as error:
        if not type(error).__module__.startswith("rasterio"):  # GDAL's errors have classes of their own
            raise
        if len(corners) == 1:
            return np.full_like(corners, np.nan)
        middle = len(corners) // 2  # one point outside makes the whole call fail
        return np.concatenate([_transformed(crs, part) for part in (corners[:middle], corners[middle:])])
    return np.stack([longitudes, latitudes], axis=1).reshape(-1, 4, 2)


def side_in_units(name: str, ground: float) -> float | None:
    """`ground` metres in the units of a coordinate reference system; None if it is not one, or has no unit of length."""
    try:
        crs = CRS.from_string(name)
        metres = _METRES_PER_DEGREE if crs.is_geographic else float(crs.linear_units_factor[1])
    except (CRSError, ValueError):
        return None
    return ground / metres if 0 < metres < math.inf else None


def as_wkb(corners: Floats) -> list[bytes | None]:
    """Polygons in well-known binary (little-endian), one for each patch; None for one without a place."""
    placed = np.isfinite(corners).all(axis=(1, 2))
    found: list[bytes | None] = [None] * len(corners)
    for k, polygon in zip(
        np.flatnonzero(placed), shapely.to_wkb(shapely.polygons(corners[placed]), byte_order=1), strict=True
    ):
        found[k] = polygon
    return found


def boxes(corners: Floats) -> Floats:
    """West, south, east and north (n, 4) of each patch; NaN for one without a place."""
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
