"""Compare two class maps: how much of each class became which other class, where, and in which regions.

The later map is brought to the grid of the earlier one, by the nearest pixel. Only pixels that both map are compared. Areas
are those of pixels, which are no unbiased estimates; with the error matrix of each map (`points`) they are adjusted for its
errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from landscale.errors import BadInput, UnknownName, reason
from landscale.map_accuracy.change_files import SOFTWARE, TABLE_CORNER, change_files, check_change_files
from landscale.map_accuracy.class_map import ClassMap, open_class_map
from landscale.map_accuracy.estimates import SampleEstimates, Z, estimate
from landscale.map_accuracy.regions import Region, read_regions
from landscale.maps.encoding import NODATA
from landscale.maps.frame import Frame
from landscale.maps.legend import Entry, attribute_table, legend_tag, qgis_style
from landscale.maps.quick_look import LONGEST, quick_look
from landscale.maps.rasters import growing_raster
from landscale.maps.reduced import ReducedMap
from landscale.runtime.files import atomic_files
from landscale.runtime.progress import progress_bar

UNCHANGED, UNCHANGED_COLOUR = 0, "#e8e8e8"
_MOST_CHANGES = 253  # kinds of change with a value of their own; the others share the last value
_WHOLE = "all"  # name of the region that is the whole map


@dataclass(frozen=True)
class RegionArea:
    """One class in a region: hectares in both maps, and if error matrices were given, adjusted for the errors of the maps.

    before_adjusted, after_adjusted: hectares, and the half width of their 95 % interval, which is None if a class of the map has
    a single reference point.
    """

    region: str
    name: str
    before: float
    after: float
    before_adjusted: tuple[float, float | None] | None = None
    after_adjusted: tuple[float, float | None] | None = None


@dataclass(frozen=True)
class Change:
    """matrix: hectares by class before (rows) and after (columns). compared, changed: hectares. regions: a row for each class."""

    classes: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    compared: float
    changed: float
    regions: tuple[RegionArea, ...]
    files: dict[str, str]
    resampled: bool


@dataclass(frozen=True)
class _Pair:
    """Two maps on the grid of the first. table: by value of the second, the number of the class in the first."""

    before: ClassMap
    after: ClassMap
    warped: WarpedVRT
    table: NDArray[np.uint8]
    resampled: bool

    def read(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Classes before and after, NODATA in both where either has none."""
        first = self.before.read(window)
        try:
            values = self.warped.read(1, window=window)
        except RasterioError as error:
            raise BadInput(self.after.path, f"cannot be decoded ({reason(error)})") from None
        self.after.check_values(values)
        second = self.table[values]
        nowhere = (first == NODATA) | (second == NODATA)
        first[nowhere], second[nowhere] = NODATA, NODATA
        return first, second


