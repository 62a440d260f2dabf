"""A synthetic country: Sentinel-2 L2A products of neighbouring tiles, and a CORINE map of the same ground.

No pixel was measured: products are dated 2099, lie on tiles that do not exist, and are marked "synthetic" in their metadata.
Names, folders, JPEG 2000 tiling, manifest and the offset of processing baseline 05.00 are as in real products (ESA, Sentinel-2
Products Specification Document), so that programs which read one can read the other.
"""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.transform import array_bounds, from_origin
from rasterio.warp import Resampling, reproject, transform_bounds

from landscale.datasets.synthetic.bigearthnet_archive import write_once
from landscale.datasets.synthetic.land_use import BANDS, CODES
from landscale.datasets.synthetic.landscape import STRIP_HEIGHT, Landscape, LandscapeStrip
from landscale.datasets.tiles import corine
from landscale.errors import BadInput

Numbers = npt.NDArray[np.uint16]
Bytes = npt.NDArray[np.uint8]

TIME = "20990101T000000"
OFFSET = 1000  # added to all digital numbers but nodata since baseline 04.00
MAP = "CLC.tif"
_CRS, _MAP_CRS = CRS.from_epsg(32633), CRS.from_epsg(3035)
_LEFT, _TOP = 300_000, 8_400_000  # m, of the country
_BLOCKS = {10: 1024, 20: 640, 60: 192}  # px, of the JPEG 2000 tiles of real products
_MARGIN = STRIP_HEIGHT  # px of land around the tiles, in the map only
_SHADOW_LENGTH = 60  # px by which shadows lie to the west of clouds
_VERSION = 1  # increase it when the same parameters give another country
_GRID_CODES = {code: rank for rank, code in enumerate(sorted(corine.CODES), start=1)}


def write_country(folder: Path, tiles: int = 6, side: int = 2400, seed: int = 0) -> None:
    """Write the products of a country, `folder/S2A_MSIL2A_….SAFE`, and its map, `folder/CLC.tif`.

    A product has 12 bands at native resolution and the scene classification. The eastern edge of the country lies outside the
    swath and is nodata. The map is a raster like the official one: 100 m, EPSG:3035, grid codes. The same arguments give the
    same pixels. The folder appears only when it is complete; if it exists already, nothing is done.

    Args:
        folder: absent, empty, or the result of an earlier call with the same arguments.
        tiles: number of tiles, 1 to 676; they are laid out in a grid that is as square as possible.
        side: side of a tile in px of 10 m, a multiple of 120.
        seed: seed of the random landscape.

    Raises:
        BadInput: the folder holds something else, or `tiles` or `side` is out of range.
    """
    if not 1 <= tiles <= 26**2 or side < STRIP_HEIGHT or side % STRIP_HEIGHT:
        raise BadInput(
            folder, f"a synthetic country has 1 to 676 tiles of 120, 240 … px; found {tiles} tiles of {side} px"
        )
    parameters = {"version": _VERSION, "tiles": tiles, "side": side, "seed": seed}
    write_once(folder, "country", parameters, lambda partial: _write(partial, tiles, side, seed))


