"""The areas of a class map as polygons: dissolved, with class, name and area, without small ones."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from landscale.maps.encoding import NODATA
from landscale.maps.polygons import write_polygons
from mapped import Stub, draw_scene, names_in, write_map, write_scene

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised by rasterio itself
NAMES = ("Forêt", "lake", "town")
CORNER = (300_000, 5_000_000)


def polygons_of(folder, classes, smallest_area=0.0):
    with rasterio.open(
        folder / "classes.tif",
        "w",
        driver="GTiff",
        width=classes.shape[1],
        height=classes.shape[0],
        count=1,
        dtype="uint8",
        nodata=NODATA,
        crs="EPSG:32633",
        transform=from_origin(*CORNER, 10, 10),
    ) as file:
        file.write(classes.astype(np.uint8), 1)
    path = folder / "unfinished"
    write_polygons(path, folder / "areas.gpkg", folder / "classes.tif", NAMES, smallest_area, {"SCENE": "x"})
    path.rename(folder / "areas.gpkg")
    return geopandas.read_file(folder / "areas.gpkg")


@pytest.fixture
def classes():
    """Forest with a lake of 4×5 px, a town of one pixel, another one in a lake, and no data to the right."""
    values = np.zeros((20, 30), np.uint8)
    values[3:7, 3:8] = 1
    values[15, 15] = 2
    values[4, 5] = 2
    values[:, 25:] = NODATA
    values[10, 28] = 1
    return values


def test_every_connected_area_is_one_polygon(tmp_path, classes):
    found = polygons_of(tmp_path, classes)
    assert found.crs == "EPSG:32633"
    assert sorted(zip(found["class"], found["name"], found["area"], strict=True)) == [
        (0, "Forêt", (500 - 20 - 1) * 100.0),
        (1, "lake", 100.0),
        (1, "lake", 1900.0),
        (2, "town", 100.0),
        (2, "town", 100.0),
    ]
    assert np.allclose(found.area, found["area"])
    assert found.is_valid.all()
    lake = found[found["area"] == 1900].geometry.iloc[0]
    assert lake.bounds == (CORNER[0] + 30, CORNER[1] - 70, CORNER[0] + 80, CORNER[1] - 30)


def test_small_areas_join_their_neighbour_or_are_left_out(tmp_path, classes):
    found = polygons_of(tmp_path, classes, smallest_area=150)
    assert sorted(zip(found["class"], found["area"], strict=True)) == [(0, 48_000.0), (1, 2000.0)]
    found = polygons_of(tmp_path, classes, smallest_area=2001)
    assert sorted(zip(found["class"], found["area"], strict=True)) == [(0, 50_000.0)]


def test_a_map_without_classes_has_no_polygons(tmp_path):
    assert len(polygons_of(tmp_path, np.full((5, 5), NODATA))) == 0


def test_polygons_of_a_scene_cover_what_is_mapped(tmp_path):
    scene = write_scene(tmp_path / "scene", draw_scene(60, 66))
    summary = write_map(Stub(), scene, tmp_path / "map.tif", polygons=tmp_path / "deep" / "areas.gpkg")
    found = geopandas.read_file(tmp_path / "deep" / "areas.gpkg")
    for area in summary.areas:
        assert found[found["name"] == area.name]["area"].sum() == area.square_metres
    assert names_in(tmp_path / "deep") == {"areas.gpkg"}
    assert summary.files["polygons"] == str(tmp_path / "deep" / "areas.gpkg")
