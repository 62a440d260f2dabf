"""Only the area of a vector file is mapped, and every pixel of it as in the map of the whole scene."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rasterio.warp import transform_geom
from shapely.geometry import MultiPolygon, Point, Polygon, box, mapping

from landscale.errors import BadInput
from landscale.formats.vectors import read_vector
from landscale.maps.layers import _needed
from landscale.maps.windows import WindowGrid, window_starts
from mapped import ORIGIN, Stub, draw_scene, names_in, predict, read_map, read_raster, write_band, write_scene

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised by rasterio itself
HEIGHT, WIDTH = 95, 83


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A scene and the map of all of it."""
    folder = tmp_path_factory.mktemp("whole")
    scene = write_scene(folder / "scene", draw_scene(HEIGHT, WIDTH))
    scl = np.random.default_rng(1).choice([4, 9], (48, 42), p=[0.8, 0.2]).astype(np.uint8)
    write_band(scene / "SCL.tif", scl, 20)
    predict(Stub(), scene, folder / "map.tif")
    return scene, read_map(folder / "map.tif")[0]


def in_pixels(top, left, bottom, right):
    """A rectangle in the coordinates of the scene."""
    return box(ORIGIN[0] + 10 * left, ORIGIN[1] - 10 * bottom, ORIGIN[0] + 10 * right, ORIGIN[1] - 10 * top)


def write_area(path, *geometries, crs="EPSG:32632", to="EPSG:4326"):
    """GeoJSON in longitude and latitude, or another file in `to`."""
    frame = geopandas.GeoDataFrame({"name": ["x"] * len(geometries)}, geometry=list(geometries), crs=crs)
    frame.to_crs(to).to_file(path)
    return path


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.integers(-9, HEIGHT + 9), min_size=2, max_size=2, unique=True),
    columns=st.lists(st.integers(-9, WIDTH + 9), min_size=2, max_size=2, unique=True),
    stride=st.sampled_from([None, 12]),
)
def test_an_area_is_mapped_like_the_whole_scene(whole, tmp_path_factory, rows, columns, stride):
    scene, expected = whole
    folder = tmp_path_factory.mktemp("area")
    if stride:
        predict(Stub(), scene, folder / "whole.tif", stride)
        expected = read_map(folder / "whole.tif")[0]
    (top, bottom), (left, right) = sorted(rows), sorted(columns)
    area = write_area(folder / "area.gpkg", in_pixels(top, left, bottom, right), to="EPSG:32632")
    top, bottom, left, right = max(0, top), min(HEIGHT, bottom), max(0, left), min(WIDTH, right)
    if top >= bottom or left >= right:
        with pytest.raises(BadInput, match=r"area\.gpkg: covers no pixel of the scene scene"):
            predict(Stub(), scene, folder / "map.tif", stride, aoi=area)
        return
    summary = predict(Stub(), scene, folder / "map.tif", stride, aoi=area)
    found, profile, _ = read_map(folder / "map.tif")
    assert profile["transform"] == from_origin(ORIGIN[0] + 10 * left, ORIGIN[1] - 10 * top, 10, 10)
    assert np.allclose(found, expected[:, top:bottom, left:right], atol=1e-6, equal_nan=True)
    assert (summary.height, summary.width) == (bottom - top, right - left)


def test_pixels_whose_centre_lies_outside_the_polygons_have_no_class(whole, tmp_path):
    scene, expected = whole
    triangle = Polygon([(ORIGIN[0] + 10 * x, ORIGIN[1] - 10 * y) for x, y in ((10, 10), (70, 10), (10, 70))])
    hole = in_pixels(20, 20, 30, 30)
    area = write_area(tmp_path / "area.geojson", triangle.difference(hole), Point(0, 0))
    summary = predict(Stub(), scene, tmp_path / "map.tif", aoi=area)
    found = read_map(tmp_path / "map.tif")[0][0]
    y, x = np.mgrid[10:70, 10:70] + 0.5
    inside = (x + y < 80) & ~((x > 20) & (x < 30) & (y > 20) & (y < 30))
    sure = np.abs(x + y - 80) > 0.1  # centres on the diagonal may fall on either side
    expected = np.where(inside, expected[0, 10:70, 10:70], np.nan)
    assert np.allclose(found[sure], expected[sure], atol=1e-6, equal_nan=True)
    assert abs(summary.not_mapped["outside"] - (found.size - inside.sum())) <= 60
    assert summary.not_mapped["cloud"] > 0


