"""One band of an open raster, at the band's own resolution."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.coords import BoundingBox
from rasterio.enums import Resampling
from rasterio.transform import array_bounds
from rasterio.windows import Window


class OpenBand:
    """A band of an open raster.

    Stacks of bands repeat or interpolate the pixels of coarse bands. `step` undoes that: a pixel is the mean of step × step
    pixels of the raster that have data, which are the original ones where they were repeated.
    """

    def __init__(self, file: Any, index: int = 1, step: int = 1, lock: Lock | None = None) -> None:
        """`file`: the rasterio dataset. `index`: of the band, from 1. `lock`: shared by the bands of one file, for threads."""
        self.file, self._index, self._step, self._lock = file, index, step, lock or Lock()
        self.width, self.height = -(-int(file.width) // step), -(-int(file.height) // step)
        self.transform: Affine = file.transform @ Affine.scale(step)
        self.crs = file.crs
        self.bounds: BoundingBox = file.bounds
        self._top = self._left = 0  # of the part that is read
        self.dtype = np.dtype(file.dtypes[index - 1])
        self.nodata: float | None = file.nodatavals[index - 1]
        self.has_palette = file.colorinterp[index - 1].name == "palette"
        rows, columns = file.block_shapes[index - 1]
        self.block_shape = max(1, int(rows) // step), max(1, int(columns) // step)

    def crop(self, row: int, column: int, height: int, width: int) -> None:
        """Make these pixels the band, from now on; those beyond its end are left out."""
        self._top, self._left = self._top + row, self._left + column
        self.height, self.width = min(height, self.height - row), min(width, self.width - column)
        self.transform = self.transform @ Affine.translation(column, row)
        self.bounds = BoundingBox(*array_bounds(self.height, self.width, self.transform))

    def read(self, window: Window | None = None) -> NDArray[Any]:
        """A window of the band, by default all of it."""
        left, top, width, height = window.flatten() if window else (0, 0, self.width, self.height)
        left, top = left + self._left, top + self._top
        if self._step == 1:
            return self._read(window=Window(left, top, width, height))
        right, bottom = (
            min(self.file.width, (left + width) * self._step),
            min(self.file.height, (top + height) * self._step),
        )
        fine = Window.from_slices((top * self._step, bottom), (left * self._step, right))
        return self._mean(self._read(window=fine), (height, width))

    def reduced(self, shape: Sequence[int], resampling: Resampling = Resampling.nearest) -> NDArray[Any]:
        """The whole band, resampled to `shape` (rows, columns)."""
        part = Window(*(side * self._step for side in (self._left, self._top, self.width, self.height)))
        inside = part.intersection(Window(0, 0, self.file.width, self.file.height))
        return self._read(window=inside, out_shape=tuple(shape), resampling=resampling)

    def _read(self, **part: Any) -> NDArray[Any]:
        """Pixels of the file. GDAL does not allow two threads to read an open file at once."""
        with self._lock:
            values: NDArray[Any] = self.file.read(self._index, **part)
        return values

    def _mean(self, values: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
        """Means of blocks of step × step pixels with data, (rows, columns); 0 where none has."""
        rows, columns = shape
        has_data = (values != 0) & np.isfinite(values)
        if self.nodata is not None:
            has_data &= values != self.nodata
        padding = [(0, rows * self._step - values.shape[0]), (0, columns * self._step - values.shape[1])]
        blocks = rows, self._step, columns, self._step
        total = np.pad(np.where(has_data, values, 0).astype(np.float64), padding).reshape(blocks).sum((1, 3))
        mean = total / np.pad(has_data, padding).reshape(blocks).sum((1, 3)).clip(1)
        pixels: NDArray[Any] = (np.rint(mean) if self.dtype.kind in "iu" else mean).astype(self.dtype)
        return pixels
