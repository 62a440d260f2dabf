"""`evaluate MAP REFERENCE` and `sample`: against rasters on other grids and in other legends, and against points."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from pyogrio import read_dataframe
from rasterio import Affine
from rasterio.transform import from_origin
from rasterio.warp import transform

from class_maps import CLASSES, LEFT, TOP, blocks, write_class_map
from landscale.inference.pixel_scores import PixelScores
from landscale.map_accuracy.sample import allocate

VALUES = blocks([[0, 1, 1], [2, 2, 255], [3, 3, 1]])


@pytest.fixture
def class_map(tmp_path):
    return write_class_map(tmp_path / "map.tif", VALUES)


def write_raster(path, values, gsd=10, left=LEFT, top=TOP, epsg=32632, **profile):
    height, width = values.shape
    where = {"crs": f"EPSG:{epsg}", "transform": from_origin(left, top, gsd, gsd)}
    shape = {"count": 1, "dtype": values.dtype, "width": width, "height": height}
    with rasterio.open(path, "w", driver="GTiff", **shape, **where, **profile) as file:
        file.write(values, 1)
    return path


def scores(cli, *words) -> PixelScores:
    answer = cli("evaluate", *words, "--json")
    assert answer.code == 0, answer.err
    return PixelScores.from_json(answer.json)


def test_another_map_is_matched_by_name_on_its_own_grid(cli, class_map, tmp_path):
    """The same classes in another order, 20 m pixels and only the western part."""
    order = [2, 0, 3, 1]
    names = tuple(CLASSES[k] for k in order)
    turned = np.array([*np.argsort(order), *[255] * 252], np.uint8)[VALUES]
    other = write_class_map(tmp_path / "other.tif", turned[::2, :40:2], classes=names, gsd=20.0)
    found = scores(cli, class_map, other)
    assert found.accuracy == 1
    assert found.pixels == (VALUES[:, :40] != 255).sum()
    assert [one.name for one in found.classes] == list(CLASSES)
    assert [one.support for one in found.classes] == [(VALUES[:, :40] == k).sum() for k in range(4)]


def test_corine_by_codes_and_grid_codes(cli, class_map, tmp_path):
    codes = np.array([112, 211, 311, 512, *[0] * 252])[VALUES].astype(np.int16)
    codes[0, 0] = 212  # another code of the same class
    codes[:20, 20:25] = 111
    for values in (codes, _grid_codes(codes)):
        found = scores(cli, class_map, write_raster(tmp_path / "corine.tif", values, nodata=0))
        assert found.pixels == (VALUES != 255).sum()
        assert found.confusion[1][0] == 1  # 212 is arable, the map says urban
        assert found.confusion[0][1] == 100
        assert found.accuracy == 1 - 101 / found.pixels


def _grid_codes(codes):
    from landscale.datasets.corine_codes import CODES

    ranks = {code: rank for rank, code in enumerate(sorted(CODES), start=1)}
    return np.vectorize(lambda code: ranks.get(int(code), 0))(codes).astype(np.int16)


def test_any_raster_with_a_legend(cli, class_map, tmp_path):
    values = np.array([10, 20, 30, 40, *[0] * 252])[VALUES].astype(np.uint8)
    raster = write_raster(tmp_path / "land.tif", values)
    legend = tmp_path / "legend.csv"
    legend.write_text("value,name\n10,Urban fabric\n20,Arable land\n30,Broad-leaved forest\n40,\n")
    found = scores(cli, class_map, raster, "--legend", legend)
    assert found.accuracy == 1
    assert found.pixels == ((VALUES != 255) & (VALUES != 3)).sum()
    legend.write_text("value,name\n10,Urban fabrik\n20,Arable land\n")
    answer = cli("evaluate", class_map, raster, "--legend", legend)
    assert answer.code == 2
    assert "Urban fabric" in answer.lines[-1]
    assert "no code of CORINE" in cli("evaluate", class_map, write_raster(tmp_path / "x.tif", values + 50)).lines[-1]


@pytest.mark.parametrize("nodata", [None, 9])
def test_pixels_beyond_a_smaller_raster_are_not_compared(cli, class_map, tmp_path, nodata):
    """0 is a class of the raster, and also what GDAL fills the outside with."""
    west = np.where(VALUES == 255, 0, VALUES)[:, :20].astype(np.uint8)
    raster = write_raster(tmp_path / "west.tif", west, nodata=nodata)
    legend = tmp_path / "legend.csv"
    legend.write_text("value,name\n" + "".join(f"{k},{name}\n" for k, name in enumerate(CLASSES)))
    found = scores(cli, class_map, raster, "--legend", legend)
    assert (found.pixels, found.accuracy) == (west.size, 1)


def test_pixels_that_a_raster_masks_are_not_compared(cli, class_map, tmp_path):
    raster = write_raster(tmp_path / "masked.tif", np.where(VALUES == 255, 0, VALUES).astype(np.uint8))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(raster, "r+") as file:
        file.write_mask(VALUES == 3)
    legend = tmp_path / "legend.csv"
    legend.write_text("value,name\n" + "".join(f"{k},{name}\n" for k, name in enumerate(CLASSES)))
    found = scores(cli, class_map, raster, "--legend", legend)
    assert (found.pixels, found.accuracy) == ((VALUES == 3).sum(), 1)


def test_maps_of_rotated_or_oblong_pixels_are_refused(cli, class_map, tmp_path):
    with rasterio.open(class_map) as file:
        profile, tags, values = file.profile, file.tags(), file.read(1)
    for k, grid in enumerate((Affine(10, 0, LEFT, 0, -20, TOP), Affine(10, 3, LEFT, 3, -10, TOP))):
        path = tmp_path / f"grid-{k}.tif"
        with rasterio.open(path, "w", **profile | {"transform": grid, "driver": "GTiff"}) as file:
            file.write(values, 1)
            file.update_tags(**tags)
        answer = cli("evaluate", path, class_map)
        assert answer.code == 2
        assert "rotated or oblong pixels" in answer.lines[-1]


def test_a_raster_elsewhere_or_of_something_else_is_refused(cli, class_map, tmp_path):
    away = write_class_map(tmp_path / "away.tif", VALUES, left=LEFT + 1e6)
    assert "cover the same place" in cli("evaluate", class_map, away).lines[-1]
    floats = write_raster(tmp_path / "float.tif", np.zeros((3, 3), np.complex64))
    assert "expected one band of classes" in cli("evaluate", class_map, floats).lines[-1]
    assert "is no class map" in cli("evaluate", floats, class_map).lines[-1]
    assert cli("evaluate", class_map, tmp_path / "none.tif").code == 2
    names = ("one", "two", "three", "four")
    other = write_class_map(tmp_path / "names.tif", VALUES, classes=names)
    assert "has none of the 4 classes" in cli("evaluate", class_map, other).lines[-1]


# ---- points


def centres(rows, columns):
    return LEFT + 10 * (np.asarray(columns) + 0.5), TOP - 10 * (np.asarray(rows) + 0.5)


@pytest.fixture
def sampled(tmp_path):
    """Four points in every class, of which one in the forest is water in truth; one without a class, one off the map."""
    rows, columns, names = [], [], []
    for k, name in enumerate(CLASSES):
        places = np.argwhere(k == VALUES)[::70][:4]
        rows += places[:, 0].tolist()
        columns += places[:, 1].tolist()
        names += [name] * 4
    names[8] = "Inland waters"
    x, y = centres([*rows, 0, 10_000], [*columns, 0, 0])
    return pd.DataFrame({"x": x, "y": y, "class": [*names, "", "Arable land"]})


def test_points_of_a_csv_in_either_coordinates(cli, class_map, sampled, tmp_path):
    sampled.to_csv(tmp_path / "xy.csv", index=False)
    longitude, latitude = transform("EPSG:32632", "EPSG:4326", sampled["x"], sampled["y"])
    sampled.assign(lon=longitude, lat=latitude).drop(columns=["x", "y"]).to_csv(tmp_path / "ll.csv", index=False)
    first, second = (cli("evaluate", class_map, tmp_path / name, "--json").json for name in ("xy.csv", "ll.csv"))
    assert first == second
    assert first["counts"] == [[4, 0, 0, 0], [0, 4, 0, 0], [0, 0, 3, 1], [0, 0, 0, 4]]
    assert first["left_out"] == {"without a class": 1, "outside the map": 1}
    hectares = [(k == VALUES).sum() / 100 for k in range(4)]
    assert [row["mapped"] for row in first["classes"]] == pytest.approx(hectares)
    assert first["classes"][3]["area"]["value"] == pytest.approx(hectares[3] + hectares[2] / 4)
    shown = cli("evaluate", class_map, tmp_path / "xy.csv")
    assert "16 reference points" in shown.out
    assert "Olofsson" in shown.out


def test_a_csv_may_name_its_coordinate_reference_system(cli, class_map, sampled, tmp_path):
    sampled.to_csv(tmp_path / "own.csv", index=False)
    x, y = transform("EPSG:32632", "EPSG:3035", sampled["x"], sampled["y"])
    named = sampled.assign(x=x, y=y, crs="EPSG:3035")
    named.to_csv(tmp_path / "named.csv", index=False)
    first, second = (cli("evaluate", class_map, tmp_path / name, "--json").json for name in ("own.csv", "named.csv"))
    assert first == second
    for column, expected in (
        (["EPSG:3035", "EPSG:4326"] * 9, "the same one in every row"),
        ("nowhere", "a code such as"),
        ("", "found none"),
    ):
        named.assign(crs=column).to_csv(tmp_path / "wrong.csv", index=False)
        answer = cli("evaluate", class_map, tmp_path / "wrong.csv")
        assert answer.code == 2
        assert expected in answer.lines[-1]


def test_finer_classes_and_numbers_are_understood_and_unknown_ones_refused(cli, class_map, sampled, tmp_path):
    path = tmp_path / "p.csv"
    renamed = sampled.replace({"class": {"Urban fabric": "0", "Arable land": "Non-irrigated arable land"}})
    renamed.to_csv(path, index=False)
    assert cli("evaluate", class_map, path, "--json").json["counts"][:2] == [[4, 0, 0, 0], [0, 4, 0, 0]]
    sampled.replace({"class": {"Urban fabric": "Urban fabrics"}}).to_csv(path, index=False)
    assert "Urban fabric" in cli("evaluate", class_map, path).lines[-1]
    sampled.rename(columns={"class": "truth"}).to_csv(path, index=False)
    assert cli("evaluate", class_map, path).code == 2
    assert cli("evaluate", class_map, path, "--column", "truth").code == 0
    sampled[4:].to_csv(path, index=False)
    assert "no reference point lies in the class 'Urban fabric'" in cli("evaluate", class_map, path).lines[-1]


def test_a_sample_is_drawn_interpreted_and_evaluated(cli, class_map, tmp_path):
    out = tmp_path / "points.gpkg"
    answer = cli("sample", class_map, out, "--points", 200, "--least", 30, "--json")
    assert answer.code == 0
    points = read_dataframe(out)
    assert len(points) == sum(answer.json["points"].values()) == 200
    assert min(answer.json["points"].values()) >= 30
    columns, rows = ((points.geometry.x - LEFT) // 10).astype(int), ((TOP - points.geometry.y) // 10).astype(int)
    at = VALUES[rows, columns]
    assert [(at == k).sum() for k in range(4)] == list(answer.json["points"].values())
    assert len(set(zip(rows, columns, strict=True))) == 200
    again = cli("sample", class_map, tmp_path / "again.gpkg", "--points", 200, "--least", 30)
    assert again.code == 0
    assert (read_dataframe(tmp_path / "again.gpkg").geometry == points.geometry).all()
    assert cli("sample", class_map, out, "--points", 200, "--least", 30).code == 0  # nothing was filled in yet
    points["class"] = [CLASSES[k] for k in at]
    from pyogrio import write_dataframe

    write_dataframe(points, out, layer="reference points of landscale")
    found = cli("evaluate", class_map, out, "--out", tmp_path / "accuracy.json", "--json").json
    assert found["overall"]["value"] == 1
    assert json.loads((tmp_path / "accuracy.json").read_text()) == found
    kept = out.read_bytes()
    assert "exists and is not a sample" in cli("sample", class_map, out).lines[-1]
    assert out.read_bytes() == kept
    assert cli("sample", class_map, class_map).code == 2


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=9), st.integers(1, 300), st.integers(1, 30))
def test_allocation_uses_all_points_and_the_minimum(pixels, points, least):
    counts = np.array(pixels, np.int64)
    if np.minimum(counts, least).sum() > points:
        with pytest.raises(Exception, match="need"):
            allocate(counts, points, least)
        return
    found = allocate(counts, points, least)
    assert found.sum() == min(points, counts.sum())
    assert (found <= counts).all()
    assert (found >= np.minimum(counts, least)).all()
