"""One scene of a map: its pixels, windows and mask, and how they lie in the frame of the map."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import pairwise
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput
from landscale.inference.exported import Predictor
from landscale.maps.area import Area
from landscale.maps.frame import Frame, common_frame
from landscale.maps.masks import PixelMask, find_mask
from landscale.maps.windows import WindowGrid, probability_rows, window_grid
from landscale.models.input_units import compare_units, scene_source
from landscale.runtime.parts import Parts
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import Scene, open_scene

_PRODUCT = re.compile(r"S2[A-D]_(?:MSIL\d[AC]p?|\d\d[A-Z]{3})_(\d{4})(\d\d)(\d\d)(?:T(\d{6}))?(?!\d)")

Rows = tuple[NDArray[np.float32], NDArray[np.uint8]]


@dataclass(frozen=True)
class Layer:
    """One scene of a map.

    pixels: the part that is read. row, column: of its first pixel in the frame; the windows of an area begin outside of it, so
    they may be negative. factors, notes: of the conversion of units. origin: of the part in the scene.
    """

    scene: Scene
    pixels: ScenePixels
    windows: WindowGrid
    row: int
    column: int
    factors: Mapping[str, float]
    notes: tuple[str, ...]
    origin: tuple[int, int] = (0, 0)
    mask: PixelMask | None = None

    @property
    def name(self) -> str:
        """The name of the product, or of what the user gave."""
        return self.scene.folder.resolve().name

    @property
    def key(self) -> str:
        """A name of the scene that no other has, for its parts."""
        return hashlib.sha256(str(self.scene.folder.resolve()).encode(errors="surrogateescape")).hexdigest()[:16]

    @property
    def date(self) -> str:
        """When the scene was recorded, such as 2022-07-06T08:56:11Z, by the name of its product; empty if unknown."""
        places = (self.scene.product, self.name, *(part for path in self.scene.files.values() for part in path.parts))
        found = next((match for place in places if (match := _PRODUCT.match(place))), None)
        if found is None:
            return ""
        year, month, day, time = found.groups()
        return f"{year}-{month}-{day}" + (f"T{time[:2]}:{time[2:4]}:{time[4:]}Z" if time else "")

    def plan(self) -> dict[str, Any]:
        """What determines the probabilities of the windows, besides the classifier, as JSON."""
        part = [*self.origin, self.pixels.height, self.pixels.width]
        windows = {"side": self.windows.side, "stride": self.windows.stride, "dense": self.windows.tiling is not None}
        return {**self.scene.identity(), "part": part, **windows}

    def rows(
        self, frame: Frame, lengths: Sequence[int], classifier: Predictor, done: Parts, advance: Callable[[int], None]
    ) -> Generator[Rows]:
        """Yield the rows of the layer that lie in the frame, `lengths` at a time.

        Yields:
            probabilities (C, rows, columns), NaN where there are none, and the `Reason`s of the mask (rows, columns), for the
            columns in the frame.
        """
        found = probability_rows(classifier, self.pixels, self.windows, done, self.factors, advance)
        above = max(0, -self.row)
        columns = slice(max(0, -self.column), min(self.pixels.width, frame.width - self.column))
        top = 0
        with closing(found) as strips:
            for values in _rechunked((strip for _, strip in strips), [above, *lengths] if above else lengths):
                rows = values.shape[1]
                if top >= above:
                    none = np.zeros((rows, self.pixels.width), np.uint8)
                    reasons = none if self.mask is None else self.mask.rows(top, rows)
                    yield values[:, :, columns], reasons[:, columns]
                top += rows


def open_layers(
    paths: Sequence[Path],
    classifier: Predictor,
    stride: int | None,
    stack: ExitStack,
    *,
    offset: int | None,
    mask: str | Path | bool,
    aoi: Path | None,
) -> tuple[Frame, Area | None, list[Layer]]:
    """Open the scenes of a map, in an order that does not depend on that of `paths`.

    Args:
        paths: of the scenes.
        classifier: the classifier.
        stride: see `windows.window_grid`.
        stack: closes the scenes.
        offset: see `scenes.scene.open_scene`.
        mask: see `masks.find_mask`.
        aoi: a vector file with the area to be mapped; None: all of the scenes.

    Returns:
        The frame of the map, the area, and its scenes. Scenes that lie outside the area are left out.

    Raises:
        BadInput: a scene or the area cannot be used, or no scene covers any of the area.
    """
    d = classifier.description
    opened = []
    for path in paths:
        scene = open_scene(path, offset)
        pixels = stack.enter_context(ScenePixels(scene, d.bands))
        pixels.check_offset()
        opened.append((scene, pixels))
    opened.sort(key=lambda pair: (pair[0].folder.resolve().name, str(pair[0].folder.resolve())))
    for (one, _), (other, _) in pairwise(opened):
        if one.folder.resolve() == other.folder.resolve():
            raise BadInput(other.folder, "is given twice")
    frame = common_frame(opened)
    area = None
    if aoi is not None:
        if not frame.crs:
            raise BadInput(opened[0][0].folder, "has no coordinate reference system, which --aoi needs")
        area = Area(aoi, frame.crs)
        part = frame.part(area.bounds)
        if part is None:
            names = ", ".join(scene.folder.resolve().name for scene, _ in opened)
            raise BadInput(aoi, f"covers no pixel of the scene{'s' if len(opened) > 1 else ''} {names}")
        frame = part
    layers = [layer for pair in opened if (layer := _layer(*pair, frame, classifier, stride, cropped=area is not None))]
    if not layers:
        raise BadInput(aoi or paths[0], "lies between the scenes, which cover nothing of it")
    return frame, area, [replace(a, mask=find_mask(a.scene, a.pixels, mask, d.classes)) for a in layers]


def _layer(
    scene: Scene, pixels: ScenePixels, frame: Frame, classifier: Predictor, stride: int | None, *, cropped: bool
) -> Layer | None:
    """The layer of a scene; None if it lies outside the frame."""
    compared = compare_units(classifier.description, scene_source(scene, pixels))
    windows = window_grid(classifier, pixels, stride)
    row, column = frame.position(pixels)
    origin = (0, 0)
    if cropped:
        grid = lcm(*pixels.ratios.values())
        rows = _needed(-row, frame.height, pixels.height, windows, grid)
        columns = _needed(-column, frame.width, pixels.width, windows, grid)
        if rows is None or columns is None:
            return None
        origin = rows[0], columns[0]
        pixels.crop(*origin, rows[1] - rows[0], columns[1] - columns[0])
        windows = window_grid(classifier, pixels, stride)
        row, column = frame.position(pixels)
    return Layer(scene, pixels, windows, row, column, compared.factors, compared.notes, origin)


def _needed(first: int, length: int, whole: int, windows: WindowGrid, grid: int) -> tuple[int, int] | None:
    """Where the pixels begin and end that a range of rows or columns needs, to be mapped like the whole; None for no pixel.

    The part begins and ends where windows side by side do, so that its windows are some of those of the scene. They reach half a
    window beyond those that contain the range, because probabilities are interpolated between windows.

    Args:
        first, length: of the range; it may exceed the scene.
        whole: number of rows or columns of the scene.
        windows: of the whole scene.
        grid: pixels of the finest grid in one of the coarsest band.
    """
    last = min(whole, first + length) - 1
    first = max(0, first)
    if last < first:
        return None
    side, stride = windows.side, windows.stride
    unit = lcm(side, stride)
    begin = max(0, first - side - side // 2) // unit * unit
    end = begin + side
    while end <= last + side + side // 2 or (end - side) % stride:
        end += side
    # At the end of a scene, its last window is moved inward, and those before it need not be whole strides apart.
    regular = max(0, whole - side) // grid * grid // side * side + side
    return begin, end if end <= regular and end < whole else whole


def _rechunked(strips: Iterator[NDArray[np.float32]], lengths: Sequence[int]) -> Iterator[NDArray[np.float32]]:
    """The rows (second axis) of `strips`, as strips of `lengths`; rows beyond them are not computed."""
    held: list[NDArray[np.float32]] = []
    count = 0
    for length in lengths:
        while count < length:
            held.append(next(strips))
            count += held[-1].shape[1]
        rows = held[0] if len(held) == 1 else np.concatenate(held, axis=1)
        yield rows[:, :length]
        held, count = [rows[:, length:]], count - length
