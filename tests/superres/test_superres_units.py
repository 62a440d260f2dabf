"""Super-resolution compares the unit and level of scenes with those of the networks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import Cli
from landscale.datasets.images import ImageReader
from landscale.datasets.survey import OneByOne, Survey
from landscale.errors import LandscaleError
from landscale.scenes.scene import open_scene
from landscale.store import Layout
from landscale.store.planes import SENTINEL2
from landscale.superres.stored import with_upsampled
from landscale.superres.train import train_superres
from landscale.superres.weights import load_networks, save_networks
from sharpening import random_networks, read_bands, read_raster, small_shape, write_scene
from weights_folders import entries, write_format_1

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised by rasterio itself
L1C = "S2A_MSIL1C_20170613T101031_N0205_R022_T33UUP_20170613T101608"


def test_reflectance_is_sharpened_like_digital_numbers(cli: Cli, scene: Path, weights: Path, tmp_path: Path) -> None:
    """The result holds digital numbers."""
    bands = read_bands(scene)
    reflectance = {band: (values / 1e4).astype(np.float32) for band, values in bands.items()}
    reflectance["B02"][3, 4] = np.nan
    source = write_scene(tmp_path / "reflectance", reflectance)
    assert cli("superres", "apply", weights, scene, tmp_path / "a").code == 0
    answer = cli("superres", "apply", weights, source, tmp_path / "b")
    assert answer.code == 0
    assert "reflectance: reflectance (0 to 1) converted into digital numbers" in answer.lines[0]
    assert read_raster(tmp_path / "b" / "B02.tif")[3, 4] == 0
    for band in ("B03", "B05", "B09"):
        first, second = (read_raster(tmp_path / out / f"{band}.tif").astype(int) for out in "ab")
        assert np.array_equal(first[60:], second[60:])


def test_8_bit_scenes_are_refused_and_dark_16_bit_ones_warned_of(
    cli: Cli, scene: Path, weights: Path, tmp_path: Path
) -> None:
    pictures = {band: (values // 256 + 1).astype(np.uint8) for band, values in read_bands(scene).items()}
    source = write_scene(tmp_path / "pictures", pictures)
    for words in (("apply", weights, source, tmp_path / "o"), ("evaluate", weights, source), ("train", source, "w")):
        refused = cli("superres", *words)
        assert refused.code == 2
        assert "holds 8-bit picture values, expected digital numbers or reflectance" in refused.lines[-1]
    wide = write_scene(tmp_path / "wide", {band: values.astype(np.uint16) for band, values in pictures.items()})
    assert "like those of 8-bit pictures" in cli("superres", "apply", weights, wide, tmp_path / "o").lines[0]


def test_the_level_is_written_shown_and_compared(
    cli: Cli, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("landscale.superres.train.network_shape", small_shape)
    monkeypatch.setattr("landscale.superres.train.MAX_STEPS", {20: 1, 60: 1})
    toa = write_scene(tmp_path / L1C, read_bands(scene))
    weights = tmp_path / "dsen2"
    train_superres([toa], weights, torch.device("cpu"), 600.0)
    assert "unit: digital number; level: L1C" in cli("info", weights).out
    assert (open_scene(toa).level, open_scene(scene).level) == ("L1C", "L2A")
    assert cli("superres", "apply", weights, toa, tmp_path / "same").lines == []
    assert open_scene(tmp_path / "same").level == "L1C"
    warned = cli("superres", "apply", weights, scene, tmp_path / "other")
    assert "warning: is of level L2A, but the networks were trained on L1C" in warned.lines[0]


def test_networks_of_both_levels_have_no_level(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("landscale.superres.train.network_shape", small_shape)
    monkeypatch.setattr("landscale.superres.train.MAX_STEPS", {20: 1, 60: 1})
    toa = write_scene(tmp_path / L1C, read_bands(scene))
    train_superres([toa, scene], tmp_path / "w", torch.device("cpu"), 600.0)
    assert "warning: trained on scenes of levels L1C and L2A" in capsys.readouterr().err
    assert entries(tmp_path / "w")["level"] == "unknown"


def test_older_weights_have_an_unknown_level_and_others_are_refused(tmp_path: Path) -> None:
    save_networks(tmp_path / "w", random_networks(0.0), {})
    write_format_1(tmp_path / "w")
    config = json.loads((tmp_path / "w" / "config.json").read_text())
    del config["unit"], config["level"]
    (tmp_path / "w" / "config.json").write_text(json.dumps(config | {"landscale_format": 1}))
    assert load_networks(tmp_path / "w")[1]["level"] == "unknown"
    (tmp_path / "w" / "config.json").write_text(json.dumps(config | {"landscale_format": 1, "level": "L3"}))
    with pytest.raises(Exception, match="L3"):
        load_networks(tmp_path / "w")


def test_upsampling_of_a_store_compares_units_and_levels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_networks(tmp_path / "w", random_networks(0.0), {}, "L1C")
    layout = Layout(SENTINEL2, ("forest",), "custom", multi_label=True, level="L2A")
    survey = Survey(layout, pd.DataFrame(), None, OneByOne(ImageReader("data_10m")), {})
    upsampled = with_upsampled(survey, "dsen2", tmp_path / "w")
    assert "warning: is of level L2A, but the networks were trained on L1C" in capsys.readouterr().err
    assert upsampled.layout.planes[-1].unit == "digital number"
    reflectance = tuple(replace(plane, dtype="float32", unit="reflectance") for plane in SENTINEL2)
    with pytest.raises(LandscaleError, match="expected digital numbers, found reflectance"):
        with_upsampled(replace(survey, layout=replace(layout, planes=reflectance)), "bilinear")
