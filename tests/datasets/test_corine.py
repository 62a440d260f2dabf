"""CORINE maps: fractions of classes compared with exact areas, rasters with polygons; labels; and maps that are refused."""

from __future__ import annotations

import pickle
import struct

import numpy as np
import pyogrio
import pyogrio.raw
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import shapes as outlines
from rasterio.transform import from_origin
from rasterio.warp import Resampling, calculate_default_transform, reproject, transform

from landscale.datasets.tiles.corine import CODES, GLACIERS, corine_labels, open_corine
from landscale.errors import BadInput, UnknownName
from landscale.vocabulary.nomenclatures import BEN19, CLC43, EUROSAT10

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of rasterio, about affine
LEVEL3 = sorted(CODES)
LAEA, UTM, SIDE, CELL = "EPSG:3035", "EPSG:32632", 1200.0, 100.0
CORNER = (600_000.0, 5_400_000.0)  # x and y of the upper left corner of a tile near Augsburg
# A tile at each end of the map, where UTM is turned against LAEA by more than ten degrees.
ENDS = [(UTM, CORNER), ("EPSG:32629", (500_000.0, 4_300_020.0)), ("EPSG:32635", (500_000.0, 7_600_040.0))]


def tile(crs=UTM, corner=CORNER, patches=16, step=SIDE):
    """Upper left corners of `patches` × `patches` patches, (n, 2)."""
    at = np.arange(patches) * step
    return np.stack(np.meshgrid(corner[0] + at, corner[1] - at), axis=-1).reshape(-1, 2)


