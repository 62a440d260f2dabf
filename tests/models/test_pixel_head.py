"""The head that gives the class of every pixel: on every network whose features are a map, of the right shape, trainable."""

from __future__ import annotations

import copy

import pytest
import torch

from landscale.errors import LandscaleError
from landscale.models import list_models
from landscale.models.heads import create_with_head
from landscale.models.pixel_head import MOST_LEVELS, PixelNetwork
from landscale.models.registry import zoo
from landscale.models.stages import stages

pytestmark = pytest.mark.usefixtures("seeded")

MAPS = {"resnet18": 32, "wide_resnet_eca": 24, "convnextv2_atto": 64, "vgg16_gap": 64, "mobilenetv4_conv_small": 64}
TOKENS = {"vit_40": 120, "mlp_mixer_tiny": 120, "swinv2_tiny_window8_256": 128}
WITHOUT = ("k_branch", "trio", "vit", "mlp_mixer", "mixer", "swinv2")


def pixel_network(model: str, side: int, classes: int = 5, bands: int = 4) -> PixelNetwork:
    network = create_with_head(model, bands, classes, side, "pixels", {"width": 16})
    assert isinstance(network, PixelNetwork)
    return network


@pytest.mark.parametrize("model, side", MAPS.items())
def test_logits_have_the_side_of_the_input_and_every_parameter_a_gradient(model: str, side: int) -> None:
    network = pixel_network(model, side)
    sides = [level[2] for level in network.levels]
    assert sides == sorted(set(sides), reverse=True)
    assert 2 <= len(sides) <= MOST_LEVELS
    logits = network(torch.randn(2, 4, side, side))
    assert logits.shape == (2, 5, side, side)
    logits.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("model, side", TOKENS.items())
def test_networks_of_tokens_are_refused_in_one_line(model: str, side: int) -> None:
    with pytest.raises(LandscaleError, match=f"^--task pixels with model '{model}': .* needs a map of features"):
        pixel_network(model, side)


def test_a_copy_looks_at_its_own_maps() -> None:
    """Averaged weights are a deep copy; it must not answer from the maps of the network it was copied from."""
    network = pixel_network("wide_resnet", 24).eval()
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.trunk.parameters():
            parameter.zero_()
        x = torch.randn(1, 4, 24, 24)
        before = network(x)
        assert not torch.allclose(other(x), before)
        assert torch.equal(network(x), before)


def test_features_and_stages_are_those_of_the_trunk() -> None:
    network = pixel_network("resnet18", 32).eval()
    with torch.no_grad():
        maps = network.forward_features(torch.randn(2, 4, 32, 32))
        assert torch.allclose(network.forward_head(maps, pre_logits=True), maps.mean((2, 3)), atol=1e-6)
    assert all(name.startswith("trunk.") for name in stages(network))
    network.reset_classifier(3)
    assert network(torch.randn(1, 4, 32, 32)).shape == (1, 3, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize("model", list_models())
def test_every_network_of_the_zoo_has_the_head_or_is_refused(model: str) -> None:
    side = zoo(model)[0].side
    options = {"gsd": [10] * 4} if zoo(model)[0].native else {}
    if model.startswith(WITHOUT):
        with pytest.raises(LandscaleError, match="needs a map of features"):
            create_with_head(model, 4, 5, side, "pixels", **options)
        return
    with torch.no_grad():
        logits = create_with_head(model, 4, 5, side, "pixels", **options).eval()(torch.randn(1, 4, side, side))
    assert logits.shape == (1, 5, side, side)
    assert logits.isfinite().all()
