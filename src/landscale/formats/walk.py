"""The files below a folder, as data sets and scenes list them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, in the order of their paths; links to folders are followed, hidden folders and files left out.

    A link to a folder that contains it is left out too, as its files would be listed without end.
    """
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = os.path.realpath(parent)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _contains(parent, name, here))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(parent) / name


def _contains(parent: str, name: str, here: str) -> bool:
    """Whether the folder `name` in `parent` is `here` or one of the folders above it."""
    place = os.path.realpath(f"{parent}/{name}")
    return f"{here}/".startswith(f"{place.rstrip('/')}/")
