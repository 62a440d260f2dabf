"""Which pixels of a scene are not mapped, and why: nodata, cloud, cloud shadow, snow, or what a raster of the user marks.

Codes of the scene classification without a reason below are mapped. Snow is mapped if it is one of the classes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from landscale.errors import BadInput, reason
from landscale.formats.rasters import open_raster_file
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import Scene
from landscale.vocabulary import scene_classification as scl


class Reason(IntEnum):
    """Why a pixel is not mapped. Where several scenes overlap, the largest counts."""

    MAPPED = 0
    NODATA = 1
    SATURATED = 2
    SHADOW = 3
    CLOUD = 4
    CIRRUS = 5
    SNOW = 6
    MASK = 7
    OUTSIDE = 8

    @property
    def label(self) -> str:
        return self.name.lower()


_SCL = {
    scl.NODATA: Reason.NODATA,
    scl.SATURATED: Reason.SATURATED,
    scl.SHADOW: Reason.SHADOW,
    scl.CLOUD_MEDIUM: Reason.CLOUD,
    scl.CLOUD_HIGH: Reason.CLOUD,
    scl.CIRRUS: Reason.CIRRUS,
    scl.SNOW: Reason.SNOW,
}
_HIDDEN = (Reason.SHADOW, Reason.CLOUD, Reason.CIRRUS)
_SNOW_CLASS = re.compile(r"\b(snow|ice|glaciers?)\b", re.IGNORECASE)


class PixelMask:
    """The reasons for which pixels of a scene are not mapped.

    Args:
        pixels: the scene, or the part of it that is read.
        path: a raster in the same coordinate reference system that covers it, with pixels of any size.
        reasons: (256,) the reason for each value of the raster; larger values have that of 255.
        index: of the band of the raster, from 1.

    Raises:
        BadInput: the raster cannot be read or decoded, lies elsewhere, or does not cover the scene.
    """

    def __init__(self, pixels: ScenePixels, path: Path, reasons: NDArray[np.uint8], index: int = 1) -> None:
        centres = np.arange(max(pixels.width, pixels.height)) + 0.5
        try:
            with open_raster_file(path) as file:
                grid = file.transform
                if file.crs != pixels.crs or grid.b or grid.d or grid.a <= 0 or grid.e >= 0:
                    raise BadInput(
                        path,
                        f"lies in {file.crs or 'no coordinate reference system'}, expected {pixels.crs}, north-up;"
                        " warp it with gdalwarp -t_srs",
                    )
                x = pixels.transform.c + centres[: pixels.width] * pixels.gsd
                y = pixels.transform.f - centres[: pixels.height] * pixels.gsd
                columns = np.floor((x - grid.c) / grid.a).astype(np.int64)
                rows = np.floor((grid.f - y) / -grid.e).astype(np.int64)
                # The last pixels of a scene may lie beyond the last whole pixel of a coarser raster.
                beyond = round(-grid.e / pixels.gsd), round(grid.a / pixels.gsd)
                if (
                    min(rows[0], columns[0]) < 0
                    or np.count_nonzero(rows >= file.height) >= max(1, beyond[0])
                    or np.count_nonzero(columns >= file.width) >= max(1, beyond[1])
                ):
                    raise BadInput(path, f"does not cover the scene or area to be mapped ({_extent(pixels)})")
                rows, columns = np.minimum(rows, file.height - 1), np.minimum(columns, file.width - 1)
                window = Window.from_slices((rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1))
                values = file.read(index, window=window)
        except RasterioError as error:
            raise BadInput(path, f"cannot be read ({reason(error)})") from None
        if values.dtype != np.uint8:
            values = np.where(np.isfinite(values), np.clip(np.ceil(np.abs(values)), 0, 255), 255).astype(np.uint8)
        self._reasons = reasons[values]
        self._rows, self._columns = rows - rows[0], columns - columns[0]

    def rows(self, top: int, count: int) -> NDArray[np.uint8]:
        """Reasons (count, width) of some rows of the scene's finest grid."""
        found: NDArray[np.uint8] = self._reasons[self._rows[top : top + count]][:, self._columns]
        return found

    @property
    def cloudiness(self) -> float:
        """The fraction of the pixels with data that cloud, cirrus or cloud shadow hide."""
        with_data = np.count_nonzero(self._reasons != Reason.NODATA)
        return float(np.isin(self._reasons, _HIDDEN).sum() / max(1, with_data))


def find_mask(scene: Scene, pixels: ScenePixels, mask: str | Path | bool, classes: Sequence[str]) -> PixelMask | None:
    """The mask of a scene.

    Args:
        scene, pixels: the scene, or the part of it that is read.
        mask: True: the scene classification of the product, if it has one; False: none; or a raster whose values other than 0
            are not mapped.
        classes: names of the map's classes. Snow is mapped if it is one of them.

    Raises:
        BadInput: as `PixelMask`.
    """
    if mask is False:
        return None
    if mask is not True:
        return PixelMask(pixels, Path(mask), np.array([Reason.MAPPED] + [Reason.MASK] * 255, np.uint8))
    if scene.classification is None:
        return None
    reasons = np.zeros(256, np.uint8)
    reasons[scl.SNOW + 1 :] = Reason.NODATA  # no code, such as the nodata value of an export
    for code, why in _SCL.items():
        if why != Reason.SNOW or not any(_SNOW_CLASS.search(name) for name in classes):
            reasons[code] = why
    return PixelMask(pixels, scene.classification, reasons, scene.classification_index)


def _extent(pixels: ScenePixels) -> str:
    left, top = pixels.transform.c, pixels.transform.f
    right, bottom = left + pixels.width * pixels.gsd, top - pixels.height * pixels.gsd
    return f"{left:g} to {right:g} east, {bottom:g} to {top:g} north"
