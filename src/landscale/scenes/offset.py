"""The offset of a scene's digital numbers: what its metadata state, compared with what its files declare and with their pixels.

Pixels are compared where the statement is that of a catalogue beside converted files. Catalogues subtract the offset from some
products and not from others, and their flags are known to be wrong for many.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from landscale.errors import BadInput, reason
from landscale.formats.rasters import open_raster_file
from landscale.runtime.progress import print_notes
from landscale.scenes.metadata import Statement, checked_offset
from landscale.scenes.radiometry import has_own_scale

_SIDE = 512  # px to which a band is reduced
# With an offset of 1000, three quarters of a band's pixels are above this, a reflectance of −0.015, even in shadow. Without, the
# darkest band has a quarter below it, unless all is bright.
_LEAST, _SHARE = 850, 0.25


def find_offset(files: Mapping[str, Path], indexes: Mapping[str, int], statement: Statement) -> tuple[int | None, bool]:
    """The offset of a scene, None if it is unknown, and whether it is certain.

    Args:
        files: the rasters by band.
        indexes: of the bands in rasters of several, from 1.
        statement: what the scene's metadata state.

    Raises:
        BadInput: the files declare another offset than certain metadata, or different ones, or cannot be read.
    """
    declared = _declared_offset(files, indexes)
    if statement.offset is None or declared == statement.offset:
        return declared, True
    path = next(iter(files.values()))
    originals = all(path.suffix.lower() == ".jp2" for path in files.values())
    if statement.certain or originals:
        if declared is not None:
            raise BadInput(
                path, f"declares an offset of {declared}, but that of {statement.source} is {statement.offset}"
            )
        return statement.offset, True
    if declared is not None:
        return declared, True
    if statement.offset and (dark := _darkest(files, indexes)) < _LEAST:
        print_notes(
            [
                f"{statement.source}: states that {statement.offset} was added to the digital numbers, but a quarter of a"
                f" band's are below {dark:.0f}, so it has been subtracted already"
            ]
        )
        return 0, False
    return statement.offset, False


def _declared_offset(files: Mapping[str, Path], indexes: Mapping[str, int]) -> int | None:
    """The offset in digital numbers by the scale and offset that the rasters declare (reflectance = number · scale + offset).

    None if no file declares an offset.

    Raises:
        BadInput: the files differ, or the offset is not a whole number of 0 to 65535 digital numbers.
    """
    found: dict[int, Path] = {}
    for band, path in files.items():
        k = indexes.get(band, 1) - 1
        try:
            with open_raster_file(path) as file:
                scale, offset = (1, 0) if has_own_scale(file, k) else (file.scales[k], file.offsets[k])
        except RasterioError as error:
            raise BadInput(path, f"cannot be read ({reason(error)})") from None
        if offset:
            found.setdefault(checked_offset(path, round(-offset / scale)), path)
    if len(found) > 1:
        raise BadInput(next(iter(found.values())), f"and other bands declare different offsets: {sorted(found)}")
    return next(iter(found), None)


def _darkest(files: Mapping[str, Path], indexes: Mapping[str, int]) -> float:
    """The number below which a quarter of the pixels with data lie, in the darkest band."""
    found = []
    for band, path in files.items():
        try:
            with open_raster_file(path) as file:
                shape = min(file.height, _SIDE), min(file.width, _SIDE)
                values: NDArray[np.number] = file.read(indexes.get(band, 1), out_shape=shape)
                lit = values[(values > 0) & (values != file.nodatavals[indexes.get(band, 1) - 1])]
        except RasterioError as error:
            raise BadInput(path, f"cannot be decoded ({reason(error)})") from None
        if lit.size:
            found.append(float(np.quantile(lit, _SHARE)))
    return min(found, default=float("inf"))
