"""The viewer of a map: one HTML file with the scene in true colour, the class map over it, and the class under the pointer."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from landscale.maps.encoding import NODATA
from landscale.maps.files import GENERATOR
from landscale.maps.frame import Frame
from landscale.maps.layers import Layer
from landscale.maps.legend import Entry
from landscale.maps.reduced import ReducedMap
from landscale.report.map_view import stretched
from landscale.scenes.pixels import ScenePixels

_COLOUR_BANDS = ("B04", "B03", "B02")
_QUALITY = 75  # of the JPEG


def check_true_colour(layers: Sequence[Layer]) -> None:
    """Refuse scenes that cannot be shown in true colour, before anything is computed.

    Raises:
        BadInput: a scene lacks one of the bands B04, B03, B02.
    """
    for layer in layers:
        ScenePixels(layer.scene, _COLOUR_BANDS).close()


def viewer_page(
    frame: Frame, reduced: ReducedMap, layers: Sequence[Layer], entries: Sequence[Entry], notes: Sequence[str]
) -> str:
    """The HTML page. It loads nothing, and has at most 5 MB if `reduced` has at most 1000 pixels in a row or column.

    Args:
        frame: grid of the map.
        reduced: the map.
        layers: its scenes.
        entries: its classes.
        notes: lines about the map.
    """
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of classes and scenes may contain markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    height, width = reduced.classes.shape
    mapped = max(1, sum(entry.pixels for entry in entries))
    data = {
        "width": width,
        "height": height,
        "left": frame.left,
        "top": frame.top,
        "pixel": frame.gsd * reduced.step,
        "names": [entry.name for entry in entries],
        "values": b64encode(zlib.compress(reduced.classes.tobytes() + reduced.probability.tobytes(), 9)).decode(),
    }
    found = sorted((entry for entry in entries if entry.pixels), key=lambda entry: -entry.pixels)
    return templates.get_template("viewer.html.j2").render(
        generator=Markup(GENERATOR),
        title=", ".join(sorted(layer.name for layer in layers)),
        picture=_uri(true_colour_picture(frame, reduced, layers), "jpeg"),
        class_map=_uri(_class_image(reduced.classes, entries), "png"),
        legend=[(entry, 100 * entry.pixels / mapped) for entry in found],
        width=width,
        height=height,
        crs=str(frame.crs),
        notes=notes,
        # "<" could end the element that holds the data.
        data=Markup(json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")),
    )


def _class_image(classes: NDArray[np.uint8], entries: Sequence[Entry]) -> Image.Image:
    image = Image.fromarray(classes, "P")
    colours = np.zeros((256, 3), np.uint8)
    for entry in entries:
        colours[entry.value] = list(bytes.fromhex(entry.colour[1:]))
    image.putpalette(colours.tobytes())
    image.info["transparency"] = NODATA
    return image


def true_colour_picture(frame: Frame, reduced: ReducedMap, layers: Sequence[Layer]) -> Image.Image:
    """The scenes in the pixels of the reduced map; the first one with data is on top."""
    step = reduced.step
    channels = np.zeros((3, *reduced.classes.shape), np.uint16)
    for layer in layers:
        with ScenePixels(layer.scene, _COLOUR_BANDS) as pixels:
            row, column = frame.position(pixels)
            # The part of the scene in the frame, from a pixel of the reduced map on.
            top, left = -(-max(0, row) // step) * step, -(-max(0, column) // step) * step
            height = min(frame.height, row + pixels.height) - top
            width = min(frame.width, column + pixels.width) - left
            if height <= 0 or width <= 0:
                continue
            pixels.crop(top - row, left - column, height, width)
            shape = (
                min(max(1, round(height / step)), channels.shape[1] - top // step),
                min(max(1, round(width / step)), channels.shape[2] - left // step),
            )
            place = slice(top // step, top // step + shape[0]), slice(left // step, left // step + shape[1])
            read = np.stack([pixels.harmonise(pixels.reduced(band, shape)) for band in _COLOUR_BANDS])
            part = channels[:, *place]
            part[:] = np.where((part == 0).all(axis=0), read, part)
    return stretched([*channels])


def _uri(image: Image.Image, kind: str) -> str:
    buffer = BytesIO()
    image.save(buffer, kind, optimize=True, **({"quality": _QUALITY} if kind == "jpeg" else {"transparency": NODATA}))
    return f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode()}"