def random_map(crs, corner, size, cells=400, seed=0):
    """Grid codes of random parcels of about 4×4 cells, and their grid, around the middle of a tile of `size` metres."""
    x, y = transform(crs, LAEA, [corner[0] + size / 2], [corner[1] - size / 2])
    grid = from_origin(round(x[0], -2) - cells * 50, round(y[0], -2) + cells * 50, CELL, CELL)
    rng = np.random.default_rng(seed)
    parcels = rng.integers(1, 45, (cells // 4 + 2, cells // 4 + 2))
    row, column = np.indices((cells, cells)) + rng.integers(0, 4, (2, cells, cells))
    return parcels[row // 4, column // 4].astype(np.uint8), grid


def write_raster(path, values, grid, crs=LAEA, **more):
    shape = dict(zip(("count", "height", "width"), np.atleast_3d(values.T).T.shape, strict=True))
    with rasterio.open(path, "w", driver="GTiff", dtype=values.dtype, crs=crs, transform=grid, **shape, **more) as file:
        file.write(np.atleast_3d(values.T).T)
    return path


def polygon(*rings):
    body = b"".join(struct.pack("<I", len(ring)) + np.asarray(ring, "<f8").tobytes() for ring in rings)
    return struct.pack("<BII", 1, 3, len(rings)) + body


def write_polygons(path, polygons, codes, column="CODE_18", layer="clc", crs=LAEA, kind="MultiPolygon"):
    pyogrio.raw.write(
        path,
        np.array(polygons, object),
        [np.array(codes, object if isinstance(codes[0], str) else None)] * len(np.atleast_1d(column)),
        list(np.atleast_1d(column)),
        layer=layer,
        driver="GPKG",
        geometry_type=kind,
        promote_to_multi=kind == "MultiPolygon",
        crs=crs,
        append=path.exists(),
    )
    return path


def polygonise(path, values, grid):
    found = list(outlines(values, transform=grid))
    return write_polygons(
        path, [polygon(*s["coordinates"]) for s, _ in found], [str(LEVEL3[int(v) - 1]) for _, v in found]
    )


@pytest.fixture(scope="module")
def truth():
    return random_map(UTM, CORNER, 16 * SIDE)


@pytest.fixture(scope="module")
def raster(tmp_path_factory, truth):
    return write_raster(tmp_path_factory.mktemp("clc") / "clc.tif", *truth, nodata=255, tiled=True, compress="lzw")


@pytest.fixture(scope="module")
def vector(tmp_path_factory, truth):
    return polygonise(tmp_path_factory.mktemp("clc") / "clc.gpkg", *truth)


def cut(points, axis, bound, keep):
    """The part of a convex polygon where a coordinate is at least (`keep` is 1) or at most (-1) `bound`."""
    inside, found = (points[:, axis] - bound) * keep, []
    for k in range(len(points)):
        a, b, da, db = points[k - 1], points[k], inside[k - 1], inside[k]
        if (da >= 0) != (db >= 0):
            found.append(a + (b - a) * (da / (da - db)))
        if db >= 0:
            found.append(b)
    return np.array(found).reshape(-1, 2)


def area(points):
    x, y = (points - points[:1]).T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2 if len(points) else 0.0


def exact_fractions(values, grid, crs, left_top):
    """The outline of each patch is projected at twelve points per side and cut along the cells of the map."""
    result = np.zeros((len(left_top), len(CODES)))
    at = np.arange(12) * SIDE / 12
    near, far, back = np.zeros(12), np.full(12, SIDE), SIDE - at
    for fractions, (left, top) in zip(result, left_top, strict=True):
        x, y = transform(crs, LAEA, left + np.r_[at, far, back, near], top - np.r_[near, at, far, back])
        patch = np.stack([(np.array(x) - grid.c) / CELL, (grid.f - np.array(y)) / CELL], axis=1)
        (first, above), (last, below) = patch.min(axis=0).astype(int), patch.max(axis=0).astype(int) + 1
        for row in range(max(0, above), min(below, len(values))):
            strip = cut(cut(patch, 1, row, 1), 1, row + 1, -1)
            for column in range(max(0, first), min(last, len(values))):
                cell = cut(cut(strip, 0, column, 1), 0, column + 1, -1) if len(strip) else strip
                fractions[CODES.index(LEVEL3[values[row, column] - 1])] += area(cell) / area(patch)
    return result


@pytest.mark.parametrize(("crs", "corner"), ENDS)
def test_fractions_are_those_of_exact_areas(tmp_path, crs, corner):
    values, grid = random_map(crs, corner, 5 * SIDE, cells=120)
    patches = tile(crs, corner, 5)
    expected = exact_fractions(values, grid, crs, patches)
    assert expected.sum(axis=1) == pytest.approx(1)
    for path in (write_raster(tmp_path / "a.tif", values, grid), polygonise(tmp_path / "a.gpkg", values, grid)):
        found = open_corine(path).class_fractions(crs, patches)
        assert found.shape == (25, 44)
        np.testing.assert_allclose(found, expected, atol=0.002)
        assert expected[found == 0].max() < 0.0005  # areas too small for the sampling
        assert expected[found > 0].min() > 0
        off = patches + np.random.default_rng(0).uniform(0, 10, patches.shape)  # not on a lattice of 10 m
        np.testing.assert_allclose(
            open_corine(path).class_fractions(crs, off), exact_fractions(values, grid, crs, off), atol=0.006
        )


def test_raster_and_polygons_of_one_map_agree(raster, vector):
    patches = tile(patches=30)  # more than one block, and across the edge of the map
    by_raster, by_vector = (open_corine(path).class_fractions(UTM, patches) for path in (raster, vector))
    assert (by_raster.sum(axis=1) == 0).any()
    np.testing.assert_allclose(by_vector, by_raster, atol=0.0005)


def test_ground_beyond_the_map_is_not_covered(raster, vector, truth):
    patches = np.array([[x, CORNER[1] - 8 * SIDE] for x in np.arange(0.0, 60_000, 700) + CORNER[0]])
    expected = exact_fractions(*truth, UTM, patches).sum(axis=1)
    assert ((expected > 0.1) & (expected < 0.9)).any()
    for path in (raster, vector):
        found = open_corine(path).class_fractions(UTM, patches).sum(axis=1)
        np.testing.assert_allclose(found, expected, atol=0.002)
        assert open_corine(path).class_fractions("EPSG:32760", tile(patches=2)).sum() == 0  # New Zealand
        assert open_corine(path).class_fractions(UTM, patches + 1e9).sum() == 0
        assert open_corine(path).class_fractions(UTM, patches[:0]).shape == (0, 44)


def test_a_raster_may_have_codes_or_grid_codes(tmp_path, raster, truth):
    values, grid = truth
    expected = open_corine(raster).class_fractions(UTM, tile(patches=3))
    codes = np.array([0, *LEVEL3])[values]
    for dtype in ("int16", "uint16", "int32"):
        path = write_raster(tmp_path / f"{dtype}.tif", codes.astype(dtype), grid)
        np.testing.assert_array_equal(open_corine(path).class_fractions(UTM, tile(patches=3)), expected)
        path = write_raster(tmp_path / f"grid-{dtype}.tif", values.astype(dtype), grid)
        np.testing.assert_array_equal(open_corine(path).class_fractions(UTM, tile(patches=3)), expected)


def test_a_raster_may_have_any_crs(tmp_path, raster, truth):
    values, grid = truth
    expected = open_corine(raster).class_fractions(UTM, tile(patches=8))
    for crs in ("EPSG:4326", "EPSG:25833"):
        with rasterio.open(raster) as image:
            there, width, height = calculate_default_transform(LAEA, crs, image.width, image.height, *image.bounds)
        there, width, height = (
            there * there.scale(0.2),
            5 * width,
            5 * height,
        )  # finer, so that parcels keep their outlines
        moved = np.zeros((height, width), np.uint8)
        reproject(
            values,
            moved,
            src_transform=grid,
            src_crs=LAEA,
            dst_transform=there,
            dst_crs=crs,
            resampling=Resampling.nearest,
        )
        found = open_corine(write_raster(tmp_path / "moved.tif", moved, there, crs)).class_fractions(
            UTM, tile(patches=8)
        )
        np.testing.assert_allclose(found, expected, atol=0.02)
        assert np.abs(found - expected).mean() < 0.001


def test_polygons_may_have_any_crs(tmp_path):
    """In degrees, a triangle of sea that is the lower left half of a patch."""
    left, top = CORNER
    x, y = transform(UTM, "EPSG:4326", [left, left, left + SIDE, left], [top, top - SIDE, top - SIDE, top])
    path = write_polygons(tmp_path / "a.gpkg", [polygon(np.stack([x, y], 1))], ["523"], crs="EPSG:4326")
    fractions = open_corine(path).class_fractions(UTM, np.array([CORNER]))
    assert fractions[0, CODES.index(523)] == pytest.approx(0.5, abs=0.005)
    assert fractions.sum() == fractions[0, CODES.index(523)]


@pytest.mark.parametrize(
    "codes",
    [
        [1, 2, 3],  # a town: three urban grid codes are not yet level 1
        [1, 2, 3, 4, 6],
        [12, 21, 23, 24, 31, 32],  # fields and forests: six grid codes are not yet level 2
        [11, 12, 14, 21, 23, 24, 31, 25],
        [111, 112, 121, 122, 123],
    ],
)
def test_grid_codes_that_coarser_levels_have_too_are_read(tmp_path, codes):
    """They are taken for those of a coarser level only if they are many and no other is between them."""
    open_corine(coarser(tmp_path, codes))


def test_cells_without_a_class_are_not_covered(tmp_path):
    _, grid = random_map(UTM, CORNER, SIDE, cells=40)
    patch = np.array([CORNER])
    for dtype, nodata, value in (
        ("int8", -128, -128),
        ("int8", None, -128),
        ("uint8", 255, 255),
        ("uint8", None, 48),
        ("int16", None, 999),
        ("int32", -9999, -9999),
        ("int16", 44, 44),
    ):
        values = np.full((40, 40), 12, dtype)
        values[:, ::2] = value
        path = write_raster(tmp_path / "a.tif", values, grid, nodata=nodata)
        fractions = open_corine(path).class_fractions(UTM, patch)
        assert fractions.sum() == fractions[0, CODES.index(211)] == pytest.approx(0.5, abs=0.05)


def square(x, y, side):
    return [(x, y), (x, y + side), (x + side, y + side), (x + side, y), (x, y)]


@pytest.mark.filterwarnings("error::rasterio.errors.ShapeSkipWarning")
def test_polygons_with_holes_and_multipolygons(tmp_path):
    """A lake with an island, and a forest of two parts, one of them the island, and an empty part; integer codes."""
    x, y = CORNER[0], CORNER[1] - SIDE
    lake = polygon(square(x, y, 600), square(x + 100, y + 100, 200))
    parts = polygon(square(x + 100, y + 100, 200)), polygon(square(x + 600, y + 600, 600))
    forest = struct.pack("<BII", 1, 6, 3) + b"".join(parts) + polygon()
    path = write_polygons(tmp_path / "a.gpkg", [lake, forest], np.array([512, 312]), "clc_code", crs=UTM)
    fractions = open_corine(path).class_fractions(UTM, np.array([CORNER]))[0]
    assert fractions[CODES.index(512)] == pytest.approx((36 - 4) / 144, abs=1e-6)
    assert fractions[CODES.index(312)] == pytest.approx((36 + 4) / 144, abs=1e-6)


def test_only_areas_count_and_polygons_may_be_three_dimensional_or_empty(tmp_path):
    """A layer of mixed geometries: a triangle with heights covers half of the patch, other geometries nothing."""
    (x, y), side = CORNER, SIDE
    triangle = shapely.Polygon([(x, y, 300.0), (x, y - side, 310.0), (x + side, y - side, 320.0)])
    others = [shapely.Point(x + 10, y - 10), shapely.LineString([(x, y), (x + side, y)]), shapely.Polygon()]
    written = [shapely.to_wkb(geometry) for geometry in (triangle, *others)]
    path = write_polygons(tmp_path / "a.gpkg", written, ["523", "111", "112", "121"], crs=UTM, kind="Unknown")
    fractions = open_corine(path).class_fractions(UTM, np.array([CORNER]))[0]
    assert fractions[CODES.index(523)] == pytest.approx(0.5, abs=0.005)
    assert fractions.sum() == fractions[CODES.index(523)]


def test_unclassified_polygons_do_not_cover(tmp_path):
    (x, y), side = CORNER, SIDE
    left, right = shapely.box(x, y - side, x + side / 2, y), shapely.box(x + side / 2, y - side, x + side, y)
    boxes = [shapely.to_wkb(box) for box in (left, right, right)]
    path = write_polygons(tmp_path / "a.gpkg", boxes, ["999", "312", "995"], crs=UTM)  # the last lies over the forest
    fractions = open_corine(path).class_fractions(UTM, np.array([CORNER]))[0]
    assert fractions.sum() == fractions[CODES.index(312)] == 0.5


def test_a_ring_that_is_not_closed_is_refused(tmp_path):
    (x, y), side = CORNER, SIDE
    open_ring = polygon([(x, y), (x, y - side), (x + side, y - side), (x + side, y)])
    path = write_polygons(tmp_path / "a.gpkg", [open_ring], ["523"], crs=UTM)
    with pytest.raises(BadInput, match=r"a\.gpkg: cannot be read \(.*closed"):
        open_corine(path).class_fractions(UTM, np.array([CORNER]))


def test_a_vrt_is_refused_even_if_it_is_named_tif(tmp_path, raster):
    """A VRT may refer to any other file."""
    text = f"""<VRTDataset rasterXSize="400" rasterYSize="400"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
    <SourceFilename>{raster}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""
    (tmp_path / "map.tif").write_text(text)
    with pytest.raises(BadInput, match=r"map\.tif: cannot be decoded as GTiff"):
        open_corine(tmp_path / "map.tif")


@pytest.mark.parametrize("column", ["CODE_18", "Code_12", "code_2018", "CLC_CODE", "clc18", "CODE"])
def test_the_column_of_codes_is_found_by_its_name(tmp_path, column):
    everywhere = polygon(square(CORNER[0] - 1e4, CORNER[1] - 1e4, 2e4))
    for kind in ("MultiPolygon", "Unknown"):
        path = write_polygons(tmp_path / f"{kind}.gpkg", [everywhere], ["335"], column, crs=UTM, kind=kind)
        fractions = open_corine(path).class_fractions(UTM, np.array([CORNER]))[0]
        assert fractions[CODES.index(GLACIERS)] == 1


def test_labels_by_nomenclature_and_least_fraction():
    fractions = np.zeros((3, 44))
    fractions[0, [CODES.index(c) for c in (211, 212, 122, GLACIERS)]] = 0.05, 0.05, 0.7, 0.2
    fractions[1, [CODES.index(c) for c in (111, 312)]] = 0.0001, 0.9999
    assert codes_of(corine_labels(fractions, CLC43, 0), CLC43) == [{211, 212, 122}, {111, 312}, set()]
    assert codes_of(corine_labels(fractions, CLC43, 0.1), CLC43) == [{122}, {312}, set()]
    assert codes_of(corine_labels(fractions, BEN19, 0), BEN19) == [{211}, {111, 312}, set()]
    assert codes_of(corine_labels(fractions, BEN19, 0.1), BEN19) == [{211}, {312}, set()]  # 0.05 + 0.05
    assert corine_labels(fractions, BEN19, 0).dtype == np.uint8
    with pytest.raises(UnknownName):
        corine_labels(fractions, EUROSAT10, 0)


def test_a_sum_that_falls_short_of_the_least_fraction_by_rounding_is_a_label():
    fractions = np.zeros((1, 44))
    fractions[0, [CODES.index(c) for c in (211, 212)]] = 0.7, 0.1
    assert 0.7 + 0.1 < 0.8
    assert codes_of(corine_labels(fractions, BEN19, 0.8), BEN19) == [{211}]


def codes_of(labels, nomenclature):
    return [{c.code for c, has in zip(nomenclature.classes, row, strict=True) if has} for row in labels]


@given(seed=st.integers(0, 999), low=st.floats(0, 1), high=st.floats(0, 1))
def test_labels_are_consistent_between_nomenclatures_and_thresholds(seed, low, high):
    rng = np.random.default_rng(seed)
    fractions = rng.dirichlet(np.full(44, 0.05), 8)
    low, high = sorted((low, high))
    fine, coarse = corine_labels(fractions, CLC43, 0), corine_labels(fractions, BEN19, 0)
    for fine_row, coarse_row in zip(fine, coarse, strict=True):
        assert np.flatnonzero(coarse_row).tolist() == BEN19.columns(np.array(CLC43.names)[fine_row > 0])
    for nomenclature in (CLC43, BEN19):
        assert (corine_labels(fractions, nomenclature, high) <= corine_labels(fractions, nomenclature, low)).all()


@settings(max_examples=5)
@given(seed=st.integers(0, 999), count=st.integers(1, 8))
def test_fractions_of_a_patch_do_not_depend_on_the_other_patches(raster, vector, seed, count):
    rng = np.random.default_rng(seed)
    patches = np.array(CORNER) + 10 * rng.integers(-600, 600, (count, 2))
    for path in (raster, vector):
        corine = pickle.loads(pickle.dumps(open_corine(path)))
        fractions = corine.class_fractions(UTM, patches)
        assert (fractions >= 0).all()
        assert (fractions.sum(axis=1) <= 1 + 1e-9).all()
        order = rng.permutation(count)
        np.testing.assert_array_equal(corine.class_fractions(UTM, patches[order]), fractions[order])
        np.testing.assert_allclose(corine.class_fractions(UTM, patches[:1]), fractions[:1], atol=0.0005)
        # The mean over the four quarters of a patch is that of the patch.
        quarters = [
            corine.class_fractions(UTM, patches + np.array([dx, -dy]), 600.0) for dx in (0, 600) for dy in (0, 600)
        ]
        np.testing.assert_allclose(np.mean(quarters, axis=0), fractions, atol=0.0005)


def missing(path):
    return path / "clc.tif"


def folder(path):
    return path


def text(path):
    (path / "clc.tif").write_text("111,112")
    return path / "clc.tif"


def empty(path):
    (path / "clc.gpkg").write_bytes(b"")
    return path / "clc.gpkg"


def sqlite(path):
    (path / "clc.gpkg").write_bytes(b"SQLite format 3\0" + bytes(100))
    return path / "clc.gpkg"


def other_classes(path):  # as ESA WorldCover's
    return write_raster(path / "clc.tif", np.full((20, 20), 60, np.uint8), from_origin(0, 0, 100, 100))


def no_class(path):
    return write_raster(path / "clc.tif", np.zeros((20, 20), np.uint8), from_origin(0, 0, 100, 100))


def three_bands(path):
    return write_raster(path / "clc.tif", np.ones((3, 20, 20), np.uint8), from_origin(0, 0, 100, 100))


def fractions(path):
    return write_raster(path / "clc.tif", np.full((20, 20), 1.5, np.float32), from_origin(0, 0, 100, 100))


def coarser(path, codes):
    values = np.resize(np.array(codes, np.uint8), (20, 20))
    return write_raster(path / "clc.tif", values, from_origin(0, 0, 100, 100), nodata=0)


def level_1(path):
    return coarser(path, [0, 1, 2, 3, 5])


def level_2(path):  # a region without a coast
    return coarser(path, [0, 11, 12, 14, 21, 23, 24, 31])


def without_crs(path):
    return write_raster(path / "clc.tif", np.ones((20, 20), np.uint8), from_origin(0, 0, 100, 100), crs=None)


def polygons_without_crs(path):
    return write_polygons(path / "clc.gpkg", [polygon(square(0, 0, 9))], ["111"], crs=None)


def without_codes(path):
    return write_polygons(path / "clc.gpkg", [polygon(square(0, 0, 9))], ["111"], "name")


def two_columns(path):
    return write_polygons(path / "clc.gpkg", [polygon(square(0, 0, 9))], ["111"], ["CODE_12", "CODE_18"])


def two_layers(path):
    write_polygons(path / "clc.gpkg", [polygon(square(0, 0, 9))], ["111"])
    return write_polygons(path / "clc.gpkg", [polygon(square(0, 0, 9))], ["111"], layer="dom")


def cut_off(path):
    write_polygons(path / "clc.gpkg", [polygon(square(0, 0, 9))], ["111"])
    (path / "clc.gpkg").write_bytes((path / "clc.gpkg").read_bytes()[:20_000])
    return path / "clc.gpkg"


REFUSED = {
    missing: "no such file",
    folder: "is not a regular file",
    text: "cannot be decoded as GTiff",
    empty: "neither a GeoPackage nor a raster",
    sqlite: "damaged GeoPackage",
    cut_off: "damaged GeoPackage",
    other_classes: "has the value 60",
    no_class: "has no cell with a CORINE class",
    three_bands: "has 3 bands",
    fractions: "has the value 1.5",
    level_1: "has the codes of CORINE's level 1, expected those of level 3",
    level_2: "has the codes of CORINE's level 2, expected those of level 3",
    without_crs: "not georeferenced",
    polygons_without_crs: "no coordinate reference system",
    without_codes: "columns: name",
    two_columns: "clc.CODE_12, clc.CODE_18",
    two_layers: "clc.CODE_18, dom.CODE_18; choose one: --corine",
}


@pytest.mark.filterwarnings("ignore")  # warnings of the writers
@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_unusable_maps_are_refused_when_opened(tmp_path, make):
    path = make(tmp_path)
    with pytest.raises(BadInput) as caught:
        open_corine(path)
    assert REFUSED[make] in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_unusable_parts_are_refused_when_read(tmp_path, raster, vector):
    patches = tile()

    def refused(path, problem):
        corine = open_corine(path)
        with pytest.raises(BadInput) as caught:
            corine.class_fractions(UTM, patches)
        assert problem in str(caught.value)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)

    left, bottom = CORNER[0], CORNER[1] - 2e4
    for code in ("600", "44", "128", "forest"):
        unknown = write_polygons(tmp_path / f"{code}.gpkg", [polygon(square(left, bottom, 2e4))], [code], crs=UTM)
        refused(unknown, f"has a polygon with the code {code}")

    ring = [*square(4.3e6, 2.7e6, 2e5)[:4], (1e200, 1e200), (4.3e6, 2.7e6)]
    refused(write_polygons(tmp_path / "far.gpkg", [polygon(ring)], ["111"]), "outside the domain of")

    data = vector.read_bytes()
    torn = tmp_path / "torn.gpkg"
    middle = np.random.default_rng(0).bytes(len(data) // 3)
    torn.write_bytes(data[: len(data) // 3] + middle + data[len(data) // 3 + len(middle) :])
    refused(torn, "cannot be read")

    values, grid = random_map(UTM, CORNER, 16 * SIDE, cells=1400)
    values[:100] = 77  # not in the middle, which is read when the map is opened
    unknown_value = write_raster(tmp_path / "a.tif", values, grid)
    assert open_corine(unknown_value).class_fractions(UTM, patches).sum() == pytest.approx(len(patches))
    patches = patches + np.array([0, 60_000])
    refused(unknown_value, "has the value 77")


def test_a_truncated_raster_is_refused(tmp_path, raster):
    torn = tmp_path / "torn.tif"
    torn.write_bytes(raster.read_bytes()[: raster.stat().st_size // 2])
    with pytest.raises(BadInput, match=r"torn\.tif: cannot be decoded"):
        open_corine(torn).class_fractions(UTM, tile())
