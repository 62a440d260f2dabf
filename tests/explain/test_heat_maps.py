"""Heat maps of every network of the zoo: their shape, finite, not constant, and where the evidence is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from landscale.errors import LandscaleError
from landscale.explain.heat_maps import class_maps, heat_maps
from landscale.models import ZOO, create_model, list_models
from landscale.models.classifier import Classifier, Description
from landscale.models.heads import create_with_head

pytestmark = pytest.mark.usefixtures("seeded")

QUICK = (
    *("wide_resnet_eca", "lambda_resnet", "vgg16_gap", "vit_20", "mlp_mixer_tiny", "k_branch", "trio", "resnet18"),
    *("efficientnet60_eca_ghost", "densenet121", "efficientnet_b0", "convnextv2_atto", "mobilenetv4_conv_small"),
    *("vit_small_patch8_224", "vit_small_patch14_reg4_dinov2", "swinv2_tiny_window8_256", "maxvit_tiny_tf_224"),
    *("mobilevit_s", "rdnet_tiny"),
)
SIDES = {
    **{"swinv2_tiny_window8_256": 128, "swinv2_small_window8_256": 128, "maxvit_tiny_tf_224": 128},
    **{"vit_small_patch14_reg4_dinov2": 70, "vit_small_patch8_224": 64, "vit_base_patch8_224": 64},
}
BANDS, CLASSES = 10, 5


def with_varied_weights(network: nn.Module) -> nn.Module:
    """Replace weights that start at 0, as classifiers and last norms of some networks, which would give no gradient."""
    for name, p in network.named_parameters():
        if name.endswith(("weight", "gamma")) and p.abs().max() < 1e-2:
            nn.init.constant_(p, 0.25) if p.ndim == 1 else nn.init.normal_(p, std=p.shape[-1] ** -0.5)
    return network


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in list_models()]
)
def test_every_network_has_heat_maps(name: str) -> None:
    side = SIDES.get(name, ZOO[name].side)
    network = with_varied_weights(create_model(name, BANDS, CLASSES, side))
    x = torch.randn(2, BANDS, side, side) + 2 * torch.randn(2, BANDS, 1, 1)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.momentum = 1.0  # running statistics of this input; with the initial ones, outputs are near 1e-10
    with torch.no_grad():
        network.train()(x)
    network.eval()
    found = torch.stack([class_maps(network, x, [c, c]) for c in range(CLASSES)])
    assert found.shape == (CLASSES, 2, side, side)
    assert found.isfinite().all()
    assert found.min() >= 0
    assert (found.flatten(2).std(2) > 0).any(0).all(), "the heat maps of all classes are constant"
    assert not torch.allclose(found[:, 0], found[:, 1]), "the heat maps do not depend on the patch"


@pytest.mark.parametrize(
    "name,head", [("resnet18", "ml_decoder"), ("vit_20", "query"), ("swinv2_tiny_window8_256", "query")]
)
def test_networks_with_other_heads(name: str, head: str) -> None:
    side = SIDES.get(name, 120)
    network = create_with_head(name, BANDS, CLASSES, side, head).eval()
    found = class_maps(network, torch.randn(2, BANDS, side, side), [0, 1])
    assert found.shape == (2, side, side)
    assert found.std() > 0


class Blocks(nn.Module):
    """Means of squares of 4 px are the features; class c is the sum of channel c, so its heat map is that channel."""

    num_features = 2

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x, 4)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return x.mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


def blocks(views: int) -> Classifier:
    statistics = {"B02": (0.0, 1.0), "B03": (0.0, 1.0)}
    d = Description("resnet18", ("B02", "B03"), ("a", "b"), "custom", True, statistics, 16, 160, views=views)
    return Classifier(d, Blocks()).eval()


@pytest.mark.parametrize("views", [1, 8])
def test_the_heat_is_where_the_evidence_is_and_in_units_of_the_logit(views: int) -> None:
    """For every view: a view that is not turned back would bring heat to the other corners."""
    pixels = torch.zeros(2, 2, 16, 16)
    pixels[:, 0, :4, 8:12] = 16.0  # patch 0, class a
    pixels[:, 1, 8:12, :4] = 32.0  # patch 1, class b
    pixels[:, 1, 12:, 12:] = -32.0  # evidence against it
    found = heat_maps(blocks(views), {("B02", "B03"): pixels}, [0, 1])
    assert int(found[0].argmax()) in {row * 16 + column for row in range(4) for column in range(8, 12)}
    assert found[1, 8:12, :4].sum() > 0.5 * found[1].sum()
    assert found[1, 14:, 14:].sum() == 0
    assert float(found[0].mean()) == pytest.approx(1.0, rel=1e-3)  # the logit is the mean of the map
    assert float(found[1].mean()) == pytest.approx(2.0, rel=1e-3)


def test_a_network_without_features_is_refused() -> None:
    with pytest.raises(LandscaleError, match="forward_features"):
        class_maps(nn.Flatten(), torch.randn(1, 2, 4, 4), [0])
