"""`trio`: an ensemble of many small members, for stores of a few hundred patches."""

import pytest
import torch
from torch import nn

from landscale.errors import LandscaleError
from landscale.models import create_model


@pytest.fixture
def trio():
    """A network whose members disagree: their logits differ by several units."""
    torch.manual_seed(0)
    network = create_model("trio", 4, 5, drop_rate=0.0, parts=2, copies=2)
    nn.init.normal_(network.fc.weight, std=0.5)
    return network


def test_training_gives_logits_per_member_and_evaluation_the_mean_probability(trio):
    """Averaging logits instead would let one very confident member decide alone."""
    x = torch.randn(3, 4, 24, 24)
    trio.eval()
    features = trio.forward_features(x)
    logits = trio(x)
    trio.train()
    members = trio.forward_head(features)
    assert members.shape == (3, 12, 5)  # three kinds of members, two copies, two halves of the channels
    assert members.std(1).min() > 0.5
    torch.testing.assert_close(logits.sigmoid(), members.sigmoid().mean(1))
    assert (logits - members.mean(1)).abs().max() > 0.1


def test_each_member_uses_only_its_part_of_the_channels(trio):
    trio.eval()
    x = torch.randn(1, 4, 24, 24)
    other = x.clone()
    other[:, 2:] += torch.randn(1, 2, 24, 24)
    before, after = (torch.split(trio.forward_features(values), trio.sizes, 1) for values in (x, other))
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [True] * 6 + [False] * 6


def test_a_number_of_channels_that_parts_do_not_divide_is_refused():
    with pytest.raises(LandscaleError, match="cannot cut 5 channels into 2 equal parts"):
        create_model("trio", 5, 3, parts=2)
