"""Open tiles: Sentinel-2 products with their files, manifest and location."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from landscale.errors import BadInput
from landscale.scenes.folder import is_part_of_product
from landscale.scenes.manifest import Manifest, read_manifest
from landscale.scenes.names import plain_name
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.product_files import is_folder, size_of
from landscale.scenes.scene import Scene, open_scene
from landscale.vocabulary.bands import ALIASES, BANDS
from landscale.vocabulary.units import unit_name

SIDE = 120  # side of a patch in pixels of 10 m: 1.2 km
GRID = 6  # pixels of 10 m: at its multiples, pixels of all bands (10, 20, 60 m) start
_MGRS = re.compile(r"_(T\d\d[A-Z]{3})(?:_|$)")
_ZIPPED = re.compile(r"S2[A-D]_MSI.*\.zip$|.*\.SAFE\.zip$", re.IGNORECASE)
_NATIVE = re.compile(r"_(B\d[\dA])(?:_(\d\d)m)?\.jp2$")


@dataclass(frozen=True)
class Tile:
    """One product.

    left, top: upper left corner in metres of `crs`. width, height: pixels of 10 m. product: the prefix of the names of its
    patches. mgrs: tile of the grid, such as T33UUP; empty if the folder's name has none.
    """

    scene: Scene
    manifest: Manifest
    crs: str
    left: float
    top: float
    width: int
    height: int
    product: str
    mgrs: str


def product_name(name: str) -> str:
    """The prefix of patch names: a product's name without processing time and `.SAFE`, as in BigEarthNet v2."""
    name = name.removesuffix(".SAFE")
    return "_".join(name.split("_")[:6]) if name.startswith("S2") and _MGRS.search(name) else name


def open_tiles(path: str | Path, offset: int | None = None) -> list[Tile]:
    """Open a product, or all folders and zips of products in a folder, in the order of their names; `offset` as for `open_scene`.

    Raises:
        BadInput: there is no such folder, or a product is incomplete or damaged.
    """
    path = Path(path)
    if not path.exists() and not is_folder(path):
        raise BadInput(path, "no such scene, and no folder of scenes")
    if not path.is_dir():
        return [_open(path, offset)]
    inside = [p for p in sorted(path.iterdir()) if not is_part_of_product(p)]  # in the layout of the AWS buckets
    products = [
        p
        for p in inside
        if (p.is_dir() and (p.name.endswith(".SAFE") or any(p.glob("*B[01][0-9]*"))))
        or (p.is_file() and _ZIPPED.match(p.name))
    ]
    alone = path.name.endswith(".SAFE") or not products
    return [_open(folder, offset) for folder in ([path] if alone else products)]


def _open(folder: Path, offset: int | None) -> Tile:
    scene = open_scene(folder, offset)
    folder = scene.folder
    manifest = read_manifest(folder)
    for path in manifest.files:  # a missing band file would otherwise be ignored
        if path.match("MTD_MSIL*.xml") or (_is_native(path) and size_of(path) < 0):
            manifest.check(path)
    if scene.pixel_unit not in ("digital number", "unknown"):
        raise BadInput(folder, f"holds {unit_name(scene.pixel_unit)}, expected digital numbers or reflectance")
    with ScenePixels(scene, list(scene.files)) as pixels:
        pixels.check_offset()
        for band, ratio in pixels.ratios.items():
            if pixels.gsd * ratio != BANDS[band].gsd:
                raise BadInput(
                    scene.files[band], f"has pixels of {pixels.gsd * ratio:g} m, expected {BANDS[band].gsd} m"
                )
        crs = f"EPSG:{pixels.crs.to_epsg()}" if pixels.crs and pixels.crs.to_epsg() else ""
        fine = round(pixels.gsd / 10)  # 2 where a product has no band of 10 m
        size = pixels.width * fine, pixels.height * fine
        place = crs, float(pixels.transform.c), float(pixels.transform.f), *size
    name = plain_name(folder)
    if not _MGRS.search(name):  # a folder of a bucket or one's own
        name = scene.product or name
    match = _MGRS.search(name)
    return Tile(scene, manifest, *place, product_name(name), match[1] if match else "")


def _is_native(path: Path) -> bool:
    """Whether a file is a band at its native resolution, not a mask or quicklook."""
    match = _NATIVE.search(path.name)
    return (
        match is not None
        and path.parts[-2:-1] != ("QI_DATA",)
        and match[1] in ALIASES
        and int(match[2] or BANDS[match[1]].gsd) == BANDS[match[1]].gsd
    )
