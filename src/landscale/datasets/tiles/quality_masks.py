"""The fractions of a patch that are nodata, cloud, cloud shadow and snow, by the scene classification of a product."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.images import open_raster
from landscale.errors import BadInput, LandscaleError
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.tile import Tile
from landscale.vocabulary.bands import BANDS
from landscale.vocabulary.scene_classification import CLOUDS, NODATA, SHADOW, SNOW

# A patch gets the flag `snow`, or `cloud` (cloud and shadow together), if at least this fraction is covered. The number is
# landscale's own; BigEarthNet publishes lists of such patches without a limit.
FLAGGED_FROM = 0.05
_CODES = ((NODATA,), CLOUDS, (SHADOW,), (SNOW,))  # in the order of store.SHARES


@dataclass(frozen=True)
class Limits:
    """The largest fractions (0…1) of a patch that may be cloud (with its shadow), snow and nodata; None: no limit.

    Patches without any data are never kept.

    Raises:
        LandscaleError: a limit is not in 0…1.
    """

    cloud: float | None = None
    snow: float | None = None
    nodata: float | None = None

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if limit is not None and not 0 <= limit <= 1:
                raise LandscaleError(f"--max-{name}: found {limit:g}, expected a fraction of the patch, 0 to 1")

    def keep(self, fractions: NDArray[np.float32], folder: Path) -> NDArray[np.bool_]:
        """Which patches are within the limits, (n,), by the `mask_fractions` (n, 4) of the product in `folder`.

        Raises:
            BadInput: there is a limit on a fraction that is unknown.
        """
        nodata, cloud, shadow, snow = fractions.T
        kept: NDArray[np.bool_] = nodata < 1
        limited = {"--max-nodata": (self.nodata, nodata), "--max-cloud": (self.cloud, cloud + shadow)}
        limited["--max-snow"] = (self.snow, snow)
        for option, (limit, fraction) in limited.items():
            if limit is None:
                continue
            if np.isnan(fraction).any():
                raise BadInput(
                    folder, f"has no scene classification (a file such as …_SCL_20m.jp2), which {option} needs"
                )
            kept &= fraction <= limit
        return kept


def mask_fractions(tile: Tile, corners: NDArray[np.int64], side: int) -> NDArray[np.float32]:
    """Fractions (n, 4) of the area of each patch, in the order of `store.SHARES`; NaN where they are unknown.

    Without a scene classification, only nodata is known: pixels of the coarsest band that are 0.

    Args:
        tile: the product.
        corners: y, x of the upper left corner of each patch (n, 2), in px of 10 m.
        side: side of a patch, in px of 10 m.

    Raises:
        BadInput: a mask is damaged or does not cover the product.
    """
    fractions = np.full((len(corners), 4), np.nan, np.float32)
    extent = tile.left, tile.top, tile.width, tile.height
    if not len(corners):
        return fractions
    path = tile.scene.classification
    if path is None:
        coarsest = max(tile.scene.files, key=lambda band: BANDS[band].gsd)
        with ScenePixels(tile.scene, [coarsest]) as pixels:
            empty = pixels.read(coarsest, 0, pixels.height) == 0
        fractions[:, 0] = _fraction(empty, corners, side, pixels.gsd)
        return fractions
    tile.manifest.check(path)
    values, gsd = read_covering_raster(path, *extent, tile.scene.classification_index)
    for k, codes in enumerate(_CODES):
        fractions[:, k] = _fraction(np.isin(values, codes), corners, side, gsd)
    return fractions


def read_covering_raster(
    path: Path, left: float, top: float, width: int, height: int, index: int = 1
) -> tuple[NDArray[np.integer], float]:
    """The pixels (rows, columns) of a raster that covers a product exactly, and its metres per pixel: 10, 20 or 60.

    Pixels of the file's own nodata value are 0.

    Args:
        path: the raster.
        left, top: upper left corner of the product, in units of its CRS.
        width, height: size of the product, in px of 10 m.
        index: of the band, from 1.

    Raises:
        BadInput: the raster cannot be decoded, or covers another area.
    """
    with open_raster(path) as image:
        grid, columns, rows, values = image.transform, image.width, image.height, image.read(index)
        if nodata := image.nodatavals[index - 1]:
            values[np.isnan(values) if np.isnan(nodata) else values == nodata] = 0
    gsd = float(grid.a)
    found, expected = (grid.c, grid.f, columns * gsd, rows * gsd), (left, top, width * 10, height * 10)
    if gsd not in (10, 20, 60) or np.abs(np.subtract(found, expected)).max() >= gsd:
        raise BadInput(
            path,
            f"covers {columns}×{rows} px of {gsd:g} m from {found[:2]}, "
            f"expected the area of its product: {width}×{height} px of 10 m from {(left, top)}",
        )
    return values, gsd


def _fraction(mask: NDArray[np.bool_], corners: NDArray[np.int64], side: int, gsd: float) -> NDArray[np.float64]:
    """The fraction of each patch where a mask of `gsd` metres per pixel is true."""
    ratio = gsd / 10
    begin = np.rint(corners / ratio).astype(int)
    end = (begin + round(side / ratio)).tolist()
    extents = zip(begin.tolist(), end, strict=True)
    counts = [np.count_nonzero(mask[top:bottom, left:right]) for (top, left), (bottom, right) in extents]
    fraction: NDArray[np.float64] = np.array(counts) / (side / ratio) ** 2
    return fraction
