"""A map with fewer pixels, for pictures: every n-th row and column of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landscale.maps.encoding import NODATA, to_bytes
from landscale.maps.frame import Frame


class ReducedMap:
    """The pixels at the centre of squares of `step` × `step` pixels, so that a map has at most `longest` in a row or column.

    Attributes:
        rows, columns: which rows and columns of the map these are.
        classes: (height, width) uint8, the class; `encoding.NODATA` where nothing is mapped.
        probability: (height, width) uint8, its probability as in `encoding.to_bytes`.
    """

    def __init__(self, frame: Frame, longest: int) -> None:
        self.step = -(-max(frame.width, frame.height) // longest)
        self.rows = np.arange(min(self.step // 2, frame.height - 1), frame.height, self.step)
        self.columns = np.arange(min(self.step // 2, frame.width - 1), frame.width, self.step)
        self.classes = np.full((len(self.rows), len(self.columns)), NODATA, np.uint8)
        self.probability = self.classes.copy()

    def add(self, top: int, classes: NDArray[np.uint8], probabilities: NDArray[np.float32] | None = None) -> None:
        """Take over rows of the map from `top` on: classes (rows, width), and probabilities (C, rows, width) if there are any."""
        kept = (self.rows >= top) & (self.rows < top + len(classes))
        rows = self.rows[kept] - top
        self.classes[kept] = classes[rows][:, self.columns]
        if probabilities is not None:
            self.probability[kept] = to_bytes(probabilities[:, rows][:, :, self.columns].max(axis=0))