def _write(folder: Path, tiles: int, side: int, seed: int) -> None:
    columns = math.ceil(math.sqrt(tiles))
    rows = math.ceil(tiles / columns)
    height, width = rows * side + 2 * _MARGIN, columns * side + 2 * _MARGIN
    landscape = Landscape(height, width, seed)
    uses = np.empty((height, width), np.uint8)
    drawn: list[dict[str, npt.NDArray[np.integer]]] = []
    with ThreadPoolExecutor() as pool:  # numpy and GDAL release Python's lock
        for number, strip in enumerate(pool.map(landscape.draw, range(height // STRIP_HEIGHT))):
            uses[number * STRIP_HEIGHT : (number + 1) * STRIP_HEIGHT] = strip.uses
            if not 0 < number <= rows * side // STRIP_HEIGHT:
                continue
            drawn.append(_observe(strip, (number - 1) * STRIP_HEIGHT, rows * side))
            if len(drawn) * STRIP_HEIGHT < side:
                continue
            row = (number * STRIP_HEIGHT) // side - 1
            image = {key: np.concatenate([strip[key] for strip in drawn]) for key in drawn[0]}
            drawn.clear()
            for column in range(min(columns, tiles - row * columns)):
                _write_product(pool, folder, image, (column, row), row * columns + column, side)
    _write_map(folder / MAP, uses)


def _observe(strip: LandscapeStrip, top: int, height: int) -> dict[str, npt.NDArray[np.integer]]:
    """The image of a strip as in a product: digital numbers by band, and the scene classification under the key SCL.

    top: first row of the strip; height: height of the country without its margin, both in px of 10 m. They determine the edge of
    the swath: the south-eastern corner of the country lies outside and is nodata.
    """
    inner = np.s_[_MARGIN : strip.uses.shape[1] - _MARGIN]
    cloud, snow = strip.cloud[:, inner], strip.snow[:, inner]
    shadow = np.roll(strip.cloud, -_SHADOW_LENGTH, axis=1)[:, inner] * (1 - cloud)
    width = cloud.shape[1]
    y, x = np.ogrid[top + 3 : top + STRIP_HEIGHT : 6, 3:width:6]
    in_swath = x < width * (1 - 0.05 * y / height)  # at 60 m, so that the edge is the same in all bands
    image: dict[str, npt.NDArray[np.integer]] = {}
    for band in BANDS:
        step = band.gsd // 10
        edge = _MARGIN // step
        values = strip.bands[band.name][:, edge:-edge] * (1 - 0.6 * _mean(shadow, step))
        image[band.name] = (np.rint(values).astype(np.uint16) + OFFSET) * _enlarge(in_swath, 6 // step)
    cloudy, shady, snowy = (_mean(opacity, 2) for opacity in (cloud, shadow, snow))
    code = CODES[strip.uses[::2, inner][:, ::2]]
    scl = np.select([code >= 500, (code < 200) | (code // 10 == 33)], [6, 5], 4)
    masks = ((snowy > 0.2, 11), (shady > 0.2, 3), (cloudy > 0.05, 10), (cloudy > 0.2, 8), (cloudy > 0.6, 9))
    for mask, value in (*masks, (~_enlarge(in_swath, 3), 0)):
        scl[mask] = value
    image["SCL"] = scl.astype(np.uint8)
    return image


def _mean(values: npt.NDArray[np.floating], step: int) -> npt.NDArray[np.floating]:
    """The mean of each square of `step` × `step` pixels."""
    height, width = values.shape
    mean: npt.NDArray[np.floating] = values.reshape(height // step, step, width // step, step).mean((1, 3))
    return mean


def _enlarge(mask: npt.NDArray[np.bool_], step: int) -> npt.NDArray[np.bool_]:
    return mask.repeat(step, 0).repeat(step, 1)


def _write_product(
    pool: ThreadPoolExecutor,
    folder: Path,
    image: dict[str, npt.NDArray[np.integer]],
    place: tuple[int, int],
    number: int,
    side: int,
) -> None:
    """Write the product of a tile.

    image: pixels of the whole row of tiles, by band. place: column and row of the tile. number: number of the tile, from 0.
    """
    column, row = place
    tile = f"T33X{chr(65 + number // 26)}{chr(65 + number % 26)}"
    product = folder / f"S2A_MSIL2A_{TIME}_N0500_R000_{tile}_{TIME}.SAFE"
    images = product / "GRANULE" / f"L2A_{tile}_A000000_{TIME}" / "IMG_DATA"
    gsd = {band.name: band.gsd for band in BANDS} | {"SCL": 20}
    jobs = []
    for key, values in image.items():
        width = side * 10 // gsd[key]
        path = images / f"R{gsd[key]}m" / f"{tile}_{TIME}_{key}_{gsd[key]}m.jp2"
        path.parent.mkdir(parents=True, exist_ok=True)
        grid = from_origin(_LEFT + column * side * 10, _TOP - row * side * 10, gsd[key], gsd[key])
        jobs.append((path, values[:, column * width : (column + 1) * width], grid, _BLOCKS[gsd[key]]))
    for done in [pool.submit(_write_image, *job) for job in jobs]:
        done.result()
    (product / "MTD_MSIL2A.xml").write_text(_METADATA.format(name=product.name, offset=-OFFSET))
    (product / "manifest.safe").write_text(manifest(product))


def _write_image(path: Path, values: npt.NDArray[np.integer], grid: Affine, block: int) -> None:
    """Write a lossless JPEG 2000 with internal tiles of `block` × `block` px."""
    height, width = values.shape
    how = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES", "YCBCR420": "NO"}
    how |= {"BLOCKXSIZE": block, "BLOCKYSIZE": block, "count": 1, "dtype": values.dtype.name}
    with rasterio.open(path, "w", height=height, width=width, crs=_CRS, transform=grid, **how) as file:
        file.write(values, 1)


_METADATA = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
 <!-- synthetic: nothing here was ever measured -->
 <n1:General_Info>
  <Product_Info>
   <PRODUCT_URI>{name}</PRODUCT_URI>
   <PROCESSING_LEVEL>Level-2A</PROCESSING_LEVEL>
   <PROCESSING_BASELINE>05.00</PROCESSING_BASELINE>
  </Product_Info>
  <Product_Image_Characteristics>
   <QUANTIFICATION_VALUES_LIST>
    <BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
   </QUANTIFICATION_VALUES_LIST>
   <BOA_ADD_OFFSET_VALUES_LIST>
    <BOA_ADD_OFFSET band_id="0">{offset}</BOA_ADD_OFFSET>
    <BOA_ADD_OFFSET band_id="1">{offset}</BOA_ADD_OFFSET>
   </BOA_ADD_OFFSET_VALUES_LIST>
  </Product_Image_Characteristics>
 </n1:General_Info>
</n1:Level-2A_User_Product>
"""
_MANIFEST = """<?xml version="1.0" encoding="UTF-8"?>
<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1" version="esa/safe/sentinel/sentinel-2/msi/archive_l2a_user_product">
 <dataObjectSection>
{objects}
 </dataObjectSection>
</xfdu:XFDU>
"""
_OBJECT = """  <dataObject ID="{id}">
   <byteStream mimeType="application/octet-stream" size="{size}">
    <fileLocation locatorType="URL" href="./{href}"/>
    <checksum checksumName="SHA3-256">{digest}</checksum>
   </byteStream>
  </dataObject>"""


def manifest(product: Path) -> str:
    """The content of `manifest.safe`: sizes and digests of all other files of a product."""
    objects = []
    for path in sorted(p for p in product.rglob("*") if p.is_file() and p.name != "manifest.safe"):
        content = path.read_bytes()
        digest = hashlib.sha3_256(content).hexdigest()
        href = path.relative_to(product).as_posix()
        objects.append(_OBJECT.format(id=f"{path.stem}_Data", size=len(content), href=href, digest=digest))
    return _MANIFEST.format(objects="\n".join(objects))


def _write_map(path: Path, uses: Bytes) -> None:
    """Write the map: each cell has its most frequent class; cells beyond the country and its margin have none."""
    grid = from_origin(_LEFT - 10 * _MARGIN, _TOP + 10 * _MARGIN, 10, 10)
    left, bottom, right, top = transform_bounds(_CRS, _MAP_CRS, *array_bounds(*uses.shape, grid))
    west, north = math.floor(left / 100) * 100, math.ceil(top / 100) * 100
    shape = math.ceil((north - bottom) / 100), math.ceil((right - west) / 100)
    ranks = np.array([_GRID_CODES[code] for code in CODES.tolist()], np.uint8)
    cells, cell_grid = np.zeros(shape, np.uint8), from_origin(west, north, 100, 100)
    grids = {"src_transform": grid, "src_crs": _CRS, "dst_transform": cell_grid, "dst_crs": _MAP_CRS}
    reproject(ranks[uses], cells, **grids, resampling=Resampling.mode, src_nodata=0, dst_nodata=0)
    how = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 0, "compress": "lzw", "tiled": True}
    size = {"height": shape[0], "width": shape[1]}
    with rasterio.open(path, "w", crs=_MAP_CRS, transform=cell_grid, **size, **how) as file:
        file.update_tags(TIFFTAG_IMAGEDESCRIPTION="synthetic")
        file.write(cells, 1)
