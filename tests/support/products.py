"""Sentinel-2 products with given pixels, for tests: `.SAFE` folders in JPEG 2000, and folders of GeoTIFFs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine

from archives import GSD, write_band
from landscale.datasets.synthetic import products_and_map

CORNER, EPSG = (300_000, 8_400_000), 32633  # as in the synthetic archives
Bands = Mapping[str, NDArray[np.generic]]
BLOCKS = {10: 256, 20: 128, 60: 64}  # px, so that a small tile has several


def read(path: Path) -> NDArray[np.generic]:
    with rasterio.open(path) as file:
        pixels: NDArray[np.generic] = file.read(1)
    return pixels


def read_folder(folder: Path) -> dict[str, NDArray[np.generic]]:
    return {band: read(folder / f"{band}.tif") for band in GSD}


def noise(side: int, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Random bands of a tile of `side` px of 10 m."""
    rng = np.random.default_rng(seed)
    return {
        band: rng.integers(1, 9000, (side * 10 // gsd, side * 10 // gsd)).astype(np.uint16) for band, gsd in GSD.items()
    }


def classification(side: int, seed: int = 0) -> NDArray[np.uint8]:
    """A scene classification of 20 m with blocks of 7×7 px of one random value each."""
    size = side // 2
    blocks = np.random.default_rng(seed).integers(0, 12, (size // 7 + 1, size // 7 + 1)).astype(np.uint8)
    return blocks.repeat(7, 0).repeat(7, 1)[:size, :size]


def write_jp2(path: Path, values: NDArray[np.generic], gsd: int, corner: tuple[float, float] = CORNER) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    how = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES", "count": 1, "dtype": values.dtype.name}
    how |= {"BLOCKXSIZE": BLOCKS[gsd], "BLOCKYSIZE": BLOCKS[gsd], "crs": f"EPSG:{EPSG}"}
    how |= {"height": values.shape[0], "width": values.shape[1]}
    with rasterio.open(path, "w", transform=Affine(gsd, 0, corner[0], 0, -gsd, corner[1]), **how) as file:
        file.write(values, 1)


def image(product: Path, key: str) -> Path:
    """The file of a band, or of SCL, in a product."""
    (path,) = product.rglob(f"*_{key}_{GSD.get(key, 20)}m.jp2")
    return path


def write_safe(
    folder: Path,
    name: str,
    bands: Bands,
    scl: NDArray[np.generic] | None = None,
    offset: int = 0,
    corner: tuple[float, float] = CORNER,
    manifest: bool = True,
) -> Path:
    """`folder/name.SAFE`; `offset` is added to all digital numbers but 0, and is in the metadata."""
    product = folder / f"{name}.SAFE"
    tile = name.split("_")[5]
    images = product / "GRANULE" / f"L2A_{tile}_A000000_20990101T000000" / "IMG_DATA"
    for band, values in bands.items():
        path = images / f"R{GSD[band]}m" / f"{tile}_20990101T000000_{band}_{GSD[band]}m.jp2"
        write_jp2(path, values + (values > 0) * np.uint16(offset), GSD[band], corner)
    if scl is not None:
        write_jp2(images / "R20m" / f"{tile}_20990101T000000_SCL_20m.jp2", scl, 20, corner)
    (product / "MTD_MSIL2A.xml").write_text(products_and_map._METADATA.format(name=product.name, offset=-offset))
    if manifest:
        write_manifest(product)
    return product


def write_manifest(product: Path) -> None:
    (product / "manifest.safe").write_text(products_and_map.manifest(product))


def write_tiffs(
    folder: Path,
    name: str,
    bands: Bands,
    scl: NDArray[np.generic] | None = None,
    corner: tuple[float, float] = CORNER,
    **how: object,
) -> Path:
    """`folder/name/B01.tif …`; `how`: options of `write_band`, such as the compression."""
    product = folder / name
    product.mkdir(parents=True)
    for band, values in bands.items():
        write_band(product / f"{band}.tif", values, corner, GSD[band], EPSG, **how)
    if scl is not None:
        write_band(product / "SCL.tif", scl, corner, 20, EPSG, **how)
    return product
