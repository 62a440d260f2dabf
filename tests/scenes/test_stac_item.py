"""STAC items: their bands and files, and offsets that catalogues state rightly or wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Cli
from landscale.errors import BadInput
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene
from layouts import asset, item, stack, write_item
from products import write_jp2, write_tiffs

pytestmark = pytest.mark.filterwarnings(
    "ignore::PendingDeprecationWarning"
)  # of rasterio, in its own affine transforms
BANDS = ("B02", "B03", "B04")
APPLIED = "earthsearch:boa_offset_applied"


def land(offset: int) -> dict[str, np.ndarray]:
    """Land with some water: most numbers are 100 to 800, as in red over vegetation."""
    values = np.random.default_rng(0).integers(10, 800, (3, 120, 120)).astype(np.uint16) + np.uint16(offset)
    return dict(zip(BANDS, values, strict=True))


def write(folder: Path, added: int, offset: float | None, **properties: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_tiffs(folder, "bands", land(added))
    return write_item(folder / "item.json", {b: asset(f"bands/{b}.tif", b, offset) for b in BANDS}, **properties)


@pytest.mark.parametrize(
    ("added", "stated", "properties", "found"),
    [
        (1000, -0.1, {APPLIED: False}, 1000),
        (1000, None, {}, 1000),  # by the baseline, as in the Planetary Computer
        (1000, None, {"s2:processing_baseline": 5.0}, 1000),
        (0, -0.1, {APPLIED: True}, 0),
        (0, -0.1, {"sentinel:boa_offset_applied": True}, 0),
        (0, 0, {"s2:processing_baseline": "02.14"}, 0),
        (0, -0.1, {"s2:processing_baseline": "02.14", APPLIED: False}, 0),
        (0, -0.1, {APPLIED: False}, 0),  # a wrong flag, as for many products of 2022 and 2025
        (0, None, {}, 0),
    ],
)
def test_the_offset_of_an_item(
    added: int, stated: float | None, properties: dict[str, Any], found: int, tmp_path: Path, capsys: Any
) -> None:
    scene = open_scene(write(tmp_path, added, stated, **properties))
    assert (scene.offset, scene.offset_known, scene.level, scene.unit) == (found, True, "L2A", "digital number")
    with ScenePixels(scene, BANDS) as pixels:
        pixels.check_offset()
        assert np.array_equal(pixels.harmonise(pixels.read("B03", 0, 120)), land(0)["B03"])
    wrong = added == 0 and properties in ({}, {APPLIED: False})
    assert ("has been subtracted already" in capsys.readouterr().err) == wrong


def test_pixels_that_still_have_the_offset_are_refused_although_the_item_denies_it(tmp_path: Path) -> None:
    scene = open_scene(write(tmp_path, 1000, -0.1, **{APPLIED: True}))
    with (
        ScenePixels(scene, BANDS) as pixels,
        pytest.raises(BadInput, match="although its metadata state that none was"),
    ):
        pixels.check_offset()
    with ScenePixels(open_scene(tmp_path / "item.json", 1000), BANDS) as pixels:
        pixels.check_offset()


def test_original_jp2_files_need_no_comparison(tmp_path: Path) -> None:
    """Digital numbers of ESA's own files may lie below the offset; a catalogue that describes these files is right."""
    for band, values in land(0).items():
        write_jp2(tmp_path / f"{band}.jp2", values, 10)
    scene = open_scene(write_item(tmp_path / "item.json", {b: asset(f"{b}.jp2", b) for b in BANDS}))
    assert (scene.offset, scene.offset_certain) == (1000, True)


def test_files_on_the_web_must_be_downloaded(tmp_path: Path, cli: Cli) -> None:
    href = "https://example.org/S2A_33LTA_20990101_0_L2A/B02.tif?sig=1"
    path = write_item(tmp_path / "item.json", {"blue": asset(href, "B02"), "red": asset("s3://bucket/B04.tif", "B04")})
    answer = cli("info", path)
    assert answer.code == 2
    (line,) = answer.lines
    assert f"lists files on the web, such as {href}; download them into the folder of the item" in line
    write_tiffs(tmp_path, "S2A_33LTA_20990101_0_L2A", {"B02": land(0)["B02"]})
    assert list(open_scene(path).files) == ["B02"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "is not a STAC item"),
        ("{", "is not valid JSON"),
        ('{"type": "FeatureCollection"}', "it lacks stac_version, assets"),
        (lambda: item({"blue": {"href": 3}}), "Expected str, got int"),
        (lambda: item({"scl": {"href": "SCL.tif"}}), "lists no raster of a band"),
        (lambda: item({"blue": asset("B02.tif", "B02")}), "lists B02.tif, which is missing"),
        (lambda: item({"blue": asset("/vsicurl/http://localhost/B02.tif", "B02")}), "which is missing"),
        (lambda: item({"blue": asset("B03.tif", "B02", 0.1)}), "has an offset of -1000"),
        (lambda: item({"a": asset("B03.tif", "B02"), "b": asset("B03.tif", "B03", -0.2)}), "has different offsets"),
    ],
)
def test_other_items_are_refused_in_one_line(
    content: str | Callable[[], Any], problem: str, tmp_path: Path, cli: Cli
) -> None:
    path = tmp_path / "item.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content()))
    answer = cli("info", path)
    assert answer.code == 2
    assert problem in answer.lines[0]
    assert len(answer.lines) == 1


def test_bands_of_one_asset(tmp_path: Path) -> None:
    """An asset with several bands is a stack; a name is more than a common name, which three bands share."""
    raster = stack(tmp_path, land(0))
    bands = [{"name": "AOT"}, {"name": "B04", "common_name": "red"}, {"name": "B03"}, {"common_name": "blue"}]
    path = write_item(tmp_path / "item.json", {"data": {"href": raster.name, "eo:bands": bands}})
    scene = open_scene(path)
    assert dict(scene.indexes) == {"B04": 2, "B03": 3, "B02": 4}
    with ScenePixels(scene, BANDS) as pixels:
        assert np.array_equal(pixels.harmonise(pixels.read("B02", 0, 120)), land(0)["B02"])


@pytest.mark.parametrize("href", ["B" * 4000 + ".tif", "B\0.tif", "/dev/zero.tif"])
def test_odd_hrefs_are_missing_files(href: str, tmp_path: Path, cli: Cli) -> None:
    answer = cli("info", write_item(tmp_path / "item.json", {"blue": asset(href, "B02")}))
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "which is missing" in answer.lines[0]


def test_an_infinite_offset_states_nothing(tmp_path: Path) -> None:
    scene = open_scene(write(tmp_path, 1000, 1e308))
    assert scene.offset == 1000  # by the baseline
