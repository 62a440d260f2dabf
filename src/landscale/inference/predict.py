"""A scene → a map: one band of probability per class, on the scene's own finest grid, as a cloud-optimised GeoTIFF.

The classifier looks at windows of the ground it was trained on, a stride apart; a pixel's probability is the mean over the
windows that hold it. The last windows of a row and of the scene are moved inward, so that every pixel is seen and none is
made up; a scene smaller than a window is continued by its border. What the classifier said of a row of windows is kept until
the map is there, so a killed process costs one row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from landscale.loading import Native
from landscale.models.classifier import Classifier
from landscale.runtime.files import atomic_file
from landscale.runtime.outputs import check_output
from landscale.runtime.parts import Parts, resumable_parts
from landscale.runtime.progress import progress_bar
from landscale.scenes.scene import ScenePixels, open_scene

BATCH = 64
_PROFILE = {
    "driver": "GTiff",
    "tiled": True,
    "blockxsize": 512,
    "blockysize": 512,
    "compress": "deflate",
    "BIGTIFF": "IF_SAFER",
}


def starts(length: int, side: int, stride: int, grid: int) -> list[int]:
    """Where windows of `side` begin so that they cover `length` pixels, all at multiples of `grid`.

    The rest that a multiple cannot reach is at most `grid` − 1 pixels at the end; `predict` gives it the nearest value.
    """
    last = max(0, (length - side) // grid * grid)
    return [*range(0, last, stride), last]


def predict(classifier: Classifier, scene_folder: Path, out: Path, stride: int | None = None) -> dict[str, Any]:
    """Write the map of a scene.

    Args:
        classifier: in eval mode; its device does the work.
        scene_folder: folder of band rasters at native resolution; numbers are harmonised (see `sources.scene`).
        out: GeoTIFF, float32, a band a class, in 0…1; NaN where the scene has no data (every band of its finest grid is 0).
        stride: pixels of the finest grid between windows, rounded down to whole pixels of the coarsest band;
            by default half a window.

    Returns:
        What was written: size, CRS, classes, windows, offset.

    Raises:
        BadInput: the scene lacks bands or cannot be read, or `out` is something else than a map; it stays as it is.
    """
    check_output(out, (b"II", b"MM"), "a GeoTIFF")
    d = classifier.description
    scene = open_scene(scene_folder)
    with rasterio.Env(GDAL_CACHEMAX=1024), ScenePixels(scene, d.bands) as pixels, ExitStack() as stack:
        grid = lcm(*pixels.ratios.values())
        side = max(grid, round(d.ground / pixels.gsd) // grid * grid)
        stride = min(side, max(grid, (stride or side // 2) // grid * grid))
        plan = {**scene.identity(), "classifier": classifier.digest(), "side": side, "stride": stride}
        done = stack.enter_context(resumable_parts(out, plan))
        temporary = stack.enter_context(atomic_file(out))
        rows, columns = starts(pixels.height, side, stride, grid), starts(pixels.width, side, stride, grid)
        profile = _PROFILE | {
            "width": pixels.width,
            "height": pixels.height,
            "count": len(d.classes),
            "dtype": "float32",
            "nodata": float("nan"),
            "crs": pixels.crs,
            "transform": pixels.transform,
        }
        plain = temporary.with_name(temporary.name + ".plain")
        try:
            with (
                rasterio.open(plain, "w", **profile) as file,
                progress_bar("predict", len(rows) * len(columns), "windows") as advance,
            ):
                file.descriptions = d.classes
                for top, values in _strips(classifier, pixels, done, rows, columns, side, advance):
                    file.write(values, window=Window(0, top, values.shape[2], values.shape[1]))
            rasterio.shutil.copy(
                plain, temporary, driver="COG", compress="DEFLATE", bigtiff="IF_SAFER", overview_resampling="average"
            )
        finally:
            plain.unlink(missing_ok=True)
    return {
        "map": str(out),
        "width": pixels.width,
        "height": pixels.height,
        "crs": str(pixels.crs),
        "pixel": pixels.gsd,
        "classes": list(d.classes),
        "windows": len(rows) * len(columns),
        "stride": stride,
        "offset": scene.offset,
    }


def _strips(
    classifier: Classifier,
    pixels: ScenePixels,
    done: Parts,
    rows: list[int],
    columns: list[int],
    side: int,
    advance: Callable[[int], None],
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Finished rows of the map from top to bottom: the first row, and probabilities (C, rows, width)."""
    classes = len(classifier.description.classes)
    width, height = pixels.width, pixels.height
    across = max(width, side)
    total = np.zeros((classes, side, across), np.float32)  # over the rows that windows still reach
    seen = np.zeros((side, across), np.float32)
    for k, top in enumerate(rows):
        probabilities = done.get(str(top))
        if probabilities is None:
            strip = _read_strip(pixels, top, side, across)
            probabilities = _probabilities(classifier, strip, columns, side, pixels, advance)
            done.put(str(top), probabilities)
        else:
            advance(len(columns))
        for left, values in zip(columns, probabilities, strict=True):
            total[:, :, left : left + side] += values[:, None, None]
            seen[:, left : left + side] += 1
        last = k + 1 == len(rows)
        ready = side if last else rows[k + 1] - top
        values = total[:, :ready] / np.maximum(seen[:ready], 1)
        if width > columns[-1] + side:  # what no whole coarse pixel covers takes its neighbour's value
            values[:, :, columns[-1] + side :] = values[:, :, columns[-1] + side - 1, None]
        if last and top + ready < height:
            values = np.concatenate([values, np.repeat(values[:, -1:], height - top - ready, axis=1)], axis=1)
        values = values[:, : height - top, :width]
        values[:, _nodata(pixels, top, values.shape[1])] = np.nan
        yield top, values
        total[:, : side - ready], seen[: side - ready] = total[:, ready:].copy(), seen[ready:].copy()
        total[:, side - ready :], seen[side - ready :] = 0, 0


