"""Register landscale's own networks, and variants of them with other options, with timm and the zoo."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from landscale.models.compound import Scaling
from landscale.models.registry import AUTHORS, ZooEntry, register

BANDS, CLASSES = 10, 19  # defaults, as in Papoutsis et al.: the bands at 10 and 20 m, BigEarthNet-19


def add_network(
    network: type[nn.Module],
    entry: ZooEntry,
    options: Mapping[str, Any],
    *,
    first_conv: str | Sequence[str],
    classifier: str | Sequence[str],
    fixed_side: bool = False,
    features: Mapping[str, Any] | None = None,
    sizes: Mapping[str, Scaling] | None = None,
    counts: Mapping[str, int] | None = None,
) -> None:
    """Register `network` with these options under the entry's name, with timm and in the zoo.

    Its compound-scaled sizes are registered too: `wide_resnet_eca` with the size `b4` as `wide_resnet_eca_b4`.

    Args:
        network: takes `in_chans`, `num_classes` and the options; with `fixed_side` also `img_size`.
        first_conv: name of the first convolution, whose inputs are the bands.
        classifier: name of the last layer, whose outputs are the classes.
        features: argument `feature_cfg` of timm's `build_model_with_cfg`, for `features_only`.
        sizes: name of a size → its scaling; the entry must have `scaled`.
        counts: numbers of parameters in the authors' code, by name of the network.

    Raises:
        ValueError: the name is taken.
    """
    rows = [(entry, dict(options))]
    for size, scaling in (sizes or {}).items():
        assert entry.scaled is not None
        more, side = entry.scaled(scaling)
        rows.append((replace(entry, name=f"{entry.name}_{size}", side=side, scaled=None), dict(options) | more))
    cfg = {"first_conv": first_conv, "classifier": classifier, "fixed_input_size": fixed_side}
    for row, settings in rows:
        count = (counts or {}).get(row.name)
        published = {AUTHORS: {"parameters": count}} if count else {}
        _register(network, replace(row, published=published), settings, cfg, dict(features or {}))


def _register(
    network: type[nn.Module], entry: ZooEntry, options: dict[str, Any], cfg: dict[str, Any], features: dict[str, Any]
) -> None:
    name, side = entry.name, entry.side
    if timm.is_model(name):  # timm would only warn and overwrite it
        raise ValueError(f"model '{name}' is registered with timm already")

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        settings = {"in_chans": BANDS} | options | kwargs
        overlay = settings.pop("pretrained_cfg_overlay", None) or {}
        overlay = {"input_size": (settings["in_chans"], side, side), **overlay}
        return build_model_with_cfg(
            network, name, pretrained, pretrained_cfg_overlay=overlay, feature_cfg=dict(features), **settings
        )

    cfg = cfg | {
        "num_classes": options.get("num_classes", CLASSES),
        "input_size": (options.get("in_chans", BANDS), side, side),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "paper_name": entry.source,
    }
    entrypoint.__name__ = entrypoint.__qualname__ = name  # timm registers an entry point under its function's name
    entrypoint.__module__ = network.__module__  # and looks up its default configuration in its module
    entrypoint.__doc__ = f"{network.__name__} with {options}, input side {side} px; its class has more options."
    vars(sys.modules[network.__module__]).setdefault("default_cfgs", {}).update(generate_default_cfgs({name: cfg}))
    register_model(entrypoint)
    register(entry)
