"""Training without labels: it learns, ignores labels, resumes exactly, and several ranks do what one process does."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from landscale.cli import main
from landscale.distributed import end_process_group, start_process_group
from landscale.errors import LandscaleError
from landscale.inference.evaluate import evaluate
from landscale.maps.predict import predict
from landscale.models.weights import load_model
from landscale.runtime.signals import Stopped
from landscale.store import open_store
from landscale.testing import make_store, rgbn_plane
from landscale.training import trainable_model
from landscale.training.build import build_classifier
from landscale.training.trainable_model import TrainableModel
from landscale.training.training import train
from landscale.training.vicreg import VicReg
from launchers import run_on_ranks
from once import made_once
from trainings import BANDS, CPU, PLAIN, ended, flags, interrupted_learning, learn, metrics_of, starter, weights_of

ENCODER = replace(PLAIN, name="encoder", objective="vicreg", expander=16, zoom=0.3, jitter=0.1, drop_bands=0.1, ema=0.9)
# Views are made without random numbers, because those differ between ranks.
SAME_VIEWS = replace(ENCODER, zoom=0.0, jitter=0.0, drop_bands=0.0, turns=False, warmup_epochs=0.0, epochs=2)
SGD = replace(SAME_VIEWS, optimizer="sgd", rate=0.002, weight_decay=0.0, ema=0.0)
LAYER_NORM = replace(SGD, model="test_convnext", options={}, side=32)
# A recipe for two ranks, and the recipe of a single process that must give the same weights. The expander has batch norms.
EQUIVALENT = {
    "batch": (replace(LAYER_NORM, batch=4, sync_norms=True), replace(LAYER_NORM, batch=8)),
    "one step of 39": (replace(LAYER_NORM, batch=64, sync_norms=True), replace(LAYER_NORM, batch=128)),
    "norms in the network": (replace(SGD, batch=4, sync_norms=True), replace(SGD, batch=8)),
    "accumulate": (
        replace(LAYER_NORM, batch=4, accumulate=2, sync_norms=True),
        replace(LAYER_NORM, batch=8, accumulate=2),
    ),
}
LANDSCALE = ["--bands", BANDS, "--side", "12", "--options", '{"width": 0.5}', "--batch", "8", "--expander", "16"]


def mirrored(_augment, values, targets):
    """Replaces `two_views`."""
    return torch.cat([values, values.flip(-1) * 0.9 + 0.1]), targets


def run_rank(path: Path, folder: Path) -> None:
    """The program of each rank."""
    trainable_model.two_views = mirrored
    store, ranks = open_store(path), start_process_group()
    for name, (recipe, _) in EQUIVALENT.items():
        train(recipe, store, folder / name, ranks=ranks, device=CPU)
    end_process_group()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    splits = {"train": 39, "val": 9, "test": 9}
    return make_store(tmp_path_factory.mktemp("pretrain") / "s.h5", planes=rgbn_plane(12), splits=splits, seed=2)


@pytest.fixture(scope="module")
def encoder(store, tmp_path_factory):
    """An undisturbed run of ENCODER."""
    run = tmp_path_factory.mktemp("encoder") / "run"
    assert learn(ENCODER, store, run) is None
    return run


# ---- what is learnt


def hidden_classes(n, rng):
    """Patches (n, 4, 8, 8) of three classes, which differ in the means of their bands, far less than patches do by slopes."""
    kinds = rng.integers(3, size=n)
    means = np.array([[1, -1, 1, -1], [1, 1, -1, -1], [-1, 0, 0, 1]])[kinds][:, :, None, None]
    at = np.linspace(-1, 1, 8)
    slopes = rng.standard_normal((n, 4, 1, 1)) * at[:, None] + rng.standard_normal((n, 4, 1, 1)) * at
    values = 1500 + 100 * slopes + 40 * means + 150 * rng.standard_normal((n, 4, 8, 8))
    return kinds, values.clip(0).astype(np.uint16)


def features(classifier, store, split):
    rows = store.patches(split)
    (plane,) = store.layout.planes
    pixels = {plane.key: np.empty((len(rows), *plane.shape), plane.dtype)}
    store.gather(rows, pixels)
    return classifier.eval().features({plane.bands: torch.from_numpy(pixels[plane.key])}).numpy()


def test_few_labels_suffice_on_its_features_but_not_on_those_of_random_weights(tmp_path):
    kinds, pixels = hidden_classes(320, np.random.default_rng(0))
    store = make_store(
        tmp_path / "s.h5",
        planes=rgbn_plane(8),
        classes=("a", "b", "c"),
        splits={"train": 192, "val": 32, "test": 96},
        multi_label=False,
        labels=np.eye(3)[kinds],
        pixels={"data_10m": pixels},
    )
    recipe = replace(
        ENCODER, side=8, scale="linear", epochs=20, batch=32, drop_bands=0.0, warmup_epochs=0.0, expander=64, ema=0.0
    )
    learn(recipe, store, tmp_path / "run")

    def accuracy(classifier):
        scale = StandardScaler().fit(features(classifier, store, "train")[:24])
        known, new = (scale.transform(features(classifier, store, split)) for split in ("train", "test"))
        probe = LogisticRegression(C=0.1, max_iter=1000).fit(known[:24], kinds[store.patches("train")][:24])
        return probe.score(new, kinds[store.patches("test")])

    assert accuracy(build_classifier(recipe, store)) < 0.7
    assert accuracy(load_model(tmp_path / "run")) > 0.85
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert table["loss"].iloc[-1] < 0.95 * table["loss"].iloc[0]
    assert table["deviation"].iloc[-1] > 0.3  # the vectors have not collapsed
    parts = table[["invariance", "variance", "covariance"]].sum(axis=1)
    assert parts.to_numpy() == pytest.approx(table["loss"].to_numpy(), rel=1e-4)


def test_labels_are_ignored_and_need_not_exist(store, encoder, tmp_path):
    rows = np.arange(len(store.states))
    pixels = {p.key: np.empty((len(rows), *p.shape), p.dtype) for p in store.layout.planes}
    store.gather(rows, pixels)
    splits = store.split_sizes()
    how = {"planes": store.layout.planes, "splits": splits, "pixels": pixels}
    other = make_store(tmp_path / "other.h5", labels=1 - store.classes, **how)
    none = make_store(tmp_path / "none.h5", classes=(), labels=np.zeros((len(rows), 0)), **how)
    for name, same_pixels in (("other", other), ("none", none)):
        learn(ENCODER, same_pixels, tmp_path / name)
        assert weights_of(tmp_path / name) == weights_of(encoder)


def test_patches_without_a_class_of_the_nomenclature_are_used_as_well(tmp_path):
    labels = np.eye(4)[[0] * 8 + [1] * 8]
    labels[3] = 0
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 16}, labels=labels)
    learn(replace(ENCODER, epochs=1), store, tmp_path / "run")
    assert pd.read_csv(tmp_path / "run" / "metrics.csv")["step"].tolist() == [2]


def test_the_saved_weights_are_the_averaged_network_without_its_expander(store, encoder):
    tensors = load_file(encoder / "checkpoints" / "last.safetensors")
    average = {k.removeprefix("average.encoder."): t for k, t in tensors.items() if k.startswith("average.encoder.")}
    saved = load_file(encoder / "weights" / "model.safetensors")
    assert saved.keys() == average.keys()
    assert all(torch.equal(saved[name], average[name]) for name in saved)
    description = load_model(encoder).description
    assert (description.classes, description.nomenclature, description.thresholds) == ((), "none", ())


# ---- interruptions


def test_stopped_after_every_third_step_it_ends_with_the_same_weights(store, encoder, tmp_path, monkeypatch):
    sessions = 0
    with monkeypatch.context() as patch:
        interrupted_learning(patch, lambda step: step % 3 == 0)
        while True:
            sessions += 1
            try:
                learn(ENCODER, store, tmp_path / "run")
                break
            except Stopped:
                pass
    assert sessions > 3
    assert (weights_of(tmp_path / "run"), metrics_of(tmp_path / "run")) == (weights_of(encoder), metrics_of(encoder))


def test_killed_while_it_writes_it_ends_with_the_same_weights(store, encoder, tmp_path):
    start, run = starter(), tmp_path / "run"
    words = ["pretrain", "--recipe", encoder / "recipe.yaml", "--store", store.path, "--run", run, "--save-minutes=0"]
    codes = [ended(start(words, tmp_path / "log.txt", deadly)) for deadly in (15, 24, 0)]
    assert codes[-1] == 0, (tmp_path / "log.txt").read_text()
    assert -9 in codes
    assert (weights_of(run), metrics_of(run)) == (weights_of(encoder), metrics_of(encoder))


def test_a_divergence_goes_back_to_the_last_checkpoint_at_half_the_rate(store, tmp_path, monkeypatch, capsys):
    original, rates = TrainableModel.step, []

    def step(self, parts, batches, number, rate, *arguments):
        rates.append(rate)
        self.loss = VicReg() if number != 6 or rate < 0.01 else (lambda vectors, _: VicReg()(vectors, _) * 1000)
        return original(self, parts, batches, number, rate, *arguments)

    monkeypatch.setattr(TrainableModel, "step", step)
    recipe = replace(ENCODER, schedule="constant", warmup_epochs=0.0, on_divergence="backoff")
    learn(recipe, store, tmp_path / "run")
    assert re.search(r"the loss of step 7 is \d.*: back to step 4, at half\s+the rate", capsys.readouterr().err)
    assert rates == [0.01] * 7 + [0.005] * 8


# ---- several ranks


@pytest.fixture(scope="module")
def two_ranks(store, tmp_path_factory):
    def train_all(folder):
        run_on_ranks(2, folder / "log.txt", run_rank, store.path, folder)

    return made_once(tmp_path_factory, "two-ranks-pretrain", train_all)


@pytest.mark.parametrize("name", EQUIVALENT)
def test_two_ranks_learn_the_weights_of_one_process_with_the_same_global_batch(
    name, two_ranks, store, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainable_model, "two_views", mirrored)
    _, recipe = EQUIVALENT[name]
    learn(recipe, store, tmp_path / "run")
    initial = build_classifier(recipe, store).network.state_dict()
    one, two = (load_file(run / "weights" / "model.safetensors") for run in (tmp_path / "run", two_ranks / name))
    keys = [key for key in one if one[key].is_floating_point()]
    change = sum(float((one[k] - initial[k]).square().sum()) for k in keys) ** 0.5
    difference = sum(float((one[k] - two[k]).square().sum()) for k in keys) ** 0.5
    assert change > 0.01
    assert difference <= 2e-3 * change, (difference, change)
    tables = [pd.read_csv(run / "metrics.csv") for run in (tmp_path / "run", two_ranks / name)]
    for column in ("loss", *VicReg.figures):
        assert tables[0][column].to_numpy() == pytest.approx(tables[1][column].to_numpy(), rel=1e-3), column


# ---- the command


def test_the_command_says_what_it_does_and_its_weights_begin_a_training(store, tmp_path, capsys):
    run, trained = tmp_path / "run", tmp_path / "trained"
    assert main(["pretrain", "--store", str(store.path), "--run", str(run), "--epochs", "2", *LANDSCALE]) == 0
    out, log = capsys.readouterr()
    assert out == f"{run}: contains the weights of an encoder\n"
    log = " ".join(log.split())
    assert "vicreg: wide_resnet" in log
    assert "no labels; 39 patches" in log
    number = r"\d+\.\d{4}"
    figures = ", ".join(f"{name} {number}" for name in ("loss", *VicReg.figures))
    assert len(re.findall(rf"epoch \d of 2, step \d+ of 8: {figures}, [\d,]+ patches/s", log)) == 2
    words = ["--bands", BANDS, "--side", "12", "--options", '{"width": 0.5}', "--epochs", "1", "--model", "wide_resnet"]
    assert main(["train", "--store", str(store.path), "--run", str(trained), *words, "--init", str(run)]) == 0
    assert "last layer: fresh, 4 classes" in capsys.readouterr().err
    again = tmp_path / "again"
    words = ["--store", str(store.path), "--run", str(again), "--epochs", "1", *LANDSCALE, "--init", str(trained)]
    assert main(["pretrain", *words]) == 0
    assert main(["report", str(run), "--out", str(tmp_path / "report")]) == 0
    assert main(["info", str(run)]) == 0
    assert json.loads((run / "scores.json").read_text()) == {}


def test_weights_without_classes_cannot_score_or_map(store, encoder, tmp_path, capsys):
    assert main(["evaluate", str(encoder), str(store.path)]) == 2
    problem = "these weights of wide_resnet are an encoder without classes"
    assert capsys.readouterr().err.startswith(f"landscale: {problem}, expected a classifier")
    with pytest.raises(LandscaleError, match=problem):
        evaluate(encoder, store)
    with pytest.raises(LandscaleError, match=problem):
        predict(encoder, tmp_path / "scene", tmp_path / "map.tif")
    assert not (tmp_path / "map.tif").exists()


@pytest.mark.parametrize(
    "words, problem",
    [
        (["--recipe=papoutsis2022"], "--recipe papoutsis2022: learns from labels, expected the objective vicreg"),
        (["--mixup=0.2"], "--mixup: found 0.2, which the objective vicreg does not take; expected 0.0"),
        (["--head=query"], "--head: found query, which the objective vicreg does not take; expected linear"),
        (["--balance-beta=0.9"], "--balance-beta: found 0.9, which the objective vicreg does not take"),
        (["--init=x", "--freeze=all"], "--freeze: found all, which the objective vicreg does not take; expected 0"),
        (["--drop-bands=1.5"], "--drop_bands: found 1.5, expected 0 to 1"),
        (["--expander=0"], "--expander: found 0, expected 1 to 16384"),
        (["--objective=byol"], "objective"),
        (["--bands=B02,B03,B04,B08", "--side=12", "--batch=1"], "--batch 1 with 39 patches: a batch has one patch"),
    ],
)
def test_what_makes_no_sense_without_labels_is_refused_in_one_line(words, problem, store, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["pretrain", "--store", str(store.path), "--run", str(run), *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert problem in lines[0]
    assert not run.exists()


def test_a_store_without_classes_cannot_be_trained_on_with_labels(tmp_path, capsys):
    path = tmp_path / "s.h5"
    make_store(path, planes=rgbn_plane(12), classes=(), splits={"train": 8}, labels=np.zeros((8, 0)))
    assert main(["train", "--store", str(path), "--run", str(tmp_path / "run"), *flags(PLAIN)]) == 2
    assert "has no classes to learn; use `landscale pretrain`" in capsys.readouterr().err


def test_an_encoder_run_cannot_be_resumed_with_labels(store, encoder, capsys):
    words = ["--store", str(store.path), "--run", str(encoder), *flags(PLAIN)]
    assert main(["train", *words]) == 2
    assert "holds a run with name encoder" in capsys.readouterr().err
