"""`compare`: the table of changes, the map of changes, regions, and areas adjusted for the errors of the maps."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from PIL import Image
from pyogrio.raw import write
from rio_cogeo.cogeo import cog_validate

from class_maps import CLASSES, LEFT, TOP, blocks, write_class_map
from landscale.map_accuracy.estimates import estimate

BEFORE = blocks([[0, 1, 1], [2, 2, 255], [3, 3, 1]])
AFTER = blocks([[0, 0, 1], [2, 0, 1], [255, 3, 1]])


@pytest.fixture
def maps(tmp_path):
    names = CLASSES[::-1]  # matched by name
    turned = np.array([3, 2, 1, 0, *[255] * 252], np.uint8)[AFTER]
    colours = ("#80f2e6", "#80ff00", "#ffffa8", "#e6004d")
    return (
        write_class_map(tmp_path / "old.tif", BEFORE),
        write_class_map(tmp_path / "new.tif", turned, classes=names, colours=colours),
    )


def test_table_and_map(cli, maps, tmp_path):
    out = tmp_path / "change.tif"
    answer = cli("compare", *maps, out, "--json")
    assert answer.code == 0, answer.err
    square = 400 / 100  # hectares
    expected = np.zeros((4, 4))
    expected[0, 0], expected[1, 0], expected[2, 0] = square, square, square
    expected[1, 1], expected[2, 2], expected[3, 3] = 2 * square, square, square
    assert np.allclose(answer.json["matrix"], expected)
    assert (answer.json["compared"], answer.json["changed"]) == (pytest.approx(7 * square), pytest.approx(2 * square))
    table = pd.read_csv(tmp_path / "change.csv", index_col=0)
    assert list(table.columns) == list(CLASSES)
    assert np.allclose(table.to_numpy(), expected)
    with rasterio.open(out) as file:
        values, legend = file.read(1), json.loads(file.tags()["CLASSES"])
        assert file.nodata == 255
        assert file.colormap(1)[0][:3] == (232, 232, 232)
    names = {row["value"]: row["name"] for row in legend}
    assert names == {0: "unchanged", 1: "Arable land → Urban fabric", 2: "Broad-leaved forest → Urban fabric"}
    nowhere = (BEFORE == 255) | (AFTER == 255)
    assert ((values == 255) == nowhere).all()
    assert ((values == 0) == ((BEFORE == AFTER) & ~nowhere)).all()
    assert ((values == 1) == ((BEFORE == 1) & (AFTER == 0))).all()
    assert cog_validate(out, strict=True)[0]
    assert "Arable land → Urban fabric" in (tmp_path / "change.tif.aux.xml").read_text()
    assert cli("compare", *maps, out).code == 0  # its own result may be replaced


def test_maps_on_other_grids_are_compared_by_the_nearest_pixel(cli, maps, tmp_path):
    coarse = write_class_map(tmp_path / "coarse.tif", AFTER[::2, ::2][:, :20], gsd=20.0)
    found = cli("compare", maps[0], coarse, tmp_path / "c.tif", "--json").json
    assert found["resampled"]
    west = np.s_[:, :40]
    both = (BEFORE[west] != 255) & (AFTER[west] != 255)
    assert found["compared"] == pytest.approx(both.sum() / 100)


def test_regions_and_adjusted_areas(cli, maps, tmp_path):
    halves = [shapely.box(LEFT, TOP - 600, LEFT + 300, TOP), shapely.box(LEFT + 300, TOP - 600, LEFT + 600, TOP)]
    write(
        tmp_path / "r.gpkg",
        geometry=shapely.to_wkb(np.array(halves, object)),
        field_data=[np.array(["west", "east"], object)],
        fields=["district"],
        geometry_type="Polygon",
        crs="EPSG:32632",
    )
    counts = np.array([[9, 1, 0, 0], [0, 8, 2, 0], [0, 0, 10, 0], [0, 0, 0, 10]])
    accuracy = estimate(counts, np.array([(k == BEFORE).sum() / 100 for k in range(4)]), CLASSES)
    (tmp_path / "a.json").write_text(json.dumps(accuracy.to_json()))
    words = (
        "--regions",
        tmp_path / "r.gpkg",
        "--region-column",
        "district",
        "--accuracy",
        tmp_path / "a.json",
        tmp_path / "a.json",
    )
    found = cli("compare", *maps, tmp_path / "c.tif", *words, "--json").json
    rows = {(row["region"], row["name"]): row for row in found["regions"]}
    nowhere = (BEFORE == 255) | (AFTER == 255)
    for region, part in (("west", np.s_[:, :30]), ("east", np.s_[:, 30:]), ("all", np.s_[:, :])):
        for k, name in enumerate(CLASSES):
            for when, values in (("before", BEFORE), ("after", AFTER)):
                expected = ((values[part] == k) & ~nowhere[part]).sum() / 100
                assert rows[region, name][when] == pytest.approx(expected)
        areas = np.array([rows[region, name]["before"] for name in CLASSES])
        adjusted = [rows[region, name]["before_adjusted"] for name in CLASSES]
        by_hand = counts / counts.sum(1, keepdims=True)
        assert [value for value, _ in adjusted] == pytest.approx((areas @ by_hand).tolist())
        assert all(width >= 0 for _, width in adjusted)
    assert "±" in cli("compare", *maps, tmp_path / "c.tif", *words).out
    assert "expected name" in cli("compare", *maps, tmp_path / "d.tif", *words[:2]).lines[-1]


def test_error_matrices_are_matched_by_the_names_of_classes(cli, maps, tmp_path):
    """The same errors in the order of either map adjust the areas in the same way."""
    counts = np.array([[9, 1, 0, 0], [0, 8, 2, 0], [3, 0, 7, 0], [0, 0, 0, 10]])
    areas = np.array([4.0, 12.0, 8.0, 4.0])
    for name, classes, order in (("own", CLASSES, [0, 1, 2, 3]), ("turned", CLASSES[::-1], [3, 2, 1, 0])):
        accuracy = estimate(counts[np.ix_(order, order)], areas[order], classes)
        (tmp_path / f"{name}.json").write_text(json.dumps(accuracy.to_json()))
    found = [
        cli("compare", *maps, tmp_path / "c.tif", "--accuracy", tmp_path / "own.json", tmp_path / name, "--json").json
        for name in ("own.json", "turned.json")
    ]
    assert found[0]["regions"] == found[1]["regions"]
    other = estimate(counts, areas, (*CLASSES[:3], "Sea"))
    (tmp_path / "sea.json").write_text(json.dumps(other.to_json()))
    answer = cli("compare", *maps, tmp_path / "d.tif", "--accuracy", tmp_path / "own.json", tmp_path / "sea.json")
    assert answer.code == 2
    assert "unknown class of an error matrix 'Sea'" in answer.lines[-1]


def test_an_interval_that_cannot_be_estimated_is_null(cli, maps, tmp_path):
    accuracy = estimate(np.diag([1, 9, 9, 9]), np.array([4.0, 12.0, 8.0, 4.0]), CLASSES)
    (tmp_path / "a.json").write_text(json.dumps(accuracy.to_json()))
    words = ("--accuracy", tmp_path / "a.json", tmp_path / "a.json")
    answer = cli("compare", *maps, tmp_path / "c.tif", *words, "--json")
    assert "NaN" not in answer.out
    assert answer.json["regions"][0]["before_adjusted"] == [pytest.approx(4.0), None]
    assert "nan" not in cli("compare", *maps, tmp_path / "c.tif", *words).out


def test_quick_look_and_files_of_others(cli, maps, tmp_path):
    out = tmp_path / "change.tif"
    assert cli("compare", *maps, out).code == 0
    with Image.open(tmp_path / "change.png") as picture:
        colours = set(picture.convert("RGB").getdata())
        assert max(picture.size) <= 1500
    assert {(0xE8, 0xE8, 0xE8), (0xE6, 0x00, 0x4D)} <= colours  # unchanged; what became urban fabric
    for name in ("change.qml", "change.csv", "change.png"):
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_text("made by hand")
        answer = cli("compare", *maps, out)
        assert answer.code == 2
        assert f"{name}: exists and is not" in answer.lines[-1]
        assert (tmp_path / name).read_text() == "made by hand"
        (tmp_path / name).write_bytes(kept)
    assert cli("compare", *maps, out).code == 0


def test_a_class_without_a_reference_point_is_refused_before_anything_is_written(cli, maps, tmp_path):
    errors = tmp_path / "a.json"
    areas = np.array([(k == BEFORE).sum() / 100 for k in range(4)])
    content = json.loads(json.dumps(estimate(np.diag([9, 8, 7, 6]), areas, CLASSES).to_json()))
    content["counts"][2][2], content["classes"][2]["mapped"] = 0, 0.0
    errors.write_text(json.dumps(content))
    answer = cli("compare", *maps, tmp_path / "c.tif", "--accuracy", errors, errors)
    assert answer.code == 2
    assert "no reference point lies in the class 'Broad-leaved forest'" in answer.lines[-1]
    assert not list(tmp_path.glob("c.*"))


def test_what_cannot_be_compared_is_refused_and_nothing_is_written(cli, maps, tmp_path):
    old, new = maps
    out = tmp_path / "c.tif"
    other = write_class_map(tmp_path / "other.tif", BEFORE, classes=(*CLASSES[:3], "Sea"))
    away = write_class_map(tmp_path / "away.tif", BEFORE, left=LEFT + 1e6)
    damaged = write_class_map(tmp_path / "damaged.tif", np.where(BEFORE == 1, 77, BEFORE))
    region = {"geometry": shapely.to_wkb(np.array([shapely.box(LEFT, TOP - 600, LEFT + 300, TOP)], object))}
    region |= {"field_data": [np.array(["all"], object)], "fields": ["name"]}
    write(tmp_path / "all.gpkg", **region, geometry_type="Polygon", crs="EPSG:32632")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert cli("compare", old, other, out).code == 2
    assert "cover the same place" in cli("compare", old, away, out).lines[-1]
    assert "has the value 77" in cli("compare", old, damaged, out).lines[-1]
    assert "expected .tif" in cli("compare", old, new, tmp_path / "c.csv").lines[-1]
    assert "a region named 'all'" in cli("compare", old, new, out, "--regions", tmp_path / "all.gpkg").lines[-1]
    assert "is an input" in cli("compare", old, new, old).lines[-1]
    assert "exists and is not a comparison" in cli("compare", old, new, other).lines[-1]
    assert cli("compare", old, tmp_path / "none.tif", out).code == 2
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
