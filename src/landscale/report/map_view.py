"""A scene in true colour and its map in the official class colours, as PNG images inside the page."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError

from landscale.errors import BadInput, reason
from landscale.scenes.band import OpenBand
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene
from landscale.vocabulary.nomenclatures import colours

LONGEST_SIDE = 1000  # pixels; larger images are reduced
_COLOUR = re.compile("#[0-9a-f]{6}")
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

    `windows` describes the windows between whose centres the map's probabilities are interpolated, `clouds` whether clouds have a
    class. `picture` and `class_map` are data URIs of PNG images.
    """

    scene: str
    size: str
    windows: str
    clouds: str
    synthetic: bool
    picture: str
    class_map: str
    legend: list[MapLegendEntry]


def render_map_view(scene_folder: Path, map_file: Path) -> MapView:
    """Render a scene and the map that was predicted from it; of a map of an area, the part of the scene that it covers.

    Raises:
        BadInput: one of them cannot be read, or the map is not of this scene or a part of it.
    """
    with ScenePixels(open_scene(scene_folder), ("B04", "B03", "B02")) as pixels:
        with _readable(map_file), rasterio.open(map_file) as file:
            _crop_to(pixels, scene_folder, map_file, file)
            classes, legend = class_map(map_file, file)
            windows, clouds = _windows(file.tags()), _clouds(file.tags())
        with _readable(scene_folder):
            picture = true_colour(list(pixels.files.values()))
        kilometres = [f"{side * pixels.gsd / 1000:g}" for side in (pixels.width, pixels.height)]
        size = f"{' × '.join(kilometres)} km at {pixels.gsd:g} m, {pixels.crs}"
        synthetic = pixels.files["B04"].file.tags().get("TIFFTAG_IMAGEDESCRIPTION", "") == "synthetic"
    return MapView(scene_folder.resolve().name, size, windows, clouds, synthetic, _png(picture), _png(classes), legend)


def _crop_to(pixels: ScenePixels, scene_folder: Path, map_file: Path, file: Any) -> None:
    """Make the part of a scene that an open map covers the scene.

    Raises:
        BadInput: the map has another grid, or reaches beyond the scene.
    """
    gsd, whole = pixels.gsd, pixels.bounds
    left, top = (file.bounds.left - whole.left) / gsd, (whole.top - file.bounds.top) / gsd
    column, row = round(left), round(top)
    same_grid = (
        file.crs == pixels.crs and np.allclose(file.res, gsd) and np.allclose((left, top), (column, row), atol=0.1)
    )
    inside = 0 <= column <= pixels.width - file.width and 0 <= row <= pixels.height - file.height
    if not same_grid or not inside:
        raise BadInput(map_file, f"is not a map of {scene_folder}: their bounds or coordinate systems differ")
    pixels.crop(row, column, file.height, file.width)


def _windows(tags: dict[str, str]) -> str:
    """The windows of a map in words, by the tags that `predict` wrote; earlier maps have none."""
    try:
        return f"the overlapping windows of {float(tags['WINDOW_METRES']) / 1000:g} km, {float(tags['STRIDE_METRES']):g} m apart"
    except (KeyError, ValueError):
        return "the overlapping windows, as large as the patches of the training"


def _clouds(tags: dict[str, str]) -> str:
    """Whether clouds have a class, by the tag that `predict` wrote; earlier maps have none."""
    if (mask := tags.get("MASK", "none")) == "none":
        return "Clouds are not masked and get a class as well."
    return f"What the {mask} marks, such as clouds, has no class."


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except RasterioError as error:
        raise BadInput(path, f"cannot be read ({reason(error)})") from None


def true_colour(bands: list[OpenBand]) -> Image.Image:
    """An RGB image of three open bands, see `stretched`."""
    shape = _shape(bands[0])
    return stretched([band.reduced(shape, Resampling.average) for band in bands])


def stretched(channels: Sequence[NDArray[Any]]) -> Image.Image:
    """An RGB image of red, green and blue (rows, columns), in any unit.

    Each is stretched from its 2nd to its 98th percentile, then brightened. Pixels without data are black.
    """
    found = []
    for channel in channels:
        values = channel.astype(np.float32)
        low, high = np.percentile(values[values > 0], (2, 98)) if (values > 0).any() else (0, 1)
        found.append(255 * np.clip((values - low) / max(high - low, 1), 0, 1) ** GAMMA)
    return Image.fromarray(np.stack(found, axis=-1).astype(np.uint8))


def class_map(path: Path, file: Any) -> tuple[Image.Image, list[MapLegendEntry]]:
    """The most probable class of each pixel, transparent without data, and the classes that occur, the largest first.

    Args:
        path, file: the class map, or the probabilities, that `predict` wrote.

    Raises:
        BadInput: a class of the map has no name.
    """
    is_class_map = file.count == 1 and file.colorinterp[0] == ColorInterp.palette
    names, palette = _legend(path, file) if is_class_map else _band_names(path, file)
    winner = _classes(file, len(names)) if is_class_map else _likeliest(file)
    rgba = np.array([[*bytes.fromhex(colour[1:]), 255] for colour in palette] + [[0, 0, 0, 0]], np.uint8)
    areas = np.bincount(winner.ravel(), minlength=len(names) + 1)[:-1]
    rows = [
        MapLegendEntry(names[k], palette[k], areas[k] / areas.sum())
        for k in np.argsort(-areas, kind="stable")
        if areas[k]
    ]
    return Image.fromarray(rgba[winner]), rows


def _legend(path: Path, file: Any) -> tuple[list[str], list[str]]:
    """Names and colours of the classes of a class map, by its tag.

    Raises:
        BadInput: there is no such tag, or it is damaged.
    """
    try:
        entries = json.loads(file.tags()["CLASSES"])
        names, palette = [str(entry["name"]) for entry in entries], [str(entry["colour"]) for entry in entries]
        values = [entry["value"] for entry in entries]
    except (KeyError, TypeError, ValueError):
        names, palette, values = [], [], []
    if not names or values != [*range(len(names))] or not all(_COLOUR.fullmatch(colour) for colour in palette):
        raise BadInput(path, "has a palette without the names of its classes, expected a map of `landscale predict`")
    return names, palette


def _band_names(path: Path, file: Any) -> tuple[list[str], list[str]]:
    names = [name or "" for name in file.descriptions]
    if not all(names):
        raise BadInput(path, "has bands without a name, expected one named band for each class")
    return names, colours(names)


def _classes(file: Any, count: int) -> NDArray[np.int64]:
    """The classes of a class map, reduced; `count` where nothing is mapped."""
    values: NDArray[np.int64] = file.read(1, out_shape=_shape(file), resampling=Resampling.mode).astype(np.int64)
    return values.clip(max=count)


def _likeliest(file: Any) -> NDArray[np.int64]:
    """The most probable of the bands of a map of probabilities, reduced; their number where nothing is mapped."""
    best = np.full(_shape(file), -np.inf, np.float32)
    winner = np.full(best.shape, file.count)
    for k in range(file.count):  # one band at a time, because a map of 43 classes is large
        masked = file.read(k + 1, out_shape=best.shape, resampling=Resampling.average, masked=True)
        values: NDArray[np.float32] = masked.astype(np.float32).filled(np.nan)
        better = values > best  # false where a value is NaN
        winner[better], best[better] = k, values[better]
    return winner


def _shape(file: Any) -> tuple[int, int]:
    scale = min(1.0, LONGEST_SIDE / max(file.height, file.width))
    return max(1, round(file.height * scale)), max(1, round(file.width * scale))


def _png(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
