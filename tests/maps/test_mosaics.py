"""Several scenes in one map: on a common grid, whatever their order, by the mean or by the scene with the least cloud."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from conftest import Cli
from landscale.errors import BadInput, LandscaleError
from landscale.maps import mosaic
from landscale.models.classifier import Classifier
from landscale.models.weights import save_weights
from mapped import (
    NAMES,
    ORIGIN,
    Stub,
    description_with,
    draw_scene,
    files_of,
    names_in,
    predict,
    read_map,
    read_raster,
    write_band,
    write_scene,
)

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised by rasterio itself

# Three scenes of 48×42 px, by name: offset of the upper left corner in px of 10 m, and the fraction of cloud.
PLACES = {"a": (0, 0, 0.5), "b": (-18, 30, 0.1), "c": (30, 12, 0.3)}
TOP, LEFT, BOTTOM, RIGHT = -18, 0, 78, 72


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """The scenes, and the map of each."""
    folder = tmp_path_factory.mktemp("scenes")
    maps = {}
    for k, (name, (row, column, cloud)) in enumerate(PLACES.items()):
        corner = ORIGIN[0] + 10 * column, ORIGIN[1] - 10 * row
        scene = write_scene(folder / name, draw_scene(48, 42, seed=k), origin=corner)
        scl = np.random.default_rng(k).choice([4, 9], (24, 21), p=[1 - cloud, cloud]).astype(np.uint8)
        write_band(scene / "SCL.tif", scl, 20, corner)
        predict(Stub(), scene, folder / f"{name}.tif")
        maps[name] = read_map(folder / f"{name}.tif")[0]
    return folder, maps


def on_canvas(maps):
    """The maps of the scenes on the common grid: (3, 2, rows, columns), NaN where a scene has nothing."""
    canvas = np.full((3, 2, BOTTOM - TOP, RIGHT - LEFT), np.nan, np.float32)
    for k, (name, (row, column, _)) in enumerate(PLACES.items()):
        canvas[k, :, row - TOP : row - TOP + 48, column : column + 42] = maps[name]
    return canvas


@pytest.mark.parametrize("chunk", [128, 7])
def test_overlaps_are_the_mean_of_the_scenes_that_are_not_masked(scenes, tmp_path, monkeypatch, chunk):
    folder, maps = scenes
    monkeypatch.setattr(mosaic, "CHUNK", chunk)
    summary = predict(Stub(), [folder / name for name in PLACES], tmp_path / "map.tif")
    found, profile, _ = read_map(tmp_path / "map.tif")
    canvas = on_canvas(maps)
    count = np.isfinite(canvas).sum(axis=0)
    expected = np.where(count, np.nansum(canvas, axis=0) / np.maximum(count, 1), np.nan)
    assert np.allclose(found, expected, atol=1e-6, equal_nan=True)
    assert (profile["transform"].c, profile["transform"].f) == (ORIGIN[0], ORIGIN[1] + 180)
    assert summary.scenes == ("a", "b", "c")
    empty = np.isnan(expected[0]).sum()
    assert sum(summary.not_mapped.values()) == empty
    assert summary.not_mapped["cloud"] > 0
    assert summary.not_mapped["nodata"] > 0


def test_least_cloud_takes_the_clearest_scene_that_is_not_masked(scenes, tmp_path):
    folder, maps = scenes
    predict(Stub(), [folder / name for name in PLACES], tmp_path / "map.tif", overlap="least-cloud")
    found = read_map(tmp_path / "map.tif")[0]
    canvas = on_canvas(maps)
    expected = canvas[1]  # b has the least cloud, then c
    for other in (2, 0):
        expected = np.where(np.isnan(expected), canvas[other], expected)
    assert np.allclose(found, expected, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("overlap", ["mean", "least-cloud"])
def test_the_order_of_the_scenes_does_not_matter(scenes, tmp_path, overlap):
    folder, _ = scenes
    contents, stub = set(), Stub()
    for k, order in enumerate(itertools.permutations(PLACES)):
        place = tmp_path / str(k)
        predict(stub, [folder / name for name in order], place / "map.tif", overlap=overlap)
        contents.add(tuple((place / name).read_bytes() for name in sorted(files_of("map"))))
    assert len(contents) == 1


def test_an_area_leaves_out_the_scenes_that_it_does_not_touch(scenes, tmp_path):
    from test_areas import in_pixels, write_area

    folder, maps = scenes
    area = write_area(tmp_path / "area.gpkg", in_pixels(50, 14, 70, 20), to="EPSG:32632")
    summary = predict(Stub(), [folder / name for name in PLACES], tmp_path / "map.tif", aoi=area)
    assert summary.scenes == ("c",)
    assert np.allclose(read_map(tmp_path / "map.tif")[0], maps["c"][:, 20:40, 2:8], atol=1e-6, equal_nan=True)
    between = write_area(tmp_path / "between.gpkg", in_pixels(70, 60, 75, 70), to="EPSG:32632")
    with pytest.raises(BadInput, match="lies between the scenes"):
        predict(Stub(), [folder / name for name in PLACES], tmp_path / "none.tif", aoi=between)


def test_finished_rows_of_each_scene_are_used_after_a_failure(scenes, tmp_path):
    folder, _ = scenes
    stub, calls = Stub(), []
    given = [folder / name for name in PLACES]
    predict(stub, given, tmp_path / "map.tif")
    before = read_map(tmp_path / "map.tif")[0]

    def count(planes):
        calls.append(1)
        if len(calls) == 12:
            raise RuntimeError("out of memory")
        return Stub.probabilities(stub, planes)

    stub.probabilities = count
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(stub, given, tmp_path / "map.tif")
    assert names_in(tmp_path) == {".map.tif.parts", *files_of("map")}
    predict(stub, given[::-1], tmp_path / "map.tif")  # in another order
    rows = 3 * (42 // 6)  # one batch for each row of windows of the three scenes
    assert len(calls) - 12 == rows - 11
    assert np.array_equal(read_map(tmp_path / "map.tif")[0], before, equal_nan=True)
    assert names_in(tmp_path) == files_of("map")


def test_scenes_that_do_not_fit_each_other_are_refused_by_name(scenes, tmp_path):
    folder, _ = scenes
    other = write_scene(tmp_path / "zone", draw_scene(24, 24), crs="EPSG:32633")
    shifted = write_scene(tmp_path / "shifted", draw_scene(24, 24), origin=(ORIGIN[0] + 5, ORIGIN[1]))
    for scene, problem in (
        (other, r"zone: lies in EPSG:32633, but .*/a in EPSG:32632; map the scenes of each UTM zone"),
        (shifted, r"shifted: has pixels of 10 m from .* do not coincide"),
        (folder / "a", r"a: is given twice"),
    ):
        with pytest.raises(BadInput, match=problem) as caught:
            predict(Stub(), [folder / "a", scene], tmp_path / "map.tif")
        assert "\n" not in str(caught.value)
    with pytest.raises(LandscaleError, match="--mask is the mask of one scene"):
        predict(Stub(), [folder / "a", folder / "b"], tmp_path / "map.tif", mask=folder / "a" / "SCL.tif")
    clear = write_scene(tmp_path / "clear", draw_scene(24, 24))
    with pytest.raises(BadInput, match=r"clear: has no scene classification .* least-cloud needs"):
        predict(Stub(), [folder / "a", clear], tmp_path / "map.tif", overlap="least-cloud")
    assert names_in(tmp_path) == {"zone", "shifted", "clear"}


def test_several_scenes_on_the_command_line(scenes, tmp_path, cli: Cli):
    folder, _ = scenes
    save_weights(tmp_path / "weights", Classifier(description_with(NAMES)).eval(), {})
    words = "predict", tmp_path / "weights", folder / "a", folder / "b", tmp_path / "map.tif"
    answer = cli(*words, "--overlap", "least-cloud", "--json")
    assert answer.code == 0
    assert (answer.json["width"], answer.json["height"], answer.json["scenes"]) == (72, 66, ["a", "b"])
    assert read_raster(tmp_path / "map.tif")[0].shape == (1, 66, 72)