def compare_maps(
    before: str | Path,
    after: str | Path,
    out: str | Path,
    *,
    regions: str | Path | None = None,
    region_column: str = "name",
    accuracy: tuple[SampleEstimates, SampleEstimates] | None = None,
) -> Change:
    """Write a map of the changes with its legend and style, and a table.

    Args:
        before, after: class maps of the same classes, which are matched by name.
        out: GeoTIFF: 0 unchanged, 1… a kind of change each, the largest first, 255 nodata. `OUT.csv` has the
            table, `OUT.png` a picture.
        regions: vector file of polygons, for areas by region.
        region_column: with their names; polygons of the same name are one region.
        accuracy: estimates from reference points of both maps. Their error rates are applied to the areas of each region, which
            assumes that the maps err in a region as they do on the whole.

    Raises:
        BadInput: a file cannot be read or written, or the maps do not overlap. UnknownName: one map has a class that the other
            lacks. LandscaleError: a class that a map has in a region has no reference point.
    """
    out = Path(out)
    paths = change_files(out)
    check_change_files(paths, [before, after, *([regions] if regions is not None else [])])
    with _open_pair(before, after) as pair:
        errors = None if accuracy is None else [_counts_of(one, pair.before.classes) for one in accuracy]
        places = read_regions(Path(regions), region_column, pair.before.file.crs) if regions is not None else []
        if any(place.name == _WHOLE for place in places):
            raise BadInput(str(regions), f"has a region named '{_WHOLE}', which stands for the whole map; rename it")
        count = len(pair.before.classes)
        total, by_region = (
            np.zeros((count, count), np.int64),
            {place.name: np.zeros((2, count), np.int64) for place in places},
        )
        with progress_bar("compare", 2 * pair.before.file.height, "rows") as advance:
            for window in pair.before.windows():
                first, second = pair.read(window)
                total += _transitions(first, second, count)
                _count_regions(pair, window, places, by_region, first, second)
                advance(window.height)
            if not total.any():
                raise BadInput(after, f"maps no pixel that {before} maps too; do they cover the same place?")
            # Before anything is written, as a class without a reference point is refused.
            marginals = {_WHOLE: np.array([total.sum(1), total.sum(0)]), **by_region}
            rows = [
                row
                for name, pixels in marginals.items()
                for row in _region_rows(name, pixels * pair.before.hectares, pair.before.classes, errors)
            ]
            changes = _kinds_of_change(total)
            entries = _entries(changes, total, pair.before)
            with atomic_files(list(paths.values())) as temporaries:
                place_of = dict(zip(paths, temporaries, strict=True))
                reduced = _write_map(place_of["map"], out, pair, changes, entries, advance)
                title = f"{pair.before.path.name} → {pair.after.path.name}"
                place_of["quick_look"].write_bytes(quick_look(reduced, entries, title))
                place_of["legend"].write_text(attribute_table(entries), encoding="utf-8")
                place_of["style"].write_text(qgis_style(entries), encoding="utf-8")
                hectares = total * pair.before.hectares
                place_of["table"].write_text(_csv(pair.before.classes, hectares), encoding="utf-8")
        return Change(
            classes=pair.before.classes,
            matrix=tuple(tuple(map(float, row)) for row in hectares),
            compared=float(hectares.sum()),
            changed=float(hectares.sum() - np.trace(hectares)),
            regions=tuple(rows),
            files={kind: str(path) for kind, path in reversed(paths.items())},
            resampled=pair.resampled,
        )


@contextmanager
def _open_pair(before: str | Path, after: str | Path) -> Iterator[_Pair]:
    with open_class_map(before) as first, open_class_map(after) as second:
        for name in sorted({*first.classes} ^ {*second.classes}):
            raise UnknownName(f"class of {before if name in second.classes else after}", name, first.classes)
        table = np.full(256, NODATA, np.uint8)
        table[: len(second.classes)] = [first.classes.index(name) for name in second.classes]
        one, other = first.file, second.file
        same = (one.crs, one.transform, one.shape) == (other.crs, other.transform, other.shape)
        grid = {"crs": one.crs, "transform": one.transform, "width": one.width, "height": one.height}
        with WarpedVRT(other, resampling=Resampling.nearest, nodata=NODATA, warp_mem_limit=64, **grid) as warped:
            yield _Pair(first, second, warped, table, not same)


