"""The first convolution of a pre-trained network, made over from the bands it was trained on to ours.

Both see channels near mean 0 and standard deviation 1 (ours by `InputStage`, ImageNet's by its own statistics), so a
weight means the same on either side: a response to one standard deviation of a channel.

Two cases. Where some of our channels were there in training, the network knows them: their weights are copied, those of
new channels are 0, and as long as no channel is lost the network answers at first just as it did (zero initialisation of
added input channels: Brooks et al. 2023, InstructPix2Pix). Otherwise, as from ImageNet's red, green and blue, each of our
channels takes the weights of the one nearest in centre wavelength; radar has no wavelength near any, and takes their mean.
Where n of ours take the same, each gets 1/n of it (inflation: Carreira & Zisserman 2017, there over frames), so that
patches whose n bands agree give the response of the one band: a filter for colour differences still gives 0 for grey.

Bands do not agree in full, and a channel that none of ours takes is lost; so the kernel is at last multiplied by one number
that makes the sum of its squared weights what it was. That is the variance of the response to independent channels of variance 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from landscale.vocabulary.bands import band

RGB = ("red", "green", "blue")  # of ImageNet: the wavelengths of B04, B03, B02, but other cameras


def channel_names(bands: Sequence[str], scale: str) -> tuple[str, ...]:
    """The channels that an input stage makes of these bands, in their order: `B02`, or `log B02` for its logarithm."""
    kinds = {"linear": ("",), "log": ("log ",), "both": ("", "log ")}[scale]
    return tuple(kind + name for kind in kinds for name in bands)


def map_channels(ours: Sequence[str], theirs: Sequence[str]) -> Tensor:
    """(len(ours), len(theirs)) float32: how much of each of their channels' weights each of ours takes, before scaling.

    Raises:
        UnknownName: a channel is no band.
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

    k is 1 but for networks that first fold pixels into channels, k pixels with all channels of each.

    Raises:
        ValueError: the channels are no multiple of theirs.
    """
    channels = matrix.shape[1]
    if weight.ndim != 4 or weight.shape[1] % channels:
        raise ValueError(f"found weights of shape {tuple(weight.shape)}, expected {channels} channels")
    folded = weight.float().reshape(len(weight), -1, channels, *weight.shape[2:])
    made = torch.einsum("okshw,ts->okthw", folded, matrix)
    before, after = (float(w.double().square().sum()) for w in (folded, made))
    scale = math.sqrt(before / after) if after else 1.0
    if not math.isclose(scale, 1, rel_tol=1e-6):  # a copy stays one to the bit
        made = made * scale
    return made.flatten(1, 2)


def describe_mapping(ours: Sequence[str], matrix: Tensor, theirs: Sequence[str]) -> str:
    """In words what `matrix` does, as `B01, B02 from blue; B03 from green`."""
    parts: dict[str, list[str]] = {}
    for name, row in zip(ours, matrix, strict=True):
        chosen = [their for their, share in zip(theirs, row.tolist(), strict=True) if share]
        if name in theirs:
            origin = "as they were"
        elif not chosen:
            origin = "new, from 0"
        else:
            origin = f"from {chosen[0]}" if len(chosen) == 1 else "from the mean of all"
        parts.setdefault(origin, []).append(name)
    return "; ".join(f"{', '.join(names)} {origin}" for origin, names in parts.items())


def _nearest(name: str, theirs: Sequence[str]) -> int | None:
    """The index of the channel nearest in wavelength; None: of radar, or where there is nothing but radar."""
    here = _wavelength(name)
    optical = [k for k, their in enumerate(theirs) if _wavelength(their)]
    if not here or not optical:
        return None
    return min(optical, key=lambda k: abs(_wavelength(theirs[k]) - here))


def _wavelength(channel: str) -> float:
    return band(channel.removeprefix("log ")).wavelength
