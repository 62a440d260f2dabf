"""The offset that a product has added to its digital numbers, by metadata, names of folders, or the files themselves.

Products of processing baseline 04.00 and later add 1000 to every digital number (`BOA_ADD_OFFSET` −1000, in level 1C
`RADIO_ADD_OFFSET`; ESA, Sentinel-2 Products Specification Document).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from rasterio.errors import RasterioError

from landscale.errors import BadInput, reason
from landscale.formats.content import read_text
from landscale.formats.rasters import open_raster_file
from landscale.runtime.documents import read_json_object
from landscale.scenes.radiometry import has_own_scale

_PRODUCT = re.compile(r"S2[A-D]_MSIL[12][AC]_")
_BASELINE = re.compile(r"_N(\d{4})_")
_OFFSET = re.compile(r"<(?:BOA|RADIO)_ADD_OFFSET[^>]*>\s*(-?\d+)\s*<")
NOTE_FILE = "scene.json"  # written by superres apply: the offset of the digital numbers, {"offset": 1000, …}
_DEPTH = 6  # folders from the bands up to their product: IMG_DATA, R10m, granule, GRANULE …
REPROCESSED = 9999  # baseline in the names of BigEarthNet v2, whose digital numbers have no offset


def find_offset(folder: Path, files: Mapping[str, Path]) -> int | None:
    """The offset by the first folder that specifies one; else by the files; None if neither does.

    Folders are searched from the product that contains `folder`, if there is one, down to the common folder of the bands.

    Args:
        folder: of the scene.
        files: its rasters by band.

    Raises:
        BadInput: two sources contradict each other, or an offset is not a number of 0 to 65535.
    """
    inner = Path(os.path.commonpath([path.parent for path in files.values()])).relative_to(folder)
    place = folder.absolute()
    above = [outer for outer in (place, *place.parents)[:_DEPTH] if _PRODUCT.match(outer.name)]
    product = [outer for outer in (place, *place.parents) if above and outer.is_relative_to(above[-1])]
    declared = _declared_offset(files)
    for outer in (*reversed(product), *(folder / part for part in (*reversed(inner.parents), inner))):
        offset = _offset_of(outer)
        if offset is not None:
            if declared not in (None, offset):
                raise BadInput(
                    next(iter(files.values())), f"declares an offset of {declared}, but that of {outer} is {offset}"
                )
            return offset
    return declared


def _declared_offset(files: Mapping[str, Path]) -> int | None:
    """The offset in digital numbers by the scale and offset that the rasters declare (reflectance = number · scale + offset).

    None if no file declares an offset.

    Raises:
        BadInput: the files differ, or the offset is not a whole number of 0 to 65535 digital numbers.
    """
    found: dict[int, Path] = {}
    for path in files.values():
        try:
            with open_raster_file(path) as file:
                scale, offset = (1, 0) if has_own_scale(file) else (file.scales[0], file.offsets[0])
        except RasterioError as error:
            raise BadInput(path, f"cannot be read ({reason(error)})") from None
        if offset:
            found.setdefault(checked_offset(path, round(-offset / scale)), path)
    if len(found) > 1:
        raise BadInput(next(iter(found.values())), f"and other bands declare different offsets: {sorted(found)}")
    return next(iter(found), None)


def _offset_of(folder: Path) -> int | None:
    """The offset according to a folder's note, its product metadata, or the baseline in its name; None if it has none of them."""
    if (folder / NOTE_FILE).exists():
        return _noted_offset(folder / NOTE_FILE)
    for path in folder.glob("MTD_MSIL[12][AC].xml"):
        offsets = {-int(value) for value in _OFFSET.findall(read_text(path))}
        if len(offsets) > 1:
            raise BadInput(path, f"has different offsets for different bands: {sorted(offsets)}")
        if offsets:
            return checked_offset(path, offsets.pop())
    match = _BASELINE.search(folder.resolve().name + "_")
    return (1000 if 400 <= int(match[1]) < REPROCESSED else 0) if match else None


def _noted_offset(path: Path) -> int:
    return checked_offset(path, read_json_object(path, "a note on a scene", ("offset",))["offset"])


def checked_offset(path: Path, offset: object) -> int:
    """The offset that was found at a path, once it is a number that pixels can have.

    Raises:
        BadInput: it is not.
    """
    if not isinstance(offset, int) or not 0 <= offset < 1 << 16:
        raise BadInput(path, f"has an offset of {offset}, expected an integer from 0 to 65535")
    return offset
