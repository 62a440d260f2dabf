"""Published tensors → a folder of weights, with everything that is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from landscale.errors import BadInput
from landscale.models.classifier import Classifier, Description
from landscale.models.encoders.entry import NOT_STATED, Entry, Inputs
from landscale.models.encoders.torchvision_swin import is_torchvision_swin, timm_names
from landscale.models.weights import check_finite, save_weights

# Tensors that a published encoder may have or lack, as for TorchGeo: the last norm of a vision transformer. Without it, the
# network keeps its initial one.
_MAY_LACK = ("norm.weight", "norm.bias")
_COUNTER = "num_batches_tracked"  # of a batch norm; inference does not use it, and older files lack it


def describe(entry: Entry) -> Description:
    """The description of a published network."""
    inputs: dict[str, Any] = {field.name: getattr(entry.inputs, field.name) for field in fields(Inputs)}
    return Description(
        model=entry.model,
        classes=entry.classes,
        nomenclature=entry.nomenclature,
        multi_label=bool(entry.classes),
        **inputs,
    )


def save_converted(
    folder: Path, entry: Entry, tensors: Mapping[str, Tensor], path: Path, digest: str, **more: str
) -> None:
    """Write a folder of weights.

    Args:
        folder: replaced if it exists.
        entry: what is known of the tensors.
        tensors: by name, as they were published.
        path: the file that they come from, for error messages.
        digest: its SHA-256.
        more: further fields of `provenance`.

    Raises:
        BadInput: the tensors are not those of the network.
    """
    check_finite(path, tensors)
    with torch.random.fork_rng(devices=[]):  # building a network must not change the random numbers of a training
        classifier = Classifier(describe(entry))
    load_tensors(classifier.network, tensors, path, entry.model, headless=not entry.classes)
    about = {key: getattr(entry, key) for key in ("licence", "citation", "source", "url")}
    provenance = {"encoder": entry.name, **about, "digest": digest, **more}
    licence = entry.licence if entry.licence != NOT_STATED else None
    save_weights(folder, classifier, provenance, licence=licence)


def load_tensors(
    network: nn.Module, tensors: Mapping[str, Tensor], path: Path, model: str, *, headless: bool = False
) -> None:
    """Load published tensors into a network of timm; a prefix that all of its names have in the file is found and removed.

    Args:
        headless: whether the network has no last layer, so that the file may have one.

    Raises:
        BadInput: a tensor is missing, left over, or of another shape.
    """
    own = network.state_dict()
    if is_torchvision_swin(tensors):
        tensors = timm_names(tensors, path)
    prefix = _prefix(tensors, own)
    found = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    if headless:
        last = _last_layers(network)
        found = {n: t for n, t in found.items() if n in own or not (n.startswith(last) or n in _MAY_LACK)}
    kept = {n: t for n, t in own.items() if n.endswith(_COUNTER) or (headless and n in _MAY_LACK)}
    complete = {**kept, **found}
    for name in own:
        if name not in complete:
            raise BadInput(path, f"does not fit {model}: lacks tensor {prefix}{name}")
    for name, tensor in complete.items():
        if name not in own:
            raise BadInput(path, f"does not fit {model}: has an unexpected tensor {prefix}{name}")
        if tensor.shape != own[name].shape:
            shapes = f"{tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
            raise BadInput(path, f"does not fit {model}: {prefix}{name} has shape {shapes}")
    network.load_state_dict(complete)


def _last_layers(network: nn.Module) -> tuple[str, ...]:
    """Prefixes of the tensors of the last layer, by timm's configuration of the network."""
    names = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))


def _prefix(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """The prefix in the file under which most tensors of the network are found; empty if there is none."""
    longest = max((name for name in own if not name.endswith(_COUNTER)), key=len)
    prefixes = {name.removesuffix(longest) for name in tensors if name == longest or name.endswith(f".{longest}")}
    return max(sorted(prefixes), key=lambda prefix: sum(prefix + name in tensors for name in own), default="")
