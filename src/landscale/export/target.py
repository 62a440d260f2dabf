"""Whether an export may write to a folder: a new or empty one, or an older export, which is replaced."""

from __future__ import annotations

import os
from pathlib import Path

from landscale.errors import BadInput, LandscaleError
from landscale.inference.exported import ITEM, files_of, is_exported, read_item
from landscale.models.weights import read_config
from landscale.runtime.sealed_config import CONFIG


def check_target(folder: Path, inputs: list[Path]) -> None:
    """Refuse a folder that holds anything but an older export, or that is an input or inside one; nothing is changed.

    Raises:
        BadInput: it is.
    """
    place = Path(os.path.realpath(folder))
    for given in inputs:
        if place.is_relative_to(Path(os.path.realpath(given))):
            raise BadInput(folder, f"is the input {given} or inside it; choose another folder")
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise BadInput(folder, "is not a folder, expected a new one")
    names = {path.name for path in folder.iterdir()}
    if names and not _is_export(folder, names):
        raise BadInput(folder, "is neither empty nor an older export; choose another folder or remove it")


def _is_export(folder: Path, names: set[str]) -> bool:
    """Whether export wrote the folder, and nothing was added to it since."""
    try:
        if is_exported(folder):
            return names == {ITEM, *files_of(read_item(folder))}
        config = read_config(folder) if CONFIG in names else {}
    except LandscaleError:
        return False
    return config.get("exported") is True and names == {CONFIG, *config.get("files", {})}
