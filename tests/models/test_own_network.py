"""A user's own network: one file registers it with timm and the zoo; all functions then accept its name."""

import sys
from dataclasses import replace

import pytest
import timm
import torch

from landscale.inference.evaluate import evaluate
from landscale.models import ZOO, create_model, describe_model, list_models
from landscale.models.weights import load_model
from trainings import PLAIN, learn, tiny_store

FILE = '''
from timm.models import register_model
from torch import nn

from landscale.models import ZooEntry, register


class MeanSpectrum(nn.Module):
    """The mean of every band, and a linear layer."""

    def __init__(self, in_chans=3, num_classes=10):
        super().__init__()
        self.num_classes, self.num_features = num_classes, in_chans
        self.norm = nn.BatchNorm2d(in_chans)
        self.fc = nn.Linear(in_chans, num_classes)

    def forward_features(self, x):
        return self.norm(x)

    def forward(self, x):
        return self.fc(self.forward_features(x).mean((2, 3)))


@register_model
def mean_spectrum(pretrained=False, in_chans=3, num_classes=10, **_):
    return MeanSpectrum(in_chans, num_classes)


register(ZooEntry("mean_spectrum", "spectra", "A thesis, 2026", side=12))
'''


@pytest.fixture(scope="module", autouse=True)
def own_network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_network.py").write_text(FILE)
    sys.path.insert(0, str(folder))
    import own_network  # noqa: F401

    yield
    sys.path.remove(str(folder))
    del sys.modules["own_network"]  # a tool that shuffles tests runs this fixture more than once
    del ZOO["mean_spectrum"]


def test_a_registered_network_is_in_the_zoo_and_in_timm():
    assert list_models()[-1] == "mean_spectrum"
    assert timm.is_model("mean_spectrum")
    assert create_model("mean_spectrum", bands=5, classes=3)(torch.zeros(2, 5, 12, 12)).shape == (2, 3)


def test_describe_model_describes_a_registered_network():
    found = describe_model("mean_spectrum", 5, 3)
    assert found["parameters"] == 2 * 5 + 3 * 5 + 3
    assert (found["family"], found["input"], found["source"]) == ("spectra", [5, 12, 12], "A thesis, 2026")
    assert found["flops"] == 2 * 5 * 3


def test_a_registered_network_can_be_trained_loaded_and_evaluated(tmp_path):
    store = tiny_store(tmp_path)
    scores = learn(replace(PLAIN, model="mean_spectrum", options={}), store, tmp_path / "run")
    model = load_model(tmp_path / "run")
    assert type(model.network).__name__ == "MeanSpectrum"
    assert evaluate(model, store, "val", show=False) == scores
