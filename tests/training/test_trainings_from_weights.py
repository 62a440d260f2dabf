"""A training that begins from weights: their network, their normalisation and units, and resuming without them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from landscale.cli import main
from landscale.models.weights import load_model, save_weights
from landscale.runtime.signals import Stopped
from landscale.store import Plane
from landscale.testing import make_store
from landscale.training.build import build_classifier
from landscale.training.recipe import load_recipe
from landscale.training.runs import Run
from trainings import PLAIN, flags, interrupted_learning, learn, outcome

SIDE = 12
BANDS = ("B02", "B03", "B04", "B08")
SPLITS = {"train": 24, "val": 12}
ENCODER = replace(PLAIN, scale="linear", bands="B04,B03,B02", options={"width": 0.5, "depth": 16})
# Nothing but the network and its input depends on --init.
PLAIN_FLAGS = [word for word in flags(replace(PLAIN, scale="linear")) if not word.startswith(("--model", "--options"))]


def numbers(seed: int = 0) -> np.ndarray:
    """Digital numbers (36, 4, side, side), a multiple of 50, so that every unit holds them exactly."""
    return np.random.default_rng(seed).integers(2, 50, (36, len(BANDS), SIDE, SIDE)).astype(np.uint16) * 50


def store_of(path: Path, pixels: np.ndarray, unit: str, level: str = "L2A", **more: float):
    plane = Plane("data_10m", BANDS, SIDE, 10, pixels.dtype.name, unit, **more)
    return make_store(path, planes=(plane,), splits=SPLITS, pixels={plane.key: pixels}, level=level, seed=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return store_of(tmp_path_factory.mktemp("stores") / "dn.h5", numbers(), "digital number")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Weights of red, green and blue digital numbers twice as bright as in the store, with random parameters and a limit."""
    folder = tmp_path_factory.mktemp("encoder")
    classifier = build_classifier(ENCODER, store_of(folder / "s.h5", 2 * numbers(1), "digital number"))
    d = replace(classifier.description, limits={"B04": (100.0, 2000.0)})
    save_weights(folder / "weights", type(classifier)(d, classifier.network), {})
    return folder / "weights"


def changed_encoder(encoder: Path, folder: Path, **changes: object) -> Path:
    model = load_model(encoder)
    save_weights(folder, type(model)(replace(model.description, **changes), model.network), {})
    return folder


def config_of(run: Path) -> dict:
    return json.loads(json.dumps(load_model(run).description.__dict__, default=dict))


def train_lines(capsys, store, run, *words):
    """Exit code and lines of stderr of a training of one epoch."""
    code = main(["train", f"--store={store.path}", f"--run={run}", *PLAIN_FLAGS, "--epochs=1", *map(str, words)])
    return code, capsys.readouterr().err.splitlines()


# ---- the network


def test_without_a_model_the_network_is_that_of_the_weights(store, encoder, tmp_path, capsys):
    code, lines = train_lines(capsys, store, tmp_path / "run", f"--init={encoder}", "--recipe=sedona2019", "--views=1")
    assert code == 0
    assert lines[0] == f"begins from {encoder}"
    assert lines[1] == "network: wide_resnet, width 0.5, depth 16, linear head, as the weights have it, at 12 px"
    d = load_model(tmp_path / "run").description
    assert (d.model, dict(d.options)) == ("wide_resnet", ENCODER.options)
    recipe = load_recipe(str(tmp_path / "run" / "recipe.yaml"), [])
    assert (recipe.model, recipe.options, recipe.init) == ("wide_resnet", ENCODER.options, str(encoder))


def test_the_side_has_as_many_pixels_a_metre_as_in_the_training_of_the_weights(encoder, tmp_path, capsys):
    plane = Plane("data_10m", BANDS, 20, 10, "uint16", "digital number")
    larger = make_store(tmp_path / "s.h5", planes=(plane,), splits=SPLITS)
    words = [word for word in PLAIN_FLAGS if not word.startswith("--side")]
    coarse = changed_encoder(encoder, tmp_path / "w", side=6)
    assert main(["train", f"--store={larger.path}", f"--run={tmp_path / 'run'}", *words, f"--init={coarse}"]) == 0
    assert load_model(tmp_path / "run").description.side == 10  # 6 px for 120 m, so 10 px for 200 m


