"""A classifier builds the network of its description, or uses a given one."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from landscale.errors import LandscaleError
from landscale.models.classifier import Classifier, Description

DESCRIPTION = Description(
    model="wide_resnet",
    bands=("B02", "B03", "B04"),
    classes=("lake", "ice"),
    nomenclature="custom",
    multi_label=True,
    statistics={"B02": (100.0, 20.0), "B03": (200.0, 30.0), "B04": (300.0, 40.0)},
    side=12,
    ground=120,
    options={"width": 0.5},
)
PLANES = {("B04", "B02", "B03"): torch.arange(432, dtype=torch.int32).reshape(1, 3, 12, 12).to(torch.uint16)}


class MeanOfBands(nn.Module):
    """Logits are the means of the first two normalised bands."""

    def forward(self, x):
        return x.mean((2, 3))[:, :2]


def test_a_given_network_is_used_unchanged():
    network = MeanOfBands()
    classifier = Classifier(DESCRIPTION, network).eval()
    assert classifier.network is network
    assert list(classifier.network.parameters()) == []
    means = PLANES["B04", "B02", "B03"].float().mean((2, 3))[0]
    expected = [(means[1] - 100) / 20, (means[2] - 200) / 30]
    assert torch.allclose(classifier(PLANES)[0], torch.stack(expected), atol=1e-4)


def test_two_classifiers_can_share_a_network():
    """A training evaluates the network that it trains through a classifier with other views and thresholds."""
    torch.manual_seed(0)
    built = Classifier(DESCRIPTION).eval()
    shared = Classifier(replace(DESCRIPTION, views=8, thresholds=(0.2, 0.3)), built.network)
    assert shared.network is built.network
    assert torch.equal(shared(PLANES), built(PLANES))
    assert shared.state_dict().keys() == built.state_dict().keys()


def test_without_a_given_network_one_is_built_from_the_description():
    torch.manual_seed(0)
    network = Classifier(DESCRIPTION).network
    assert type(network).__name__ == "WideResNet"
    assert network.num_features == 32
    assert network(torch.zeros(2, 3, 12, 12)).shape == (2, 2)


@pytest.mark.parametrize("multi_label", [True, False])
def test_the_temperature_divides_logits_before_they_become_probabilities(multi_label):
    d = replace(DESCRIPTION, multi_label=multi_label)
    logits = Classifier(d, MeanOfBands()).eval()(PLANES)
    found = Classifier(replace(d, temperature=2.5), MeanOfBands()).eval().activate(logits)
    assert torch.allclose(found, (logits / 2.5).sigmoid() if multi_label else (logits / 2.5).softmax(-1))
    assert torch.equal(
        Classifier(d, MeanOfBands()).activate(logits), logits.sigmoid() if multi_label else logits.softmax(-1)
    )


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_that_is_no_positive_number_is_refused(temperature):
    with pytest.raises(LandscaleError, match="the temperature is"):
        replace(DESCRIPTION, temperature=temperature).check()
