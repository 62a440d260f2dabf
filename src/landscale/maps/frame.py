"""The grid of a map: that of its scenes, or the part of it that an area covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rasterio import Affine

from landscale.errors import BadInput
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import Scene

Bounds = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(frozen=True)
class Frame:
    """left, top: upper left corner in metres of `crs`. gsd: side of a pixel in metres. width, height: in pixels."""

    crs: Any
    left: float
    top: float
    gsd: float
    width: int
    height: int

    @property
    def transform(self) -> Affine:
        return Affine(self.gsd, 0, self.left, 0, -self.gsd, self.top)

    def position(self, pixels: ScenePixels) -> tuple[int, int]:
        """Row and column of the first pixel of a scene; they are negative if it lies above or left of the frame."""
        row, column = (self.top - pixels.transform.f) / self.gsd, (pixels.transform.c - self.left) / self.gsd
        return round(row), round(column)

    def part(self, bounds: Bounds) -> Frame | None:
        """The part whose pixels have their centres within `bounds`; None if there is none."""
        left, bottom, right, top = bounds
        columns = _between((left - self.left) / self.gsd, (right - self.left) / self.gsd, self.width)
        rows = _between((self.top - top) / self.gsd, (self.top - bottom) / self.gsd, self.height)
        if not columns or not rows:
            return None
        x, y = self.left + columns[0] * self.gsd, self.top - rows[0] * self.gsd
        return Frame(self.crs, x, y, self.gsd, len(columns), len(rows))


def _between(first: float, last: float, count: int) -> range:
    """The pixels, of `count` in a row or column, whose centres lie between two positions in pixels."""
    return range(max(0, math.ceil(first - 0.5)), min(count, math.floor(last - 0.5) + 1))


def frame_of(pixels: ScenePixels) -> Frame:
    """The grid of the finest band of a scene."""
    return Frame(pixels.crs, pixels.transform.c, pixels.transform.f, pixels.gsd, pixels.width, pixels.height)


def common_frame(scenes: Sequence[tuple[Scene, ScenePixels]]) -> Frame:
    """The smallest frame that contains all scenes.

    Raises:
        BadInput: two scenes have different coordinate reference systems, such as two UTM zones, or grids that do not coincide.
    """
    (first, reference), *others = [(scene, frame_of(pixels)) for scene, pixels in scenes]
    for scene, frame in others:
        if frame.crs != reference.crs:
            raise BadInput(
                scene.folder,
                f"lies in {frame.crs}, but {first.folder} in {reference.crs}; map the scenes of each UTM zone on their own",
            )
        steps = (frame.left - reference.left) / reference.gsd, (frame.top - reference.top) / reference.gsd
        if abs(frame.gsd - reference.gsd) > 1e-6 * reference.gsd or any(abs(s - round(s)) > 0.01 for s in steps):
            raise BadInput(
                scene.folder,
                f"has pixels of {frame.gsd:g} m from ({frame.left:g}, {frame.top:g}), which do not coincide with the"
                f" {reference.gsd:g} m from ({reference.left:g}, {reference.top:g}) of {first.folder};"
                " map the scenes on their own",
            )
    frames = [reference, *(frame for _, frame in others)]
    left, top = min(f.left for f in frames), max(f.top for f in frames)
    right = max(f.left + f.width * f.gsd for f in frames)
    bottom = min(f.top - f.height * f.gsd for f in frames)
    gsd = reference.gsd
    return Frame(reference.crs, left, top, gsd, round((right - left) / gsd), round((top - bottom) / gsd))
