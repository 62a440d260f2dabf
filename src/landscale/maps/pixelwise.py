"""Probabilities of pixels from a classifier of pixels: windows that overlap, blended by weights that fall to their borders.

The weight of a pixel falls linearly, along each axis, from 1 in the middle of the window to nearly 0 at its border, where the
network sees least of the surroundings. So no border of a window is visible.

Rows of pixels are finished, and kept for an interrupted map, when the last window above them is done. They are kept as
float16, and used as that, so that a map that was interrupted equals one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from landscale.maps.strips import Strip, cut_windows
from landscale.models.classifier import Classifier
from landscale.models.input_units import convert
from landscale.runtime.parts import Parts
from landscale.scenes.pixels import ScenePixels

BATCH = 32

Row = NDArray[np.float32]  # (C, side, width)


def triangular_weights(side: int) -> NDArray[np.float32]:
    """Weights (side,) of the pixels of a window along one axis: above 0, up to 1 in the middle."""
    return (1 - np.abs((2 * np.arange(side) + 1) / side - 1)).astype(np.float32)


def needed_rows(tops: Sequence[int], side: int, missing: Sequence[bool]) -> list[bool]:
    """Which rows of windows must be classified if some parts of the map are missing.

    Part k lies between the tops of the rows k and k + 1 (the last one ends with its row), and depends on all rows that begin
    above its end and end below its beginning.
    """
    last = [k for k, lacks in enumerate(missing) if lacks]
    return [any(j <= k and tops[k] < tops[j] + side for k in last) for j in range(len(tops))]


def blended_rows(
    rows: Iterable[Row | None], tops: Sequence[int], side: int, height: int, done: Parts, missing: Sequence[bool]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the parts of the map from top to bottom: index of the first row, and probabilities (C, n, width).

    Args:
        rows: of windows, each blended along the columns; None for those that are not needed.
        tops: first pixels of the rows of windows, ascending.
        side: pixels of a window.
        height: of the scene.
        done: keeps the parts.
        missing: which of them are not kept yet.
    """
    weights = triangular_weights(side)
    recent: list[tuple[int, Row]] = []
    for k, row in enumerate(rows):
        top = tops[k]
        bottom = tops[k + 1] if k + 1 < len(tops) else height
        recent = [(first, values) for first, values in recent if first + side > top]
        if row is not None:
            recent.append((top, row))
        if not missing[k]:
            kept = done.get(str(top))
            assert kept is not None
            yield top, kept.astype(np.float32)
            continue
        classes, _, width = recent[-1][1].shape
        total, weight = np.zeros((classes, bottom - top, width), np.float32), np.zeros(bottom - top, np.float32)
        for first, values in recent:
            end = min(bottom, first + side)
            part = weights[top - first : end - first]
            total[:, : end - top] += values[:, top - first : end - first] * part[:, None]
            weight[: end - top] += part
        below = weight == 0  # pixels that no window reaches have the values of the last row that one does
        weight[below] = 1
        total /= weight[:, None]
        if below.any():
            total[:, below] = total[:, [int(np.flatnonzero(~below)[-1])]]
        part16 = total.astype(np.float16)
        done.put(str(top), part16)
        yield top, part16.astype(np.float32)


def classified_rows(
    classifier: Classifier,
    strips: Iterable[Strip | None],
    lefts: Sequence[int],
    side: int,
    pixels: ScenePixels,
    factors: Mapping[str, float],
    advance: Callable[[int], None],
) -> Iterator[Row | None]:
    """For each strip, the probabilities of its windows blended along the columns: (C, side, width); None for None.

    Args:
        classifier: of pixels, in eval mode.
        strips: rows of windows.
        lefts: first pixels of the windows of each.
        side: of a window in pixels of the finest grid.
        pixels: the scene.
        factors: by which the scene's units are converted.
        advance: is called with the number of windows that were classified.
    """
    weights = triangular_weights(side)
    width = max(pixels.width, lefts[-1] + side)
    for strip in strips:
        if strip is None:
            advance(len(lefts))
            yield None
            continue
        total = np.zeros((len(classifier.description.classes), side, width), np.float32)
        weight = np.zeros(width, np.float32)
        for k in range(0, len(lefts), BATCH):
            chosen = lefts[k : k + BATCH]
            planes = cut_windows([(strip, left) for left in chosen], pixels, side, classifier.device)
            found = classifier.probabilities(convert(planes, factors))
            if found.shape[-1] != side:  # the network's input is coarser or finer than the scene
                found = F.interpolate(found, (side, side), mode="bilinear", align_corners=False)
            for left, values in zip(chosen, found.cpu().numpy(), strict=True):
                total[:, :, left : left + side] += values * weights
                weight[left : left + side] += weights
            advance(len(chosen))
        reached = weight > 0
        total[:, :, reached] /= weight[reached]
        if not reached.all():
            total[:, :, ~reached] = total[:, :, [int(np.flatnonzero(reached)[-1])]]
        yield total[:, :, : pixels.width]
