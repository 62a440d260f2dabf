"""Open a class map that `landscale predict` wrote: its values, classes and grid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from landscale.errors import BadInput, reason
from landscale.formats.rasters import open_raster_file
from landscale.maps.encoding import MOST_CLASSES, NODATA
from landscale.maps.files import SOFTWARE

ROWS = 512  # of a map that are read at once


class _Entry(msgspec.Struct):
    value: Annotated[int, Meta(ge=0, lt=MOST_CLASSES)]
    name: Annotated[str, Meta(min_length=1, max_length=20_000)]
    colour: Annotated[str, Meta(pattern=r"^#[0-9a-fA-F]{6}$")]


@dataclass(frozen=True)
class ClassMap:
    """An open class map. file: of rasterio. classes, colours: by the value of a pixel, which is from 0 on."""

    path: Path
    file: Any
    classes: tuple[str, ...]
    colours: tuple[str, ...]

    @property
    def hectares(self) -> float:
        """The area of a pixel."""
        grid = self.file.transform
        return float(abs(grid.a * grid.e)) / 10_000

    def windows(self) -> Iterator[Window]:
        """Windows of whole rows from top to bottom."""
        for top in range(0, self.file.height, ROWS):
            yield Window(0, top, self.file.width, min(ROWS, self.file.height - top))

    def read(self, window: Window) -> NDArray[np.uint8]:
        """The values in a window; `encoding.NODATA` where nothing is mapped.

        Raises:
            BadInput: the file is damaged there, or has a value that is no class.
        """
        try:
            values: NDArray[np.uint8] = self.file.read(1, window=window)
        except RasterioError as error:
            raise BadInput(self.path, f"cannot be decoded ({reason(error)})") from None
        self.check_values(values)
        return values

    def check_values(self, values: NDArray[np.uint8]) -> None:
        """Raise BadInput for a value that is neither a class nor `encoding.NODATA`."""
        wrong = values[(values >= len(self.classes)) & (values != NODATA)]
        if wrong.size:
            raise BadInput(self.path, f"has the value {wrong[0]}, but names {len(self.classes)} classes")

    def pixels(self) -> NDArray[np.int64]:
        """Number of pixels of each class (C,)."""
        counts = np.zeros(256, np.int64)
        for window in self.windows():
            counts += np.bincount(self.read(window).ravel(), minlength=256)
        return counts[: len(self.classes)]


@contextmanager
def open_class_map(path: str | Path) -> Iterator[ClassMap]:
    """Open a class map.

    Raises:
        BadInput: it cannot be read, or is no class map of `landscale predict`, or has no coordinate reference system in metres,
            or its pixels are not squares in rows from west to east.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(path, "no such file")
    try:
        file = open_raster_file(path)
    except RasterioError as error:
        raise BadInput(path, f"cannot be read ({reason(error)})") from None
    with file:
        tags = file.tags()
        if tags.get("TIFFTAG_SOFTWARE") != SOFTWARE or "CLASSES" not in tags or file.dtypes != ("uint8",):
            raise BadInput(path, "is no class map, expected the file OUT.tif that `landscale predict` wrote")
        try:
            entries = msgspec.convert(json.loads(tags["CLASSES"]), list[_Entry])
        except (ValueError, msgspec.ValidationError, RecursionError) as error:
            raise BadInput(path, f"has a damaged tag CLASSES ({str(error).replace('`', '')})") from None
        if [entry.value for entry in entries] != [*range(len(entries))] or not entries:
            raise BadInput(path, "has a damaged tag CLASSES: its values are not 0, 1, 2, …")
        if not file.crs or not file.crs.is_projected or file.crs.linear_units_factor[1] != 1:
            raise BadInput(path, "has no coordinate reference system in metres, which areas need")
        grid = file.transform
        if grid.b or grid.d or grid.a <= 0 or abs(grid.a + grid.e) > 1e-6 * grid.a:
            raise BadInput(
                path, "has rotated or oblong pixels, expected the square ones that `landscale predict` writes"
            )
        yield ClassMap(path, file, tuple(e.name for e in entries), tuple(e.colour for e in entries))
