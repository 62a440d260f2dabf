"""Weights are applied to pixels of their own unit and level; others are converted, refused in one line, or warned of."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from conftest import Cli
from landscale.errors import LandscaleError
from landscale.inference.evaluate import evaluate
from landscale.maps.predict import predict
from landscale.models.classifier import Classifier
from landscale.models.weights import load_model, save_weights
from landscale.store import PatchStore, Plane
from landscale.testing import make_store
from landscale.training.build import build_classifier
from landscale.training.recipe import Recipe
from landscale.vocabulary.units import Level, Unit
from weights_folders import write_format_2

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised by rasterio itself
SIDE = 12
RGB = ("B04", "B03", "B02")
RECIPE = Recipe(model="wide_resnet", options={"width": 0.5}, bands=",".join(RGB))
SPLITS = {"train": 6, "test": 6}
PRODUCT = "S2A_MSIL2A_20170613T101031_N0205_R022_T33UUP_20170613T101608"


def numbers(seed: int = 0) -> np.ndarray:
    """Digital numbers (12, 3, side, side) of 300 to 5000."""
    return np.random.default_rng(seed).integers(300, 5000, (12, 3, SIDE, SIDE)).astype(np.uint16)


def store_of(path: Path, pixels: np.ndarray, unit: Unit, level: Level = "L2A") -> PatchStore:
    plane = Plane("data_10m", RGB, SIDE, 10, pixels.dtype.name, unit)
    return make_store(path, planes=(plane,), splits=SPLITS, pixels={plane.key: pixels}, level=level)


def weights_of(folder: Path, store: PatchStore) -> Path:
    """Untrained weights with the statistics of a store."""
    save_weights(folder, build_classifier(RECIPE, store), {})
    return folder


def without_units(weights: Path, folder: Path) -> Path:
    """A copy of weights as they were written before units were recorded."""
    shutil.copytree(weights, folder)
    write_format_2(folder)
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in {"units", "level", "config_digest"}}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config | {"config_digest": digest}))
    return folder


def write_scene(folder: Path, bands: Mapping[str, np.ndarray]) -> Path:
    folder.mkdir()
    for name, values in bands.items():
        height, width = values.shape
        profile = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": values.dtype.name}
        place = {"crs": "EPSG:32633", "transform": from_origin(600_000, 5_000_000, 10, 10)}
        with rasterio.open(folder / f"{name}.tif", "w", **profile, **place) as file:
            file.write(values, 1)
    return folder


def scene_of(folder: Path, kind: str = "uint16", seed: int = 1) -> Path:
    """A scene of 30×26 px with digital numbers of 300 to 5000, or those as reflectance or 8-bit picture."""
    drawn = np.random.default_rng(seed).integers(300, 5000, (3, 30, 26))
    kinds = {"uint16": drawn.astype(np.uint16), "float32": (drawn / 1e4).astype(np.float32)}
    kinds["uint8"] = (drawn // 20).astype(np.uint8)
    return write_scene(folder, dict(zip(RGB, kinds[kind], strict=True)))


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


def test_weights_of_8_bit_pictures_are_refused_on_16_bit_bands_of_the_same_names(tmp_path: Path, cli: Cli) -> None:
    """As EuroSAT is published: JPEGs of red, green and blue, and 13 bands of 16 bits."""
    pictures = store_of(tmp_path / "rgb.h5", (numbers() // 20).astype(np.uint8), "8-bit", "L1C")
    bands = store_of(tmp_path / "ms.h5", numbers(), "digital number", "L1C")
    weights = weights_of(tmp_path / "w", pictures)
    refused = cli("evaluate", weights, bands.path)
    assert refused.code == 2
    (line,) = refused.lines
    assert "ms.h5: holds digital numbers in B04, but the weights were trained on 8-bit picture values" in line
    for name in (PRODUCT, "mybands"):  # without the name of a product, the numbers themselves exceed 8 bits
        refused = cli("predict", weights, scene_of(tmp_path / name), tmp_path / "map.tif")
        assert refused.code == 2
        assert "but the weights were trained on 8-bit picture values" in refused.lines[-1]
        assert not (tmp_path / "map.tif").exists()
    assert cli("evaluate", weights, pictures.path).code == 0
    assert cli("predict", weights, scene_of(tmp_path / "picture", "uint8"), tmp_path / "map.tif").code == 0


def test_digital_numbers_are_refused_an_8_bit_scene(tmp_path: Path, cli: Cli) -> None:
    weights = weights_of(tmp_path / "w", store_of(tmp_path / "s.h5", numbers(), "digital number"))
    refused = cli("predict", weights, scene_of(tmp_path / "picture", "uint8"), tmp_path / "map.tif")
    assert refused.code == 2
    assert "holds 8-bit picture values in B04, but the weights were trained on digital numbers" in refused.lines[-1]
    assert len(refused.lines) == 1


@pytest.mark.parametrize("trained_on", ["digital number", "reflectance"])
def test_reflectance_and_digital_numbers_are_converted_into_each_other(
    tmp_path: Path, trained_on: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stores = {
        "digital number": store_of(tmp_path / "dn.h5", numbers(), "digital number"),
        "reflectance": store_of(tmp_path / "r.h5", (numbers() / 1e4).astype(np.float32), "reflectance"),
    }
    own = stores.pop(trained_on)
    (other,) = stores.values()
    model = build_classifier(RECIPE, own).eval()
    expected = evaluate(model, own, show=False)
    assert capsys.readouterr().err == ""
    found = evaluate(model, other, show=False)
    assert "converted into" in one_line(capsys.readouterr().err)
    assert found.macro_ap == pytest.approx(expected.macro_ap, abs=1e-6)
    maps = []
    for kind in ("uint16", "float32"):
        (tmp_path / kind).mkdir()
        predict(model, scene_of(tmp_path / kind / PRODUCT, kind), tmp_path / f"{kind}.tif")
        with rasterio.open(tmp_path / f"{kind}.tif") as file:
            maps.append(file.read())
    assert np.allclose(maps[0], maps[1], atol=1e-4)
    assert maps[0].std() > 1e-4
    notes = [line for line in capsys.readouterr().err.splitlines() if "converted" in line]
    assert len(notes) == 1
    assert ("uint16" if trained_on == "reflectance" else "float32") in notes[0]


def test_another_level_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    l1c = store_of(tmp_path / "l1c.h5", numbers(), "digital number", "L1C")
    model = build_classifier(RECIPE, l1c).eval()
    evaluate(model, l1c, show=False)
    assert capsys.readouterr().err == ""
    evaluate(model, store_of(tmp_path / "l2a.h5", numbers(), "digital number"), show=False)
    assert "l2a.h5: warning: is of level L2A, but the weights were trained on L1C" in one_line(capsys.readouterr().err)
    predict(model, scene_of(tmp_path / PRODUCT), tmp_path / "map.tif")
    assert f"{PRODUCT}: warning: is of level L2A" in capsys.readouterr().err


def test_older_weights_and_stores_are_compared_by_their_numbers(tmp_path: Path, cli: Cli) -> None:
    bright = store_of(tmp_path / "bright.h5", numbers(), "digital number")
    dark = store_of(tmp_path / "dark.h5", (numbers() // 20).astype(np.uint8), "8-bit")
    older = without_units(weights_of(tmp_path / "w", dark), tmp_path / "older")
    assert cli("evaluate", older, dark.path).lines == []
    warned = cli("evaluate", older, bright.path)
    assert warned.code == 0
    (warning,) = warned.lines
    assert "bright.h5: warning: its pixels are 19.1 times" in warning
    assert "the weights do not record their unit" in warning
    shown = cli("info", older, "--json").json
    assert (shown["units"], shown["level"]) == (dict.fromkeys(RGB, "unknown"), "unknown")
    unknown = store_of(tmp_path / "unknown.h5", numbers(), "unknown", "unknown")
    weights = weights_of(tmp_path / "dn", bright)
    assert cli("evaluate", weights, unknown.path).lines == []
    tenth = store_of(tmp_path / "tenth.h5", (numbers() // 10).astype(np.uint16), "unknown", "unknown")
    assert "it does not record their unit" in cli("evaluate", weights, tenth.path).lines[0]
    fractions = store_of(tmp_path / "fractions.h5", (numbers() / 1e4).astype(np.float32), "unknown", "unknown")
    refused = cli("evaluate", weights, fractions.path)
    assert refused.code == 2
    assert "holds numbers from 0.03" in refused.lines[0]


def test_units_and_level_are_written_shown_and_sealed(tmp_path: Path, cli: Cli) -> None:
    store = store_of(tmp_path / "s.h5", numbers(), "digital number", "L1C")
    weights = weights_of(tmp_path / "w", store)
    d = load_model(weights).description
    assert (d.units, d.level) == (dict.fromkeys(RGB, "digital number"), "L1C")
    assert "unit: digital number; level: L1C" in cli("info", weights).out
    assert "unit: digital number\n  level: L1C" in cli("info", store.path).out
    config = (weights / "config.json").read_text()
    (weights / "config.json").write_text(config.replace('"L1C"', '"L2A"'))
    assert "is damaged or was edited" in cli("info", weights).lines[0]


def test_radar_has_no_level(tmp_path: Path) -> None:
    plane = Plane("data_s1", ("VV", "VH"), SIDE, 10, "float32", "dB")
    pixels = np.random.default_rng(0).normal(-12, 3, (12, 2, SIDE, SIDE)).astype(np.float32)
    store = make_store(tmp_path / "s.h5", planes=(plane,), splits=SPLITS, pixels={"data_s1": pixels})
    d = build_classifier(replace(RECIPE, bands="s1"), store).description
    assert (d.units, d.level) == ({"VV": "dB", "VH": "dB"}, "not applicable")


def test_a_logarithm_of_reflectance_is_refused(tmp_path: Path) -> None:
    """All reflectances have nearly the same value of ln(x + 100)."""
    store = store_of(tmp_path / "s.h5", (numbers() / 1e4).astype(np.float32), "reflectance")
    with pytest.raises(LandscaleError, match=r"--scale log: .* holds reflectance in B04, expected digital numbers"):
        build_classifier(replace(RECIPE, scale="log"), store)


def test_a_mean_of_logarithms_is_compared_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_of(tmp_path / "s.h5", numbers(), "digital number")
    d = build_classifier(replace(RECIPE, scale="log"), store).description
    unknown = Classifier(replace(d, units={}, level="unknown")).eval()
    evaluate(unknown, store, show=False)
    assert capsys.readouterr().err == ""
    evaluate(unknown, store_of(tmp_path / "d.h5", (numbers() // 20).astype(np.uint8), "8-bit"), show=False)
    assert "warning: its pixels are 0.05" in capsys.readouterr().err
