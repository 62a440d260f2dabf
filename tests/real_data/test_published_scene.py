"""Maps of a published Sentinel-2 scene: 10.7 × 10.7 km at the equator, baseline 04.00, with its cloud mask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rio_cogeo import cog_validate

from conftest import Cli
from landscale.maps.palette import map_colours

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),  # of rasterio, in its own affine transforms
]
PRODUCT = "S2A_MSIL2A_20220706T085611_N0400_R007_T33NZA_20220706T153419"


@pytest.fixture
def scene(published: Callable[[str], Path]) -> Path:
    return published("sentinel2-scene") / PRODUCT


def test_a_scene_is_mapped_with_bundled_weights(scene: Path, tmp_path: Path, cli: Cli) -> None:
    """The scene has no cloud in its mask, and rain forest nearly everywhere."""
    words = "predict", "bundled:bigearthnet-s2-12", scene, tmp_path / "map.tif", "--stride", 120, "--json"
    answer = cli(*words, "--probabilities", "--entropy", "--viewer", "--mask", scene / "cloud_mask.tif")
    assert answer.code == 0, answer.lines
    summary = answer.json
    assert (summary["offset"], summary["width"], summary["crs"]) == (1000, 1068, "EPSG:32633")
    assert sum(summary["not_mapped"].values()) == 0
    assert sum(area["pixels"] for area in summary["areas"]) == 1068**2
    forest = sum(area["percent"] for area in summary["areas"] if "forest" in area["name"])
    assert forest > 50, summary["areas"]
    for kind in ("map", "probabilities", "entropy"):
        assert cog_validate(summary["files"][kind], strict=True)[0]
    with rasterio.open(tmp_path / "map.tif") as file:
        tags, classes = file.tags(), file.read(1)
        assert tags["ACQUIRED"] == "2022-07-06T08:56:11Z"
        assert tags["MASK"] == "mask cloud_mask.tif"
        entries = json.loads(tags["CLASSES"])
        assert [entry["colour"] for entry in entries] == map_colours([entry["name"] for entry in entries])
        assert [int((classes == k).sum()) for k in range(len(entries))] == [a["pixels"] for a in summary["areas"]]
    assert (tmp_path / "map.html").stat().st_size < 5e6


def test_an_area_of_the_scene_is_mapped_like_the_whole(scene: Path, tmp_path: Path, cli: Cli) -> None:
    with rasterio.open(scene / "B02.tif") as file:
        left, top, whole = file.transform.c, file.transform.f, file.transform
    corners = [(left + x, top - y) for x, y in ((2000, 2000), (5000, 2000), (5000, 4000), (2000, 4000), (2000, 2000))]
    area = {"type": "Polygon", "coordinates": [corners]}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    feature = {"type": "Feature", "properties": {}, "geometry": area}
    content = {"type": "FeatureCollection", "crs": crs, "features": [feature]}
    (tmp_path / "area.geojson").write_text(json.dumps(content))
    words = "predict", "bundled:bigearthnet-s2-12", scene
    assert cli(*words, tmp_path / "whole.tif", "--stride", 120).code == 0
    assert cli(*words, tmp_path / "part.tif", "--stride", 120, "--aoi", tmp_path / "area.geojson").code == 0
    with rasterio.open(tmp_path / "whole.tif") as file:
        expected = file.read(1)[200:400, 200:500]
    with rasterio.open(tmp_path / "part.tif") as file:
        assert np.array_equal(file.read(1), expected)
        assert file.transform == whole @ rasterio.Affine.translation(200, 200)
