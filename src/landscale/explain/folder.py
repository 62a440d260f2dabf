"""The folder of an explanation: what may be replaced."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from landscale.errors import BadInput, LandscaleError
from landscale.runtime.documents import read_json

SUMMARY = "explanation.json"
_CONTENTS = (  # of a store, and of a scene
    {SUMMARY, "index.html", "bands.csv", "heat_maps", "heat_maps.csv"},
    {SUMMARY, "index.html", "heat.tif"},
)


def check_folder(folder: Path, inputs: Iterable[Path]) -> None:
    """Refuse a folder that is an input, inside one or around one, or holds anything but an older explanation; nothing is changed.

    Raises:
        BadInput: it is.
    """
    place = Path(os.path.realpath(folder))
    for given in inputs:
        source = Path(os.path.realpath(given))
        if place.is_relative_to(source) or source.is_relative_to(place):
            raise BadInput(folder, f"is the input {given}, or inside or around it; choose another folder")
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise BadInput(folder, "is not a folder, expected a new one")
    names = {path.name for path in folder.iterdir()}
    if names and not _is_explanation(folder, names):
        raise BadInput(folder, "is neither empty nor an older explanation; choose another folder or remove it")


def _is_explanation(folder: Path, names: set[str]) -> bool:
    if names not in _CONTENTS:
        return False
    try:
        content = read_json(folder / SUMMARY)
    except LandscaleError:
        return False
    return isinstance(content, dict) and content.get("kind") == "explanation"
