"""Patch convolutions (kernel as large as the stride) compute in float32 under autocast on a CPU."""

import pytest
import torch
from torch import nn

from landscale.models.patch_convolution import PatchConvolution, use_patch_convolutions
from landscale.models.registry import create_model

bf16 = torch.autocast("cpu", torch.bfloat16)


def patch_convolutions(network):
    return [name for name, module in network.named_modules() if isinstance(module, PatchConvolution)]


@pytest.mark.parametrize("channels, kernel, side", [(10, 16, 64), (12, 8, 24), (10, 32, 96), (16, 4, 16), (3, 4, 12)])
def test_patch_convolutions_give_float32_results_under_autocast(channels, kernel, side):
    """At all of these sizes except the last, oneDNN's bfloat16 results are wrong on CPUs with AMX."""
    network = nn.Sequential(nn.Conv2d(channels, 64, kernel, kernel))
    use_patch_convolutions(network)
    x = torch.randn(2, channels, side, side)
    expected = network(x)
    with bf16:
        assert torch.equal(network(x), expected)
        # An input that is bfloat16 already has lost precision.
        torch.testing.assert_close(network(x.bfloat16()), expected, rtol=0.05, atol=0.05)


def test_patch_convolutions_give_float32_gradients_under_autocast():
    network = nn.Sequential(nn.Conv2d(10, 64, 16, 16))
    use_patch_convolutions(network)
    x = torch.randn(2, 10, 64, 64)
    gradients = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            network(x).square().sum().backward()
        gradients.append(network[0].weight.grad.clone())
    assert torch.equal(*gradients)


def test_other_convolutions_are_not_replaced():
    network = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 2, 2), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 7, 4))
    use_patch_convolutions(network)
    assert patch_convolutions(network) == []
    with bf16:
        assert network(torch.randn(1, 4, 40, 40)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "model, options, replaced",
    [
        ("vit_6", {"depth": 1}, ["patch_embed.proj"]),
        ("convnext_atto", {}, ["stem.0"]),
        ("mlp_mixer_tiny", {}, ["stem.proj"]),
        ("wide_resnet", {}, []),
    ],
)
def test_create_model_replaces_the_patch_convolutions(model, options, replaced):
    network = create_model(model, 10, 19, **options)
    assert patch_convolutions(network) == replaced
    assert all(list(network.get_submodule(name).state_dict()) == ["weight", "bias"] for name in replaced)
