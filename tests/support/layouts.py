"""One Sentinel-2 product in every layout in which people have it, all with the same pixels once the offset is subtracted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from archives import GSD
from products import CORNER, EPSG, write_jp2, write_safe, write_tiffs

NAME = "S2A_MSIL2A_20990101T000000_N0500_R022_T33LTA_20990101T000000"
SIDE = 120  # px at 10 m
OFFSET = 1000
COMMON = {"blue": "B02", "green": "B03", "red": "B04", "rededge1": "B05", "rededge2": "B06", "rededge3": "B07"}
COMMON |= {"nir": "B08", "nir08": "B8A", "nir09": "B09", "coastal": "B01", "swir16": "B11", "swir22": "B12"}
TILE_XML = (
    '<n1:Level-2A_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-2A_Tile_Metadata.xsd"><n1:General_Info>'
    '<TILE_ID metadataLevel="Brief">S2A_OPER_MSI_L2A_TL_2APS_20990101T000000_A044654_T33LTA_N05.00</TILE_ID>'
    "</n1:General_Info></n1:Level-2A_Tile_ID>"
)
Pixels = Mapping[str, NDArray[Any]]


def added(pixels: Pixels) -> dict[str, NDArray[Any]]:
    """The digital numbers of a product of baseline 05.00; 0 is nodata and stays 0."""
    return {band: values + (values > 0) * np.uint16(OFFSET) for band, values in pixels.items()}


def item(assets: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """A STAC item in the way of Earth Search."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "S2A_33LTA_20990101_0_L2A",
        "collection": "sentinel-2-l2a",
        "properties": {"s2:product_uri": f"{NAME}.SAFE", "s2:processing_baseline": "05.00", **properties},
        "assets": assets,
    }


def asset(href: object, band: str, offset: float | None = -0.1) -> dict[str, Any]:
    raster = {} if offset is None else {"raster:bands": [{"scale": 0.0001, "offset": offset}]}
    return {"href": str(href), "roles": ["data"], "eo:bands": [{"name": band}], **raster}


def write_item(path: Path, assets: dict[str, Any], **properties: Any) -> Path:
    path.write_text(json.dumps(item(assets, **properties)))
    return path


def safe(folder: Path, pixels: Pixels) -> Path:
    return write_safe(folder, NAME, pixels, offset=OFFSET)


def safe_zip(folder: Path, pixels: Pixels) -> Path:
    product = safe(folder / "unpacked", pixels)
    return Path(shutil.make_archive(str(folder / product.name), "zip", product.parent, product.name))


def plain_zip(folder: Path, pixels: Pixels) -> Path:
    """Without a top folder, under a name that says nothing."""
    return Path(shutil.make_archive(str(folder / "download"), "zip", safe(folder / "unpacked", pixels)))


def zip_of_other_folder(folder: Path, pixels: Pixels) -> Path:
    """The product lies in a folder without `.SAFE`."""
    product = safe(folder / "unpacked", pixels).rename(folder / "unpacked" / NAME)
    return Path(shutil.make_archive(str(folder / "download"), "zip", product.parent, product.name))


