"""The stages of a network in the order in which they compute, by timm's `group_matcher`, which most networks have.

A stage is the stem, or a group of blocks at one resolution, or one block of a transformer: what timm calls a coarse group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timm.models import group_parameters
from torch import nn

from landscale.errors import LandscaleError
from landscale.models.headed_network import HeadedNetwork


def names_in_config(network: nn.Module, key: str) -> tuple[str, ...]:
    """Names of modules, none or several, under a key of timm's configuration of a network, such as `classifier`."""
    cfg: Mapping[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    names: str | Sequence[str] | None = cfg.get(key)
    return (names,) if isinstance(names, str) else tuple(names or ())


def head_names(network: nn.Module) -> tuple[str, ...]:
    """Names of the modules that map features to logits: all of a query head, else the last layer."""
    return ("head",) if isinstance(network, HeadedNetwork) else names_in_config(network, "classifier")


def in_head(network: nn.Module, name: str) -> bool:
    """Whether a module, parameter or buffer of this name belongs to the head."""
    return any(name == head or name.startswith(f"{head}.") for head in head_names(network))


def check_layers(network: nn.Module, key: str, model: str) -> None:
    """Refuse a network whose layers have no known order.

    Args:
        key: the recipe's key that needs the order, for the message.
        model: name of the network.

    Raises:
        LandscaleError: the network has no `group_matcher`.
    """
    if not hasattr(network.trunk if isinstance(network, HeadedNetwork) else network, "group_matcher"):
        raise LandscaleError(
            f"{key} with model '{model}': the network does not list its layers in order (timm's group_matcher);"
            " choose another --model"
        )


def stages(network: nn.Module) -> dict[str, int]:
    """The stage, from 0, of every parameter of a network with a `group_matcher`; those of the head are left out."""
    try:
        matcher = network.group_matcher(coarse=True)  # type: ignore[operator]
    except AssertionError:  # networks with one grouping only, which is that of stages
        matcher = network.group_matcher(coarse=False)  # type: ignore[operator]
    groups = {
        name: group
        for name, group in group_parameters(network, matcher, reverse=True).items()
        if not in_head(network, name)
    }
    numbers = {group: number for number, group in enumerate(sorted(set(groups.values())))}
    return {name: numbers[group] for name, group in groups.items()}
