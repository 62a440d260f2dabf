"""Probabilities of the classes for every pixel of a scene, by classifying windows a stride apart.

The windows are as large on the ground as the patches that the classifier was trained on. The probability of a pixel is the mean
over the windows that contain it. The last windows of a row and of the scene are moved inward, so that they cover every pixel
without padding. A scene smaller than a window is padded with copies of its border pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from math import lcm

import numpy as np
import torch
from numpy.typing import NDArray

from landscale.loading import Native
from landscale.models.classifier import Classifier
from landscale.models.input_units import convert
from landscale.runtime.parts import Parts
from landscale.scenes.pixels import ScenePixels

BATCH = 64


@dataclass(frozen=True)
class WindowGrid:
    """Where the windows of a scene lie, in pixels of its finest grid.

    side: of a window. stride: from one window to the next. rows, columns: first pixels of the windows.
    """

    side: int
    stride: int
    rows: list[int]
    columns: list[int]

    @property
    def windows(self) -> int:
        return len(self.rows) * len(self.columns)


def window_grid(classifier: Classifier, pixels: ScenePixels, stride: int | None) -> WindowGrid:
    """Windows of the classifier's ground size that cover a scene.

    Args:
        classifier: the classifier.
        pixels: the scene.
        stride: in pixels of the finest grid, rounded down to whole pixels of the coarsest band; by default half a window.
    """
    grid = lcm(*pixels.ratios.values())
    side = max(grid, round(classifier.description.ground / pixels.gsd) // grid * grid)
    stride = min(side, max(grid, (stride or side // 2) // grid * grid))
    rows, columns = (window_starts(length, side, stride, grid) for length in (pixels.height, pixels.width))
    return WindowGrid(side, stride, rows, columns)


def window_starts(length: int, side: int, stride: int, grid: int) -> list[int]:
    """First pixels of windows of `side` pixels that cover `length` pixels; all are multiples of `grid`.

    At most `grid` − 1 pixels at the end remain uncovered, because no multiple reaches them.
    """
    last = max(0, (length - side) // grid * grid)
    return [*range(0, last, stride), last]


def probability_rows(
    classifier: Classifier,
    pixels: ScenePixels,
    windows: WindowGrid,
    done: Parts,
    factors: Mapping[str, float],
    advance: Callable[[int], None],
) -> Generator[tuple[int, NDArray[np.float32]]]:
    """Yield finished rows of the map from top to bottom: index of the first row, and probabilities (C, rows, width).

    Args:
        classifier: in eval mode.
        pixels: the scene.
        windows: where to classify.
        done: the probabilities of each row of windows, which are kept until the map is complete.
        factors: by which the scene's units are converted (`models.input_units`).
        advance: is called with the number of windows that were classified.

    Pixels without data are NaN.
    """
    rows, columns, side = windows.rows, windows.columns, windows.side
    classes = len(classifier.description.classes)
    width, height = pixels.width, pixels.height
    across = max(width, side)
    total = np.zeros((classes, side, across), np.float32)  # sums for the rows that are not finished
    seen = np.zeros((side, across), np.float32)
    for k, top in enumerate(rows):
        probabilities = done.get(str(top))
        if probabilities is None:
            strip = _read_strip(pixels, top, side, across)
            probabilities = _probabilities(classifier, strip, columns, side, pixels, factors, advance)
            done.put(str(top), probabilities)
        else:
            advance(len(columns))
        for left, values in zip(columns, probabilities, strict=True):
            total[:, :, left : left + side] += values[:, None, None]
            seen[:, left : left + side] += 1
        last = k + 1 == len(rows)
        ready = side if last else rows[k + 1] - top
        values = total[:, :ready] / np.maximum(seen[:ready], 1)
        if width > columns[-1] + side:  # uncovered pixels at the end take the value of their neighbour
            values[:, :, columns[-1] + side :] = values[:, :, columns[-1] + side - 1, None]
        if last and top + ready < height:
            values = np.concatenate([values, np.repeat(values[:, -1:], height - top - ready, axis=1)], axis=1)
        values = values[:, : height - top, :width]
        values[:, _nodata(pixels, top, values.shape[1])] = np.nan
        yield top, values
        total[:, : side - ready], seen[: side - ready] = total[:, ready:].copy(), seen[ready:].copy()
        total[:, side - ready :], seen[side - ready :] = 0, 0


def _read_strip(pixels: ScenePixels, top: int, side: int, across: int) -> dict[str, NDArray[np.uint16]]:
    """The rows of a strip, every band at its native resolution, without offset, padded to whole windows by the border pixels."""
    strip = {}
    for band, ratio in pixels.ratios.items():
        raw = pixels.harmonise(pixels.read(band, top // ratio, side // ratio))
        down, right = side // ratio - raw.shape[0], max(0, across // ratio - raw.shape[1])
        strip[band] = np.pad(raw, ((0, down), (0, right)), mode="edge")
    return strip


def _nodata(pixels: ScenePixels, top: int, rows: int) -> NDArray[np.bool_]:
    """(rows, width): whether all bands of the finest grid are 0. These rows are still in GDAL's cache."""
    finest = [band for band, ratio in pixels.ratios.items() if ratio == 1]
    empty: NDArray[np.bool_] = np.all([pixels.read(band, top, rows) == 0 for band in finest], axis=0)
    return empty


def _probabilities(
    classifier: Classifier,
    strip: dict[str, NDArray[np.uint16]],
    columns: list[int],
    side: int,
    pixels: ScenePixels,
    factors: Mapping[str, float],
    advance: Callable[[int], None],
) -> NDArray[np.float32]:
    """Probabilities (n, C) of the n windows of a strip that begin at `columns`."""
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
        found.append(classifier.probabilities(convert(planes, factors)).cpu().numpy())
        advance(len(places))
    return np.concatenate(found)
