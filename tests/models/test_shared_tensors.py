"""A parameter with several names (tied weights) is saved once, and is one parameter again after loading."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from landscale.inference.evaluate import evaluate
from landscale.models.shared_tensors import distinct_tensors, shared_names, with_shared
from landscale.models.weights import load_model, save_weights
from landscale.runtime.signals import Stopped
from landscale.training.runs import Run
from trainings import PLAIN, interrupted_learning, learn, outcome
from weights_folders import seal

MODEL = "tests_tied"


class Tied(nn.Module):
    """Two convolutions with one weight, and a batch norm with two names."""

    def __init__(self, num_classes: int = 4, in_chans: int = 3, **_: object) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_chans, in_chans, 3, padding=1)
        self.second = nn.Conv2d(in_chans, in_chans, 3, padding=1)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm2d(in_chans)
        self.same_norm = self.norm
        self.fc = nn.Linear(in_chans, num_classes)
        self.pretrained_cfg = {"classifier": "fc"}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.first, self.norm, self.second, self.same_norm):
            x = layer(x).relu()
        return self.fc(x.mean((2, 3)))


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    def tests_tied(pretrained: bool = False, **options: object) -> nn.Module:
        return Tied(**options)

    tests_tied.__module__ = __name__
    if MODEL not in timm.list_models():
        timm.models.register_model(tests_tied)


RECIPE = replace(PLAIN, model=MODEL, options={}, epochs=2)
SHARED = {"second.weight": "first.weight"} | {
    f"same_norm.{name}": f"norm.{name}"
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
}


def test_the_names_of_shared_tensors():
    network = Tied()
    assert shared_names(network) == SHARED
    assert set(distinct_tensors(network)) == set(network.state_dict()) - set(SHARED)
    assert set(with_shared(network, distinct_tensors(network))) == set(network.state_dict())
    with torch.device("meta"):
        assert shared_names(Tied()) == SHARED
    assert shared_names(nn.Linear(2, 2)) == {}


def test_weights_and_checkpoints_hold_shared_tensors_once(store, tmp_path, monkeypatch):
    learn(replace(RECIPE, ema=0.5, select="micro_ap"), store, tmp_path / "run")
    run = Run(tmp_path / "run")
    for file, prefixes in (
        (run.weights / "model.safetensors", [""]),
        (run.best, [""]),
        (run.last, ["network.", "average."]),
    ):
        with safe_open(file, "pt") as opened:
            names = set(opened.keys())
        for prefix in prefixes:
            assert f"{prefix}first.weight" in names
            assert not names & {f"{prefix}{name}" for name in SHARED}, file
    model = load_model(run.folder)
    assert model.network.second.weight is model.network.first.weight
    assert evaluate(model, store, "val").to_json() == run.scores().to_json()


def test_a_training_of_tied_weights_resumes_with_identical_results(store, tmp_path, monkeypatch):
    learn(RECIPE, store, tmp_path / "whole")
    interrupted_learning(monkeypatch, lambda step: step == 7)
    with pytest.raises(Stopped):
        learn(RECIPE, store, tmp_path / "run")
    monkeypatch.undo()
    learn(RECIPE, store, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_weights_that_hold_shared_tensors_twice_are_still_read_and_others_begin_from_them(store, tmp_path):
    learn(RECIPE, store, tmp_path / "run")
    model = load_model(tmp_path / "run")
    file = tmp_path / "run" / "weights" / "model.safetensors"
    once = load_file(file)
    learn(replace(RECIPE, init=str(tmp_path / "run"), rate=0.0, weight_decay=0.0), store, tmp_path / "other")
    assert torch.equal(load_model(tmp_path / "other").network.first.weight, model.network.first.weight)
    save_weights(tmp_path / "old", model, {})
    twice = {name: tensor.clone() for name, tensor in with_shared(model.network, once).items()}
    assert len(twice) == len(once) + len(SHARED)
    save_file(twice, tmp_path / "old" / "model.safetensors")
    seal(tmp_path / "old")
    assert load_model(tmp_path / "old").digest() == model.digest()
