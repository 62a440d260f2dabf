"""Compare a class map with another raster of classes, pixel by pixel, on the grid of the map.

The raster may be another class map, whose classes are matched by name; CORINE, by codes 111…523 or grid codes 1…44; or any other
raster with a legend. Its nearest pixel is taken for each pixel of the map, in windows, so neither has to fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from landscale.datasets.corine_codes import CODES, UNKNOWN, cells_by_values, coarser_level
from landscale.errors import BadInput, UnknownName, reason
from landscale.formats.content import read_text
from landscale.formats.rasters import open_raster_file
from landscale.inference.pixel_scores import PixelScores, confusion_matrix, pixel_scores
from landscale.map_accuracy.class_map import ClassMap, open_class_map
from landscale.maps.encoding import NODATA
from landscale.maps.files import SOFTWARE
from landscale.runtime.progress import progress_bar
from landscale.vocabulary.nomenclatures import CLC43, columns_by_name

_LARGEST = 1 << 16  # values of a raster with a legend are below


def score_map(map_path: str | Path, reference: str | Path, legend: str | Path | None = None) -> PixelScores:
    """Accuracy of a class map against a raster of classes. Pixels without a class in either do not count.

    Args:
        map_path: the class map.
        reference: the raster, in any coordinate reference system.
        legend: csv file with the columns `value` and `name`, for a raster that is neither a class map nor CORINE. Names are
            those of the map's classes, or of finer ones of its nomenclature; values without a name are not compared.

    Raises:
        BadInput: a file cannot be read, the raster has no class of the map, or nowhere lies on it.
        UnknownName: a name of the legend is no class.
    """
    reference = Path(reference)
    with open_class_map(map_path) as one, _open_reference(reference, one, legend) as other:
        confusion = np.zeros((len(one.classes),) * 2, np.int64)
        with progress_bar("compare", one.file.height, "rows") as advance:
            for window in one.windows():
                mapped, known = one.read(window), other.read(window)
                known[mapped == NODATA] = NODATA
                confusion += confusion_matrix(known, np.where(mapped == NODATA, 0, mapped), len(one.classes))
                advance(window.height)
        if not confusion.any():
            raise BadInput(
                reference, f"has a class of the map at no pixel of {map_path}; do they cover the same place?"
            )
    return replace(pixel_scores(confusion, one.classes), split=reference.name)


@dataclass(frozen=True)
class _Reference:
    """A raster on the grid of the map. table: by value, the number of a class of the map or NODATA; None for CORINE."""

    path: Path
    file: Any
    table: NDArray[np.uint8]
    corine: bool

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Numbers of the map's classes in a window, NODATA where there is none."""
        try:
            values, valid = self.file.read(1, window=window), self.file.read_masks(1, window=window) > 0
        except RasterioError as error:
            raise BadInput(self.path, f"cannot be decoded ({reason(error)})") from None
        valid &= np.isfinite(values) & (values >= 0) & (values < _LARGEST) & (values == np.round(values))
        whole = np.where(valid, values, 0).astype(np.int64)
        if self.corine:
            whole = cells_by_values(whole).astype(np.int64)
            if (whole[valid] == UNKNOWN).any():
                wrong = values[valid & (whole == UNKNOWN)][0]
                raise BadInput(
                    self.path,
                    f"holds {wrong}, which is no code of CORINE (111…523, or 1…44); --legend FILE names the values of others",
                )
        found: NDArray[np.uint8] = np.where(valid, self.table[whole], NODATA).astype(np.uint8)
        return found


@contextmanager
def _open_reference(path: Path, of: ClassMap, legend: str | Path | None) -> Iterator[_Reference]:
    if not path.exists():
        raise BadInput(path, "no such file")
    try:
        with open_raster_file(path) as file:
            if file.count != 1 or np.dtype(file.dtypes[0]).kind not in "iuf":
                raise BadInput(path, f"has {file.count} bands of {file.dtypes[0]}, expected one band of classes")
            if file.crs is None:
                raise BadInput(path, "has no coordinate reference system; give it one with gdal_translate -a_srs")
            corine = legend is None and file.tags().get("TIFFTAG_SOFTWARE") != SOFTWARE
            table = _table_of(path, file, of, legend, corine=corine)
            options = {"crs": of.file.crs, "transform": of.file.transform, "resampling": Resampling.nearest}
            size = {"width": of.file.width, "height": of.file.height}
            # Without nodata, GDAL would fill what lies beyond the raster with 0, which may be a class; alpha marks it.
            beyond = {"add_alpha": file.nodata is None}
            with WarpedVRT(file, **options, **size, **beyond, warp_mem_limit=64) as warped:
                yield _Reference(path, warped, table, corine)
    except RasterioError as error:
        raise BadInput(path, f"cannot be read ({reason(error)})") from None


def _table_of(path: Path, file: Any, of: ClassMap, legend: str | Path | None, *, corine: bool) -> NDArray[np.uint8]:
    """By value of the raster, the number of the map's class, or NODATA."""
    if legend is not None:
        values, names = _read_legend(Path(legend))
    elif corine:
        sample = file.read(1, window=Window(0, 0, min(file.width, 1000), min(file.height, 1000)))
        if np.dtype(file.dtypes[0]).kind in "iu" and (level := coarser_level(sample)) is not None:
            raise BadInput(
                path, f"holds codes of CORINE's level {level}, expected level 3 (111…523, or grid codes 1…44)"
            )
        by_code = {land.code: land.name for land in CLC43.classes}
        known = [(cell, by_code[code]) for cell, code in enumerate(CODES, start=1) if code in by_code]
        values, names = [cell for cell, _ in known], [name for _, name in known]
    else:
        with open_class_map(path) as other:
            values, names = [*range(len(other.classes))], list(other.classes)
    table = np.full(_LARGEST, NODATA, np.uint8)
    matched = set()
    for number, name in enumerate(of.classes):
        try:
            (columns,) = columns_by_name([name], names)
        except UnknownName:
            continue
        matched.update(columns)
        table[[values[column] for column in columns]] = number
    if not matched:
        raise BadInput(
            path,
            f"has none of the {len(of.classes)} classes of the map, such as {of.classes[0]}; --legend FILE names its values",
        )
    unmatched = [name for k, name in enumerate(names) if k not in matched]
    if legend is not None and unmatched:
        raise UnknownName("class", unmatched[0], of.classes)
    return table


def _read_legend(path: Path) -> tuple[list[int], list[str]]:
    from io import StringIO

    try:
        table = pd.read_csv(StringIO(read_text(path)), dtype=str, keep_default_na=False, skipinitialspace=True)
    except (ValueError, pd.errors.ParserError) as error:
        raise BadInput(path, f"is no table ({reason(error)})") from None
    columns = {str(name).strip().lower(): name for name in table}
    if not {"value", "name"} <= columns.keys():
        raise BadInput(path, f"has the columns {', '.join(map(str, table))}, expected value and name")
    values, names = [], []
    for value, name in zip(table[columns["value"]], table[columns["name"]], strict=True):
        if not str(name).strip():
            continue
        if not (str(value).strip().isdigit() and int(value) < _LARGEST):
            raise BadInput(path, f"value: found {value!r}, expected a whole number below {_LARGEST}")
        values.append(int(value))
        names.append(str(name).strip())
    if len(set(values)) < len(values):
        raise BadInput(path, "lists a value twice")
    return values, names
