"""A CORINE map as a raster (the official one has cells of 100 m) of grid codes 1…44 or of codes 111…523."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.windows import Window

from landscale.datasets.corine_codes import NO_CLASS, UNKNOWN, cells_by_values, coarser_level
from landscale.datasets.images import open_raster
from landscale.datasets.tiles.corine.areas import Bounds, Cells, CorineMap, columns_and_rows, project_bounds
from landscale.errors import BadInput

_CHECKED = 1000  # side, in cells, of the square in the middle of a raster that is checked when it is opened


@dataclass(frozen=True)
class _RasterMap(CorineMap):
    path: Path

    def read_cells(self, crs: CRS, bounds: Bounds) -> Cells | None:
        with open_raster(self.path) as image:
            projected = project_bounds(crs, image.crs, bounds)
            if projected is None:
                return None
            left, bottom, right, top = projected
            corners = np.array([[left, top], [right, top], [left, bottom], [right, bottom]])
            column, row = columns_and_rows(image.transform, corners)
            # One cell more on each side than needed, so that a rounded sample cannot fall outside.
            window = Window.from_slices(
                (int(row.min()) - 2, int(row.max()) + 3),
                (int(column.min()) - 2, int(column.max()) + 3),
                boundless=True,
            )
            return _read_window(self.path, image, window)


def open_raster_map(path: Path) -> CorineMap:
    """Open a raster of CORINE classes. Its middle is read, so that a raster of something else is refused at once.

    Raises:
        BadInput: in another format, not georeferenced, with several bands, with values that are not in CORINE's legend, or of
            one of its coarser levels.
    """
    with open_raster(path) as image:
        if image.count != 1:
            raise BadInput(path, f"has {image.count} bands, expected one, of CORINE classes")
        if np.dtype(image.dtypes[0]).kind not in "iuf":
            raise BadInput(path, f"has {image.dtypes[0]} pixels, expected integers: codes of CORINE classes")
        if image.crs is None or image.transform.is_identity:
            raise BadInput(path, "is not georeferenced")
        height, width = min(image.height, _CHECKED), min(image.width, _CHECKED)
        middle = Window((image.width - width) // 2, (image.height - height) // 2, width, height)
        cells = _read_window(path, image, middle)
        if (level := coarser_level(image.read(1, window=middle))) is not None:
            raise BadInput(
                path, f"has the codes of CORINE's level {level}, expected those of level 3: 111…523, or grid codes 1…44"
            )
        is_all = (height, width) == (image.height, image.width)
        if is_all and (cells is None or not cells.values.any()):
            raise BadInput(path, "has no cell with a CORINE class")
    return _RasterMap(path)


def _read_window(path: Path, image: Any, window: Window) -> Cells | None:
    """The cells in `window`, which may extend beyond the raster; None where it lies outside."""
    rows = slice(max(0, window.row_off), min(image.height, window.row_off + window.height))
    columns = slice(max(0, window.col_off), min(image.width, window.col_off + window.width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    values = image.read(1, window=Window.from_slices(rows, columns))
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), 0, values)  # 0: no class
        if len(fractions := values[values != np.rint(values)]):
            raise BadInput(path, f"has the value {fractions[0]}, expected CORINE classes (1…44 or 111…523)")
    inside = cells_by_values(values)
    inside[values == (-128 if image.nodata is None else image.nodata)] = NO_CLASS
    if (inside == UNKNOWN).any():
        value = values[inside == UNKNOWN][0]
        raise BadInput(path, f"has the value {value}, expected CORINE classes (1…44 or 111…523)")
    cells = np.zeros((window.height, window.width), np.uint8)
    down, across = rows.start - window.row_off, columns.start - window.col_off
    cells[down : down + inside.shape[0], across : across + inside.shape[1]] = inside
    return Cells(cells, image.window_transform(window), image.crs)
