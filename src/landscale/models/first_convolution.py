"""Adapt the first convolution of a pre-trained network from the bands that it was trained on ("theirs") to others ("ours").

Both kinds of channels have mean 0 and standard deviation 1 (ours by `InputStage`, ImageNet's by its own statistics), so
weights have the same meaning: the response to one standard deviation of a channel.

There are two cases. If some of our channels were used in pre-training, their weights are copied and those of new channels
are 0. As long as no channel is dropped, the network's output is at first unchanged (zero initialisation of added input
channels: Brooks et al. 2023, InstructPix2Pix). Otherwise, as with ImageNet's red, green and blue, each of our channels gets
the weights of the channel nearest in centre wavelength; radar has no wavelength and gets the mean of all channels. If n of
ours get the same weights, each gets 1/n of them (inflation: Carreira & Zisserman 2017, there over frames). Patches whose n
bands are equal then give the response of the one band, so a filter for colour differences still gives 0 for grey.

Bands are never exactly equal, and a channel of theirs that is nearest to none of ours is dropped. So finally the kernel is scaled
to keep the sum of its squared weights, which is the variance of the response to independent channels of variance 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from landscale.vocabulary.bands import band

RGB = ("red", "green", "blue")  # channels of ImageNet; their wavelengths are taken as those of B04, B03 and B02


def channel_names(bands: Sequence[str], scale: str) -> tuple[str, ...]:
    """Names of the channels of an `InputStage`, in their order: `B02`, or `log B02` for its logarithm."""
    kinds = {"linear": ("",), "log": ("log ",), "both": ("", "log ")}[scale]
    return tuple(kind + name for kind in kinds for name in bands)


def map_channels(ours: Sequence[str], theirs: Sequence[str]) -> Tensor:
    """Matrix (len(ours), len(theirs)) float32: fraction of the weights of their channels (columns) that ours (rows) get.

    Raises:
        UnknownName: no band has the name of a channel.
    """
    matrix = torch.zeros(len(ours), len(theirs))
    if set(ours) & set(theirs):
        for row, name in zip(matrix, ours, strict=True):
            if name in theirs:
                row[theirs.index(name)] = 1
        return matrix
    taken = [_nearest(name, theirs) for name in ours]
    count = Counter(taken)
    for row, k in zip(matrix, taken, strict=True):
        if k is None:
            row[:] = 1 / (len(theirs) * count[k])
        else:
            row[k] = 1 / count[k]
    return matrix


def adapt_weights(weight: Tensor, matrix: Tensor) -> Tensor:
    """Weights (out, k·theirs, h, w) of a convolution over their channels → (out, k·ours, h, w) over ours.

    k is 1 except in networks that first move blocks of k pixels into channels.

    Raises:
        ValueError: the number of channels is not a multiple of theirs.
    """
    channels = matrix.shape[1]
    if weight.ndim != 4 or weight.shape[1] % channels:
        raise ValueError(f"found weights of shape {tuple(weight.shape)}, expected {channels} channels")
    folded = weight.float().reshape(len(weight), -1, channels, *weight.shape[2:])
    made = torch.einsum("okshw,ts->okthw", folded, matrix)
    before, after = (float(w.double().square().sum()) for w in (folded, made))
    scale = math.sqrt(before / after) if after else 1.0
    if not math.isclose(scale, 1, rel_tol=1e-6):  # plain copies stay bit-identical
        made = made * scale
    return made.flatten(1, 2)


def describe_mapping(ours: Sequence[str], matrix: Tensor, theirs: Sequence[str]) -> str:
    """Describe a matrix of `map_channels` for the terminal, such as `B01, B02 from blue; B03 from green`."""
    parts: dict[str, list[str]] = {}
    for name, row in zip(ours, matrix, strict=True):
        sources = [source for source, fraction in zip(theirs, row.tolist(), strict=True) if fraction]
        if name in theirs:
            origin = "as they were"
        elif not sources:
            origin = "new, from 0"
        else:
            origin = f"from {sources[0]}" if len(sources) == 1 else "from the mean of all"
        parts.setdefault(origin, []).append(name)
    return "; ".join(f"{', '.join(names)} {origin}" for origin, names in parts.items())


def _nearest(name: str, theirs: Sequence[str]) -> int | None:
    """Index of the channel nearest in wavelength; None for radar, or if all others are radar."""
    wavelength = _wavelength(name)
    optical = [k for k, channel in enumerate(theirs) if _wavelength(channel)]
    if not wavelength or not optical:
        return None
    return min(optical, key=lambda k: abs(_wavelength(theirs[k]) - wavelength))


def _wavelength(channel: str) -> float:
    return band(channel.removeprefix("log ")).wavelength
