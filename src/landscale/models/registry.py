"""The zoo: the list of networks that landscale has by name, with their sources; any other timm model works too.

Each family adds its rows when its module is imported; `zoo` imports all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from landscale.errors import LandscaleError, UnknownName, reason
from landscale.models.compound import Scaling
from landscale.models.options import NETWORK_OPTIONS, check_options
from landscale.models.patch_convolution import use_patch_convolutions

_DENSE = ("convnext", "densenet", "rdnet", "resnet")  # families of timm
PATCH_SIDE = 120  # pixels a side of a BigEarthNet patch at 10 m


@dataclass(frozen=True)
class ZooEntry:
    """One row of the zoo.

    Attributes:
        name: name of the network, as registered with timm.
        family: group of networks to which it belongs, for tables.
        source: the paper that describes it.
        side: input side in pixels to which a patch is resampled; a patch of 1.2 km has 120 at 10 m.
        published: results published by others: data set and protocol → name of the score → value.
        scaled: function from a compound scaling to options and input side; None if the network cannot be scaled.
        native: whether the network uses bands at their native resolution. It then gets coarser bands by nearest upsampling
            and the ground sampling distance of each channel as the option `gsd`.
        dense: whether maps may be computed from the features of adjacent patches (`models.dense`): the network ends in a mean
            over a map of features that depend mostly on what is near them.
    """

    name: str
    family: str
    source: str
    side: int = PATCH_SIDE
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)
    scaled: Callable[[Scaling], tuple[dict[str, Any], int]] | None = None
    native: bool = False
    dense: bool = False


AUTHORS = "Papoutsis et al. 2022, their code, 10 bands, 19 classes"  # parameters counted by us in their code

ZOO: dict[str, ZooEntry] = {}


def register(entry: ZooEntry) -> None:
    """Add a row to the zoo. The network must be registered with timm under the same name (`timm.models.register_model`).

    Then its name can be used wherever a model is named: in training, `create_model`, `describe_model` and weights.

    Raises:
        ValueError: the name is taken, or timm has no such network.
    """
    if entry.name in ZOO:
        raise ValueError(f"model '{entry.name}' is in the zoo already")
    if not timm.is_model(entry.name):
        raise ValueError(f"model '{entry.name}' is not registered with timm")
    ZOO[entry.name] = entry


def list_models() -> list[str]:
    """The names of all networks of the zoo. `create_model` also takes any other name of timm."""
    return [entry.name for entry in zoo()]


def zoo(name: str | None = None) -> list[ZooEntry]:
    """All rows of the zoo, or a list with the row of one network, which may also be any other of timm.

    Raises:
        UnknownName: neither the zoo nor timm has a network of this name.
    """
    import_module("landscale.models.families")
    if name is None:
        return list(ZOO.values())
    if name in ZOO:
        return [ZOO[name]]
    if not timm.is_model(name):
        raise UnknownName(
            "model", name, dict.fromkeys([*ZOO, *timm.list_models()])
        )  # timm's list contains those of the zoo as well
    family = timm.model_entrypoint(name).__module__.rsplit(".", 1)[-1]
    return [ZooEntry(name, family, "timm", fixed_side(name) or PATCH_SIDE, dense=family in _DENSE)]


def fixed_side(name: str) -> int | None:
    """The default input side in pixels of a network built for one side (most transformers); None for any other network."""
    cfg = timm.get_pretrained_cfg(name)
    return cfg.input_size[-1] if cfg is not None and cfg.fixed_input_size else None


def create_model(name: str, bands: int, classes: int, side: int | None = None, **kwargs: Any) -> nn.Module:
    """A network with random weights. Nothing is downloaded.

    Args:
        name: a network of the zoo, or any other of timm.
        bands: input channels, at least 1.
        classes: outputs; with 0, the network returns its pooled features.
        side: input side in pixels, that of the zoo by default. Only networks built for one side need it.
        kwargs: options of the network, as in timm (`drop_rate`, `drop_path_rate`, …).

    Shapes: (N, bands, H, W) → (N, classes).

    Raises:
        UnknownName: neither the zoo nor timm has a network of this name, or the option is not in `options.NETWORK_OPTIONS`.
        LandscaleError: the network has no such option or cannot be built with it, or `bands` is below 1.
    """
    entry = zoo(name)[0]
    if bands < 1 or classes < 0:
        raise LandscaleError(f"model '{name}' needs at least 1 band and 0 classes, got {bands} and {classes}")
    if reserved := kwargs.keys() & {"pretrained", "in_chans", "num_classes"}:
        raise LandscaleError(
            f"model '{name}' takes no option '{min(reserved)}'; use bands and classes for the shape; weights are always random"
        )
    check_options(f"model '{name}'", kwargs, NETWORK_OPTIONS)
    if fixed_side(name):
        kwargs = {"img_size": side or entry.side} | kwargs
    try:
        network = timm.create_model(name, pretrained=False, in_chans=bands, num_classes=classes, **kwargs)
    except TypeError as error:
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if refused:
            raise LandscaleError(f"model '{name}' takes no option '{refused[1]}'") from error
        raise LandscaleError(f"model '{name}' cannot be built with {kwargs} ({reason(error)})") from error
    except (ValueError, AssertionError, ArithmeticError, LookupError, AttributeError) as error:
        raise LandscaleError(f"model '{name}' cannot be built with {kwargs} ({reason(error)})") from error
    use_patch_convolutions(network)
    return network


def _without_storage(name: str, bands: int, classes: int, side: int, **options: Any) -> nn.Module:
    """`create_model` on torch's meta device: shapes without values; the random state does not change."""
    try:
        with torch.device("meta"):
            return create_model(name, bands, classes, side, **options)
    except RuntimeError:  # some networks read values of tensors while they are built
        with torch.random.fork_rng(devices=[]):
            return create_model(name, bands, classes, side, **options).to("meta")


def describe_model(
    name: str, bands: int = 12, classes: int = 19, side: int | None = None, **options: Any
) -> dict[str, Any]:
    """The size and cost of a network, ready for JSON. Arguments are those of `create_model`.

    `parameters` is the number of trainable parameters. `flops` is that of the forward pass of one patch of
    (bands, side, side), where a multiply-add counts as two. Convolutions, matrix products and attention are counted,
    normalisation and activations are not (torch's FlopCounterMode). The random state does not change.

    Raises:
        UnknownName: neither the zoo nor timm has a network of this name.
    """
    entry = zoo(name)[0]
    side = side or entry.side
    model = _without_storage(name, bands, classes, side, **options).eval()
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.requires_grad_(False)  # no graph is built while FLOPs are counted
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, bands, side, side, device="meta"))
    return {
        "name": entry.name,
        "family": entry.family,
        "parameters": parameters,
        "flops": counter.get_total_flops(),
        "input": [bands, side, side],
        "source": entry.source,
        "published": {where: dict(figures) for where, figures in entry.published.items()},
    }