def test_only_the_windows_near_the_area_are_classified(whole, tmp_path):
    scene, _ = whole
    area = write_area(tmp_path / "area.geojson", in_pixels(40, 40, 41, 41))
    summary = predict(Stub(), scene, tmp_path / "map.tif", aoi=area)
    assert summary.windows <= 81  # of 195: those side by side at most a window and a half away, and those between them
    assert (read_raster(tmp_path / "map.tif")[0] != 255).any()


@given(
    length=st.integers(1, 400),
    side=st.integers(1, 40),
    steps=st.integers(1, 40),
    grid=st.sampled_from([1, 2, 3, 6]),
    first=st.integers(-20, 420),
    count=st.integers(1, 300),
)
@settings(max_examples=300, deadline=None)
@example(400, 12, 9, 3, 100, 5)  # a stride that does not divide the window
@example(400, 12, 12, 6, 100, 5)  # windows side by side
def test_an_area_has_the_windows_of_the_whole_scene(length, side, steps, grid, first, count):
    side = max(grid, side // grid * grid)
    stride = min(side, max(grid, steps // grid * grid))
    starts = window_starts(length, side, stride, grid)
    found = _needed(first, count, length, WindowGrid(side, stride, starts, starts), grid)
    pixels = range(max(0, first), min(length, first + count))
    if not pixels:
        assert found is None
        return
    begin, end = found
    assert 0 <= begin <= pixels[0]
    assert pixels[-1] < end <= length
    assert begin % grid == 0
    assert begin % side == 0
    part = [begin + start for start in window_starts(end - begin, side, stride, grid)]
    for pixel in pixels:
        for near in (
            stride,
            side,
        ):  # windows that contain the pixel, and those whose centres are the nearest on either side
            reach = [s for s in starts if abs(s + side / 2 - pixel - 0.5) <= near]
            assert [s for s in part if abs(s + side / 2 - pixel - 0.5) <= near] == reach


def test_areas_that_cannot_be_used_are_refused_in_one_line(whole, tmp_path):
    scene, _ = whole
    somewhere = write_area(tmp_path / "somewhere.geojson", box(150, -30, 151, -29), crs="EPSG:4326")
    points = write_area(tmp_path / "points.geojson", Point(9, 47), crs="EPSG:4326")
    (tmp_path / "text.geojson").write_text("area")
    (tmp_path / "empty.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    no_crs = tmp_path / "none.shp"
    geopandas.GeoDataFrame(geometry=[in_pixels(1, 1, 9, 9)]).to_file(no_crs)
    before = names_in(tmp_path)
    for path, problem in (
        (somewhere, "covers no pixel of the scene"),
        (points, "has no polygon"),
        (tmp_path / "text.geojson", "cannot be read as a vector file"),
        (tmp_path / "empty.geojson", "has no polygon"),
        (tmp_path / "missing.geojson", "cannot be read"),
        (no_crs, "has no coordinate reference system"),
    ):
        with pytest.raises(BadInput, match=problem) as caught:
            predict(Stub(), scene, tmp_path / "map.tif", aoi=path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    assert names_in(tmp_path) == before


def test_multipolygons_of_geojson_without_a_collection_are_read(whole, tmp_path):
    scene, expected = whole
    parts = MultiPolygon([in_pixels(0, 0, 10, 10), in_pixels(50, 60, 60, 70)])
    geometry = transform_geom("EPSG:32632", "EPSG:4326", mapping(parts))
    (tmp_path / "area.geojson").write_text(json.dumps(geometry))
    predict(Stub(), scene, tmp_path / "map.tif", aoi=tmp_path / "area.geojson")
    found = read_map(tmp_path / "map.tif")[0][0]
    expected = expected[0, :60, :70].copy()
    expected[:10, 10:] = expected[10:50] = expected[50:, :60] = np.nan
    assert np.allclose(found, expected, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("beginning", ["", "\ufeff \n"])
def test_a_description_of_layers_elsewhere_is_not_followed(tmp_path, beginning):
    """A virtual layer of GDAL would read any other file, and a remote one fetch a URL, whatever the suffix says."""
    secret = tmp_path / "secret.csv"
    secret.write_text("x,y\n1,2\n")
    layer = f'<OGRVRTLayer name="secret"><SrcDataSource>{secret}</SrcDataSource></OGRVRTLayer>'
    for name in ("area.vrt", "area.geojson", "area.gpkg"):
        path = tmp_path / name
        path.write_text(f"{beginning}<OGRVRTDataSource>{layer}</OGRVRTDataSource>", encoding="utf-8")
        with pytest.raises(BadInput, match="describes a layer in other files"):
            read_vector(path)
