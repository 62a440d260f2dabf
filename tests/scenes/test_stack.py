"""One raster of several bands: names of bands, means of coarse pixels, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.windows import Window

from conftest import Cli
from landscale.scenes.band import OpenBand
from landscale.scenes.names import band_in_name
from landscale.scenes.scene import open_scene


def write(
    path: Path, values: np.ndarray, names: tuple[str, ...] = (), nodata: float | None = None, **tags: str
) -> Path:
    profile = {"driver": "GTiff", "height": values.shape[1], "width": values.shape[2], "count": len(values)}
    grid = {"crs": "EPSG:32633", "transform": Affine(10, 0, 300_000, 0, -10, 8_400_000), "nodata": nodata}
    with rasterio.open(path, "w", **profile, **grid, dtype=values.dtype) as file:
        file.write(values)
        if names:
            file.descriptions = names
        file.update_tags(**tags)
    return path


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("B2", "B02"),
        ("b8a", "B8A"),
        ("blue", "B02"),
        ("nir08", "B8A"),
        ("swir22", "B12"),
        ("rededge071", "B05"),
        ("B4, central wavelength 665 nm", "B04"),
        ("B02_10m", "B02"),
        ("20170613T101031_T33UUP_B11", "B11"),
        ("SCL", None),
        ("AOT", None),
        ("B13", None),
        ("MSK_CLDPRB", None),
        ("", None),
    ],
)
def test_names_of_bands(text: str, band: str | None) -> None:
    assert band_in_name(text) == band


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (
            (),
            "has 2 bands without names, expected names of bands such as B02 or blue; name each of them: rio edit-info",
        ),
        (("gray", "alpha"), "has 2 bands named gray, alpha, expected names"),
        (("B02", "blue"), "has two bands named B02: 1 and 2"),
    ],
)
def test_bands_without_names_are_refused(names: tuple[str, ...], problem: str, tmp_path: Path, cli: Cli) -> None:
    path = write(tmp_path / "stack.tif", np.ones((2, 6, 6), np.uint16), names)
    answer = cli("info", path)
    assert answer.code == 2
    assert f"{path}: {problem}" in answer.lines[0]


def test_metadata_that_gdal_copied_and_the_name_of_the_file(tmp_path: Path) -> None:
    values = np.full((1, 120, 120), 1500, np.uint16)
    tags = {
        "PROCESSING_BASELINE": "05.09",
        "PRODUCT_URI": "S2B_MSIL1C_20230823T095559_N0509_R122_T34UCF_20230823T120234.SAFE",
    }
    scene = open_scene(write(tmp_path / "mine.tif", values, ("B4, central wavelength 665 nm",), **tags))
    assert (scene.offset, scene.level, scene.unit) == (1000, "L1C", "digital number")
    name = "S2B_MSIL2A_20230823T095559_N0301_R122_T34UCF_20230823T120234.tif"
    scene = open_scene(write(tmp_path / name, values, ("red",)))
    assert (scene.offset, scene.offset_known, scene.level) == (0, True, "L2A")
    assert not open_scene(write(tmp_path / "other.tif", values, ("red",))).offset_known


def test_coarse_pixels_are_the_mean_of_those_with_data(tmp_path: Path) -> None:
    values = np.arange(1, 36, dtype=np.uint16).reshape(1, 5, 7) * 10
    values[0, 0, 0], values[0, 2:4, 2:4] = 0, 999
    path = write(tmp_path / "B05.tif", values, nodata=999)
    with rasterio.open(path) as file:
        band = OpenBand(file, 1, step=2)
        assert (band.height, band.width, band.transform.a) == (3, 4, 20)
        whole = band.read()
        assert whole[0, 0] == round(np.mean([values[0, 0, 1], values[0, 1, 0], values[0, 1, 1]]))
        assert whole[1, 1] == 0  # all are nodata
        assert whole[2, 3] == values[0, 4, 6]  # the corner that is no whole block
        assert np.array_equal(band.read(Window(1, 1, 3, 2)), whole[1:, 1:])
