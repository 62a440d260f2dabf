"""The fraction of each CORINE class in the area of a patch, sampled every 10 m as in the reference maps of BigEarthNet v2.

Accuracy. A raster is sampled in its own projection: the corners of a patch are projected exactly, and points within are
interpolated bilinearly between them, which at 1.2 km is right to centimetres. Polygons are first burnt into a grid of 10 m in the
CRS of the patches. For patches of 1.2 km, fractions are then right to 0.002, or to 0.006 from polygons where the patches do not
lie on one lattice of 10 m (those of a tile do). An area of less than 0.0005 of the patch may be missed, and a gap between
neighbouring polygons may leave one of the 14,400 samples uncovered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.warp import transform, transform_bounds

from landscale.datasets.corine_codes import CODES

SAMPLE_STEP = 10.0  # m between samples
_BLOCK = 24_000.0  # m: patches whose corners lie in one square of this side are sampled from one part of the map
_BATCH = 32  # patches whose samples fit a core's cache

Bounds = tuple[float, float, float, float]  # left, bottom, right, top
Points = NDArray[np.float64]  # (n, 2): x, y


@dataclass(frozen=True)
class Cells:
    """A part of the map. values: (rows, columns), 1 + the position in `CODES` of the class of a cell, 0 where it has none."""

    values: NDArray[np.uint8]
    transform: Affine
    crs: CRS


class CorineMap(ABC):
    """A CORINE map. It holds no open file and can be pickled."""

    path: Path

    def class_fractions(self, crs: str, left_top: Points, side: float = 1200.0) -> NDArray[np.float64]:
        """The fraction of each class in the area of each patch: (n, 44) in 0…1, columns as `CODES`.

        The sum of a row is the fraction of the patch that the map covers.

        Args:
            crs: CRS of the patches, whose unit is the metre.
            left_top: (n, 2) x and y of their upper left corners.
            side: side of a patch, in metres.

        Raises:
            BadInput: the file is damaged, or has a value or code that is not in CORINE's legend.
        """
        fractions = np.zeros((len(left_top), len(CODES)))
        patch_crs = CRS.from_user_input(crs)
        for block in _blocks(left_top):
            corners = left_top[block]
            (left, bottom), (right, top) = corners.min(axis=0), corners.max(axis=0)
            cells = self.read_cells(patch_crs, (left, bottom - side, right + side, top))
            if cells is not None:
                fractions[block] = _sample(cells, patch_crs, corners, side)
        return fractions

    @abstractmethod
    def read_cells(self, crs: CRS, bounds: Bounds) -> Cells | None:
        """The part of the map that holds `bounds` (in `crs`), in a grid of any CRS; None beyond the map."""


def project(source: CRS, target: CRS, points: Points) -> Points:
    """Points (n, 2) in another CRS."""
    return points if source == target else np.stack(transform(source, target, *points.T), axis=1)


def project_bounds(source: CRS, target: CRS, bounds: Bounds) -> Bounds | None:
    """The extent of `bounds` in another CRS; None where they lie outside its domain."""
    projected: Bounds = transform_bounds(source, target, *bounds)
    return projected if np.isfinite(projected).all() else None


def columns_and_rows(grid: Affine, points: Points) -> NDArray[np.float64]:
    """Columns and rows, (2, n) fractional, of points (n, 2) in a grid."""
    inverse, (x, y) = ~grid, points.T
    return np.stack([inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f])


def _blocks(left_top: Points) -> list[NDArray[np.intp]]:
    """Indices of neighbouring patches, so that each part of the map serves many patches and has a limited size."""
    if not len(left_top):
        return []
    square = np.floor((left_top - left_top.min(axis=0)) / _BLOCK)
    _, number, counts = np.unique(square, axis=0, return_inverse=True, return_counts=True)
    return np.split(np.argsort(number.ravel(), kind="stable"), np.cumsum(counts)[:-1])


def _sample(cells: Cells, crs: CRS, left_top: Points, side: float) -> NDArray[np.float64]:
    """Class fractions (n, 44) of patches that lie within `cells`."""
    corners = left_top[:, None] + side * np.array([[0, 0], [1, 0], [0, -1], [1, -1]])
    points = project(crs, cells.crs, corners.reshape(-1, 2))
    column, row = columns_and_rows(cells.transform, points).astype(np.float32).reshape(2, -1, 4)
    count = int(np.ceil(side / SAMPLE_STEP))
    offsets = (np.arange(count, dtype=np.float32) + 0.5) / np.float32(count)
    flat, values = cells.values.ravel(), len(CODES) + 1
    fractions = np.empty((len(left_top), len(CODES)))
    for first in range(0, len(left_top), _BATCH):
        batch = slice(first, first + _BATCH)
        index = _bilinear(row[batch], offsets) * cells.values.shape[1] + _bilinear(column[batch], offsets)
        patches = len(index)
        samples = flat.take(index.reshape(patches, -1)) + values * np.arange(patches)[:, None]
        counts = np.bincount(samples.ravel(), minlength=values * patches).reshape(patches, values)
        fractions[batch] = counts[:, 1:] / count**2
    return fractions


def _bilinear(corners: NDArray[np.float32], offsets: NDArray[np.float32]) -> NDArray[np.int32]:
    """Interpolate between four corners (n, 4) at `offsets` (k,) down and across: (n, k, k), rounded down to whole cells."""
    left, right = (corners[:, k, None] + offsets * (corners[:, k + 2] - corners[:, k])[:, None] for k in (0, 1))
    across: NDArray[np.float32] = left[:, :, None] + offsets * (right - left)[:, :, None]
    return across.astype(np.int32)
