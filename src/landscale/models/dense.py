"""Probabilities of windows that overlap, from the features of adjacent windows: the network is applied once to every place.

A convolutional network turns a patch into a map of features, whose mean it classifies. To classify windows a feature cell apart,
it is applied only to windows side by side. Their maps are joined, and the mean over every square of the joined map that is as
large as the map of one window is classified. For windows that were themselves given to the network this is its own result, and
for all windows in between it is an approximation.

The approximation is close because of what all these squares have in common. The features of a patch depend on their position in
it: convolutions pad its border with zeros, so features near the border differ from those in the middle. Every square of the
joined map has exactly one feature of each position in a patch, whatever its place. Applying the convolutions to a large area
instead would remove the border that the network saw around every patch in training. `docs/architecture.md` has measured
differences, `benchmarks/dense.py` measures others. Tests on synthetic areas allow 0.02 on average and 0.2 at most.

A network is `dense` in the registry if its features are a map of what is near them. Networks that end otherwise (tokens, other
poolings than the mean, query heads), or whose features depend so much on the whole patch that the approximation is poor
(transformers, EfficientNets), classify window by window.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from landscale.loading import Native
from landscale.models.classifier import Classifier, reduced_precision
from landscale.models.input_stage import turn, turn_back
from landscale.models.registry import zoo


@torch.inference_mode()
def map_side(classifier: Classifier) -> int | None:
    """Features a side of the map of one patch; None if the network has to be applied to each window.

    Besides the registry, one input is asked: the head must give the same result for the mean of the map as for the map.
    """
    network: Any = classifier.network
    d = classifier.description
    if not zoo(d.model)[0].dense or d.pixels or not hasattr(network, "forward_features"):
        return None
    shape = (1, classifier.inputs.channels, d.side, d.side)
    waves = torch.arange(shape[1] * d.side**2, device=classifier.inputs.mean.device).sin().view(shape)
    maps = network.forward_features(waves)
    if maps.ndim != 4 or maps.shape[2] != maps.shape[3]:
        return None
    whole, pooled = network.forward_head(maps), network.forward_head(maps.mean((2, 3), keepdim=True))
    same = whole.shape == pooled.shape and torch.allclose(whole, pooled, rtol=1e-3, atol=1e-4)
    return int(maps.shape[2]) if same else None


@torch.inference_mode()
def window_maps(classifier: Classifier, planes: Native) -> Tensor:
    """Maps of features of n windows: (views, n, F, side, side) float32, each view turned back to the orientation of the window.

    The classifier is in eval mode, the planes are in the units of its description.
    """
    values = classifier.inputs(planes)
    maps = []
    with torch.autocast(values.device.type, torch.bfloat16, enabled=reduced_precision(values.device.type)):
        for k in _views(classifier):
            turned = turn(values, k).contiguous(memory_format=torch.channels_last)
            maps.append(turn_back(classifier.network.forward_features(turned), k).float())  # type: ignore[operator]
    return torch.stack(maps)


@torch.inference_mode()
def classify_means(classifier: Classifier, means: Iterable[Tensor]) -> Tensor:
    """Probabilities (n, C) float32, the mean over the views, from the means of maps (n, F) of each view."""
    device = classifier.device.type
    with torch.autocast(device, torch.bfloat16, enabled=reduced_precision(device)):
        parts = [classifier.activate(classifier.network.forward_head(m[:, :, None, None])) for m in means]  # type: ignore[operator]
    return torch.stack(parts).mean(0)


def _views(classifier: Classifier) -> range:
    return range(0, 8, 8 // classifier.description.views)
