"""Rows of windows a feature cell apart, computed from the features of windows side by side (`models.dense`).

The scene is divided into windows side by side, one row of them after the other. A row of features is joined with the one above,
and the means over all squares as large as a window are classified. Where windows side by side do not end with the scene, another
two rows or columns of them, which do, give the windows at its end. Memory does not depend on the height of the scene.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from landscale.maps.strips import Strip, cut_windows
from landscale.models.classifier import Classifier
from landscale.models.dense import classify_means, window_maps
from landscale.models.input_units import convert
from landscale.scenes.pixels import ScenePixels

BATCH = 64


@dataclass(frozen=True)
class Run:
    """Windows side by side along one axis, and those between them.

    starts: first pixels of the windows side by side. kept: windows to classify, as numbers of cells from the first start.
    """

    starts: tuple[int, ...]
    kept: tuple[int, ...]


@dataclass(frozen=True)
class Tiling:
    """Windows side by side. side: of a window in pixels. cells: features a side of its map. rows, columns: along each axis."""

    side: int
    cells: int
    rows: list[Run]
    columns: list[Run]

    @property
    def tops(self) -> list[int]:
        """First pixels of the rows of windows side by side."""
        return [start for run in self.rows for start in run.starts]

    def completed(self) -> list[int]:
        """For each row of windows side by side, how many rows of windows can be classified with it."""
        return [len(kept) for run in self.rows for kept in _kept_by_start(run, self.cells)]

    def needed(self, missing: Sequence[bool]) -> list[bool]:
        """Which rows of windows side by side must be read if the rows of windows that these complete are missing."""
        first = set(np.cumsum([0, *(len(run.starts) for run in self.rows)]).tolist())
        return [lacks or (k + 1 not in first and missing[k + 1]) for k, lacks in enumerate(missing)]


def runs(length: int, side: int, cells: int, stride: int, grid: int) -> list[Run]:
    """The runs that cover `length` pixels.

    Args:
        length: pixels of the scene along the axis.
        side: of a window; a multiple of `grid`.
        cells: features a side of its map.
        stride: from one window to the next, a multiple of side / cells.
        grid: of which all starts of windows side by side are multiples.
    """
    last, step = max(0, (length - side) // grid * grid), stride * cells // side
    whole = last // side
    found = [Run(tuple(range(0, last + 1, side)), (*range(0, whole * cells, step), whole * cells))]
    if last % side:
        starts = (last - side, last) if last >= side else (last,)
        covered = positions(found, side, cells)[-1]
        kept = range((len(starts) - 1) * cells, -1, -step)
        found.append(Run(starts, tuple(k for k in reversed(kept) if starts[0] + k * side // cells > covered)))
    return found


def positions(axis: Sequence[Run], side: int, cells: int) -> list[int]:
    """First pixels of the windows that are kept."""
    return [run.starts[0] + k * side // cells for run in axis for k in run.kept]


def dense_rows(
    classifier: Classifier,
    strips: Iterable[Strip | None],
    tiling: Tiling,
    pixels: ScenePixels,
    factors: Mapping[str, float],
) -> Iterator[NDArray[np.float32] | None]:
    """For each row of windows side by side, the probabilities (n, columns, C) of the rows of windows that it completes.

    Args:
        classifier: in eval mode.
        strips: pixels of the rows; for None the result is None.
        tiling: where they lie.
        pixels: the scene.
        factors: by which the scene's units are converted.
    """
    plan = [(k, kept) for run in tiling.rows for k, kept in enumerate(_kept_by_start(run, tiling.cells))]
    above: list[Tensor] | None = None
    for (k, kept), means in zip(plan, _row_means(classifier, strips, tiling, pixels, factors), strict=True):
        before, above = above if k else None, means
        if means is None or (k and before is None) or not kept:  # it was read only for the row below
            yield None
            continue
        joined = means if before is None else (torch.cat(pair, dim=1) for pair in zip(before, means, strict=True))
        found = classify_means(classifier, (_squares(view, kept, tiling.cells) for view in joined))
        yield found.view(len(kept), -1, found.shape[-1]).cpu().numpy()


def _squares(means: Tensor, kept: list[int], cells: int) -> Tensor:
    """Means over columns of features (F, rows, columns) → those over squares (n, F) that begin at the rows `kept`."""
    return F.avg_pool2d(means, (cells, 1), stride=1)[:, kept].permute(1, 2, 0).flatten(0, 1)


def _row_means(
    classifier: Classifier,
    strips: Iterable[Strip | None],
    tiling: Tiling,
    pixels: ScenePixels,
    factors: Mapping[str, float],
) -> Iterator[list[Tensor] | None]:
    """For each strip, means over as many columns of features as a window has, at the columns that are kept.

    There is one tensor (F, cells, columns) for each view: one at a time, memory holds less. Strips of a narrow scene are
    computed together, so that batches are large.
    """
    device = classifier.device
    lefts = [start for run in tiling.columns for start in run.starts]
    remaining = iter(strips)
    while group := list(islice(remaining, max(1, BATCH // len(lefts)))):
        places = [(strip, left) for strip in group if strip is not None for left in lefts]
        parts = []
        for k in range(0, len(places), BATCH):
            planes = cut_windows(places[k : k + BATCH], pixels, tiling.side, device)
            parts.append(window_maps(classifier, convert(planes, factors)))
        windows = [torch.cat(views) for views in zip(*parts, strict=True)]
        del parts
        done = 0
        for strip in group:
            if strip is None:
                yield None
                continue
            yield [_join(view[done : done + len(lefts)], tiling) for view in windows]
            done += len(lefts)


def _join(maps: Tensor, tiling: Tiling) -> Tensor:
    """Maps of the windows of a strip (n, F, cells, cells) → the means of `_row_means`."""
    means, begin = [], 0
    for run in tiling.columns:
        end = begin + len(run.starts)
        joined = maps[begin:end].permute(1, 2, 0, 3).flatten(2)  # (F, cells, cells of all windows)
        means.append(F.avg_pool2d(joined, (1, tiling.cells), stride=1)[..., list(run.kept)])
        begin = end
    return torch.cat(means, dim=2)


def _kept_by_start(run: Run, cells: int) -> list[list[int]]:
    """For each start, which windows end with it: as numbers of cells after the start above, for the first one after itself."""
    found = [[0] if 0 in run.kept else []]
    for k in range(1, len(run.starts)):
        begin = (k - 1) * cells
        found.append([n - begin for n in run.kept if begin < n <= begin + cells])
    return found
