"""timm's entries of `config.json`, with which timm loads weights by itself, without landscale.

`timm.create_model("local-dir:FOLDER", pretrained=True)`, or `hf-hub:owner/name`, gives the bare network: it takes normalised
tensors and returns logits. Only networks that timm defines get these entries. A network of landscale, and one whose head timm
does not have, would need landscale's classes, so timm could only fail.
"""

from __future__ import annotations

import sys
from typing import Any

import timm
from torch import nn

from landscale.models.classifier import Classifier, Description
from landscale.models.registry import fixed_side


def timm_config(classifier: Classifier, licence: str | None = None) -> dict[str, Any]:
    """timm's entries for a classifier; empty if timm cannot build its network.

    `mean` and `std` are in the unit of the pixels, except those of 8-bit pixels, which are divided by 255, because timm's
    transforms divide such pixels by 255 first. They have one number for each channel of the network.
    """
    d, inputs, network = classifier.description, classifier.inputs, classifier.network
    name = d.model.partition(".")[0]  # without the tag of pre-trained weights
    if d.head != "linear" or not _is_of_timm(name):
        return {}
    unit = 255.0 if divides_by_255(d) else 1.0
    defaults = getattr(network, "pretrained_cfg", {})
    fixed = fixed_side(name) is not None
    # Rates of dropout belong to a training, and timm leaves them out too.
    options = {
        key: value for key, value in d.options.items() if not key.endswith("drop_rate") and key != "drop_block_rate"
    }
    arguments = {"in_chans": inputs.channels, "num_classes": len(d.classes), **({"img_size": d.side} if fixed else {})}
    cfg = {
        "custom_load": False,
        "input_size": [inputs.channels, d.side, d.side],
        "fixed_input_size": fixed,
        "interpolation": d.upsample if d.upsample != "stored" else "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": [value / unit for value in inputs.mean.tolist()],
        "std": [value / unit for value in inputs.std.tolist()],
        "num_classes": len(d.classes),
        "pool_size": None,
        "first_conv": defaults.get("first_conv"),
        "classifier": defaults.get("classifier"),
        **({"license": licence} if licence else {}),
    }
    return {
        "architecture": name,
        "num_classes": len(d.classes),
        "num_features": getattr(network, "num_features", None),
        **_pooling(network),
        **({"label_names": list(d.classes)} if d.classes else {}),
        "model_args": arguments | options,
        "pretrained_cfg": cfg,
    }


def divides_by_255(d: Description) -> bool:
    """Whether timm's `mean` and `std` are those of pixels divided by 255."""
    return d.scale == "linear" and all(d.units.get(band) == "8-bit" for band in d.bands)


def _is_of_timm(name: str) -> bool:
    """Whether timm itself defines the network, which is not so for those that landscale registers with it."""
    if not timm.is_model(name):
        return False
    entry_point = timm.model_entrypoint(name)
    module = sys.modules.get(entry_point.__module__)
    return entry_point.__module__.startswith("timm.") and getattr(module, name, None) is entry_point


def _pooling(network: nn.Module) -> dict[str, str]:
    """How the network pools its last features, for readers; timm does not use it."""
    for owner in (getattr(network, "head", None), network):
        pool = getattr(owner, "global_pool", None)
        pool = getattr(pool, "pool_type", pool)
        if isinstance(pool, str) and pool:
            return {"global_pool": pool}
    return {}
