"""Heat maps of classes: Grad-CAM for every network of the zoo.

Selvaraju et al. 2017 (Grad-CAM: visual explanations from deep networks via gradient-based localization). A map of features is
summed over its channels, each weighted by the gradient of the class's logit; only positive sums are kept. Weights here are the
sum of the gradient over positions instead of its mean. So the mean of the map, before negative values are removed, is what the
features contribute to the logit to first order, and the values of different patches and networks have one unit. For the same
reason nothing is divided by the maximum of a patch, as in the library grad-cam (PyPI), which also needs OpenCV.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from landscale.errors import LandscaleError
from landscale.loading import Native
from landscale.loading.resize import resize
from landscale.models.classifier import Classifier
from landscale.models.headed_network import HeadedNetwork
from landscale.models.input_stage import turn, turn_back
from landscale.models.k_branch import KBranch
from landscale.models.trio import SpatialMember, Trio


def inner_layers(network: nn.Module) -> list[nn.Module]:
    """The layers whose outputs are the last maps of features; empty if these are what `forward_features` returns.

    A transformer may classify by a class token alone, so the tokens of the patch are taken where its last block reads them.
    Networks of several branches have a map for each, whose heat maps are added.
    """
    if isinstance(network, HeadedNetwork):
        return []  # its head reads all tokens
    if isinstance(network, VisionTransformer):
        return [network.blocks[-1].norm1]  # type: ignore[list-item]
    if isinstance(network, KBranch):
        return [branch.convolutions for branch in network.branches.values()]  # type: ignore[misc]
    if isinstance(network, Trio):
        members = network.members
        return [member.norm if isinstance(member, SpatialMember) else member.pixel for member in members]  # type: ignore[misc]
    return []


def heat_maps(classifier: Classifier, planes: Native, classes: Sequence[int]) -> Tensor:
    """The heat map of one class for each of n patches: (n, side, side) float32, at least 0, in units of the logit.

    `side` is that of the network's input. The result is the mean over the views of the description, each turned back. The
    classifier is in eval mode, the planes are in the units of its description, and `classes` (n,) are numbers of its outputs.

    Raises:
        LandscaleError: the network has no maps of features.
    """
    values = classifier.inputs(planes)
    views = range(0, 8, 8 // classifier.description.views)
    total = torch.zeros(len(values), *values.shape[2:], device=values.device)
    for k in views:
        total += turn_back(class_maps(classifier.network, turn(values, k), classes), k)
    return total / len(views)


def class_maps(network: nn.Module, values: Tensor, classes: Sequence[int]) -> Tensor:
    """Heat maps (n, h, w) of one view, from the network's input (n, channels, h, w); see `heat_maps`."""
    with torch.enable_grad():
        values = values.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        maps, logits = _maps_and_logits(network, values)
        wanted = torch.as_tensor(classes, device=logits.device)[:, None]
        gradients = torch.autograd.grad(logits.gather(1, wanted).sum(), maps)
    total = torch.zeros(len(values), 1, *values.shape[2:], device=values.device)
    for features, gradient in zip(maps, gradients, strict=True):
        grid, slope = (_as_grid(network, tensor.detach().float()) for tensor in (features, gradient))
        heat = (slope.sum((2, 3), keepdim=True) * grid).sum(1, keepdim=True).relu()
        total += resize(heat, values.shape[-1], "bilinear")
    return total[:, 0]


def _maps_and_logits(network: nn.Module, values: Tensor) -> tuple[list[Tensor], Tensor]:
    layers = inner_layers(network)
    if layers:
        with _caught(layers) as maps:
            logits: Tensor = network(values)
        return maps, logits
    if not hasattr(network, "forward_features"):
        raise LandscaleError(
            f"a {type(network).__name__} has no forward_features, so it has no map of features to explain"
        )
    features = network.forward_features(values)  # type: ignore[operator]
    return [features], network.forward_head(features)  # type: ignore[operator]


@contextmanager
def _caught(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The outputs of some layers, in the order in which they are computed."""
    found: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _module, _inputs, output: found.append(output)) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _as_grid(network: nn.Module, features: Tensor) -> Tensor:
    """Maps (n, F, h, w), from such maps, from those with the channels last, or from tokens (n, T, F) of a square.

    Raises:
        LandscaleError: they are none of these.
    """
    width = getattr(network, "num_features", None)
    if features.ndim == 4:
        channels_last = features.shape[1] != width and features.shape[3] == width
        return features.permute(0, 3, 1, 2) if channels_last else features
    if features.ndim == 3:
        trunk = network.trunk if isinstance(network, HeadedNetwork) else network
        tokens = features[:, int(getattr(trunk, "num_prefix_tokens", 0)) :]
        side = math.isqrt(tokens.shape[1])
        if side * side == tokens.shape[1]:
            return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
    shape = tuple(features.shape)
    raise LandscaleError(f"a {type(network).__name__} returns features of shape {shape}, expected a map or tokens")
