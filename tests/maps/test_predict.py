"""Maps of scenes: on the grid of the scene, every pixel at its position, for scenes of any size."""

from __future__ import annotations

import json
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from landscale.cli import main
from landscale.errors import BadInput, BadStore
from landscale.inference.evaluate import evaluate
from landscale.inference.scores import Scores
from landscale.maps.summary import MapSummary
from landscale.maps.windows import window_starts
from landscale.models.classifier import Classifier
from landscale.models.weights import load_model, save_weights
from landscale.scenes.scene import open_scene
from landscale.store import Plane, open_store
from landscale.testing import make_store, rgbn_plane
from landscale.training.build import build_classifier
from landscale.training.recipe import Recipe
from landscale.vocabulary.bands import BANDS
from mapped import (
    NAMES,
    ORIGIN,
    SIDE,
    Stub,
    description_with,
    draw_scene,
    files_of,
    names_in,
    predict,
    read_map,
    write_band,
    write_scene,
)

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised by rasterio itself
property_test = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def expected_map(values, side, stride, grid):
    """The mean of each window at its centre, and bilinear interpolation between centres, by brute force."""
    height, width = values.shape

    def starts(length):
        last = max(0, (length - side) // grid * grid)
        found, start = [], 0
        while start < last:
            found.append(start)
            start += stride
        return [*found, last]

    padded = np.pad(values, ((0, max(0, side - height)), (0, max(0, side - width))), mode="edge").astype(float)
    tops, lefts = np.array(starts(height)), np.array(starts(width))
    means = np.array([[padded[y : y + side, x : x + side].mean() for x in lefts] for y in tops])
    across = np.array([np.interp(np.arange(width) + 0.5, lefts + side / 2, row) for row in means])
    down = [np.interp(np.arange(height) + 0.5, tops + side / 2, column) for column in across.T]
    return np.array(down).T / 10_000


# ---- positions of windows


@given(
    length=st.integers(1, 400), side=st.integers(1, 60), steps=st.integers(1, 60), grid=st.sampled_from([1, 2, 3, 6])
)
@settings(max_examples=200, deadline=None)
def test_windows_cover_all_pixels_but_fewer_than_one_coarse_pixel_at_the_end(length, side, steps, grid):
    side = max(grid, side // grid * grid)
    stride = min(side, max(grid, steps // grid * grid))
    found = window_starts(length, side, stride, grid)
    assert found[0] == 0
    assert all(start % grid == 0 for start in found)
    assert all(0 < b - a <= stride for a, b in pairwise(found))
    end = found[-1] + side
    assert end <= length or found == [0]
    assert length - end < grid


# ---- every pixel at its position


@property_test
@given(
    height=st.integers(1, 47),
    width=st.integers(1, 47),
    stride=st.sampled_from([None, 1, 6, 7, 11, 12]),
    rounding=st.sampled_from([ceil, int]),
    seed=st.integers(0, 99),
)
@example(47, 41, 7, ceil, 0)  # a stride that is rounded down to whole pixels at 60 m
@example(47, 41, 11, int, 0)
@example(5, 40, None, ceil, 0)  # fewer rows than a window
@example(40, 5, None, int, 0)
@example(1, 1, None, ceil, 0)
def test_the_map_of_a_scene_of_any_size_interpolates_between_windows(
    tmp_path_factory, height, width, stride, rounding, seed
):
    folder = tmp_path_factory.mktemp("scene")
    bands = draw_scene(height, width, seed, rounding=rounding)
    summary = predict(Stub(), write_scene(folder / "scene", bands), folder / "map.tif", stride)
    found, profile, descriptions = read_map(folder / "map.tif")
    assert found.shape == (2, height, width)
    assert profile["dtype"] == "float32"
    assert profile["crs"] == "EPSG:32632"
    assert profile["transform"] == from_origin(*ORIGIN, 10, 10)
    assert np.isnan(profile["nodata"])
    assert descriptions == ("dark", "bright")
    assert np.isfinite(found).all()
    assert (summary.height, summary.width, summary.pixel) == (height, width, 10)
    grid_stride = max(6, (stride or SIDE // 2) // 6 * 6)
    assert summary.stride == grid_stride
    assert np.allclose(found[0], expected_map(bands["B02"], SIDE, grid_stride, 6), atol=1e-5)
    assert names_in(folder) == {"scene", *files_of("map")}


def test_class_names_are_kept_in_the_map_whatever_they_contain(tmp_path):
    """GDAL writes names of bands as XML. The map also records its windows, which the report describes."""
    names = ('<b>&|"x"\n[bold]', "Forêt — 森")
    scene = write_scene(tmp_path / "scene", draw_scene(24, 24))
    predict(Stub(classes=names), scene, tmp_path / "map.tif", 6)
    assert read_map(tmp_path / "map.tif")[2] == names
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.tags()["WINDOW_METRES"], file.tags()["STRIDE_METRES"]) == ("120.0", "60.0")


@property_test
@given(height=st.integers(1, 40), width=st.integers(1, 40), stride=st.integers(1, 12), seed=st.integers(0, 99))
def test_the_map_of_a_scene_of_any_size_at_one_resolution_interpolates_between_windows(
    tmp_path_factory, height, width, stride, seed
):
    """Without coarser bands windows may begin at any pixel, so that they cover all pixels."""
    folder = tmp_path_factory.mktemp("scene")
    bands = draw_scene(height, width, seed, ("B03", "B02"))
    stub = Stub(("B03", "B02"))
    predict(stub, write_scene(folder / "scene", bands), folder / "map.tif", stride)
    found, _, _ = read_map(folder / "map.tif")
    assert np.allclose(found[0], expected_map(bands["B03"], SIDE, stride, 1), atol=1e-5)
    assert stub.shapes == {(("B03", "B02"), (2, SIDE, SIDE))}


def test_a_scene_without_10_m_bands_gives_a_map_at_20_m(tmp_path):
    bands = draw_scene(60, 48, 1, ("B8A", "B01"))
    stub = Stub(("B8A", "B01"))
    summary = predict(stub, write_scene(tmp_path / "scene", bands), tmp_path / "map.tif")
    found, profile, _ = read_map(tmp_path / "map.tif")
    assert summary.pixel == 20
    assert profile["transform"] == from_origin(*ORIGIN, 20, 20)
    assert stub.shapes == {
        (("B8A",), (1, 6, 6)),
        (("B01",), (1, 2, 2)),
    }  # windows of 120 m, as large as the patches in training
    assert np.allclose(found[0], expected_map(bands["B8A"], 6, 3, 3), atol=1e-5)


def test_a_window_covers_the_same_ground_in_every_band(tmp_path):
    """Pixel values grow linearly with the position, so a window's mean shows its position in each band."""
    height, width = 60, 72
    y, x = np.mgrid[:height, :width].astype(float)
    ramp = 50 * y + 40 * x + 500
    bands = {
        name: ramp.reshape(height // r, r, width // r, r).mean((1, 3)).round().astype(np.uint16)
        for name in NAMES
        for r in [BANDS[name].gsd // 10]
    }
    stub = Stub()
    predict(stub, write_scene(tmp_path / "scene", bands), tmp_path / "map.tif", 6)
    found, _, _ = read_map(tmp_path / "map.tif")
    assert stub.shapes == {(("B02", "B04"), (2, 12, 12)), (("B8A",), (1, 6, 6)), (("B01",), (1, 2, 2))}
    assert np.allclose(found[0], found[1], atol=1e-4)


def test_a_bright_quadrant_of_the_scene_is_bright_in_the_map(tmp_path):
    bands = {name: np.full_like(values, 1000) for name, values in draw_scene(96, 120).items()}
    bands["B02"][:48, 60:] = 8000  # the upper right quadrant
    predict(Stub(), write_scene(tmp_path / "scene", bands), tmp_path / "map.tif", offset=0)
    found, _, _ = read_map(tmp_path / "map.tif")
    assert np.allclose(found[0, :36, 72:], 0.8)
    assert np.allclose(found[0, 60:], 0.1)
    assert np.allclose(found[0, :, :48], 0.1)
    assert (np.diff(found[0, 10]) >= -1e-6).all()  # rises from left to right, at the border of the quadrant
    assert found[0, 10, 59:61] == pytest.approx(
        [0.1 + 5.5 / 6 * 0.35, 0.45 + 0.5 / 6 * 0.35], abs=1e-5
    )  # half bright at 60


# ---- no data


@property_test
@given(
    height=st.integers(6, 40),
    width=st.integers(6, 40),
    box=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    corner=st.booleans(),
)
def test_exactly_the_pixels_without_data_are_nan(tmp_path_factory, height, width, box, corner):
    folder = tmp_path_factory.mktemp("scene")
    bands = draw_scene(height, width, 2)
    empty = np.zeros((height, width), bool)
    top, bottom = sorted((int(box[0] * height), int(box[1] * height)))
    left, right = sorted((int(box[2] * width), int(box[3] * width)))
    empty[top:bottom, left:right] = True
    if corner:  # also the pixels outside all windows
        empty[-3:, -2:] = True
        empty[-1, 0] = True
    for name in ("B02", "B04"):
        bands[name][empty] = 0
    bands["B02"][0, 0] = 0  # a pixel that is 0 in one band only has data
    empty[0, 0] &= bands["B04"][0, 0] == 0
    predict(Stub(), write_scene(folder / "scene", bands), folder / "map.tif")
    found, _, _ = read_map(folder / "map.tif")
    assert np.array_equal(np.isnan(found[0]), empty)
    assert np.array_equal(np.isnan(found[1]), empty)
    kept = expected_map(bands["B02"], SIDE, 6, 6)
    assert np.allclose(found[0][~empty], kept[~empty], atol=1e-5)


# ---- processing baselines

XML = """<?xml version="1.0"?><n1:Level-2A_User_Product><BOA_ADD_OFFSET_VALUES_LIST>
<BOA_ADD_OFFSET band_id="0">{}</BOA_ADD_OFFSET><BOA_ADD_OFFSET band_id="1">{}</BOA_ADD_OFFSET>
</BOA_ADD_OFFSET_VALUES_LIST></n1:Level-2A_User_Product>"""


@pytest.mark.parametrize(
    "product", ["S2A_MSIL2A_20220706T085611_N0400_R007_T35VNJ_20220706T123456", "x_N0511_y", "a_N0400"]
)
def test_the_offset_of_later_processing_baselines_is_subtracted(tmp_path, product):
    bands = draw_scene(30, 30)
    bands["B02"][3:9, 3:9] = bands["B04"][3:9, 3:9] = 0
    shifted = {name: np.where(v > 0, v + 1000, 0).astype(np.uint16) for name, v in bands.items()}
    plain = write_scene(tmp_path / "S2A_MSIL2A_20180706T085611_N0213_R007_T35VNJ", bands)
    later = write_scene(tmp_path / product, shifted)
    offsets = [predict(Stub(), scene, tmp_path / f"{scene.name}.tif").offset for scene in (plain, later)]
    assert offsets == [0, 1000]
    maps = [read_map(tmp_path / f"{scene.name}.tif")[0] for scene in (plain, later)]
    assert np.array_equal(maps[0], maps[1], equal_nan=True)
    assert np.isnan(maps[0]).sum() == 2 * 36


def test_the_offset_is_read_from_a_product_below_the_folder(tmp_path):
    """The scene may be given as the folder that a product was unpacked into."""
    bands = draw_scene(120, 120)
    write_scene(tmp_path / "download" / "S2A_MSIL2A_20220706T085611_N0400_R007_T33NZA_20220706T153419", bands)
    assert open_scene(tmp_path / "download").offset == 1000
    write_scene(tmp_path / "later" / "S2A_MSIL2A_20220706T085611_N0400_R007_T33NZA_20220706T153419" / "inner", bands)
    assert open_scene(tmp_path / "later").offset == 1000


def test_a_folder_of_several_scenes_is_refused(tmp_path, capsys):
    for name in ("one", "two"):
        write_scene(tmp_path / "scenes" / name, draw_scene(120, 120))
    with pytest.raises(
        BadInput, match=r"holds more than one scene: B\d+A? is one/.*\.tif and two/.*; give the folder of one of them"
    ):
        open_scene(tmp_path / "scenes")
    assert main(["info", str(tmp_path / "scenes")]) == 2
    assert "more than one scene" in capsys.readouterr().err


def test_an_output_that_is_not_a_map_is_not_replaced(tmp_path):
    write_scene(tmp_path / "scene", draw_scene(120, 120))
    (tmp_path / "store.h5").write_bytes(b"\x89HDF rest")
    (tmp_path / "folder").mkdir()
    for name, problem in (("store.h5", "exists and is not a map of landscale"), ("folder", "is a folder")):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(BadInput, match=f"{name}: {problem}"):
            predict(Stub(), tmp_path / "scene", tmp_path / name)
        assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "store.h5").read_bytes() == b"\x89HDF rest"


def test_digital_numbers_below_the_offset_become_zero_and_do_not_wrap_around(tmp_path):
    bands = {name: np.full_like(v, 999) for name, v in draw_scene(24, 24).items()}
    predict(Stub(), write_scene(tmp_path / "x_N0400_y", bands), tmp_path / "map.tif")
    assert (read_map(tmp_path / "map.tif")[0] == 0).all()


@pytest.mark.parametrize("name", ["x_N9999_y", "x_N0301_y", "plain", "x_N04001_y"])
def test_no_offset_is_subtracted_for_names_of_other_products(tmp_path, name):
    bands = draw_scene(24, 24)
    summary = predict(Stub(), write_scene(tmp_path / name, bands), tmp_path / "map.tif")
    assert summary.offset == 0
    found, _, _ = read_map(tmp_path / "map.tif")
    assert np.allclose(found[0], expected_map(bands["B02"], SIDE, 6, 6), atol=1e-5)


def test_the_metadata_determine_the_offset(tmp_path):
    scene = write_scene(tmp_path / "x_N0213_y", draw_scene(24, 24))
    (scene / "MTD_MSIL2A.xml").write_text(XML.format(-1000, -1000))
    assert open_scene(scene).offset == 1000
    (scene / "MTD_MSIL2A.xml").write_text(XML.format(-1000, 0))
    with pytest.raises(BadInput, match=r"MTD_MSIL2A\.xml: has different offsets"):
        open_scene(scene)
    (scene / "MTD_MSIL2A.xml").write_text("<other/>")
    assert open_scene(scene).offset == 0


# ---- files


def test_a_safe_product_is_read_at_native_resolution(tmp_path):
    """The product holds bands at several resolutions, and masks whose names contain those of bands."""
    bands = draw_scene(24, 24)
    root = tmp_path / "S2B_N0300_T32TNT.SAFE" / "GRANULE" / "L2A_T32TNT"
    images = root / "IMG_DATA"
    for name, values in bands.items():
        gsd = BANDS[name].gsd
        write_band(images / f"R{gsd}m" / f"T32TNT_20190101_{name}_{gsd}m.tif", values, gsd)
    write_band(images / "R20m" / "T32TNT_20190101_B02_20m.tif", np.full((12, 12), 7, np.uint16), 20)
    write_band(images / "R60m" / "T32TNT_20190101_B02_60m.tif", np.full((4, 4), 7, np.uint16), 60)
    for name in ("B02", "B10"):
        write_band(root / "QI_DATA" / f"MSK_DETFOO_{name}.tif", np.full((24, 24), 3, np.uint8), 10)
    scene = open_scene(tmp_path / "S2B_N0300_T32TNT.SAFE")
    assert set(scene.files) == set(NAMES)  # level 2A has no B10
    assert all("IMG_DATA" in path.parts for path in scene.files.values())
    predict(Stub(), scene.folder, tmp_path / "map.tif")
    assert np.allclose(read_map(tmp_path / "map.tif")[0][0], expected_map(bands["B02"], SIDE, 6, 6), atol=1e-5)


@pytest.mark.parametrize("file_name", ["{}.tif", "T32TNT_20190101T1_{}.TIF", "t32tnt_{}.tiff", "tile_b_{}.tif"])
def test_bands_are_found_by_their_file_names(tmp_path, file_name):
    scene = write_scene(tmp_path / "scene", draw_scene(12, 12), file_name)
    assert set(open_scene(scene).files) == set(NAMES)


def test_the_map_is_cloud_optimised(tmp_path):
    bands = {name: np.full_like(v, 2000) for name, v in draw_scene(600, 1200).items()}
    bands["B02"][:, :600] = 4000
    bands["B02"][:60, :60] = bands["B04"][:60, :60] = 0
    predict(Stub(ground=1200), write_scene(tmp_path / "scene", bands), tmp_path / "map.tif", 120, offset=0)
    with rasterio.open(tmp_path / "map-probabilities.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.profile["tiled"]
        assert file.compression.name == "deflate"
        assert file.block_shapes == [(512, 512)] * 2
        assert file.overviews(1) == [2, 4][: len(file.overviews(1))]
        assert file.overviews(1)
        small = file.read(1, out_shape=(300, 600))
        assert np.isnan(small[:29, :29]).all()  # overviews average the valid pixels and keep nodata
        assert np.isfinite(small[32:]).all()
        assert abs(small[200, 10] - 0.4) < 1e-4
        assert abs(small[200, 590] - 0.2) < 1e-4


def test_the_predict_command_writes_a_map_with_a_real_classifier(tmp_path, capsys):
    torch.manual_seed(0)
    classifier = Classifier(description_with(views=2)).eval()
    save_weights(tmp_path / "weights", classifier, {})
    scene = write_scene(tmp_path / "scene", draw_scene(31, 26))
    out = tmp_path / "maps" / "map.tif"
    assert (
        main(["predict", str(tmp_path / "weights"), str(scene), str(out), "--json", "--probabilities", "float32"]) == 0
    )
    summary = json.loads(capsys.readouterr().out)
    found, profile, _ = read_map(out)
    assert (profile["height"], profile["width"], profile["count"]) == (31, 26, 2)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert summary["classes"] == ["dark", "bright"]
    assert summary["windows"] == 6 * 4  # that begin at 0, 4, 8, 12, 14, 18 and at 0, 4, 8, 12
    assert (summary["height"], summary["width"], summary["stride"]) == (31, 26, 4)  # the network has 3×3 features
    first = found.copy()
    assert (
        main(["predict", str(tmp_path / "weights"), str(scene), str(out), "--probabilities=float32"]) == 0
    )  # replaces the older map
    assert np.array_equal(read_map(out)[0], first)


def test_windows_are_as_large_as_the_patches_in_training(tmp_path):
    """For a model of 240 m patches, windows have 24 px of 10 m for any input side of its network."""
    stub = Stub(ground=240, side=90)
    predict(stub, write_scene(tmp_path / "scene", draw_scene(48, 48)), tmp_path / "map.tif")
    assert stub.shapes == {(("B02", "B04"), (2, 24, 24)), (("B8A",), (1, 12, 12)), (("B01",), (1, 4, 4))}


@pytest.mark.parametrize("stride", [13, 40, 10_000])
def test_a_stride_larger_than_the_window_leaves_no_gap(tmp_path, stride):
    bands = {name: np.full_like(v, 5000) for name, v in draw_scene(50, 60).items()}
    predict(Stub(), write_scene(tmp_path / "scene", bands), tmp_path / "map.tif", stride)
    assert np.allclose(read_map(tmp_path / "map.tif")[0], 0.5)


# ---- refusals


def assert_refused(tmp_path, scene, pattern, bands=NAMES):
    with pytest.raises(BadInput, match=pattern) as caught:
        predict(Stub(bands), scene, tmp_path / "out" / "map.tif")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*")), "files were left"
    assert not list((tmp_path / "out").glob(".*")), "files were left"


def test_a_scene_that_lacks_a_band_is_refused(tmp_path):
    scene = write_scene(tmp_path / "scene", draw_scene(24, 24))
    assert_refused(tmp_path, scene, r"scene: lacks B03, B11; it has", ("B02", "B03", "B11"))
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path, tmp_path / "empty", "holds no band raster")
    assert_refused(tmp_path, tmp_path / "nothing", "no such scene")
    assert_refused(tmp_path, scene / "B02.tif", "B02.tif: lacks B04, B8A, B01; it has B02")


@pytest.mark.parametrize("keep", [0, 3, 200, 0.5, 0.98])
def test_the_message_names_a_damaged_file(tmp_path, keep):
    scene = write_scene(tmp_path / "scene", draw_scene(240, 240), compress="deflate")
    file = scene / "B04.tif"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    assert_refused(tmp_path, scene, r"B04\.tif: cannot be (read|decoded)")


def test_bands_on_different_grids_are_refused(tmp_path):
    bands = draw_scene(24, 24)
    scene = write_scene(tmp_path / "a", bands)
    write_band(scene / "B8A.tif", bands["B8A"], 20, origin=(ORIGIN[0] + 60, ORIGIN[1]))
    assert_refused(tmp_path, scene, r"B8A\.tif: lies at")
    scene = write_scene(tmp_path / "b", bands)
    write_band(scene / "B8A.tif", bands["B8A"], 20, crs="EPSG:32633")
    assert_refused(tmp_path, scene, r"B8A\.tif: lies at .*32633")
    scene = write_scene(tmp_path / "c", bands)
    write_band(scene / "B01.tif", np.ones((7, 4), np.uint16), 60)
    assert_refused(tmp_path, scene, r"B01\.tif: is 4×7 px")


def test_signed_digital_numbers_give_the_same_map(tmp_path):
    bands = draw_scene(24, 24)
    scene = write_scene(tmp_path / "x_N0400_y", {name: v.astype(np.int16) + 1000 for name, v in bands.items()})
    predict(Stub(), scene, tmp_path / "map.tif")
    assert np.allclose(read_map(tmp_path / "map.tif")[0][0], expected_map(bands["B02"], SIDE, 6, 6), atol=1e-5)


def test_reflectances_in_percent_are_refused(tmp_path):
    """They are neither digital numbers nor reflectances in 0…1: the map would be wrong without any warning."""
    bands = {name: (v / 100).astype(np.float32) for name, v in draw_scene(24, 24).items()}
    assert_refused(
        tmp_path, write_scene(tmp_path / "scene", bands), r"B02\.tif: holds values from .* expected reflectance"
    )


@pytest.mark.parametrize("same_classifier", [True, False])
def test_after_a_failure_the_older_map_remains_and_finished_rows_are_used(tmp_path, same_classifier):
    """Two of five rows of windows are finished; with another classifier they are computed again."""
    scene, out = write_scene(tmp_path / "scene", draw_scene(40, 40)), tmp_path / "map.tif"
    stub = Stub()
    predict(stub, scene, out)
    before, probabilities = out.read_bytes(), read_map(out)[0]
    calls = []

    def fail_in_third_batch(planes):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return Stub.probabilities(stub, planes)

    stub.probabilities = fail_in_third_batch
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(stub, scene, out)
    assert out.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"scene", ".map.tif.parts", *files_of("map")}
    if not same_classifier:
        stub.network = torch.nn.Linear(1, 1)
    del calls[:]
    calls += [0] * 3
    predict(stub, scene, out)
    assert len(calls) - 3 == (3 if same_classifier else 5)
    assert np.array_equal(read_map(out)[0], probabilities)
    assert {path.name for path in tmp_path.iterdir()} == {"scene", *files_of("map")}


def test_the_command_refuses_bad_input_with_one_line(tmp_path, capsys):
    save_weights(tmp_path / "weights", Classifier(description_with()).eval(), {})
    scene = write_scene(tmp_path / "scene", draw_scene(24, 24, names=("B02", "B8A")))
    complete = write_scene(tmp_path / "complete", draw_scene(24, 24))
    out = tmp_path / "map.tif"
    for args, pattern in (
        ([tmp_path / "weights", scene, out], "lacks B04, B01"),
        ([tmp_path / "weights", tmp_path / "no", out], "no such scene"),
        ([tmp_path / "no", complete, out], "holds no weights"),
        ([tmp_path / "weights", complete, out, "--stride", "0"], "--stride"),
    ):
        assert main(["predict", *map(str, args), "--json"]) == 2
        stdout, err = capsys.readouterr()
        assert stdout == ""
        lines = [line for line in err.splitlines() if line.startswith("landscale: ")]
        assert len(lines) == 1
        assert pattern in lines[0]
        assert not out.exists()
    assert Path(complete).is_dir()


@pytest.mark.parametrize(("pixel", "side"), [(0.3048, 24), (0.6096, 12), (0.1524, 48), (10, 1)])
def test_windows_have_the_size_of_the_patches_in_training_for_any_pixel_size(tmp_path, pixel, side):
    """A store of 24 pixels of one foot: windows cover 24 feet of a scene, for any pixel size."""
    store = make_store(tmp_path / "s.h5", planes=(Plane("data_10m", ("B02", "B04"), 24, 0.3048, "uint8"),))
    recipe = Recipe(model="wide_resnet", options={"width": 0.5}, bands="B02,B04")
    stub = Stub(("B02", "B04"), ground=build_classifier(recipe, store).description.ground)
    for band in ("B02", "B04"):
        write_band(tmp_path / "scene" / f"{band}.tif", np.ones((50, 60), np.uint8), pixel)
    predict(stub, tmp_path / "scene", tmp_path / "map.tif")
    assert stub.shapes == {(("B02", "B04"), (2, side, side))}


# ---- the Python functions

RGBN = ("B02", "B03", "B04", "B08")


@pytest.fixture(scope="module")
def interface(tmp_path_factory):
    """Weights, a store and a scene."""
    folder = tmp_path_factory.mktemp("interface")
    make_store(folder / "s.h5", planes=rgbn_plane(12), classes=("dark", "bright"), splits={"val": 5, "test": 9})
    save_weights(folder / "weights", Classifier(description_with(RGBN)).eval(), {})
    write_scene(folder / "scene", draw_scene(24, 24, names=RGBN))
    return folder


def test_evaluate_takes_model_and_store_by_path_or_as_objects(interface):
    expected = evaluate(load_model(interface / "weights"), open_store(interface / "s.h5"), "val", show=False)
    assert isinstance(expected, Scores)
    assert (expected.split, expected.patches) == ("val", 5)
    assert evaluate(interface / "weights", interface / "s.h5", "val", show=False) == expected
    assert evaluate(str(interface / "weights"), str(interface / "s.h5"), split="val", show=False) == expected


def test_evaluate_uses_the_test_split_by_default(interface):
    scores = evaluate(interface / "weights", interface / "s.h5", show=False)
    assert (scores.split, scores.patches) == ("test", 9)


def test_predict_takes_the_model_by_path_or_as_an_object(interface, tmp_path):
    first = predict(str(interface / "weights"), str(interface / "scene"), str(tmp_path / "first.tif"))
    second = predict(load_model(interface / "weights"), interface / "scene", tmp_path / "second.tif", stride=4)
    assert isinstance(first, MapSummary)
    assert (first.width, first.height, first.pixel, first.classes) == (24, 24, 10, ("dark", "bright"))
    assert (first.map, first.stride, first.windows) == (str(tmp_path / "first.tif"), 4, 16)
    for name in ("{}.tif", "{}-probabilities.tif", "{}.qml", "{}.tif.aux.xml", "{}.png"):
        assert (tmp_path / name.format("first")).read_bytes() == (tmp_path / name.format("second")).read_bytes()
    assert second.windows == first.windows
    keys = ["map", "files", "width", "height", "crs", "pixel", "classes", "areas", "not_mapped", "scenes"]
    keys += ["windows", "stride", "offset"]
    assert list(json.loads(json.dumps(first.to_json()))) == keys


def test_errors_name_the_missing_path(interface, tmp_path):
    with pytest.raises(BadInput, match="nothing: holds no weights"):
        evaluate(tmp_path / "nothing", interface / "s.h5")
    with pytest.raises(BadStore, match=r"none\.h5"):
        evaluate(interface / "weights", str(tmp_path / "none.h5"))
    with pytest.raises(BadInput, match="nothing: holds no weights"):
        predict(tmp_path / "nothing", interface / "scene", tmp_path / "map.tif")
    assert not (tmp_path / "map.tif").exists()
