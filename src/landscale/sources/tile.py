"""A tile: one Sentinel-2 product, where its bands are and where it lies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from landscale.bands import BANDS
from landscale.errors import BadInput
from landscale.sources.manifest import Manifest, read_manifest
from landscale.sources.scene import Scene, ScenePixels, open_scene

SIDE = 120  # px of 10 m of a patch: 1.2 km
GRID = 6  # px of 10 m: where pixels of all bands begin
_MGRS = re.compile(r"_(T\d\d[A-Z]{3})(?:_|$)")


@dataclass(frozen=True)
class Tile:
    """One product: where its bands are, and where it lies. `left`, `top` in metres of `crs`, `width`, `height` in px of 10 m."""

    scene: Scene
    manifest: Manifest
    crs: str
    left: float
    top: float
    width: int
    height: int

    @property
    def product(self) -> str:
        """The name that patches begin with: without baseline time and `.SAFE`, as in BigEarthNet v2."""
        name = self.scene.folder.resolve().name.removesuffix(".SAFE")
        return "_".join(name.split("_")[:6]) if name.startswith("S2") and _MGRS.search(name) else name

    @property
    def mgrs(self) -> str:
        match = _MGRS.search(self.scene.folder.resolve().name.removesuffix(".SAFE"))
        return match[1] if match else ""


def open_tiles(path: Path) -> list[Tile]:
    """The tiles in a folder: itself, or its folders, in the order of their names."""
    if not path.is_dir():
        raise BadInput(path, "no such folder")
    inside = [p for p in sorted(path.iterdir()) if p.is_dir()]
    products = [p for p in inside if p.name.endswith(".SAFE") or any(p.glob("*B02*"))]
    alone = path.name.endswith(".SAFE") or not products
    return [_open(folder) for folder in ([path] if alone else products)]


def _open(folder: Path) -> Tile:
    scene = open_scene(folder)
    manifest = read_manifest(folder)
    with ScenePixels(scene, list(scene.files)) as pixels:
        for band, ratio in pixels.ratios.items():
            if pixels.gsd * ratio != BANDS[band].gsd:
                raise BadInput(
                    scene.files[band], f"has pixels of {pixels.gsd * ratio:g} m, expected {BANDS[band].gsd} m"
                )
        crs = f"EPSG:{pixels.crs.to_epsg()}" if pixels.crs and pixels.crs.to_epsg() else ""
        return Tile(scene, manifest, crs, pixels.transform.c, pixels.transform.f, pixels.width, pixels.height)
