"""Weights that come with landscale: the folders in `bundled`, each with a model card."""

from __future__ import annotations

from pathlib import Path

from landscale.errors import UnknownName

KIND = "bundled"
PLACE = Path(__file__).with_name("bundled")


def bundled_names() -> list[str]:
    """The names of all bundled weights, such as `bundled:eurosat-rgb`, sorted."""
    return sorted(f"{KIND}:{config.parent.name}" for config in PLACE.glob("*/config.json"))


def find(name: str) -> Path:
    """The folder of weights of a name.

    Raises:
        UnknownName: none of this name is bundled.
    """
    if name not in bundled_names():
        raise UnknownName("bundled weights", name, bundled_names())
    return PLACE / name.removeprefix(f"{KIND}:")
