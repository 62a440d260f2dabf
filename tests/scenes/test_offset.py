"""The offset of digital numbers is found wherever a user points, and asked for where numbers look shifted."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from landscale.datasets.tiles.quality_masks import read_covering_raster
from landscale.errors import BadInput
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene
from landscale.scenes.tile import open_tiles

PRODUCT = "S2A_MSIL2A_20220706T085611_N0400_R007_T33NZA_20220706T153419.SAFE"
SIDES = {"B02": 120, "B03": 120, "B04": 120, "B05": 60}


def write_band(path: Path, darkest: int, side: int = 120, **tags: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint16", "crs": "EPSG:32633"}
    transform = from_origin(600_000, 5_000_000, 1200 / side, 1200 / side)
    with rasterio.open(path, "w", **profile, transform=transform) as file:
        file.write(np.linspace(darkest, darkest + 4000, side * side).reshape(side, side).astype("uint16"), 1)
        if tags:
            file.scales, file.offsets = (tags["scale"],), (tags["offset"],)


def write_scene(folder: Path, darkest: int = 20, **tags: float) -> Path:
    for band, side in SIDES.items():
        write_band(folder / f"{band}.tif", darkest, side, **tags)
    return folder


@pytest.mark.parametrize("inside", ["", "GRANULE", "GRANULE/L2A_T33", "GRANULE/L2A_T33/IMG_DATA"])
def test_a_folder_inside_a_product_has_its_offset(tmp_path: Path, inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scene(tmp_path / PRODUCT / "GRANULE" / "L2A_T33" / "IMG_DATA")
    assert open_scene(tmp_path / PRODUCT / inside).offset == 1000
    monkeypatch.chdir(tmp_path / PRODUCT / inside)
    assert open_scene(".").offset == 1000


def test_the_folder_of_many_products_has_no_offset_of_its_own(tmp_path: Path) -> None:
    scene = open_scene(write_scene(tmp_path / "downloads_N0400_old" / "scene"))
    assert (scene.offset, scene.offset_known) == (0, False)


def test_the_layout_of_the_aws_buckets(tmp_path: Path) -> None:
    for resolution, side in ((10, 120), (20, 60), (60, 20)):
        for band in ("B02", "B05")[: 1 if resolution == 10 else 2]:
            write_band(tmp_path / f"R{resolution}m" / f"{band}.tif", 20, side)
    scene = open_scene(tmp_path)
    assert {band: path.parent.name for band, path in scene.files.items()} == {"B02": "R10m", "B05": "R20m"}


def test_scale_and_offset_of_the_files_count(tmp_path: Path) -> None:
    scene = open_scene(write_scene(tmp_path / "scene", 1020, scale=1e-4, offset=-0.1))
    assert (scene.offset, scene.offset_known) == (1000, True)
    with ScenePixels(scene, ["B02"]) as pixels:
        pixels.check_offset()
        assert pixels.harmonise(pixels.read("B02", 0, 1))[0, 0] == 20
    shutil.move(tmp_path / "scene", tmp_path / PRODUCT)
    assert open_scene(tmp_path / PRODUCT).offset == 1000
    older = tmp_path / PRODUCT.replace("N0400", "N0301")
    shutil.move(tmp_path / PRODUCT, older)
    with pytest.raises(BadInput, match=r"declares an offset of 1000, but that of .* is 0"):
        open_scene(older)


def test_bands_that_declare_different_offsets_are_refused(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene", scale=1e-4, offset=-0.1)
    write_band(tmp_path / "scene" / "B04.tif", 20, scale=1e-4, offset=-0.2)
    with pytest.raises(BadInput, match="different offsets"):
        open_scene(tmp_path / "scene")


@pytest.mark.parametrize(
    "darkest,offset,refused", [(20, None, False), (1020, None, True), (1020, 1000, False), (1020, 0, False)]
)
def test_numbers_that_look_shifted_need_an_offset(
    tmp_path: Path, darkest: int, offset: int | None, refused: bool
) -> None:
    scene = open_scene(write_scene(tmp_path / "mybands", darkest), offset)
    with ScenePixels(scene, list(SIDES)) as pixels:
        if not refused:
            pixels.check_offset()
            return
        with pytest.raises(BadInput, match="give --offset 1000, or --offset 0 if nothing was added"):
            pixels.check_offset()


@pytest.mark.parametrize("offset", [-1, 70_000])
def test_offsets_out_of_range_are_refused(tmp_path: Path, offset: int) -> None:
    with pytest.raises(BadInput, match="expected an integer from 0 to 65535"):
        open_scene(write_scene(tmp_path / "scene"), offset)


def test_tiles_in_the_layout_of_the_aws_buckets_are_one_product(tmp_path: Path) -> None:
    tile = tmp_path / "2022" / "7" / "6" / "0"
    for resolution, band in ((10, "B02"), (20, "B05"), (60, "B01")):
        write_band(tile / f"R{resolution}m" / f"{band}.tif", 20, 1200 // resolution)
    (opened,) = open_tiles(tile)
    assert set(opened.scene.files) == {"B02", "B05", "B01"}


@pytest.mark.parametrize("nodata", [None, 65_535])
def test_the_nodata_value_of_the_coarsest_band_counts(tmp_path: Path, nodata: int | None) -> None:
    file = tmp_path / "B01.tif"
    profile = {"driver": "GTiff", "width": 2, "height": 2, "count": 1, "dtype": "uint16", "crs": "EPSG:32633"}
    with rasterio.open(file, "w", **profile, transform=from_origin(600_000, 5_000_000, 60, 60), nodata=nodata) as out:
        out.write(np.array([[65_535, 5], [6, 7]], np.uint16), 1)
    values, gsd = read_covering_raster(file, 600_000, 5_000_000, 12, 12)
    assert gsd == 60
    assert values[0, 0] == (65_535 if nodata is None else 0)