def test_a_query_head_and_the_scale_come_with_the_network(tmp_path, capsys):
    recipe = replace(PLAIN, head="query", head_options={"layers": 1, "width": 16, "heads": 2}, options={"width": 0.5})
    store = store_of(tmp_path / "s.h5", numbers(), "digital number")
    save_weights(tmp_path / "w", build_classifier(recipe, store), {})
    words = [word for word in PLAIN_FLAGS if not word.startswith("--scale")]
    args = ["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *words, f"--init={tmp_path / 'w'}"]
    assert main(args) == 0
    d = load_model(tmp_path / "run").description
    assert (d.head, dict(d.head_options), d.scale) == ("query", recipe.head_options, "both")
    assert "last layer: kept, its classes by name" in capsys.readouterr().err


def test_pretraining_begins_with_the_trunk_of_a_query_head(store, tmp_path):
    recipe = replace(PLAIN, scale="linear", head="query", head_options={"layers": 1, "width": 16, "heads": 2})
    save_weights(tmp_path / "w", build_classifier(recipe, store), {})
    words = [f"--bands={PLAIN.bands}", "--epochs=1", "--batch=8", "--expander=8", f"--init={tmp_path / 'w'}"]
    assert main(["pretrain", f"--store={store.path}", f"--run={tmp_path / 'run'}", *words]) == 0
    d = load_model(tmp_path / "run").description
    assert (d.model, d.head, d.classes) == ("wide_resnet", "linear", ())


@pytest.mark.parametrize(
    ("words", "model", "options"),
    [
        (["--init=w"], "encoder", {}),
        (["--init=w", "--model=resnet18"], "resnet18", {}),
        (["--init=w", '--options={"width": 2}'], "encoder", {"width": 2}),
        (["--init=imagenet"], "resnet50", {}),
        (["--init=w.safetensors"], "resnet50", {}),
        (["--init=bundled:rgb"], "encoder", {}),
        (["--init=torchgeo:ResNet50_Weights.SENTINEL2_ALL_MOCO=w.pth"], "encoder", {}),
        ([], "resnet50", {}),
    ],
)
def test_a_model_that_is_given_is_kept(words, model, options):
    recipe = load_recipe(None, words)
    assert (recipe.model, recipe.options) == (model, options)


def test_a_recipe_file_with_both_keeps_its_network_and_one_without_init_loses_it_to_the_flag(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("{model: trio, side: 60, scale: both, upsample: nearest, options: {copies: 2}, init: w}")
    recipe = load_recipe(str(file), [])
    assert (recipe.model, recipe.side, recipe.options) == ("trio", 60, {"copies": 2})
    few = load_recipe("few_labels", ["--init=w", "--side=64"])
    assert (few.model, few.side, few.scale, few.options, few.bands) == ("encoder", 64, "linear", {}, "s2-12")


def test_the_options_of_the_weights_hold_if_only_the_model_is_named(store, encoder, tmp_path, capsys):
    words = [f"--init={encoder}", "--model=wide_resnet", '--options={"drop_rate": 0.1}']
    assert train_lines(capsys, store, tmp_path / "run", *words)[0] == 0
    assert dict(load_model(tmp_path / "run").description.options) == {**ENCODER.options, "drop_rate": 0.1}
    code, lines = train_lines(capsys, store, tmp_path / "other", f"--init={encoder}", "--model=resnet18")
    assert code == 2
    assert lines == [f"landscale: {encoder}: holds weights of model 'wide_resnet', not of 'resnet18'"]
    assert not (tmp_path / "other").exists()


def test_a_model_of_no_weights_is_refused(store, tmp_path, capsys):
    code, lines = train_lines(capsys, store, tmp_path / "run", "--model=encoder")
    assert (code, lines) == (2, ["landscale: --model encoder: needs --init; name the network by --model"])


# ---- normalisation and units


def test_bands_that_the_weights_know_are_normalised_as_in_their_training(store, encoder, tmp_path, capsys):
    code, lines = train_lines(capsys, store, tmp_path / "run", f"--init={encoder}")
    assert code == 0
    assert "normalisation: that of the weights for B02, B03, B04, of the store for all other bands" in lines
    assert not any("converted" in line for line in lines)
    d, theirs = (load_model(path).description for path in (tmp_path / "run", encoder))
    assert {band: d.statistics[band] for band in theirs.bands} == theirs.statistics
    assert d.statistics["B08"] == pytest.approx(store.statistics["B08"])
    assert d.limits == {"B04": (100.0, 2000.0)}
    assert d.units == dict.fromkeys(BANDS, "digital number")


def test_stores_in_other_units_are_converted_and_train_the_same_weights(store, encoder, tmp_path, capsys):
    """Reflectance, and pictures with a known stretch, of the same pixels."""
    stores = {
        "digital number": store,
        "reflectance": store_of(tmp_path / "r.h5", (numbers() / 1e4).astype(np.float32), "reflectance"),
        "8-bit": store_of(tmp_path / "p.h5", (numbers() // 50).astype(np.uint8), "8-bit", stretch=50 * 255),
    }
    found = {}
    for unit, own in stores.items():
        words = [f"--init={encoder}", "--bands=B02,B03,B04", "--schedule=constant", "--rate=1e-4"]
        code, lines = train_lines(capsys, own, tmp_path / unit, *words)
        assert code == 0
        assert sum("converted into digital numbers" in line for line in lines) == (unit != "digital number")
        assert load_model(tmp_path / unit).description.units == dict.fromkeys(BANDS[:3], "digital number")
        scores = json.loads((tmp_path / unit / "scores.json").read_text())
        found[unit] = load_file(tmp_path / unit / "weights" / "model.safetensors"), scores["micro_ap"]
    initial = load_file(encoder / "model.safetensors")
    expected, score = found.pop("digital number")
    for weights, found_score in found.values():
        assert found_score == pytest.approx(score, abs=1e-3)
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(expected["stages.0.0.conv1.weight"], initial["stages.0.0.conv1.weight"], atol=1e-4)


def test_the_initial_logits_are_those_of_the_weights_on_the_same_scene(encoder, tmp_path):
    """Of pixels in reflectance, once `convert` has brought them to the units of the description."""
    pixels = numbers()
    own = store_of(tmp_path / "r.h5", (pixels / 1e4).astype(np.float32), "reflectance")
    learn(replace(ENCODER, init=str(encoder), rate=0.0, warmup_epochs=0.0, freeze="all"), own, tmp_path / "run")
    planes = {BANDS: torch.from_numpy(pixels[:8])}
    trained, theirs = load_model(tmp_path / "run"), load_model(encoder)
    torch.testing.assert_close(trained(planes), theirs(planes), rtol=1e-4, atol=1e-5)


def test_pictures_of_unknown_stretch_are_normalised_by_the_store(encoder, tmp_path, capsys):
    pictures = store_of(tmp_path / "p.h5", (numbers() // 50).astype(np.uint8), "8-bit", "L1C")
    code, lines = train_lines(capsys, pictures, tmp_path / "run", f"--init={encoder}")
    assert code == 0
    assert "the weights take digital numbers, into which 8-bit picture values cannot be converted" in lines
    assert "normalisation: that of the store" in lines
    assert "its pixels were of level L2A, ours are of L1C" in lines
    d = load_model(tmp_path / "run").description
    assert (d.units, d.limits, d.level) == (dict.fromkeys(BANDS, "8-bit"), {}, "L1C")
    assert d.statistics["B02"] == pytest.approx(pictures.statistics["B02"])


def test_bands_that_take_the_weights_of_another_wavelength_are_normalised_by_the_store(encoder, tmp_path, capsys):
    plane = Plane("data_20m", ("B05", "B06"), SIDE, 10, "uint16", "digital number")
    own = make_store(tmp_path / "s.h5", planes=(plane,), splits=SPLITS)
    words = [word for word in PLAIN_FLAGS if not word.startswith("--bands")]
    args = [*words, "--bands=B05,B06", "--epochs=1", f"--init={encoder}"]
    assert main(["train", f"--store={own.path}", f"--run={tmp_path / 'run'}", *args]) == 0
    log = capsys.readouterr().err
    assert "first convolution: B05, B06 from B04" in log
    assert "normalisation: that of the store" in log.splitlines()
    found = load_model(tmp_path / "run").description.statistics
    assert all(found[band] == pytest.approx(own.statistics[band]) for band in ("B05", "B06"))


@pytest.mark.parametrize("units", [{}, dict.fromkeys(("B02", "B03", "B04"), "unknown")])
def test_weights_without_recorded_units_bring_their_statistics_and_keep_the_units_of_the_store(
    units, store, encoder, tmp_path, capsys
):
    older = changed_encoder(encoder, tmp_path / "older", units=units, level="unknown", limits={})
    code, lines = train_lines(capsys, store, tmp_path / "run", f"--init={older}")
    assert code == 0
    assert "normalisation: that of the weights for B02, B03, B04, of the store for all other bands" in lines
    d = load_model(tmp_path / "run").description
    assert d.units == dict.fromkeys(BANDS, "digital number")
    assert d.statistics["B04"] == load_model(encoder).description.statistics["B04"]


def test_pixels_that_cannot_have_the_units_of_the_weights_are_refused(encoder, tmp_path, capsys):
    unknown = store_of(tmp_path / "s.h5", (numbers() / 1e4).astype(np.float32), "unknown", "unknown")
    code, lines = train_lines(capsys, unknown, tmp_path / "run", f"--init={encoder}", "--bands=B02,B03,B04")
    assert code == 2
    assert len(lines) == 1
    assert "holds numbers from 0.01 to 0.245 in B02, but the weights were trained on digital numbers" in lines[0]
    assert not (tmp_path / "run").exists()


def test_logarithms_of_reflectance_are_possible_where_the_weights_bring_their_statistics(tmp_path, capsys):
    dn = store_of(tmp_path / "dn.h5", numbers(), "digital number")
    save_weights(tmp_path / "w", build_classifier(replace(ENCODER, scale="log"), dn), {})
    own = store_of(tmp_path / "r.h5", (numbers() / 1e4).astype(np.float32), "reflectance")
    words = [f"--init={tmp_path / 'w'}", "--scale=log"]
    code, lines = train_lines(capsys, own, tmp_path / "run", *words)
    assert code == 2
    assert "--scale log: " in lines[-1]
    assert "holds reflectance in B08" in lines[-1]
    assert train_lines(capsys, own, tmp_path / "run", *words, "--bands=B02,B03,B04")[0] == 0


def test_frozen_new_bands_are_named_because_they_have_no_effect(store, encoder, tmp_path, capsys):
    _, lines = train_lines(capsys, store, tmp_path / "run", f"--init={encoder}", "--freeze=1")
    assert "new bands (B08) have no effect while the first stage is frozen, because their weights are 0" in lines


# ---- resuming


def test_a_training_is_resumed_without_the_weights_it_began_from(encoder, tmp_path, monkeypatch, capsys):
    own = store_of(tmp_path / "r.h5", (numbers() / 1e4).astype(np.float32), "reflectance")
    copy = tmp_path / "encoder"
    shutil.copytree(encoder, copy)
    recipe = load_recipe(None, [*PLAIN_FLAGS, f"--init={copy}", "--freeze=2", "--unfreeze-every=1"])
    learn(recipe, own, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        interrupted_learning(patch, lambda step: step == 4)
        with pytest.raises(Stopped):
            learn(recipe, own, tmp_path / "run")
    shutil.rmtree(copy)
    learn(recipe, own, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "undisturbed")
    assert load_model(tmp_path / "run").description == load_model(tmp_path / "undisturbed").description
    assert capsys.readouterr().err.count("converted into") == 2  # once in each training, when it begins
    assert learn(recipe, own, tmp_path / "run") is not None  # it has ended


def test_a_damaged_record_of_the_weights_is_refused(store, encoder, tmp_path, monkeypatch, capsys):
    recipe = load_recipe(None, [*PLAIN_FLAGS, f"--init={encoder}"])
    with monkeypatch.context() as patch:
        interrupted_learning(patch, lambda step: step == 2)
        with pytest.raises(Stopped):
            learn(recipe, store, tmp_path / "run")
    file = Run(tmp_path / "run").folder / "init.json"
    record = json.loads(file.read_text())
    for damaged in ({"encoder": {"model": 3}}, {"model": 5}, {"encoder": {**record["encoder"], "side": -1}}):
        file.write_text(json.dumps(record | damaged))
        code = main(["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *PLAIN_FLAGS, f"--init={encoder}"])
        assert code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert "init.json: " in line
