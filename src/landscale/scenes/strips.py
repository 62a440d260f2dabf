"""Read a tile from north to south, so that every block of its bands is decoded only once.

Decoding a block of JPEG 2000 takes longer than everything else done with it, and GDAL's cache does not keep decoded blocks
between two reads. Rows that are still needed stay in memory.

This is for preparation: between two columns, and a damaged block only loses the patches that it touches. Maps read whole rows of
all bands ahead, and end at a damaged block (`maps.strips`).
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput
from landscale.scenes.pixels import ScenePixels
from landscale.vocabulary.bands import BANDS


class Strips:
    """Rows of the open bands of a scene, between two columns; they must be read from north to south."""

    def __init__(self, pixels: ScenePixels, left: int, right: int) -> None:
        """`left` and `right` are columns in pixels of 10 m, multiples of 6."""
        self._pixels, self._left, self._right = pixels, left, right
        self._rows: dict[str, tuple[int, NDArray[np.uint16]]] = {}  # by band: index of the first row, decoded rows
        self._damaged: dict[
            str, list[tuple[slice, slice, BadInput]]
        ] = {}  # by band: rows and columns of damaged blocks

    def rows(self, band: str, top: int, bottom: int) -> NDArray[np.uint16]:
        """Rows `top` to `bottom` of a band, in its own pixels, without the product's offset: (rows, columns) uint16.

        Damaged blocks are 0; see `problem`.
        """
        ratio = BANDS[band].gsd // 10
        left, right = self._left // ratio, self._right // ratio
        file = self._pixels.files[band]
        height = file.block_shape[0]  # of a row of blocks, which is decoded as a whole
        first, values = self._rows.pop(band, (0, np.empty((0, right - left), np.uint16)))
        if not first <= top <= first + len(values):
            first, values = top // height * height, values[:0]
        end, needed = first + len(values), min(-(-bottom // height) * height, file.height)
        if needed > end:
            fresh = self._pixels.harmonise(self._decode(band, end, needed - end, left, right))
            values = np.concatenate([values[top - first :], fresh]) if top < end else fresh
            first = needed - len(values)
        self._rows[band] = first, values
        return values[top - first : bottom - first]

    def problem(self, band: str, top: int, left: int, side: int) -> BadInput | None:
        """The error of a damaged block in a square of a band, in its own pixels, once its rows were read; else None."""
        for rows, columns, error in self._damaged.get(band, ()):
            if rows.start < top + side and top < rows.stop and columns.start < left + side and left < columns.stop:
                return error
        return None

    def _decode(self, band: str, top: int, rows: int, left: int, right: int) -> NDArray[np.uint16]:
        """Decode whole rows of blocks; if one is damaged, decode each block separately."""
        try:
            return self._pixels.read(band, top, rows, left, right - left)
        except BadInput:
            values = np.zeros((rows, right - left), np.uint16)
        height, width = self._pixels.files[band].block_shape
        for y, x in product(range(top, top + rows, height), range(left // width * width, right, width)):
            bottom, begin, end = min(y + height, top + rows), max(x, left), min(x + width, right)
            try:
                values[y - top : bottom - top, begin - left : end - left] = self._pixels.read(
                    band, y, bottom - y, begin, end - begin
                )
            except BadInput as error:
                self._damaged.setdefault(band, []).append((slice(y, bottom), slice(begin, end), error))
        return values
