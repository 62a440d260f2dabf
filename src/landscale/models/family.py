"""Our own networks join timm and the zoo: a variant is a row of data."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from landscale.models.registry import ZooEntry, register

BANDS, CLASSES = 10, 19  # unless told otherwise, as Papoutsis et al.: the bands at 10 and 20 m, BigEarthNet-19


def add(
    network: type[nn.Module],
    entry: ZooEntry,
    options: Mapping[str, Any],
    *,
    first_conv: str | Sequence[str],
    classifier: str | Sequence[str],
    fixed_side: bool = False,
    features: Mapping[str, Any] | None = None,
) -> None:
    """Register `network` with these options under the entry's name, with timm and in the zoo.

    Args:
        network: takes `in_chans`, `num_classes` and the options; with `fixed_side` also `img_size`.
        first_conv: name of the module that sees the bands.
        classifier: name of the module that gives the classes.
        features: how timm finds the maps for `features_only`, as `build_model_with_cfg` takes it.

    Raises:
        ValueError: the name is taken.
    """
    name = entry.name
    if timm.is_model(name):  # timm itself would only warn and overwrite
        raise ValueError(f"model '{name}' is registered with timm already")
    side = entry.side

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        settings = {"in_chans": BANDS} | dict(options) | kwargs
        overlay = settings.pop("pretrained_cfg_overlay", None) or {}
        shape = (settings["in_chans"], side, side)
        return build_model_with_cfg(
            network,
            name,
            pretrained,
            pretrained_cfg_overlay={"input_size": shape, **overlay},
            feature_cfg=dict(features or {}),
            **settings,
        )

    cfg = {
        "num_classes": CLASSES,
        "input_size": (BANDS, side, side),
        "fixed_input_size": fixed_side,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "first_conv": first_conv,
        "classifier": classifier,
        "paper_name": entry.source,
    }
    entrypoint.__name__ = entrypoint.__qualname__ = name  # timm registers an entry point under its function's name
    entrypoint.__module__ = network.__module__  # and beside the configurations of its module
    entrypoint.__doc__ = f"{network.__name__} with {dict(options)}, input side {side} px; its class tells more options."
    vars(sys.modules[network.__module__]).setdefault("default_cfgs", {}).update(generate_default_cfgs({name: cfg}))
    register_model(entrypoint)
    register(entry)
