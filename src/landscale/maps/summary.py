"""What `predict` returns about the map that it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ClassArea:
    """Where a class is the likeliest: number of pixels, square metres, and percent of the mapped pixels."""

    name: str
    pixels: int
    square_metres: float
    percent: float


@dataclass(frozen=True)
class MapSummary:
    """Description of the map that `predict` wrote.

    Attributes:
        map: path of the class map.
        files: paths of all files by what they are: map, legend, style, quick_look, probabilities, entropy, viewer, polygons.
        width, height: pixels of the map.
        crs: its coordinate reference system.
        pixel: side of a pixel in metres.
        classes: names of the classes, in the order of their values.
        areas: of each class, in the same order.
        not_mapped: number of pixels without a class by reason: nodata, saturated, shadow, cloud, cirrus, snow, mask (that of the
            user), outside (of the area).
        scenes: names of the scenes.
        windows: number of windows that were classified.
        stride: pixels between windows.
        offset: number that was subtracted from the digital numbers; of several scenes, that of the first.
    """

    map: str
    files: Mapping[str, str]
    width: int
    height: int
    crs: str
    pixel: float
    classes: tuple[str, ...]
    areas: tuple[ClassArea, ...]
    not_mapped: Mapping[str, int]
    scenes: tuple[str, ...]
    windows: int
    stride: int
    offset: int

    def to_json(self) -> dict[str, Any]:
        """The attributes by name."""
        return asdict(self) | {"classes": list(self.classes), "areas": [asdict(a) for a in self.areas]}
