"""The zoo: the networks landscale knows by name and where they come from; any other timm model works too.

Each family adds its rows when it is imported: `zoo` imports all of them.
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

from landscale.errors import LandscaleError, UnknownName
from landscale.models.compound import Scaling
from landscale.models.patch_convolution import use_patch_convolutions

PATCH_SIDE = 120  # of a BigEarthNet patch at 10 m


@dataclass(frozen=True)
class ZooEntry:
    """One row of the zoo.

    `source` is the paper, `side` the input side in pixels that a patch is resampled to (a 1.2 km patch at 10 m has
    120), `published` what others report: dataset and protocol → figure → value; `scaled` options and side of the
    network at a compound scaling, None where it has none; `native` whether it takes coarser bands as they are, by nearest
    upsampling, and is told each channel's ground sampling distance as the option `gsd`.
    """

    name: str
    family: str
    source: str
    side: int = PATCH_SIDE
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)
    scaled: Callable[[Scaling], tuple[dict[str, Any], int]] | None = None
    native: bool = False


AUTHORS = "Papoutsis et al. 2022, their code, 10 bands, 19 classes"  # whose parameters we counted

ZOO: dict[str, ZooEntry] = {}


def register(entry: ZooEntry) -> None:
    """Add a row to the zoo; its network must be registered with timm under the same name.

    Raises:
        ValueError: the name is taken, or timm has no such network.
    """
    if entry.name in ZOO:
        raise ValueError(f"model '{entry.name}' is in the zoo already")
    if not timm.is_model(entry.name):
        raise ValueError(f"model '{entry.name}' is not registered with timm")
    ZOO[entry.name] = entry


def list_models() -> list[str]:
    """The names of the zoo, in its order."""
    return [entry.name for entry in zoo()]


def zoo(name: str | None = None) -> list[ZooEntry]:
    """All rows of the zoo, or the one called `name`, which may also be any other timm model.

    Raises:
        UnknownName: neither the zoo nor timm has it.
    """
    import_module("landscale.models.families")
    if name is None:
        return list(ZOO.values())
    if name in ZOO:
        return [ZOO[name]]
    if not timm.is_model(name):
        raise UnknownName("model", name, dict.fromkeys([*ZOO, *timm.list_models()]))  # the zoo's are in both
    family = timm.model_entrypoint(name).__module__.rsplit(".", 1)[-1]
    return [ZooEntry(name, family, "timm", fixed_side(name) or PATCH_SIDE)]


def fixed_side(name: str) -> int | None:
    """The side that a network has unless told otherwise if it is built for one (most transformers), else None."""
    cfg = timm.get_pretrained_cfg(name)
    return cfg.input_size[-1] if cfg is not None and cfg.fixed_input_size else None


def create_model(name: str, bands: int, classes: int, side: int | None = None, **kwargs: Any) -> nn.Module:
    """The network `name` with fresh weights, for `bands` input channels and `classes` outputs (0: no classifier).

    `side` is the input's in pixels, the zoo's own by default; only a network that is built for one side takes notice.
    `kwargs` are timm's options of that network (`drop_rate`, `drop_path_rate`, …). Nothing is ever downloaded.
    Shapes: (N, bands, H, W) → (N, classes).

    Raises:
        UnknownName: neither the zoo nor timm has it.
        LandscaleError: an option that the network does not take, or no bands.
    """
    entry = zoo(name)[0]
    if bands < 1 or classes < 0:
        raise LandscaleError(f"model '{name}' needs at least 1 band and 0 classes, got {bands} and {classes}")
    if reserved := kwargs.keys() & {"pretrained", "in_chans", "num_classes"}:
        raise LandscaleError(
            f"model '{name}' takes no option '{min(reserved)}'; bands and classes say the shape, weights start fresh"
        )
    if fixed_side(name):
        kwargs = {"img_size": side or entry.side} | kwargs
    try:
        network = timm.create_model(name, pretrained=False, in_chans=bands, num_classes=classes, **kwargs)
    except TypeError as error:
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if refused:
            raise LandscaleError(f"model '{name}' takes no option '{refused[1]}'") from error
        raise
    use_patch_convolutions(network)
    return network


def _without_storage(name: str, bands: int, classes: int, side: int, **options: Any) -> nn.Module:
    """`create_model` on torch's meta device: shapes only, and the random state is left alone."""
    try:
        with torch.device("meta"):
            return create_model(name, bands, classes, side, **options)
    except RuntimeError:  # it reads a tensor's values while it is built, as older timm's transformers do
        with torch.random.fork_rng(devices=[]):
            return create_model(name, bands, classes, side, **options).to("meta")


def describe_model(
    name: str, bands: int = 12, classes: int = 19, side: int | None = None, **options: Any
) -> dict[str, Any]:
    """What a network, with `create_model`'s options, is and costs, ready for JSON.

    `parameters` counts the trainable ones. `flops` is the forward pass of one patch of (bands, side, side) with a
    multiply-add counted as two; convolutions, matrix products and attention count, normalisation and activations do
    not (torch's FlopCounterMode). The random state is left alone.

    Raises:
        UnknownName: neither the zoo nor timm has it.
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
