"""The zoo: the networks landscale knows by name and where they come from; any other timm model works too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from landscale.errors import LandscaleError, UnknownName
from landscale.models import trio as _trio  # noqa: F401  importing a family registers its names with timm
from landscale.models import wide_resnet as _wide_resnet  # noqa: F401

PATCH_SIDE = 120  # of a BigEarthNet patch at 10 m


@dataclass(frozen=True)
class ZooEntry:
    """One row of the zoo.

    `source` is the paper, `side` the input side in pixels that a patch is resampled to (a 1.2 km patch at 10 m has
    120), `published` what others report: dataset and protocol → figure → value.
    """

    name: str
    family: str
    source: str
    side: int = PATCH_SIDE
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)


_HE = "He et al. 2016, Deep residual learning for image recognition"
_WRN = "Zagoruyko & Komodakis 2016, Wide residual networks; Papoutsis et al. 2022"
_ECA = "Papoutsis et al. 2022, Benchmarking and scaling of deep learning models for land cover image classification"
_AUTHORS = "Papoutsis et al. 2022, their code, 10 bands, 19 classes"
_REBEN = "Clasen et al. 2024 (reBEN), BigEarthNet v2, S1+S2, test"
_AITLAS = "AiTLAS, BigEarthNet v1, 19 classes, RGB, from scratch"

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


for _row in (
    ZooEntry("wide_resnet", "wide_resnet", _WRN, 60, {_AUTHORS: {"parameters": 305_875}}),
    ZooEntry("wide_resnet_eca", "wide_resnet", _ECA, 60, {_AUTHORS: {"parameters": 305_889}}),
    ZooEntry("wide_resnet_eca_b1", "wide_resnet", _ECA, 60),
    ZooEntry("wide_resnet_eca_b2", "wide_resnet", _ECA, 70),
    ZooEntry("wide_resnet_eca_b3", "wide_resnet", _ECA, 80),
    ZooEntry("wide_resnet_eca_b4", "wide_resnet", _ECA, 90, {_AUTHORS: {"parameters": 984_313}}),
    ZooEntry("wide_resnet_eca_b5", "wide_resnet", _ECA, 100),
    ZooEntry("wide_resnet_eca_b6", "wide_resnet", _ECA, 110),
    ZooEntry("wide_resnet_eca_b7", "wide_resnet", _ECA, 120),
    ZooEntry("trio", "trio", "landscale, for stores of a few hundred patches", 60),
    ZooEntry("resnet18", "resnet", _HE),
    ZooEntry(
        "resnet50",
        "resnet",
        _HE,
        published={
            _AUTHORS: {"parameters": 23_595_475},  # with convolution biases, which timm's lacks
            _REBEN: {"micro_f1": 0.767, "macro_f1": 0.644, "micro_ap": 0.861, "macro_ap": 0.703},
            _AITLAS: {"micro_f1": 0.775, "macro_f1": 0.701},
        },
    ),
):
    register(_row)


def list_models() -> list[str]:
    """The names of the zoo, in its order."""
    return list(ZOO)


def zoo(name: str | None = None) -> list[ZooEntry]:
    """All rows of the zoo, or the one called `name`, which may also be any other timm model.

    Raises:
        UnknownName: neither the zoo nor timm has it.
    """
    if name is None:
        return list(ZOO.values())
    if name in ZOO:
        return [ZOO[name]]
    if not timm.is_model(name):
        raise UnknownName("model", name, dict.fromkeys([*ZOO, *timm.list_models()]))  # the zoo's are in both
    family = timm.model_entrypoint(name).__module__.rsplit(".", 1)[-1]
    return [ZooEntry(name, family, "timm", _fixed_side(name) or PATCH_SIDE)]


def _fixed_side(name: str) -> int | None:
    """The side that a network is built for when it cannot take any (most transformers), else None."""
    cfg = timm.get_pretrained_cfg(name)
    return cfg.input_size[-1] if cfg is not None and cfg.fixed_input_size else None


def create(name: str, bands: int, classes: int, **kwargs: Any) -> nn.Module:
    """The network `name` with fresh weights, for `bands` input channels and `classes` outputs (0: no classifier).

    `kwargs` are timm's options of that network (`drop_rate`, `drop_path_rate`, …). Nothing is ever downloaded.
    Shapes: (N, bands, H, W) → (N, classes).

    Raises:
        UnknownName: neither the zoo nor timm has it.
        LandscaleError: an option that the network does not take, or no bands.
    """
    zoo(name)
    if bands < 1 or classes < 0:
        raise LandscaleError(f"model '{name}' needs at least 1 band and 0 classes, got {bands} and {classes}")
    if reserved := kwargs.keys() & {"pretrained", "in_chans", "num_classes"}:
        raise LandscaleError(
            f"model '{name}' takes no option '{min(reserved)}'; bands and classes say the shape, weights start fresh"
        )
    try:
        return timm.create_model(name, pretrained=False, in_chans=bands, num_classes=classes, **kwargs)
    except TypeError as error:
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if refused:
            raise LandscaleError(f"model '{name}' takes no option '{refused[1]}'") from error
        raise


def _without_storage(name: str, bands: int, classes: int, **kwargs: Any) -> nn.Module:
    """`create` on torch's meta device: shapes only, and the random state is left alone."""
    try:
        with torch.device("meta"):
            return create(name, bands, classes, **kwargs)
    except RuntimeError:  # it reads a tensor's values while it is built, as older timm's transformers do
        with torch.random.fork_rng(devices=[]):
            return create(name, bands, classes, **kwargs).to("meta")


def describe(name: str, bands: int = 12, classes: int = 19, side: int | None = None) -> dict[str, Any]:
    """What a network is and costs, ready for JSON.

    `parameters` counts the trainable ones. `flops` is the forward pass of one patch of (bands, side, side) with a
    multiply-add counted as two; convolutions, matrix products and attention count, normalisation and activations do
    not (torch's FlopCounterMode). The random state is left alone.

    Raises:
        UnknownName: neither the zoo nor timm has it.
    """
    entry = zoo(name)[0]
    side = side or entry.side
    options = {"img_size": side} if _fixed_side(name) else {}
    model = _without_storage(name, bands, classes, **options).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, bands, side, side, device="meta"))
    return {
        "name": entry.name,
        "family": entry.family,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "flops": counter.get_total_flops(),
        "input": [bands, side, side],
        "source": entry.source,
        "published": {where: dict(figures) for where, figures in entry.published.items()},
    }
