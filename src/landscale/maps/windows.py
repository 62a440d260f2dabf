"""Probabilities of the classes for every pixel of a scene, by classifying windows a stride apart.

The windows are as large on the ground as the patches that the classifier was trained on. They are given to the network one by
one, or computed together (`maps.dense`), where the network allows it and the stride is a whole number of its feature cells.
Exported networks take them one by one.
`maps.blend` makes probabilities of pixels from those of windows; `maps.pixelwise` blends windows of a classifier of pixels. The
last windows of a row and of the scene are moved inward, so that they cover every pixel without padding. A scene smaller than a
window is padded with copies of its border pixels.

Decoding, the network, and what the caller does with the results happen at the same time, in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import gcd, lcm

import numpy as np
from numpy.typing import NDArray

from landscale.inference.exported import Predictor
from landscale.maps.ahead import ahead
from landscale.maps.blend import interpolate
from landscale.maps.dense import BATCH, Tiling, dense_rows, positions, runs
from landscale.maps.pixelwise import blended_rows, classified_rows, needed_rows
from landscale.maps.strips import EmptyPixels, Strip, cut_windows, read_strips
from landscale.models.classifier import Classifier
from landscale.models.dense import map_side
from landscale.models.input_units import convert
from landscale.runtime.parts import Parts
from landscale.scenes.pixels import ScenePixels

DECODED, CLASSIFIED = 1, 2  # strips of pixels, and of probabilities, that are computed ahead


@dataclass(frozen=True)
class WindowGrid:
    """Where the windows of a scene lie, in pixels of its finest grid.

    side: of a window. stride: from one window to the next. rows, columns: first pixels of the windows. tiling: of windows that
    are computed together; None for window by window.
    """

    side: int
    stride: int
    rows: list[int]
    columns: list[int]
    tiling: Tiling | None = None

    @property
    def windows(self) -> int:
        return len(self.rows) * len(self.columns)


def window_grid(classifier: Predictor, pixels: ScenePixels, stride: int | None) -> WindowGrid:
    """Windows of the classifier's ground size that cover a scene.

    Args:
        classifier: the classifier.
        pixels: the scene.
        stride: in pixels of the finest grid. If the network is dense (`models.dense`) and this is a multiple of a feature cell,
            which is the side of a window divided by that of its map, windows are computed together. Otherwise it is rounded
            down to whole pixels of the coarsest band. By default the smallest for windows that are computed together, else half a
            window.
    """
    grid = lcm(*pixels.ratios.values())
    side = max(grid, round(classifier.description.ground / pixels.gsd) // grid * grid)
    cells = map_side(classifier) if isinstance(classifier, Classifier) else None
    cell = side // gcd(side, cells) if cells else side  # the least whole number of pixels that is one of cells
    if cells and cell < side and (stride or cell) % cell == 0 and (stride or cell) < side:
        stride = stride or cell
        rows, columns = (runs(length, side, cells, stride, grid) for length in (pixels.height, pixels.width))
        tiling = Tiling(side, cells, rows, columns)
        return WindowGrid(side, stride, positions(rows, side, cells), positions(columns, side, cells), tiling)
    stride = min(side, max(grid, (stride or side // 2) // grid * grid))
    first, second = (window_starts(length, side, stride, grid) for length in (pixels.height, pixels.width))
    return WindowGrid(side, stride, first, second)


def window_starts(length: int, side: int, stride: int, grid: int) -> list[int]:
    """First pixels of windows of `side` pixels that cover `length` pixels; all are multiples of `grid`.

    At most `grid` − 1 pixels at the end remain uncovered, because no multiple reaches them.
    """
    last = max(0, (length - side) // grid * grid)
    return [*range(0, last, stride), last]


def probability_rows(
    classifier: Predictor,
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
        done: the probabilities of windows by strip of the scene, which are kept until the map is complete.
        factors: by which the scene's units are converted (`models.input_units`).
        advance: is called with the number of windows that were classified.

    Pixels without data are NaN.

    Raises:
        BadInput: a file of the scene is damaged.
    """
    empty = EmptyPixels(pixels)
    if isinstance(classifier, Classifier) and classifier.description.pixels:
        parts = _pixel_rows(classifier, pixels, windows, done, factors, empty, advance)
    else:
        rows = _window_rows(classifier, pixels, windows, done, factors, empty, advance)
        parts = interpolate(rows, windows.rows, windows.columns, windows.side, (pixels.height, pixels.width))
    for top, values in parts:
        values[:, empty.get(top, top + values.shape[1])] = np.nan
        yield top, values


def _window_rows(
    classifier: Predictor,
    pixels: ScenePixels,
    windows: WindowGrid,
    done: Parts,
    factors: Mapping[str, float],
    empty: EmptyPixels,
    advance: Callable[[int], None],
) -> Iterator[NDArray[np.float32]]:
    """Probabilities of each row of windows: (columns, C)."""
    tiling, across = windows.tiling, max(pixels.width, windows.side)
    tops = tiling.tops if tiling else windows.rows
    completed = tiling.completed() if tiling else [1] * len(tops)
    missing = [n > 0 and not done.has(str(top)) for top, n in zip(tops, completed, strict=True)]
    needed = tiling.needed(missing) if tiling else missing
    strips = ahead(read_strips(pixels, tops, needed, windows.side, across, empty), DECODED)
    if tiling and isinstance(classifier, Classifier):
        found = dense_rows(classifier, strips, tiling, pixels, factors)
    else:
        found = one_by_one(classifier, strips, windows, pixels, factors)
    for top, n, lacks, computed in zip(tops, completed, missing, ahead(found, CLASSIFIED), strict=True):
        if not n:
            continue
        probabilities = computed if lacks else done.get(str(top))
        assert probabilities is not None
        if lacks:
            done.put(str(top), probabilities)
        advance(n * len(windows.columns))
        yield from probabilities


def _pixel_rows(
    classifier: Classifier,
    pixels: ScenePixels,
    windows: WindowGrid,
    done: Parts,
    factors: Mapping[str, float],
    empty: EmptyPixels,
    advance: Callable[[int], None],
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """As `probability_rows`, of a classifier of pixels, without NaN."""
    side, across = windows.side, max(pixels.width, windows.side)
    missing = [not done.has(str(top)) for top in windows.rows]
    wanted = needed_rows(windows.rows, side, missing)
    strips = ahead(read_strips(pixels, windows.rows, wanted, side, across, empty), DECODED)
    found = classified_rows(classifier, strips, windows.columns, side, pixels, factors, advance)
    return blended_rows(ahead(found, CLASSIFIED), windows.rows, side, pixels.height, done, missing)


def one_by_one(
    classifier: Predictor,
    strips: Iterable[Strip | None],
    windows: WindowGrid,
    pixels: ScenePixels,
    factors: Mapping[str, float],
) -> Iterator[NDArray[np.float32] | None]:
    """Probabilities (1, n, C) of the n windows of each strip; None for None."""
    for strip in strips:
        if strip is None:
            yield None
            continue
        found = []
        for k in range(0, len(windows.columns), BATCH):
            places = [(strip, left) for left in windows.columns[k : k + BATCH]]
            planes = cut_windows(places, pixels, windows.side, classifier.device)
            found.append(classifier.probabilities(convert(planes, factors)).cpu().numpy())
        yield np.concatenate(found)[None]
