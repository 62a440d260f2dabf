"""Cloud, shadow and snow have no class in a map: by the scene classification of the product, or a raster of the user."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from conftest import Cli
from landscale.errors import BadInput
from landscale.models.classifier import Classifier
from landscale.models.weights import save_weights
from mapped import (
    ORIGIN,
    Stub,
    description_with,
    draw_scene,
    names_in,
    predict,
    read_map,
    read_raster,
    write_band,
    write_map,
    write_scene,
)
from products import classification, noise, write_safe

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised by rasterio itself
SIDE = 48  # px of 10 m; two rows of 20 m for each of the 12 codes
LABELS = ["mapped", "nodata", "saturated", "shadow", "cloud", "cirrus", "snow", "mask", "outside"]


def codes() -> np.ndarray:
    """A scene classification of 20 m: code k in rows 2k and 2k + 1."""
    return np.arange(12).repeat(2)[:, None].repeat(SIDE // 2, 1).astype(np.uint8)


@pytest.fixture
def scene(tmp_path):
    folder = write_scene(tmp_path / "scene", draw_scene(SIDE, SIDE))
    write_band(folder / "SCL.tif", codes(), 20)
    return folder


@pytest.mark.parametrize(("classes", "snow"), [(("dark", "bright"), True), (("Barren", "Snow/Ice"), False)])
def test_masked_pixels_have_no_class_and_are_counted(scene, tmp_path, classes, snow):
    summary = predict(Stub(classes=classes), scene, tmp_path / "map.tif", show_entropy=True)
    hidden = [0, 1, 3, 8, 9, 10] + [11] * snow
    expected = np.isin(codes(), hidden).repeat(2, 0).repeat(2, 1)
    assert ((read_raster(tmp_path / "map.tif")[0][0] == 255) == expected).all()
    assert (np.isnan(read_map(tmp_path / "map.tif")[0]) == expected).all()
    assert ((read_raster(tmp_path / "map-entropy.tif")[0][0] == 255) == expected).all()
    rows = 4 * SIDE  # pixels of one code
    assert summary.not_mapped == {
        "nodata": rows,
        "saturated": rows,
        "shadow": rows,
        "cloud": 2 * rows,
        "cirrus": rows,
        "snow": rows * snow,
        "mask": 0,
        "outside": 0,
    }
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.tags()["MASK"] == "scene classification"


def test_what_is_not_masked_is_as_without_a_mask(scene, tmp_path):
    predict(Stub(), scene, tmp_path / "masked.tif")
    summary = predict(Stub(), scene, tmp_path / "whole.tif", mask=False)
    masked, whole = (read_map(tmp_path / name)[0] for name in ("masked.tif", "whole.tif"))
    assert np.isfinite(whole).all()
    known = np.isfinite(masked)
    assert np.array_equal(masked[known], whole[known])
    assert set(summary.not_mapped.values()) == {0}


@pytest.mark.parametrize("gsd", [10, 20, 30, 60])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_raster_of_the_user_replaces_the_scene_classification(scene, tmp_path, gsd, dtype):
    marks = (np.random.default_rng(0).random((960 // gsd, 960 // gsd)) < 0.3) * (
        0.4 if dtype == "float32" else 300 % 256
    )
    write_band(tmp_path / "clouds.tif", marks.astype(dtype), gsd, (ORIGIN[0] - 240, ORIGIN[1] + 240))
    summary = predict(Stub(), scene, tmp_path / "map.tif", mask=tmp_path / "clouds.tif")
    fine = (marks != 0).repeat(gsd // 10, 0).repeat(gsd // 10, 1)[24 : 24 + SIDE, 24 : 24 + SIDE]
    assert ((read_raster(tmp_path / "map.tif")[0][0] == 255) == fine).all()
    assert summary.not_mapped["mask"] == fine.sum()
    assert summary.not_mapped["cloud"] == 0
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.tags()["MASK"] == "mask clouds.tif"


def test_a_mask_in_which_the_coarse_pixels_end_early_is_taken(tmp_path):
    """A scene of 47 px has 23 whole pixels of 20 m; the last row and column take the value of their neighbour."""
    folder = write_scene(tmp_path / "scene", draw_scene(47, 47, rounding=int))
    marks = np.zeros((23, 23), np.uint8)
    marks[-1] = 1
    write_band(tmp_path / "clouds.tif", marks, 20)
    predict(Stub(), folder, tmp_path / "map.tif", mask=tmp_path / "clouds.tif")
    empty = read_raster(tmp_path / "map.tif")[0][0] == 255
    assert empty[44:].all()
    assert not empty[:44].any()


def test_a_mask_of_another_place_is_refused(scene, tmp_path):
    small, near = tmp_path / "small.tif", tmp_path / "near.tif"
    write_band(small, np.zeros((SIDE, SIDE - 1), np.uint8), 10)
    write_band(near, np.zeros((SIDE, SIDE), np.uint8), 10, (ORIGIN[0] + 10, ORIGIN[1]))
    for mask in (small, near):
        with pytest.raises(BadInput, match="does not cover the scene"):
            predict(Stub(), scene, tmp_path / "map.tif", mask=mask)
    write_band(tmp_path / "zone.tif", np.zeros((SIDE, SIDE), np.uint8), 10, crs="EPSG:32633")
    with pytest.raises(BadInput, match=r"zone\.tif: lies in EPSG:32633, expected EPSG:32632"):
        predict(Stub(), scene, tmp_path / "map.tif", mask=tmp_path / "zone.tif")
    (tmp_path / "text.tif").write_text("clouds")
    with pytest.raises(BadInput, match=r"text\.tif: cannot be read"):
        predict(Stub(), scene, tmp_path / "map.tif", mask=tmp_path / "text.tif")
    assert names_in(tmp_path) == {"scene", "small.tif", "near.tif", "zone.tif", "text.tif"}


def test_the_mask_itself_is_never_replaced(scene, tmp_path):
    write_band(tmp_path / "clouds.tif", np.zeros((SIDE, SIDE), np.uint8), 10)
    before = (tmp_path / "clouds.tif").read_bytes()
    with pytest.raises(BadInput, match="is an input"):
        write_map(Stub(), scene, tmp_path / "clouds.tif", mask=tmp_path / "clouds.tif")
    assert (tmp_path / "clouds.tif").read_bytes() == before


def test_mask_options_on_the_command_line(scene, tmp_path, cli: Cli):
    save_weights(tmp_path / "weights", Classifier(description_with()).eval(), {})
    words = "predict", tmp_path / "weights", scene, tmp_path / "map.tif", "--json"
    assert cli(*words).json["not_mapped"]["cloud"] == 8 * SIDE
    assert cli(*words, "--no-mask").json["not_mapped"]["cloud"] == 0
    assert cli(*words, "--no-mask", "--mask", scene / "SCL.tif").code == 2
    (scene / "SCL.tif").unlink()
    answer = cli(*words)
    assert answer.code == 0
    assert any("no scene classification found" in line for line in answer.lines)


@pytest.mark.parametrize("packed", [False, True])
def test_the_scene_classification_of_a_product_is_found(tmp_path, packed):
    """In a `.SAFE` folder at 20 m, unpacked or in its zip."""
    name = "S2A_MSIL2A_20220706T085611_N0400_R007_T33NZA_20220706T153419"
    scl = classification(120)
    product = write_safe(tmp_path, name, noise(120), scl, offset=1000)
    if packed:
        product = Path(shutil.make_archive(str(product), "zip", tmp_path, product.name))
    summary = predict(Stub(), product, tmp_path / "map.tif")
    hidden = np.isin(scl, [0, 1, 3, 8, 9, 10, 11]).repeat(2, 0).repeat(2, 1)
    assert ((read_raster(tmp_path / "map.tif")[0][0] == 255) == hidden).all()
    assert summary.offset == 1000
    assert summary.not_mapped["snow"] == 4 * (scl == 11).sum()
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.tags()["SCENE"], file.tags()["ACQUIRED"]) == (f"{name}.SAFE", "2022-07-06T08:56:11Z")


def test_a_stack_has_its_scene_classification_as_a_band(tmp_path):
    """The map is that of the same scene in a folder; 65535, which is no code, marks pixels without data."""
    bands = draw_scene(SIDE, SIDE)
    folder = write_scene(tmp_path / "scene", bands)
    fine = codes().repeat(2, 0).repeat(2, 1)
    write_band(folder / "SCL.tif", fine, 10)
    layers = {
        name: values.repeat(SIDE // len(values), 0).repeat(SIDE // len(values), 1) for name, values in bands.items()
    }
    layers["SCL"] = np.where(fine == 0, 65_535, fine).astype(np.uint16)
    write_band(tmp_path / "one.tif", layers["B02"], 10)
    with rasterio.open(tmp_path / "one.tif") as file:
        profile = file.profile | {"count": len(layers)}
    names = ["B02", "SCL", "B04", "B8A", "B01"]
    with rasterio.open(tmp_path / "stack.tif", "w", **profile) as file:
        file.write(np.stack([layers[name] for name in names]))
        file.descriptions = names
    expected = predict(Stub(), folder, tmp_path / "a.tif")
    found = predict(Stub(), tmp_path / "stack.tif", tmp_path / "b.tif")
    assert expected.not_mapped["cloud"] > 0
    assert found.not_mapped == expected.not_mapped
    assert np.array_equal(read_raster(tmp_path / "a.tif")[0], read_raster(tmp_path / "b.tif")[0])
    with rasterio.open(tmp_path / "stack.tif", "r+") as file:
        file.descriptions = ["scl_20m", "SCL", *names[2:]]
    with pytest.raises(BadInput, match="has two bands named SCL: 1 and 2"):
        predict(Stub(), tmp_path / "stack.tif", tmp_path / "b.tif")
