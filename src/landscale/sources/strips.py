"""A tile from north to south: every block of its bands is decoded once, and what is still needed stays in memory.

GDAL's own cache does not hold blocks of JPEG 2000 between two reads, and decoding one costs more than all that follows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landscale.sources.scene import ScenePixels


class Strips:
    """Strips of the open bands of a scene, between two columns; asked for from north to south."""

    def __init__(self, pixels: ScenePixels, left: int, right: int) -> None:
        """`left` and `right` in px of 10 m, multiples of 6: the columns that will be asked for."""
        self._pixels, self._left, self._right = pixels, left, right
        self._held: dict[str, tuple[int, NDArray[np.uint16]]] = {}  # by band: the first row, and rows decoded so far

    def rows(self, band: str, top: int, bottom: int) -> NDArray[np.uint16]:
        """Rows `top` to `bottom` of a band, in its own pixels, as digital numbers without the product's offset.

        Raises:
            BadInput: the file is damaged there.
        """
        ratio = self._pixels.ratios[band]
        left, right = self._left // ratio, self._right // ratio
        file = self._pixels.files[band]
        height = int(file.block_shapes[0][0])  # of a row of blocks: what is begun is decoded whole
        first, values = self._held.pop(band, (0, np.empty((0, right - left), np.uint16)))
        if not first <= top <= first + len(values):
            first, values = top // height * height, values[:0]
        end, wanted = first + len(values), min(-(-bottom // height) * height, int(file.height))
        if wanted > end:
            fresh = self._pixels.read(band, end, wanted - end, left, right - left)
            values = np.concatenate([values[top - first :] if top < end else values[:0], self._pixels.harmonise(fresh)])
            first = wanted - len(values)
        self._held[band] = first, values
        return values[top - first : bottom - first]
