"""From the probabilities of windows to those of pixels.

A pixel at the centre of a window has the window's probabilities. Between centres, they are interpolated bilinearly. So windows
that overlap by half are blended by weights that fall linearly from the centre of a window to 0 at its border, and where
probabilities of windows change evenly over the scene, so do those of pixels: no border of a window is visible. Between the
outermost centres and the border of the scene, pixels have the value of the nearest centre.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

ROWS = 64  # of pixels, at least, in each result but the last


def interpolate(
    rows: Iterable[NDArray[np.float32]],
    tops: Sequence[float],
    lefts: Sequence[float],
    side: int,
    shape: tuple[int, int],
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield rows of pixels from top to bottom: index of the first, and probabilities (C, n, width).

    Args:
        rows: of windows: (columns, C) each.
        tops, lefts: first pixels of the rows and columns of windows, ascending.
        side: pixels of a window.
        shape: height and width of the scene in pixels.
    """
    height, width = shape
    above, down = _neighbours(tops, side, height)
    before, across = _neighbours(lefts, side, width)
    after = torch.clamp(before + 1, max=len(lefts) - 1)
    lines: dict[int, torch.Tensor] = {}  # rows of windows, interpolated along the columns: (C, width)
    top = 0
    for k, row in enumerate(rows):
        values = torch.from_numpy(np.ascontiguousarray(row.T))
        lines[k] = torch.lerp(values[:, before], values[:, after], across)
        last = k + 1 == len(tops)
        ready = height if last else int(torch.searchsorted(above, k))  # rows between this centre and those before it
        if last or ready - top >= ROWS:
            pixels = torch.empty((len(values), ready - top, width))
            for j in range(int(above[top]), int(above[ready - 1]) + 1):
                begin, end = (
                    max(top, int(torch.searchsorted(above, j))),
                    min(ready, int(torch.searchsorted(above, j + 1))),
                )
                lower = lines[min(j + 1, k)]
                torch.lerp(
                    lines[j][:, None],
                    lower[:, None],
                    down[None, begin:end, None],
                    out=pixels[:, begin - top : end - top],
                )
            yield top, pixels.numpy()
            top = ready
            lines = {j: line for j, line in lines.items() if j >= (int(above[top]) if top < height else k)}


def _neighbours(starts: Sequence[float], side: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of `length` pixels, the index of the last window centre before it, and its way to the next one, in 0…1."""
    centres = np.array(starts) + side / 2
    where = np.interp(np.arange(length) + 0.5, centres, np.arange(len(centres)))
    before = np.minimum(where.astype(np.int64), max(0, len(centres) - 2))
    return torch.from_numpy(before), torch.from_numpy((where - before).astype(np.float32))
