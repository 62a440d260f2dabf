"""A scene in true colour and its map in the official class colours, as PNG images inside the page."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from landscale.errors import BadInput, reason
from landscale.scenes.band import OpenBand
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene
from landscale.vocabulary.nomenclatures import colours

LONGEST_SIDE = 1000  # pixels; larger images are reduced
GAMMA = 0.7  # exponent of values from 0 to 1; below 1, dark forests stay visible next to bright clouds


@dataclass(frozen=True)
class MapLegendEntry:
    """A class that occurs in a map: its colour `#rrggbb` and its fraction of the mapped area."""

    name: str
    colour: str
    fraction: float


@dataclass(frozen=True)
class MapView:
    """A scene and its map as the page shows them.

    `windows` describes the windows between whose centres the map's probabilities are interpolated. `picture` and `class_map` are
    data URIs of PNG images.
    """

    scene: str
    size: str
    windows: str
    synthetic: bool
    picture: str
    class_map: str
    legend: list[MapLegendEntry]


def render_map_view(scene_folder: Path, map_file: Path) -> MapView:
    """Render a scene and the map that was predicted from it.

    Raises:
        BadInput: one of them cannot be read, or the map is not of this scene.
    """
    with ScenePixels(open_scene(scene_folder), ("B04", "B03", "B02")) as pixels:
        with _readable(scene_folder):
            picture = true_colour(list(pixels.files.values()))
        with _readable(map_file), rasterio.open(map_file) as file:
            if file.crs != pixels.crs or not np.allclose(file.bounds, pixels.bounds, atol=pixels.gsd):
                raise BadInput(map_file, f"is not a map of {scene_folder}: their bounds or coordinate systems differ")
            classes, legend = class_map(map_file, file)
            windows = _windows(file.tags())
        kilometres = [f"{side * pixels.gsd / 1000:g}" for side in (pixels.width, pixels.height)]
        size = f"{' × '.join(kilometres)} km at {pixels.gsd:g} m, {pixels.crs}"
        synthetic = pixels.files["B04"].file.tags().get("TIFFTAG_IMAGEDESCRIPTION", "") == "synthetic"
    return MapView(scene_folder.resolve().name, size, windows, synthetic, _png(picture), _png(classes), legend)


def _windows(tags: dict[str, str]) -> str:
    """The windows of a map in words, by the tags that `predict` wrote; earlier maps have none."""
    try:
        return f"the overlapping windows of {float(tags['WINDOW_METRES']) / 1000:g} km, {float(tags['STRIDE_METRES']):g} m apart"
    except (KeyError, ValueError):
        return "the overlapping windows, as large as the patches of the training"


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except RasterioError as error:
        raise BadInput(path, f"cannot be read ({reason(error)})") from None


def true_colour(bands: list[OpenBand]) -> Image.Image:
    """An RGB image of three open bands.

    Each is stretched from its 2nd to its 98th percentile, then brightened. Pixels without data are black.
    """
    channels = []
    for band in bands:
        values = band.reduced(_shape(bands[0]), Resampling.average).astype(np.float32)
        low, high = np.percentile(values[values > 0], (2, 98)) if (values > 0).any() else (0, 1)
        channels.append(255 * np.clip((values - low) / max(high - low, 1), 0, 1) ** GAMMA)
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def class_map(path: Path, file: Any) -> tuple[Image.Image, list[MapLegendEntry]]:
    """The most probable class of each pixel, transparent without data, and the classes that occur, the largest first.

    Raises:
        BadInput: a band of the map has no class name.
    """
    names = [name or "" for name in file.descriptions]
    if not all(names):
        raise BadInput(path, "has bands without a name, expected one named band for each class")
    best = np.full(_shape(file), -np.inf, np.float32)
    winner = np.full(best.shape, len(names))  # the index after the last class means no data
    for k in range(len(names)):  # one band at a time, because a map of 43 classes is large
        values: NDArray[np.float32] = file.read(k + 1, out_shape=best.shape, resampling=Resampling.average)
        better = values > best  # false where a value is NaN
        winner[better], best[better] = k, values[better]
    palette = colours(names)
    rgba = np.array([[*bytes.fromhex(colour[1:]), 255] for colour in palette] + [[0, 0, 0, 0]], np.uint8)
    areas = np.bincount(winner.ravel(), minlength=len(names) + 1)[:-1]
    rows = [
        MapLegendEntry(names[k], palette[k], areas[k] / areas.sum())
        for k in np.argsort(-areas, kind="stable")
        if areas[k]
    ]
    return Image.fromarray(rgba[winner]), rows


def _shape(file: Any) -> tuple[int, int]:
    scale = min(1.0, LONGEST_SIDE / max(file.height, file.width))
    return max(1, round(file.height * scale)), max(1, round(file.width * scale))


def _png(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
