"""The stages and layers of every network of the zoo: in the order of computation, the head last."""

from __future__ import annotations

import pytest
import torch
from timm.models import group_parameters
from torch import nn

from landscale.errors import LandscaleError
from landscale.models import ZOO, create_model, list_models
from landscale.models.heads import create_with_head
from landscale.models.stages import check_layers, head_names, in_head, stages

LARGE = ("resnet152", "densenet201", "efficientnet_b7", "efficientnet60_eca_b7", "vit_6", "convnextv2_base")


def built(name: str, **options: int) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, 3, 5, ZOO[name].side, **options)


@pytest.mark.parametrize("name", [name for name in list_models() if name not in LARGE])
def test_every_network_lists_its_stages_and_layers(name: str) -> None:
    network = built(name)
    check_layers(network, "--freeze", name)
    found = stages(network)
    names = [key for key, _ in network.named_parameters()]
    head = [key for key in names if in_head(network, key)]
    assert head
    assert found.keys() | set(head) == set(names)
    assert sorted(set(found.values())) == list(range(max(found.values()) + 1))
    assert max(found.values()) >= 2
    layers = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
    assert all(layers[key] == max(layers.values()) for key in head)
    assert len(set(layers.values())) > max(found.values())
    first = found[names[0]] if name != "vit_small_patch14_reg4_dinov2" else 0
    assert first == 0


def test_a_norm_at_the_end_of_a_stage_belongs_to_its_last_block() -> None:
    network = built("wide_resnet", depth=16)
    layers = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
    assert layers["stages.1.2.0.weight"] == layers["stages.1.1.conv2.weight"] == layers["stages.1.0.conv1.weight"] + 1
    assert stages(network)["stages.1.2.0.weight"] == 2


def test_branches_and_members_that_compute_side_by_side_have_equal_stages() -> None:
    branches = built("k_branch", gsd=(10, 20, 60))
    layers = group_parameters(branches, branches.group_matcher(coarse=False), reverse=True)
    convolutions = {
        gsd: [layers[key] for key, p in branches.named_parameters() if f"{gsd}m.conv" in key and p.ndim == 4]
        for gsd in (10, 20, 60)
    }
    assert set(map(tuple, convolutions.values())) == {(0, 1, 2)}
    assert [stages(branches)[f"{key}.weight"] for key in ("branches.10m.convolutions.1", "joined.0")] == [0, 2]
    members = stages(built("trio"))
    assert members["members.0.stem.weight"] == members["members.2.pixel.0.weight"] == 0
    assert members["members.0.blocks.0.bn1.weight"] == members["members.2.pixel.3.weight"] == 1
    assert (
        members["members.0.norm.weight"] == members["norms.2.weight"] == members["members.1.blocks.2.bn1.weight"] == 3
    )


def test_the_trunk_of_a_query_head_keeps_its_stages() -> None:
    network = create_with_head("resnet18", 3, 5, 32, "query")
    assert head_names(network) == ("head",)
    found = stages(network)
    assert {key.removeprefix("trunk."): stage for key, stage in found.items()} == stages(built("resnet18"))


def test_a_network_without_a_list_of_layers_is_refused_in_one_line() -> None:
    with pytest.raises(LandscaleError, match="--freeze with model 'mine': the network does not list its layers"):
        check_layers(nn.Linear(2, 2), "--freeze", "mine")
