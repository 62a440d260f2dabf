"""Reads patches from tiles; each tile is decoded once, from north to south.

This is a module of its own, so that worker processes need not import pandas.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import rasterio
from numpy.typing import NDArray

from landscale.datasets.survey import PatchDetails
from landscale.errors import LandscaleError
from landscale.formats.geotiff import Place
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.strips import Strips
from landscale.scenes.tile import SIDE, Tile
from landscale.store import Layout

_STRIP_HEIGHT = 1080  # px of 10 m: nine rows of patches, which are read together
_GDAL_OPTIONS = {
    "GDAL_NUM_THREADS": 1,  # there is a worker for each core already
    "GDAL_CACHEMAX": 256,  # MB; the default is 5 % of the memory for each worker
}


@dataclass(frozen=True)
class TileReader:
    """Reads consecutive patches of one tile; `locations` are (number of the tile, y, x) with y, x in px of 10 m.

    column_ranges: for each tile, the first and one past the last column that its patches cover, in px of 10 m.
    """

    tiles: tuple[Tile, ...]
    column_ranges: tuple[tuple[int, int], ...]
    layout: Layout

    def __call__(
        self,
        locations: Sequence[tuple[int, int, int]],
        planes: Mapping[str, NDArray[np.generic]],
        classes: NDArray[np.uint8],  # noqa: ARG002  the survey has filled them in
    ) -> Iterator[PatchDetails | LandscaleError]:
        tile = self.tiles[locations[0][0]]
        problems: dict[int, LandscaleError] = {}
        with rasterio.Env(**_GDAL_OPTIONS):
            try:
                strips = self._open(locations[0][0])
            except LandscaleError as error:
                yield from (error for _ in locations)
                return
            for _, group in groupby(enumerate(locations), key=lambda numbered: numbered[1][1] // _STRIP_HEIGHT):
                first, *more = (i for i, _ in group)
                part = slice(first, first + len(more) + 1)
                damaged = self._cut(strips, locations[part], {key: plane[part] for key, plane in planes.items()})
                problems |= {first + i: error for i, error in damaged.items()}
        for i, (_, y, x) in enumerate(locations):
            yield problems.get(i) or PatchDetails(Place(tile.crs, tile.left + 10 * x, tile.top - 10 * y), tile.mgrs)

    def _open(self, number: int) -> Strips:
        """The strips of a tile, kept open until this thread reads another tile."""
        opened: _Opened | None = getattr(_local, "opened", None)
        if opened is None or opened.reader is not self or opened.number != number:
            if opened is not None:
                opened.pixels.close()
                del _local.opened
            tile = self.tiles[number]
            for band in self.layout.bands:
                tile.manifest.check(tile.scene.files[band])
            pixels = ScenePixels(tile.scene, self.layout.bands)
            opened = _Opened(self, number, pixels, Strips(pixels, *self.column_ranges[number]))
            _local.opened = opened
        return opened.strips

    def _cut(
        self,
        strips: Strips,
        locations: Sequence[tuple[int, int, int]],
        planes: Mapping[str, NDArray[np.generic]],
    ) -> dict[int, LandscaleError]:
        """Decode the rows of the patches, band by band, and cut out the patches. Returns the error of each damaged patch."""
        problems: dict[int, LandscaleError] = {}
        corners = np.array([(y, x) for _, y, x in locations])
        top, bottom = int(corners[:, 0].min()), int(corners[:, 0].max()) + SIDE
        left = self.column_ranges[locations[0][0]][0]
        for plane in self.layout.planes:
            ratio = SIDE // plane.side
            out = planes[plane.key]
            for b, band in enumerate(plane.bands):
                rows = strips.rows(band, top // ratio, bottom // ratio)
                for i, (y, x) in enumerate((corners // ratio).tolist()):
                    down, across = y - top // ratio, x - left // ratio
                    out[i, b] = rows[down : down + plane.side, across : across + plane.side]
                    if (problem := strips.problem(band, y, x, plane.side)) is not None:
                        problems.setdefault(i, problem)
        return problems


@dataclass(frozen=True)
class _Opened:
    """The tile that a thread has open. Each thread opens tiles itself, because threads must not share GDAL's handles."""

    reader: TileReader
    number: int
    pixels: ScenePixels
    strips: Strips


_local = threading.local()
