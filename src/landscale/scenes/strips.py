"""A tile from north to south: every block of its bands is decoded once, and what is still needed stays in memory.

GDAL's own cache does not hold blocks of JPEG 2000 between two reads, and decoding one costs more than all that follows.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput
from landscale.scenes.scene import ScenePixels
from landscale.vocabulary.bands import BANDS


class Strips:
    """Strips of the open bands of a scene, between two columns; asked for from north to south."""

    def __init__(self, pixels: ScenePixels, left: int, right: int) -> None:
        """`left` and `right` in px of 10 m, multiples of 6: the columns that will be asked for."""
        self._pixels, self._left, self._right = pixels, left, right
        self._held: dict[str, tuple[int, NDArray[np.uint16]]] = {}  # by band: the first row, and rows decoded so far
        self._damaged: dict[str, list[tuple[slice, slice, BadInput]]] = {}  # by band: rows and columns of blocks

    def rows(self, band: str, top: int, bottom: int) -> NDArray[np.uint16]:
        """Rows `top` to `bottom` of a band, in its own pixels, as digital numbers without the product's offset.

        Blocks that are damaged are 0; ask `problem` for them.
        """
        ratio = BANDS[band].gsd // 10
        left, right = self._left // ratio, self._right // ratio
        file = self._pixels.files[band]
        height = int(file.block_shapes[0][0])  # of a row of blocks: what is begun is decoded whole
        first, values = self._held.pop(band, (0, np.empty((0, right - left), np.uint16)))
        if not first <= top <= first + len(values):
            first, values = top // height * height, values[:0]
        end, wanted = first + len(values), min(-(-bottom // height) * height, int(file.height))
        if wanted > end:
            fresh = self._pixels.harmonise(self._decode(band, end, wanted - end, left, right))
            values = np.concatenate([values[top - first :], fresh]) if top < end else fresh
            first = wanted - len(values)
        self._held[band] = first, values
        return values[top - first : bottom - first]

    def problem(self, band: str, top: int, left: int, side: int) -> BadInput | None:
        """What is damaged of a square of a band, in its own pixels, after its rows were asked for."""
        for rows, columns, error in self._damaged.get(band, ()):
            if rows.start < top + side and top < rows.stop and columns.start < left + side and left < columns.stop:
                return error
        return None

    def _decode(self, band: str, top: int, rows: int, left: int, right: int) -> NDArray[np.uint16]:
        """Whole rows of blocks; if any is damaged, each block by itself."""
        try:
            return self._pixels.read(band, top, rows, left, right - left)
        except BadInput:
            values = np.zeros((rows, right - left), np.uint16)
        height, width = map(int, self._pixels.files[band].block_shapes[0])
        for y, x in product(range(top, top + rows, height), range(left // width * width, right, width)):
            bottom, begin, end = min(y + height, top + rows), max(x, left), min(x + width, right)
            try:
                values[y - top : bottom - top, begin - left : end - left] = self._pixels.read(
                    band, y, bottom - y, begin, end - begin
                )
            except BadInput as error:
                self._damaged.setdefault(band, []).append((slice(y, bottom), slice(begin, end), error))
        return values
