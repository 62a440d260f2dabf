"""Products of two levels, and two products of one acquisition, are not mixed: by no command, under no name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from landscale.errors import BadInput
from landscale.scenes.acquisitions import check_tiles
from landscale.scenes.pixels import summary
from landscale.scenes.scene import open_scene
from landscale.scenes.tile import open_tiles

TAKE = "20170613T101031_N0205_R022_T33UUP_20170613T101608"
L1C, L2A = f"S2A_MSIL1C_{TAKE}", f"S2A_MSIL2A_{TAKE}"


def band(path: Path, side: int = 6, **changes: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = {"crs": "EPSG:32633", "transform": from_origin(600_000, 5_000_000, 10, 10), "dtype": "uint16"}
    with rasterio.open(path, "w", "GTiff", width=side, height=side, **{"count": 1} | grid | changes) as file:
        file.write(np.ones((file.count, side, side), file.dtypes[0]))


def refused(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        check_tiles(open_tiles(folder))
    return str(caught.value)


def test_a_scene_of_two_products_is_refused(tmp_path: Path) -> None:
    """Without B10, which only level 1C has, no band would be in both under the same resolution."""
    band(tmp_path / L1C / "IMG_DATA/T33UUP_20170613T101031_B10.tif")
    band(tmp_path / L2A / "IMG_DATA/R10m/T33UUP_20170613T101031_B02_10m.tif")
    with pytest.raises(BadInput, match=f"holds more than one scene: {L1C} and {L2A}; give the folder of one of them"):
        open_scene(tmp_path)
    assert list(open_scene(tmp_path / L2A).files) == ["B02"]


def test_a_scene_of_two_renamed_products_is_refused(tmp_path: Path) -> None:
    band(tmp_path / "one/T33UUP_20170613T101031_B02.tif")
    band(tmp_path / "two/R10m/T33UUP_20170613T101031_B02_10m.tif")
    with pytest.raises(BadInput, match=r"holds more than one scene: B02 is two/R10m/.* and one/T33"):
        open_scene(tmp_path)


def test_tiles_of_two_levels_are_refused(tmp_path: Path) -> None:
    for name in (L1C, L2A.replace("T33UUP", "T33UVP")):
        band(tmp_path / name / "B02.tif")
    assert "is of level L2A, but" in refused(tmp_path)


@pytest.mark.parametrize("sign", ["MTD_MSIL1C.xml", "B10.tif"])
def test_tiles_of_two_levels_are_refused_under_any_name(sign: str, tmp_path: Path) -> None:
    band(tmp_path / "a/B02.tif")
    (tmp_path / "a/MTD_MSIL2A.xml").touch()
    band(tmp_path / "b/B02.tif")
    if sign.endswith("xml"):
        (tmp_path / "b" / sign).touch()
    else:
        band(tmp_path / "b" / sign, 1, transform=from_origin(600_000, 5_000_000, 60, 60))
    assert "is of level L1C, but" in refused(tmp_path)


def test_two_products_of_one_acquisition_are_refused(tmp_path: Path) -> None:
    for name in (L2A, L2A.replace("N0205", "N0500")):
        band(tmp_path / name / "B02.tif")
    assert "is the same acquisition and tile as" in refused(tmp_path)


def test_other_tiles_and_times_may_be_together(tmp_path: Path) -> None:
    for name in (L2A, L2A.replace("T33UUP", "T33UVP"), L2A.replace("20170613T101031", "20170616T101031")):
        band(tmp_path / name / "B02.tif")
    check_tiles(open_tiles(tmp_path))


@pytest.mark.parametrize(
    "changes,problem", [({"count": 3}, "has 3 bands, expected one"), ({"dtype": "uint8"}, "has a palette")]
)
def test_bands_that_are_pictures_are_refused(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    band(tmp_path / "B02.tif", **changes)
    if "dtype" in changes:
        with rasterio.open(tmp_path / "B02.tif", "r+") as file:
            file.write_colormap(1, {1: (9, 8, 7, 255)})
    with pytest.raises(BadInput, match=problem):
        summary(open_scene(tmp_path))
