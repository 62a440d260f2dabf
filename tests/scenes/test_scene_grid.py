"""Scenes whose rasters are of another format, not north-up in metres, or have a nodata value of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.transform import from_origin

from conftest import Cli
from landscale.errors import BadInput
from landscale.scenes.pixels import ScenePixels, summary
from landscale.scenes.scene import open_scene

UTM = from_origin(600_000, 5_000_000, 10, 10)
PIXELS = np.arange(36, dtype=np.uint16).reshape(6, 6) + 100


def write_band(path: Path, pixels: np.ndarray, **changes: Any) -> None:
    height, width = pixels.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": pixels.dtype.name}
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(path, "w", **(profile | {"crs": "EPSG:32633", "transform": UTM} | changes)) as file:
        file.write(pixels, 1)


@pytest.mark.parametrize(
    "changes,problem",
    [
        ({"crs": "EPSG:4326", "transform": from_origin(15, 45, 1e-4, 1e-4)}, "is in degrees"),
        ({"crs": "EPSG:3857"}, "is in Web Mercator"),
        ({"crs": "EPSG:2263"}, "foot"),
        ({"crs": None}, "has no coordinate reference system"),
        ({"transform": UTM * Affine.rotation(30)}, "is rotated"),
        ({"transform": UTM * Affine.scale(-1, 1)}, "is rotated or mirrored"),
        ({"transform": UTM * Affine.scale(1, -1)}, "is stored south-up"),
        ({"transform": UTM * Affine.scale(1, 2)}, "has pixels of 10×20 m"),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_grids_on_which_patches_would_be_elsewhere_are_refused(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    write_band(tmp_path / "scene" / "B02.tif", PIXELS, **changes)
    with pytest.raises(BadInput, match=problem) as caught:
        summary(open_scene(tmp_path / "scene"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype,nodata", [("int16", -9999), ("uint16", 65_535), ("int32", -1), ("uint8", 255)])
def test_the_nodata_value_of_a_file_becomes_0(tmp_path: Path, dtype: str, nodata: int) -> None:
    pixels = PIXELS.astype(dtype)
    pixels[:2] = nodata
    write_band(tmp_path / "scene" / "B02.tif", pixels, nodata=nodata)
    with ScenePixels(open_scene(tmp_path / "scene"), ["B02"]) as opened:
        values = opened.read("B02", 0, 6)
    assert values.dtype == np.uint16
    assert (values[:2] == 0).all()
    assert (values[2:] == PIXELS[2:]).all()


def test_numbers_that_are_no_digital_numbers_are_refused(tmp_path: Path) -> None:
    pixels = PIXELS.astype("int16")
    pixels[0, 0] = -5
    write_band(tmp_path / "scene" / "B02.tif", pixels)
    with (
        ScenePixels(open_scene(tmp_path / "scene"), ["B02"]) as opened,
        pytest.raises(BadInput, match="holds numbers from -5 to 135, expected 0 to 65535"),
    ):
        opened.read("B02", 0, 6)


VRT = """<VRTDataset rasterXSize="6" rasterYSize="6"><SRS>EPSG:32633</SRS>
<GeoTransform>600000,10,0,5000000,0,-10</GeoTransform><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>
<SourceFilename>{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""


def test_a_vrt_named_tif_reads_no_other_file(tmp_path: Path) -> None:
    write_band(tmp_path / "secret" / "B02.tif", PIXELS)
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "B02.tif").write_text(VRT.format(source=tmp_path / "secret" / "B02.tif"))
    with pytest.raises(BadInput, match=r"B02\.tif: cannot be read"):
        summary(open_scene(tmp_path / "scene"))


def test_a_pipe_is_refused(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "scene").mkdir()
    os.mkfifo(tmp_path / "scene" / "B02.tif")
    answer = cli("info", tmp_path / "scene")
    assert (answer.code, answer.lines) == (2, [f"landscale: {tmp_path}/scene/B02.tif: is not a regular file"])
