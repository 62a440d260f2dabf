"""Which products lie in a folder: products of two levels, or two versions of one acquisition, are not to be mixed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from landscale.errors import BadInput

if TYPE_CHECKING:
    from landscale.scenes.tile import Tile

_PRODUCT = re.compile(r"(S2[A-D])_MSI(L1C|L2A)_(\d{8}T\d{5,6})(?:.*_(T\d\d[A-Z]{3}))?")


def check_one_product(folder: Path, paths: Sequence[Path]) -> None:
    """Refuse rasters of a scene that lie in several products, such as L1C beside L2A of one acquisition.

    Raises:
        BadInput: naming two products.
    """
    products: dict[str | None, Path] = {}
    for path in paths:
        above = path.relative_to(folder).parts[:-1]
        name = next((part for part in above if _PRODUCT.match(part)), None)
        products.setdefault(name, path)
    if len(products) > 1:
        first, second = (name or products[name].relative_to(folder) for name in sorted(products, key=str)[:2])
        raise BadInput(folder, f"holds more than one scene: {first} and {second}; give the folder of one of them")


def check_tiles(tiles: Sequence[Tile]) -> None:
    """Refuse tiles of two levels, whose digital numbers mean something else, and two products of one acquisition and tile.

    Raises:
        BadInput: naming two products.
    """
    levels: dict[str, Tile] = {}
    acquisitions: dict[tuple[str, str, str], Tile] = {}
    for tile in tiles:
        folder = tile.scene.folder
        level = _level(tile)
        if level != "unknown":
            levels.setdefault(level, tile)
        if len(levels) > 1:
            other = next(one for name, one in levels.items() if name != level).scene.folder
            raise BadInput(
                folder, f"is of level {level}, but {other} is not; prepare a store from the products of one level"
            )
        match = _PRODUCT.match(folder.resolve().name) or _PRODUCT.match(tile.scene.product)
        if match is None or not match[4]:
            continue
        acquisition = match[1], match[3], match[4]
        first = acquisitions.setdefault(acquisition, tile).scene.folder
        if first.resolve() != folder.resolve():
            raise BadInput(folder, f"is the same acquisition and tile as {first}; prepare one of them")


def _level(tile: Tile) -> str:
    """The level of the product; L1C if that is unknown and it has the band B10, which L2A lacks."""
    level = tile.scene.level
    return "L1C" if level == "unknown" and "B10" in tile.scene.files else level
