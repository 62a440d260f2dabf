"""Trained networks as rows of a table, read without torch."""

from __future__ import annotations

from typing import Any

from landscale.models.encoders import bundled, reben, torchgeo
from landscale.models.encoders.entry import NOT_STATED
from landscale.runtime.sealed_config import read_sealed_config

Row = dict[str, Any]


def bundled_rows() -> list[Row]:
    """A row for each of the bundled weights: name, model, bands, units, level, classes, licence, citation, source, by_name.

    `units` are by band, `classes` their names; `by_name` is whether the name is enough to fetch the weights.

    Raises:
        BadInput: the package is damaged.
    """
    rows = []
    for name in bundled.bundled_names():
        config = read_sealed_config(bundled.find(name) / "config.json", "a description of landscale weights")
        about = config.get("provenance", {})
        row = {key: config[key] for key in ("model", "bands", "units", "level", "classes")}
        licence = config.get("licence") or NOT_STATED
        more = {"licence": licence, "citation": about.get("citation", ""), "source": about.get("source", "landscale")}
        rows.append({"name": name, **row, **more, "by_name": True})
    return rows


def published_rows() -> list[Row]:
    """A row for each network of other people in the tables, as `bundled_rows`."""
    return [
        {
            "name": entry.name,
            "model": entry.model,
            "bands": list(entry.inputs.bands),
            "units": dict(entry.inputs.units),
            "level": entry.inputs.level,
            "classes": list(entry.classes),
            "licence": entry.licence,
            "citation": entry.citation,
            "source": entry.source,
            "url": entry.url,
            "by_name": bool(entry.digest or entry.classes),
        }
        for entry in (*reben.entries().values(), *torchgeo.entries().values())
    ]