def _transitions(first: NDArray[np.uint8], second: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    known = first != NODATA
    pairs = first[known].astype(np.int64) * count + second[known]
    return np.bincount(pairs, minlength=count**2).reshape(count, count)


def _count_regions(
    pair: _Pair,
    window: Window,
    places: list[Region],
    found: dict[str, NDArray[np.int64]],
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
) -> None:
    count = len(pair.before.classes)
    for place in places:
        inside = place.inside(pair.before.file.transform, window)
        if inside is not None:
            for k, values in enumerate((first, second)):
                found[place.name][k] += np.bincount(values[inside], minlength=256)[:count]


def _kinds_of_change(total: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(C, C): the value of each kind of change in the map, the largest area first."""
    moved = total.copy()
    np.fill_diagonal(moved, 0)
    order = np.argsort(-moved, axis=None, kind="stable")
    values = np.zeros(total.size, np.uint8)
    for k, place in enumerate(order[: np.count_nonzero(moved)]):
        values[place] = min(k, _MOST_CHANGES) + 1
    return values.reshape(total.shape)


def _entries(changes: NDArray[np.uint8], total: NDArray[np.int64], of: ClassMap) -> list[Entry]:
    """The legend: a change has the colour of the later class."""
    found = [Entry(UNCHANGED, "unchanged", UNCHANGED_COLOUR, int(np.trace(total)))]
    for value in range(1, int(changes.max()) + 1):
        kinds = np.argwhere(changes == value)
        i, j = kinds[0]
        name = f"{of.classes[i]} → {of.classes[j]}" if len(kinds) == 1 else f"{len(kinds)} other changes"
        pixels = int(sum(total[i, j] for i, j in kinds))
        found.append(Entry(value, name, of.colours[j] if len(kinds) == 1 else "#000000", pixels))
    return found


def _write_map(
    path: Path, out: Path, pair: _Pair, changes: NDArray[np.uint8], entries: list[Entry], advance: Callable[[int], None]
) -> ReducedMap:
    """Write the map of the changes, and return it with fewer pixels."""
    file = pair.before.file
    grid = file.transform
    frame = Frame(file.crs, grid.c, grid.f, grid.a, file.width, file.height)
    reduced = ReducedMap(frame, LONGEST)
    colours = [entry.colour for entry in entries]
    tags = {
        "TIFFTAG_SOFTWARE": SOFTWARE,
        "CLASSES": legend_tag([entry.name for entry in entries], colours),
        "BEFORE": pair.before.path.name,
        "AFTER": pair.after.path.name,
    }
    with growing_raster(path, out, frame, ["change"], tags, numbers="class", colours=colours) as write:
        for window in pair.before.windows():
            first, second = pair.read(window)
            known = first != NODATA
            values = np.full(first.shape, NODATA, np.uint8)
            values[known] = changes[first[known], second[known]]
            write(window.row_off, values[None])
            reduced.add(window.row_off, values)
            advance(window.height)
    return reduced


def _region_rows(
    region: str,
    areas: NDArray[np.floating],
    classes: tuple[str, ...],
    errors: Sequence[NDArray[np.int64]] | None,
) -> Iterator[RegionArea]:
    adjusted: list[list[tuple[float, float | None] | None]] = [[None] * len(classes)] * 2
    if errors is not None:
        adjusted = []
        for counts, of_map in zip(errors, areas, strict=True):
            if not of_map.sum():
                adjusted.append([(0.0, 0.0)] * len(classes))
                continue
            found = [row.area for row in estimate(counts, of_map, classes).classes]
            adjusted.append([(a.value, None if math.isnan(a.error) else Z * a.error) for a in found])
    for k, name in enumerate(classes):
        yield RegionArea(region, name, float(areas[0, k]), float(areas[1, k]), adjusted[0][k], adjusted[1][k])


def _counts_of(accuracy: SampleEstimates, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """The error matrix of a map, with its rows and columns in the order of `classes`, which that of the map may not be."""
    names = [row.name for row in accuracy.classes]
    for name in [*(name for name in names if name not in classes), *(name for name in classes if name not in names)]:
        raise UnknownName("class of an error matrix", name, classes if name in names else names)
    order = [names.index(name) for name in classes]
    return np.array(accuracy.counts, np.int64)[np.ix_(order, order)]


def _csv(classes: tuple[str, ...], hectares: NDArray[np.floating]) -> str:
    import pandas as pd

    table = pd.DataFrame(hectares, index=pd.Index(classes, name=TABLE_CORNER), columns=list(classes))
    return str(table.to_csv(float_format="%.4f"))
