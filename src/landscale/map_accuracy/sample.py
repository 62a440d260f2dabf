"""Draw a stratified random sample of points for an interpreter, from which accuracy and areas of a map can be estimated.

Every class of the map is a stratum. Points are allocated in proportion to its area, with a minimum for rare classes, as Olofsson
et al. 2014 (section 5.1) recommend. They lie at the centres of pixels, in random order, without the class of the map, which would
influence the interpreter.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from landscale.errors import BadInput, LandscaleError, reason
from landscale.map_accuracy.class_map import ClassMap, open_class_map
from landscale.map_accuracy.points import COLUMN
from landscale.runtime.files import atomic_file
from landscale.runtime.outputs import check_output

LAYER = "reference points of landscale"


def allocate(pixels: NDArray[np.int64], points: int, least: int) -> NDArray[np.int64]:
    """How many points each class (C,) gets: `least`, or all its pixels if it has fewer; the rest in proportion to the pixels.

    Raises:
        LandscaleError: there are fewer points than the minimum needs.
    """
    first = np.minimum(pixels, least)
    if first.sum() > points:
        raise LandscaleError(
            f"--points {points}: {np.count_nonzero(pixels)} classes need {first.sum()} points with at least {least} each"
        )
    share = np.maximum(pixels / max(1, pixels.sum()) * points - first, 0)
    rest = points - first.sum()
    share = share / share.sum() * rest if share.sum() else share
    found = np.minimum(first + np.floor(share).astype(np.int64), pixels)
    order = np.argsort(-(share - np.floor(share)), kind="stable")
    for k in [*order, *np.argsort(-pixels, kind="stable")]:  # what rounding left over
        if found.sum() < points and found[k] < pixels[k]:
            found[k] += 1
    return np.asarray(found)


def draw_sample(map_path: str | Path, out: str | Path, points: int, least: int = 20, seed: int = 0) -> dict[str, int]:
    """Write a GeoPackage with points and an empty column `class`. Returns the number of points by class of the map.

    Args:
        map_path: the class map.
        out: the GeoPackage.
        points: number of points.
        least: in each class that the map has.
        seed: of the draw; the same seed gives the same points.

    Raises:
        BadInput: the map cannot be read, or `out` exists and is no sample. LandscaleError: there are not enough points.
    """
    out = Path(out)
    if out.suffix.lower() != ".gpkg":
        raise BadInput(out, "has the wrong suffix, expected a GeoPackage (.gpkg)")
    check_output(out, "a sample of landscale without any class filled in", _is_sample, [map_path])
    rng = np.random.default_rng(seed)
    with open_class_map(map_path) as one:
        pixels = one.pixels()
        wanted = allocate(pixels, points, least)
        chosen = [
            np.sort(rng.choice(n, k, replace=False)) if k else np.empty(0, int)
            for n, k in zip(pixels, wanted, strict=True)
        ]
        places = _places(one, chosen)
        grid = one.file.transform
        xy = np.array([(grid.c + (c + 0.5) * grid.a, grid.f + (r + 0.5) * grid.e) for r, c in places])
        xy = xy[rng.permutation(len(xy))]
        with atomic_file(out) as temporary:
            _write(temporary, xy, one.file.crs.to_wkt())
        return {name: int(n) for name, n in zip(one.classes, wanted, strict=True)}


def _places(one: ClassMap, chosen: list[NDArray[np.int64]]) -> list[tuple[int, int]]:
    """Row and column of the chosen pixels, which are numbered within their class from the north-west corner on."""
    seen = np.zeros(len(chosen), np.int64)
    found = []
    for window in one.windows():
        values = one.read(window)
        for k, numbers in enumerate(chosen):
            rows, columns = np.nonzero(values == k)
            here = numbers[(numbers >= seen[k]) & (numbers < seen[k] + len(rows))] - seen[k]
            found += [(window.row_off + int(rows[i]), int(columns[i])) for i in here]
            seen[k] += len(rows)
    return found


def _write(path: Path, xy: NDArray[np.float64], crs: str) -> None:
    from pyogrio.raw import write

    unfinished = path.with_name(f"{path.name}.gpkg")  # GDAL expects this suffix
    try:
        write(
            unfinished,
            geometry=shapely.to_wkb(shapely.points(xy)),
            field_data=[np.arange(1, len(xy) + 1, dtype=np.int32), np.array([""] * len(xy), object)],
            fields=["number", COLUMN],
            layer=LAYER,
            driver="GPKG",
            geometry_type="Point",
            crs=crs,
        )
        unfinished.replace(path)
    except (RuntimeError, OSError) as error:  # pyogrio's errors are RuntimeErrors
        raise BadInput(path, f"cannot be written ({reason(error)})") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _is_sample(path: Path) -> bool:
    """Whether it is a sample in which no point has a class yet: what an interpreter has filled in is never replaced."""
    from pyogrio.raw import read

    try:
        information, _, _, fields = read(path, layer=LAYER)
        return not any(fields[list(information["fields"]).index(COLUMN)])
    except (RuntimeError, ValueError):
        return False
