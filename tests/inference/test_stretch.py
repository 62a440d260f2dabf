"""Pictures that record which digital number 255 stands for are converted into digital numbers and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import Cli
from landscale.errors import BadInput, LandscaleError
from landscale.models.classifier import Classifier, Description
from landscale.models.input_units import compare_units, convert, store_source
from landscale.models.weights import load_model, save_weights
from landscale.store import Layout, PatchStore, Plane, open_store
from landscale.testing import make_store
from landscale.training.build import build_classifier
from landscale.training.recipe import Recipe
from landscale.vocabulary.units import Unit, conversion

SIDE = 8
RGB = ("B04", "B03", "B02")
STRETCH = 2750
RECIPE = Recipe(model="wide_resnet", options={"width": 0.5}, bands=",".join(RGB), side=SIDE)


def numbers() -> np.ndarray:
    """Digital numbers (4, 3, side, side), a third of them beyond the stretch."""
    return np.random.default_rng(0).integers(0, 4000, (4, 3, SIDE, SIDE)).astype(np.uint16)


def as_picture(values: np.ndarray, stretch: float = STRETCH) -> np.ndarray:
    return np.clip(values * 255.0 / stretch, 0, 255)


def store_of(path: Path, pixels: np.ndarray, unit: Unit, stretch: float | None = None) -> PatchStore:
    plane = Plane("data_10m", RGB, SIDE, 10, pixels.dtype.name, unit, stretch)
    return make_store(path, planes=(plane,), splits={"train": 4}, pixels={plane.key: pixels}, level="L1C")


def normalised(d: Description, store: PatchStore) -> tuple[np.ndarray, str]:
    """The input of the network for all patches of a store, and the line about the conversion."""
    compared = compare_units(d, store_source(store, d.bands, np.arange(4), stored=False))
    planes = {RGB: torch.from_numpy(store.pixels("data_10m", np.arange(4)))}
    (note,) = compared.notes or ("",)
    return Classifier(d).inputs(convert(planes, compared.factors)).numpy(), note


@pytest.fixture
def picture(tmp_path: Path) -> PatchStore:
    return store_of(tmp_path / "rgb.h5", np.rint(as_picture(numbers())).astype(np.uint8), "8-bit", STRETCH)


def expected_input(d: Description, values: np.ndarray) -> np.ndarray:
    mean, std = (np.array([d.statistics[band][k] for band in RGB])[:, None, None] for k in (0, 1))
    return (values - mean) / std


@pytest.mark.parametrize("unit", ["digital number", "reflectance"])
def test_weights_of_pictures_take_other_units_clipped_as_a_picture(
    tmp_path: Path, picture: PatchStore, unit: Unit
) -> None:
    d = build_classifier(RECIPE, picture).description
    pixels = numbers() if unit == "digital number" else (numbers() / 1e4).astype(np.float32)
    found, note = normalised(d, store_of(tmp_path / "ms.h5", pixels, unit))
    assert np.allclose(found, expected_input(d, as_picture(numbers())), atol=1e-4)
    assert note.endswith("converted into 8-bit picture values (255 is digital number 2750)")


def test_weights_of_digital_numbers_take_pictures_of_known_stretch_only(tmp_path: Path, picture: PatchStore) -> None:
    d = build_classifier(RECIPE, store_of(tmp_path / "ms.h5", numbers(), "digital number")).description
    found, note = normalised(d, picture)
    values = picture.pixels("data_10m", np.arange(4)) * (STRETCH / 255)
    assert np.allclose(found, expected_input(d, values), atol=1e-4)
    assert note.endswith("8-bit picture values (255 is digital number 2750) converted into digital numbers")
    unknown = store_of(tmp_path / "unknown.h5", as_picture(numbers()).astype(np.uint8), "8-bit")
    with pytest.raises(BadInput, match="holds 8-bit picture values in B04, but the weights were trained on digital"):
        normalised(d, unknown)


def test_a_picture_of_another_stretch_is_brought_to_that_of_the_weights(tmp_path: Path, picture: PatchStore) -> None:
    d = build_classifier(RECIPE, picture).description
    darker = store_of(tmp_path / "darker.h5", as_picture(numbers(), 4000).astype(np.uint8), "8-bit", 4000)
    found, _ = normalised(d, darker)
    values = np.clip(darker.pixels("data_10m", np.arange(4)) * (4000 / STRETCH), 0, 255)
    assert np.allclose(found, expected_input(d, values), atol=1e-4)
    unknown = store_of(tmp_path / "unknown.h5", as_picture(numbers()).astype(np.uint8), "8-bit")
    found, note = normalised(d, unknown)
    assert np.allclose(found, expected_input(d, unknown.pixels("data_10m", np.arange(4))), atol=1e-4)
    assert note == ""


def test_a_stretch_is_stored_shown_and_saved_with_weights(tmp_path: Path, picture: PatchStore, cli: Cli) -> None:
    assert open_store(picture.path).layout.stretches() == {"data_10m": STRETCH}
    assert "unit: 8-bit (255 is digital number 2750)" in cli("info", picture.path).out
    classifier = build_classifier(RECIPE, picture)
    save_weights(tmp_path / "w", classifier, {})
    assert load_model(tmp_path / "w").description.stretches == dict.fromkeys(RGB, STRETCH)
    odd = replace(classifier.description, units=dict.fromkeys(RGB, "reflectance"))
    with pytest.raises(LandscaleError, match="the stretch of B04 is 2750"):
        odd.check()


def test_stores_without_a_stretch_have_the_layout_of_earlier_ones() -> None:
    plane = Plane("data_10m", RGB, SIDE, 10, "uint8", "8-bit")
    layout = Layout((plane,), ("a",), "custom", multi_label=False)
    assert "stretch" not in str(layout.to_json())
    assert Layout.from_json(layout.to_json()) == layout
    known = replace(layout, planes=(replace(plane, stretch=2750.5),))
    assert Layout.from_json(known.to_json()) == known
    assert known.identity() == layout.identity()
    for stretch, unit in ((-1, "8-bit"), (0, "8-bit"), (float("inf"), "8-bit"), (2750, "digital number")):
        with pytest.raises(ValueError, match="stretch"):
            replace(plane, stretch=stretch, unit=unit)


def test_conversions_of_units() -> None:
    assert conversion("digital number", "8-bit") is None
    assert conversion("8-bit", "reflectance") is None
    assert conversion("8-bit", "dB", 2750) is None
    assert conversion("dB", "8-bit", None, 2750) is None
    assert conversion("8-bit", "8-bit", None, 2750) == 1
    assert conversion("unknown", "8-bit", None, 2750) == 1
    assert conversion("8-bit", "reflectance", 2550) == pytest.approx(0.001)
    assert conversion("reflectance", "8-bit", None, 2550) == pytest.approx(1000)
    assert conversion("reflectance", "digital number") == 10_000
