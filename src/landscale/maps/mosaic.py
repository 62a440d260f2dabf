"""The rows of a map, merged from those of its scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput
from landscale.maps.area import Area
from landscale.maps.frame import Frame
from landscale.maps.layers import Layer, Rows
from landscale.maps.masks import Reason
from landscale.maps.rasters import CHUNK

Overlap = Literal["mean", "least-cloud"]


def by_cloud(layers: Sequence[Layer]) -> list[Layer]:
    """The layers, that with the least cloud first.

    Raises:
        BadInput: one of several has no scene classification.
    """
    if len(layers) == 1:
        return list(layers)
    for layer in layers:
        if layer.mask is None:
            raise BadInput(
                layer.scene.folder,
                "has no scene classification (a file such as …_SCL_20m.jp2), which least-cloud needs",
            )
    return sorted(layers, key=lambda layer: layer.mask.cloudiness if layer.mask else 0.0)


def lengths_of(frame: Frame, layer: Layer) -> list[int]:
    """How many rows of a layer lie in each chunk of the frame, without the chunks above and below it."""
    found = []
    for top in range(0, frame.height, CHUNK):
        first, last = _overlap(frame, layer, top)
        if last > first:
            found.append(last - first)
    return found


def merged_rows(
    frame: Frame,
    area: Area | None,
    classes: int,
    rows: Sequence[Iterator[Rows]],
    layers: Sequence[Layer],
    how: Overlap,
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.uint8]]]:
    """Yield the rows of the map from top to bottom.

    Args:
        frame: of the map.
        area: pixels outside of it are not mapped.
        classes: number of classes.
        rows: of each layer, in the chunks of `lengths_of`.
        layers: in the order in which they are preferred, if `how` is "least-cloud".
        how: where layers overlap, the mean of those that are not masked, or the first of them.

    Yields:
        The first row, the probabilities (C, rows, width), NaN where nothing is mapped, and the `Reason`s for that (rows, width).
    """
    for top in range(0, frame.height, CHUNK):
        height = min(CHUNK, frame.height - top)
        total = np.zeros((classes, height, frame.width), np.float32)
        count = np.zeros((height, frame.width), np.float32)
        reasons = np.full((height, frame.width), Reason.NODATA, np.uint8)
        for k, layer in enumerate(layers):
            first, last = _overlap(frame, layer, top)
            if last <= first:
                continue
            values, why = next(rows[k])
            column = max(0, layer.column)
            place = slice(first - top, last - top), slice(column, column + values.shape[2])
            known = np.isfinite(values).all(axis=0)
            reasons[place] = np.maximum(reasons[place], why)
            used = known & (why == Reason.MAPPED)
            if how == "least-cloud":
                used &= count[place] == 0
            np.add(total[:, *place], values, out=total[:, *place], where=used)
            count[place] += used
        nowhere = count == 0
        reasons[~nowhere] = Reason.MAPPED
        if area is not None:
            outside = area.outside(frame, top, height)
            reasons[outside] = Reason.OUTSIDE
            nowhere |= outside
        if len(layers) > 1 and how == "mean":
            total /= np.maximum(count, 1)
        total[:, nowhere] = np.nan
        yield top, total, reasons


def _overlap(frame: Frame, layer: Layer, top: int) -> tuple[int, int]:
    """First and last row, excluded, of the chunk of the frame from `top` that the layer has."""
    return max(top, layer.row), min(top + CHUNK, frame.height, layer.row + layer.pixels.height)
