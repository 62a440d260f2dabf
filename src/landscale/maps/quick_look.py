"""The quick look of a map: a PNG with the classes in their colours and a legend."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from landscale.maps.encoding import NODATA
from landscale.maps.files import SOFTWARE
from landscale.maps.legend import Entry
from landscale.maps.reduced import ReducedMap
from landscale.report.charts import GREY, STYLE

LONGEST = 1000  # px of the map, to which the legend is added; the picture has at most 1500
_NARROWEST = 760  # px in which two columns of names have space
_MOST_CLASSES = 36  # in the legend
_LINE, _MARGIN = 20, 14  # px
_LONGEST_NAME = 40  # characters
_DPI = 100


def quick_look(reduced: ReducedMap, entries: Sequence[Entry], title: str) -> bytes:
    """A PNG file of at most 1500×1500 px.

    Args:
        reduced: the map, with at most `LONGEST` pixels in a row or column.
        entries: all classes.
        title: a line above it.
    """
    colours = np.full((256, 3), 255, np.uint8)
    for entry in entries:
        colours[entry.value] = list(bytes.fromhex(entry.colour[1:]))
    assert NODATA not in {entry.value for entry in entries}
    height, width = reduced.classes.shape
    enlarged = max(1.0, _NARROWEST / max(height, width))
    height, width = round(height * enlarged), round(width * enlarged)
    mapped = sum(entry.pixels for entry in entries)
    found = sorted((entry for entry in entries if entry.pixels), key=lambda entry: -entry.pixels)
    names = [f"{100 * e.pixels / mapped:.1f} %  {_shortened(e.name)}" for e in found[:_MOST_CLASSES]]
    patches = [Patch(facecolor=entry.colour, edgecolor=GREY, linewidth=0.5) for entry in found[:_MOST_CLASSES]]
    if len(found) > _MOST_CLASSES:
        patches.append(Patch(facecolor="none"))
        names.append(f"and {len(found) - _MOST_CLASSES} classes more")
    legend = _LINE * -(-len(names) // 2)
    whole_width, whole_height = max(width, _NARROWEST) + 2 * _MARGIN, height + legend + _LINE + 3 * _MARGIN
    with style.context(["default", STYLE | {"text.color": "black"}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(whole_width / _DPI, whole_height / _DPI), dpi=_DPI, facecolor="white")
        left, top = _MARGIN, _MARGIN + _LINE
        place = (left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height)
        axes = figure.add_axes(place)
        axes.imshow(colours[reduced.classes], interpolation="nearest", aspect="auto")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=True, color=GREY)
        corner = left / whole_width, 1 - _MARGIN / whole_height
        figure.text(*corner, _printable(title), va="top", fontsize=9, color="black")
        if patches:
            corner = left / whole_width, 1 - (top + height + _MARGIN / 2) / whole_height
            figure.legend(
                patches,
                names,
                loc="upper left",
                bbox_to_anchor=corner,
                ncols=2,
                handlelength=1.2,
                fontsize=9,
                borderpad=0,
                borderaxespad=0,
            )
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": SOFTWARE})
    return buffer.getvalue()


def _shortened(name: str) -> str:
    name = _printable(name)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