def aws(folder: Path, pixels: Pixels) -> Path:
    """The bucket sentinel-s2-l2a, with a mask that has the name of a band, and a band at a second resolution."""
    tile = folder / "tiles/33/L/TA/2099/1/1/0"
    for band, values in added(pixels).items():
        write_jp2(tile / f"R{GSD[band]}m" / f"{band}.jp2", values, GSD[band])
    write_jp2(tile / "R20m" / "B02.jp2", np.full((SIDE // 2, SIDE // 2), 7, np.uint16), 20)
    write_jp2(tile / "qi" / "DETFOO_B02.jp2", np.full((SIDE, SIDE), 3, np.uint16), 10)
    (tile / "metadata.xml").write_text(TILE_XML)
    (tile / "tileInfo.json").write_text(json.dumps({"productName": NAME, "utmZone": 33}))
    return tile


def cogs(folder: Path, pixels: Pixels) -> Path:
    """The bucket sentinel-cogs: the offset has been subtracted, although the bands state it."""
    scene = write_tiffs(folder, "S2A_33LTA_20990101_0_L2A", pixels)
    root = (
        "https://sentinel-cogs.s3.us-west-2.amazonaws.com/sentinel-s2-l2a-cogs/33/L/TA/2099/1/S2A_33LTA_20990101_0_L2A"
    )
    assets = {name: asset(f"{root}/{band}.tif", name) for name, band in COMMON.items()}
    assets |= {f"{name}-jp2": asset(f"s3://sentinel-s2-l2a/R10m/{band}.jp2", name) for name, band in COMMON.items()}
    properties = {"earthsearch:boa_offset_applied": True}
    write_item(scene / f"{scene.name}.json", assets, **properties)
    (scene / "granule_metadata.xml").write_text(TILE_XML)
    return scene


def cogs_item(folder: Path, pixels: Pixels) -> Path:
    """The item of that folder, whose assets are on the web."""
    scene = cogs(folder, pixels)
    return scene / f"{scene.name}.json"


def relative_item(folder: Path, pixels: Pixels) -> Path:
    """Files that still have the offset."""
    write_tiffs(folder, "bands", added(pixels))
    assets = {band: asset(f"./bands/{band}.tif", band) for band in GSD}
    return write_item(folder / "item.json", assets, **{"earthsearch:boa_offset_applied": False})


def absolute_item(folder: Path, pixels: Pixels) -> Path:
    """STAC 1.1, by file URLs, with bands at two resolutions and a picture of three."""
    product = safe(folder, pixels)
    places = {band: next(product.rglob(f"*_{band}_{GSD[band]}m.jp2")).as_uri() for band in GSD}
    places["B02_20m"] = places["B02"].replace("R10m", "R20m").replace("10m.jp2", "20m.jp2")
    second = product / places["B02_20m"].split(product.name)[1][1:]
    write_jp2(second, np.full((SIDE // 2, SIDE // 2), 7, np.uint16), 20)
    assets: dict[str, Any] = {
        f"{key}_x" if key == "B02" else key: {
            "href": href,
            "bands": [{"name": key[:3], "raster:scale": 0.0001, "raster:offset": -0.1}],
        }
        for key, href in places.items()
    }
    assets["visual"] = {
        "href": places["B02"],
        "roles": ["visual"],
        "bands": [{"name": b} for b in ("B04", "B03", "B02")],
    }
    document = item(assets) | {"stac_version": "1.1.0"}
    (folder / "item.json").write_text(json.dumps(document))
    return folder / "item.json"


def stack(folder: Path, pixels: Pixels, names: Mapping[str, str] | None = None, **tags: Any) -> Path:
    """One GeoTIFF with all bands at 10 m, coarse ones repeated, in an order of its own, between others."""
    path = folder / f"{NAME}.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = dict(reversed(added(pixels).items()))
    layers = {"AOT": np.ones((SIDE, SIDE), np.uint16)}
    layers |= {band: values.repeat(GSD[band] // 10, 0).repeat(GSD[band] // 10, 1) for band, values in bands.items()}
    profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": len(layers), "dtype": "uint16"}
    grid = {"crs": f"EPSG:{EPSG}", "transform": rasterio.Affine(10, 0, CORNER[0], 0, -10, CORNER[1]), "tiled": True}
    with rasterio.open(path, "w", **profile, **grid, blockxsize=64, blockysize=64) as file:
        file.write(np.stack(list(layers.values())))
        file.descriptions = [(names or {}).get(band, band) for band in layers]
        file.update_tags(**tags)
    return path


def earth_engine_stack(folder: Path, pixels: Pixels) -> Path:
    return stack(folder, pixels, {band: f"B{int(band[1:])}" for band in GSD if band != "B8A"})


def common_names_stack(folder: Path, pixels: Pixels) -> Path:
    return stack(folder, pixels, {band: name for name, band in COMMON.items()})


LAYOUTS: tuple[Callable[[Path, Pixels], Path], ...] = (
    safe_zip,
    plain_zip,
    zip_of_other_folder,
    aws,
    cogs,
    cogs_item,
    relative_item,
    absolute_item,
    earth_engine_stack,
    common_names_stack,
)
HARMONISED = (cogs, cogs_item)  # whose pixels have no offset
