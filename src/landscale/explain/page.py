"""The page of an explanation: one HTML file that loads nothing else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from landscale.explain.bands import ALL
from landscale.explain.deletion import FRACTIONS, ORDERS, Deletion
from landscale.explain.examples import Kind
from landscale.report.charts import COLOURS, Chart, ChartLine, svg_element
from landscale.vocabulary.bands import BANDS

_STRONGEST = 0.75  # opacity of the hottest pixel, so that the patch below stays visible


@dataclass(frozen=True)
class Section:
    """One example. wanted: its class. labels: of the patch. picture: (side, side, 3) uint8. heat: (side, side)."""

    name: str
    wanted: str
    kind: Kind
    probability: float
    labels: Sequence[str]
    picture: NDArray[np.uint8]
    heat: NDArray[np.float32]


def page(
    summary: Mapping[str, Any],
    sections: Sequence[Section],
    deletion: Deletion | None,
    importance: Sequence[Mapping[str, Any]],
) -> str:
    """The HTML text.

    Args:
        summary: as `explain` returns it.
        sections: by class, then by kind.
        deletion: the curves of all examples whose class was found.
        importance: rows of `bands.band_importance`.
    """
    classes = [
        (wanted, [(kind, [_shown(section) for section in part]) for kind, part in groupby(group, lambda s: s.kind)])
        for wanted, group in groupby(sections, lambda s: s.wanted)
    ]
    labels = list(dict.fromkeys(row["class"] for row in importance))
    by_key = {(row["bands"], row["class"], row["method"]): row for row in importance}
    return _template("page.html.j2").render(
        summary=summary,
        classes=classes,
        deletion_chart=_deletion_chart(deletion) if deletion else None,
        band_chart=_band_chart(importance),
        bands=list(dict.fromkeys(row["bands"] for row in importance)),
        labels=labels,
        by_key=by_key,
        all=ALL,
    )


def scene_page(summary: Mapping[str, Any], picture: NDArray[np.uint8], heat: NDArray[np.float32]) -> str:
    """The HTML text for a scene.

    Args:
        summary: as `explain_scene` returns it.
        picture: the scene in true colour, (height, width, 3).
        heat: of each class, 0…1 on their common scale, (C, height, width).
    """
    shown = [
        (name, _data_url(overlay(picture, values, 1.0))) for name, values in zip(summary["classes"], heat, strict=True)
    ]
    return _template("scene.html.j2").render(summary=summary, picture=_data_url(picture), classes=shown)


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of classes and patches may contain markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def overlay(picture: NDArray[np.uint8], heat: NDArray[np.float32], highest: float | None = None) -> NDArray[np.uint8]:
    """A picture (height, width, 3) under its heat map: from black at 0, which is transparent, to yellow at `highest`.

    By default this is the maximum of the map.
    """
    relative = np.clip(heat / max(float(heat.max()) if highest is None else highest, 1e-12), 0, 1)
    colours = 255 * colormaps["inferno"](relative)[..., :3]
    opacity = _STRONGEST * relative[..., None]
    mixed: NDArray[np.uint8] = (opacity * colours + (1 - opacity) * picture).astype(np.uint8)
    return mixed


def _shown(section: Section) -> dict[str, Any]:
    return {
        "name": section.name,
        "labels": ", ".join(section.labels) or "none",
        "probability": f"{section.probability:.2f}",
        "highest": f"{float(section.heat.max()):.3g}",
        "picture": _data_url(section.picture),
        "heat": _data_url(overlay(section.picture, section.heat)),
    }


def _data_url(pixels: NDArray[np.uint8]) -> Markup:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", optimize=True)
    return Markup("data:image/png;base64," + b64encode(buffer.getvalue()).decode())  # base64 has no markup


def _deletion_chart(deletion: Deletion) -> Markup:
    means = {order: deletion.curves[order].mean(0) for order in ORDERS}
    lines = [
        ChartLine(order, [(100 * f, float(p)) for f, p in zip(FRACTIONS, means[order], strict=True)], colour)
        for order, colour in zip(ORDERS, COLOURS, strict=False)
    ]
    return svg_element(Chart("Probability of the class", "removed pixels, per cent", lines))


def _band_chart(importance: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Importance for all classes over the centre wavelength of the bands; None without a band that has a wavelength."""
    lines = []
    for method, colour in zip(("occlusion", "permutation"), COLOURS, strict=False):
        rows = [row for row in importance if row["class"] == ALL and row["method"] == method and row["bands"] in BANDS]
        rows = sorted(
            (row for row in rows if BANDS[row["bands"]].wavelength), key=lambda r: BANDS[r["bands"]].wavelength
        )
        if rows:
            points = [(BANDS[row["bands"]].wavelength, row["importance"]) for row in rows]
            ends = [(row["low"], row["high"]) for row in rows if row["low"] is not None]
            lines.append(ChartLine(method, points, colour, intervals=ends))
    return svg_element(Chart("Importance of bands", "centre wavelength, nm", lines)) if lines else None
