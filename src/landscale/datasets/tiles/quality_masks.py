"""How much of a patch can be seen: shares of nodata, cloud, shadow and snow, from a product's scene classification.

Values of the scene classification (SCL; ESA, Sentinel-2 Level-2A Algorithm Theoretical Basis Document): 0 nodata,
3 cloud shadow, 8 and 9 cloud of medium and high probability, 10 thin cirrus, 11 snow or ice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.images import open_raster
from landscale.errors import BadInput, LandscaleError
from landscale.scenes.tile import Tile
from landscale.vocabulary.bands import BANDS

FLAGGED = (
    0.05  # share under snow, or under cloud and shadow, from which on a patch is flagged as BigEarthNet flags such
)
_FILE = re.compile(r"(?:^|_)SCL(?:_\d\dm)?\.(?:tif|tiff|jp2)$", re.IGNORECASE)
CLOUD = (8, 9, 10)
_CLASSES = ((0,), CLOUD, (3,), (11,))  # in the order of store.SHARES: nodata, cloud, shadow, snow


@dataclass(frozen=True)
class Limits:
    """The largest shares (0…1) that a patch may have. Cloud includes its shadow. None: any; but no patch without any data.

    Raises:
        LandscaleError: a limit that is no share.
    """

    cloud: float | None = None
    snow: float | None = None
    nodata: float | None = None

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if limit is not None and not 0 <= limit <= 1:
                raise LandscaleError(f"--max-{name}: found {limit:g}, expected a share of the patch, 0 to 1")

    def keep(self, shares: NDArray[np.float32], folder: Path) -> NDArray[np.bool_]:
        """Which patches, by their shares (n, 4), are within the limits.

        Raises:
            BadInput: a limit on what the product in `folder` does not tell.
        """
        nodata, cloud, shadow, snow = shares.T
        kept: NDArray[np.bool_] = nodata < 1
        limited = {"--max-nodata": (self.nodata, nodata), "--max-cloud": (self.cloud, cloud + shadow)}
        limited["--max-snow"] = (self.snow, snow)
        for option, (limit, share) in limited.items():
            if limit is None:
                continue
            if np.isnan(share).any():
                raise BadInput(
                    folder, f"has no scene classification (a file such as …_SCL_20m.jp2), which {option} needs"
                )
            kept &= share <= limit
        return kept


def classification(product: Path) -> Path | None:
    """The raster of a product's scene classification, the finest, if it has any."""
    return next((path for path in sorted(product.rglob("*")) if _FILE.search(path.name)), None)


def shares(tile: Tile, corners: NDArray[np.int64], side: int) -> NDArray[np.float32]:
    """Shares (n, 4) of the area of each patch, in the order of `store.SHARES`; NaN where the product does not tell.

    Without a scene classification, nodata is where the coarsest band is 0.

    Args:
        tile: the product.
        corners: y, x of each patch (n, 2), in px of 10 m.
        side: of a patch, in px of 10 m.

    Raises:
        BadInput: a mask that is damaged or does not cover the product.
    """
    found = np.full((len(corners), 4), np.nan, np.float32)
    place = tile.left, tile.top, tile.width, tile.height
    if not len(corners):
        return found
    path = classification(tile.scene.folder)
    if path is None:
        coarsest = max(tile.scene.files, key=lambda band: BANDS[band].gsd)
        values, gsd = read_there(tile.scene.files[coarsest], *place)
        found[:, 0] = _share(values == 0, corners, side, gsd)
        return found
    tile.manifest.check(path)
    values, gsd = read_there(path, *place)
    for k, classes in enumerate(_CLASSES):
        found[:, k] = _share(np.isin(values, classes), corners, side, gsd)
    return found


def read_there(path: Path, left: float, top: float, width: int, height: int) -> tuple[NDArray[np.integer], float]:
    """The pixels of a raster that covers a product, (rows, columns), and their size in metres.

    Args:
        path: of the raster.
        left, top: of the product's upper left corner, in units of its CRS.
        width, height: in px of 10 m.

    Raises:
        BadInput: it cannot be decoded, or lies elsewhere.
    """
    with open_raster(path) as image:
        grid, across, down, values = image.transform, image.width, image.height, image.read(1)
    gsd = float(grid.a)
    at, expected = (grid.c, grid.f, across * gsd, down * gsd), (left, top, width * 10, height * 10)
    if gsd not in (10, 20, 60) or np.abs(np.subtract(at, expected)).max() >= gsd:
        raise BadInput(
            path, f"lies at {at[:2]} with {across}×{down} px of {gsd:g} m, which is not where its product lies"
        )
    return values, gsd


def _share(mask: NDArray[np.bool_], corners: NDArray[np.int64], side: int, gsd: float) -> NDArray[np.float64]:
    """The share of a mask in each patch."""
    ratio = gsd / 10
    begin = np.rint(corners / ratio).astype(int)
    end = (begin + round(side / ratio)).tolist()
    places = zip(begin.tolist(), end, strict=True)
    inside = [np.count_nonzero(mask[top:bottom, left:right]) for (top, left), (bottom, right) in places]
    share: NDArray[np.float64] = np.array(inside) / (side / ratio) ** 2
    return share