def _read_strip(pixels: ScenePixels, top: int, side: int, across: int) -> dict[str, NDArray[np.uint16]]:
    """Harmonised rows of every band in its own pixels, continued by the border to whole windows."""
    strip = {}
    for band, ratio in pixels.ratios.items():
        raw = pixels.harmonise(pixels.read(band, top // ratio, side // ratio))
        down, right = side // ratio - raw.shape[0], max(0, across // ratio - raw.shape[1])
        strip[band] = np.pad(raw, ((0, down), (0, right)), mode="edge")
    return strip


def _nodata(pixels: ScenePixels, top: int, rows: int) -> NDArray[np.bool_]:
    """Where all bands of the finest grid are 0; (rows, width). GDAL's cache has these rows still."""
    finest = [band for band, ratio in pixels.ratios.items() if ratio == 1]
    empty: NDArray[np.bool_] = np.all([pixels.read(band, top, rows) == 0 for band in finest], axis=0)
    return empty


def _probabilities(
    classifier: Classifier,
    strip: dict[str, NDArray[np.uint16]],
    columns: list[int],
    side: int,
    pixels: ScenePixels,
    advance: Callable[[int], None],
) -> NDArray[np.float32]:
    """Of the windows of a strip that begin at `columns`: (n, C)."""
    device = next(classifier.network.parameters()).device
    groups: dict[int, list[str]] = {}
    for band, ratio in pixels.ratios.items():
        groups.setdefault(ratio, []).append(band)
    found = []
    for k in range(0, len(columns), BATCH):
        places = columns[k : k + BATCH]
        planes: Native = {}
        for ratio, bands in groups.items():
            edge = side // ratio
            cut = [[strip[b][:, x // ratio : x // ratio + edge] for b in bands] for x in places]
            planes[tuple(bands)] = torch.from_numpy(np.array(cut)).to(device)
        found.append(classifier.probabilities(planes).cpu().numpy())
        advance(len(places))
    return np.concatenate(found)
