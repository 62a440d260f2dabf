"""`landscale explain` on a scene: the heat lies where the evidence is, on one scale, on the grid of the scene."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rio_cogeo import cog_validate

from conftest import Cli
from landscale.explain.scene import explain_scene
from mapped import write_scene
from spots import CLASSES, SIDE, SPOT

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised by rasterio itself
HEIGHT, WIDTH = 4 * SIDE + 6, 5 * SIDE
PLACES = {"B02": (10, 20), "B03": (60, 80)}  # upper left corners of one square of each class


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise with a bright square in B02 and one in B03; the last three columns have no data."""
    rng = np.random.default_rng(3)
    bands = {}
    for name in ("B02", "B03", "B04", "B08"):
        values = rng.normal(1000, 100, (HEIGHT, WIDTH))
        if name in PLACES:
            top, left = PLACES[name]
            values[top : top + SPOT, left : left + SPOT] += 800
        values[:, -3:] = 0
        bands[name] = values.astype(np.uint16)
    return write_scene(tmp_path_factory.mktemp("scenes") / "scene", bands)


@pytest.fixture(scope="module")
def explained(spotted, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("explained") / "out"
    explain_scene(str(spotted[1]), str(scene), str(out), CLASSES, offset=0, batch=4, show=False)
    return out


def test_the_heat_of_each_class_is_at_its_square(explained: Path) -> None:
    with rasterio.open(explained / "heat.tif") as file:
        heat, tags = file.read(), file.tags()
        assert file.descriptions == CLASSES
        assert (file.shape, file.transform.c, file.transform.f) == ((HEIGHT, WIDTH), 399_960.0, 5_300_040.0)
    assert cog_validate(explained / "heat.tif", strict=True)[0]
    assert float(tags["HEAT_OF_ONE"]) > 0
    assert (heat[:, :, -3:] == 255).all()
    assert heat[:, :, :-3].max() == 250
    for values, (top, left) in zip(heat.astype(float), PLACES.values(), strict=True):
        values[values == 255] = 0
        near = values[max(top - 8, 0) : top + SPOT + 8, left - 8 : left + SPOT + 8]
        share = near.size / values.size
        assert near.sum() > 5 * share * values.sum()
        row, column = np.unravel_index(values.argmax(), values.shape)
        assert top - 4 <= row < top + SPOT + 4
        assert left - 4 <= column < left + SPOT + 4


def test_the_page_has_a_picture_of_each_class(explained: Path) -> None:
    assert {path.name for path in explained.iterdir()} == {"heat.tif", "index.html", "explanation.json"}
    text = (explained / "index.html").read_text(encoding="utf-8")
    assert text.count("<img") == 1 + len(CLASSES)
    assert "http" not in text.replace("http-equiv", "")
    assert json.loads((explained / "explanation.json").read_text())["classes"] == list(CLASSES)


def test_the_command_and_an_area(explained: Path, spotted, scene: Path, tmp_path: Path, cli: Cli) -> None:
    """Within the area the pattern is that of the whole scene, as the windows are."""
    words = ("explain", spotted[1], scene, tmp_path / "out", "--offset", 0, "--json")
    answer = cli(*words, "--batch", 4)
    assert answer.code == 0, answer.lines
    assert set(answer.json["classes"]) <= set(CLASSES)
    left, top = 399_960.0 + 100, 5_300_040.0 - 60
    polygon = shapely.box(left, top - 240, left + 300, top)
    geopandas.GeoDataFrame(geometry=[polygon], crs="EPSG:32632").to_file(tmp_path / "area.gpkg")
    answer = cli(*words, "--class", "blue", "--aoi", tmp_path / "area.gpkg")
    assert answer.code == 0, answer.lines
    assert (answer.json["height"], answer.json["width"]) == (24, 30)
    with rasterio.open(tmp_path / "out" / "heat.tif") as file:
        part = file.read(1) / 250 * float(file.tags()["HEAT_OF_ONE"])
        assert (file.transform.c, file.transform.f) == (left, top)
    with rasterio.open(explained / "heat.tif") as file:
        one = float(file.tags()["HEAT_OF_ONE"])
        whole = file.read(1)[6:30, 10:40] / 250 * one
    kept = (part < 0.9 * part.max()) & (whole < 0.9 * one)  # above, values are clipped
    assert np.abs(part - whole)[kept].max() < 0.02 * one


@pytest.mark.parametrize(
    "words,part",
    [
        (["--class", "bleu"], "unknown class 'bleu'; did you mean blue?"),
        (["--split", "test"], "--split is that of a store"),
        (["--batch", "0"], "--batch: found 0, expected at least 1"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    words: list[str], part: str, spotted, scene: Path, tmp_path: Path, cli: Cli
) -> None:
    answer = cli("explain", spotted[1], scene, tmp_path / "out", "--offset", 0, *words)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert part in answer.lines[0]
    assert not (tmp_path / "out").exists()


def test_an_area_of_a_store_is_refused(spotted, tmp_path: Path, cli: Cli) -> None:
    answer = cli("explain", spotted[1], spotted[0].path, tmp_path / "out", "--offset", 0)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "those of a scene" in answer.lines[0]
