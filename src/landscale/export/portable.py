"""A classifier as one network of plain tensors: raw pixels of each native resolution in, probabilities out.

This is what other runtimes get. Everything that `Classifier` does around its network is part of it: limits, normalisation,
resampling, order of the channels, views, temperature, and sigmoid or softmax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from landscale.errors import LandscaleError
from landscale.inference.exported import InputPlane
from landscale.models.classifier import Classifier, Description
from landscale.models.input_stage import turn
from landscale.store import PatchStore
from landscale.store.layout import SUPER
from landscale.vocabulary.bands import BANDS


class Portable(nn.Module):
    """Planes (n, bands, side, side) float32, in the units of the description → probabilities (n, C) float32 in 0…1.

    Args:
        classifier: in eval mode.
        planes: the inputs in their order.
    """

    def __init__(self, classifier: Classifier, planes: Sequence[InputPlane]) -> None:
        super().__init__()
        self.classifier = classifier
        self.names = [plane.bands for plane in planes]
        self.runs = _runs(classifier.description.bands, self.names, len(classifier.inputs.scales))

    def forward(self, *planes: Tensor) -> Tensor:
        d, inputs = self.classifier.description, self.classifier.inputs
        # Other runtimes join tensors faster than they write into parts of one, as `InputStage.forward` does. An index of channels
        # is avoided: OpenVINO 2026.4 moves one into the first convolution as if it were its own inverse.
        parts = [part for _, part in inputs.parts(dict(zip(self.names, planes, strict=True)), d.side)]
        values = torch.cat([parts[k][:, first:end] for k, first, end in self.runs], 1)
        step = 8 // d.views
        total: Tensor | None = None
        for k in range(0, 8, step):
            part = self.classifier.activate(self.classifier.network(turn(values, k)))
            total = part if total is None else total + part
        assert total is not None
        return total / d.views if d.views > 1 else total


def _runs(bands: Sequence[str], planes: Sequence[Sequence[str]], scales: int) -> list[tuple[int, int, int]]:
    """The parts of `InputStage.parts` that together are all channels in their order: part, first channel and end in it."""
    runs: list[tuple[int, int, int]] = []
    for scale in range(scales):
        for band in bands:
            plane = next(k for k, names in enumerate(planes) if band in names)
            part, channel = plane * scales + scale, planes[plane].index(band)
            if runs and runs[-1][0] == part and runs[-1][2] == channel:
                runs[-1] = (part, runs[-1][1], channel + 1)
            else:
                runs.append((part, channel, channel + 1))
    return runs


def input_planes(
    d: Description, provenance: Mapping[str, Any], store: PatchStore | None = None
) -> tuple[InputPlane, ...]:
    """The inputs of an exported network: one for each plane of the store that has bands of the classifier.

    Args:
        d: the classifier.
        provenance: of its weights. Weights of older versions do not record the planes of their training; then each band has the
            ground sampling distance at which Sentinel-2 or Sentinel-1 delivers it.
        store: the store for which the network is exported; None: that of the training.

    Raises:
        LandscaleError: a patch is not a whole number of pixels of a band, so the planes of the training were others.
        BadStore: the store lacks a band.
    """
    if store is not None:
        found = {plane.key: (plane.bands, plane.side) for plane in store.planes_for(d.bands, d.stored)}
    elif recorded := provenance.get("planes"):
        found = {key: (tuple(plane["bands"]), plane["side"]) for key, plane in recorded.items()}
    else:
        found = _delivered(d)
    planes = []
    missing = set(d.bands)
    for key, (bands, side) in found.items():
        if used := tuple(band for band in d.bands if band in bands and band in missing):
            planes.append(InputPlane(key, used, side))
            missing -= set(used)
    if missing:
        raise LandscaleError(
            f"export: the planes of the training lack {', '.join(sorted(missing))}; give --store STORE.h5"
        )
    return tuple(planes)


def _delivered(d: Description) -> dict[str, tuple[tuple[str, ...], int]]:
    """Planes by key, if every band has the ground sampling distance at which it is delivered."""
    finest = d.ground / d.side
    distances = {band: 10 if d.stored else BANDS[band].gsd if band in BANDS else finest for band in d.bands}
    found = {}
    for gsd in sorted(set(distances.values())):
        bands = tuple(band for band in d.bands if distances[band] == gsd)
        if d.ground % gsd:
            raise LandscaleError(
                f"export: a patch of {d.ground:g} m is not a whole number of pixels of {gsd:g} m, at which {bands[0]} is"
                " delivered; give a store like that of the training with --store"
            )
        found[SUPER if d.stored else f"data_{gsd:g}m"] = (bands, int(d.ground // gsd))
    return found
