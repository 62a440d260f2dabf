"""Compute the input of a network, on the device, from raw pixels at native resolution.

Bands are normalised (before resampling, when there are fewer numbers) and resampled to one side. The stage is part of
the classifier and its settings are saved with the weights, so weights are never used with another normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from landscale.errors import BadStore, LandscaleError, UnknownName
from landscale.loading import Native
from landscale.loading.resize import resize
from landscale.store import PatchStore

UPSAMPLING = ("bilinear", "bicubic", "nearest", "stored")
SCALES = ("linear", "log", "both")
LOG_RANGE, LOG_FLOOR = (1.0, 15000.0), 100.0
MOST_DEVIATIONS = 5.0  # standard deviations at which values are clipped, unless `scale` is linear
_LOG_PATCHES = 2048  # patches from which statistics of the logarithm are estimated


class InputStage(nn.Module):
    """Planes of raw pixels → (n, bands, side, side) float32, each band near mean 0 and standard deviation 1.

    Args:
        bands: in the order of the network's channels.
        statistics: mean and standard deviation of each band, in the unit of its pixels.
        side: pixels a side of the output; None: that of the finest plane.
        upsample: how bands are resampled to `side` (`loading.resize`): bilinear (corners not aligned, as in GDAL), bicubic (as in
            TensorFlow), nearest, or stored: the store holds them at 10 m already; other bands are resampled bilinearly.
        scale: linear; log: ln(digital number + 100), which brings dark water and bright cloud to one scale; or both: all
            linear channels, then all logarithmic ones. With log and both, values are clipped at 5 standard deviations.
            Statistics of a logarithm have the key `log B02`, and so on.
        limits: smallest and largest pixel value by band, to which pixels are clipped first; a missing band is not clipped.
    """

    mean: Tensor
    std: Tensor
    positions: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        bands: Sequence[str],
        statistics: Mapping[str, tuple[float, float]],
        side: int | None = None,
        upsample: str = "bilinear",
        scale: str = "linear",
        limits: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        super().__init__()
        if scale not in SCALES:
            raise UnknownName("scale", scale, SCALES)
        self.scales = ("linear", "log") if scale == "both" else (scale,)
        names = [band if kind == "linear" else f"log {band}" for kind in self.scales for band in bands]
        missing = [name for name in names if name not in statistics]
        if missing:
            raise LandscaleError(f"no statistics for {', '.join(missing)}; known: {', '.join(statistics)}")
        if upsample not in UPSAMPLING:
            raise UnknownName("upsampling", upsample, UPSAMPLING)
        self.bands = tuple(bands)
        self.side = side
        self.upsample = upsample
        values = torch.tensor([statistics[name] for name in names], dtype=torch.float32)
        # Indices are kept on the device, because the host would wait for copying them in every batch.
        self.register_buffer("positions", torch.arange(len(self.bands)), persistent=False)
        self.register_buffer(
            "mean", values[:, 0].clone(), persistent=False
        )  # they are saved in the config.json of the weights
        self.register_buffer("std", values[:, 1].clamp(min=1e-6), persistent=False)

        self.clips = bool(limits)
        edges = torch.tensor([(limits or {}).get(band, (-math.inf, math.inf)) for band in bands], dtype=torch.float32)
        self.register_buffer("low", edges[:, 0].clone(), persistent=False)
        self.register_buffer("high", edges[:, 1].clone(), persistent=False)

    @property
    def channels(self) -> int:
        """Channels of the output."""
        return len(self.scales) * len(self.bands)

    def forward(self, planes: Native) -> Tensor:
        side = self.side or max(tensor.shape[-1] for tensor in planes.values())
        n = next(iter(planes.values())).shape[0]
        out = torch.empty((n, self.channels, side, side), device=self.mean.device)
        for channels, values in self.parts(planes, side):
            out[:, channels] = values
        return out

    def parts(self, planes: Native, side: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield channels (k,) of the output and their values (n, k, side, side) float32, plane by plane, scale by scale.

        Raises:
            LandscaleError: the planes lack a band.
        """
        filled = 0
        for names, tensor in planes.items():
            used = [band for band in names if band in self.bands]
            if not used:
                continue
            positions = torch.stack([self.positions[self.bands.index(band)] for band in used])
            numbers = _select(tensor, [names.index(band) for band in used]).float()
            if self.clips:
                numbers = numbers.clamp(self.low[positions, None, None], self.high[positions, None, None])
            for k, scale in enumerate(self.scales):
                channels = positions + k * len(self.bands)
                values = numbers if scale == "linear" else _logarithm(numbers)
                values = (values - self.mean[channels, None, None]) / self.std[channels, None, None]
                if "log" in self.scales:
                    values = values.clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)
                yield channels, resize(values, side, self.upsample)
            filled += len(used)
        if filled != len(self.bands):
            have = {band for names in planes for band in names}
            raise LandscaleError(f"the input lacks {', '.join(b for b in self.bands if b not in have)}")


def _logarithm(values: Tensor) -> Tensor:
    return (values.clamp(*LOG_RANGE) + LOG_FLOOR).log()


def measure_statistics(store: PatchStore, bands: Sequence[str], scale: str) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each band over the train split, and of its logarithm as `scale` needs it.

    Raises:
        BadStore: the store has no train split, or lacks a band.
    """
    planes, patches = store.planes_for(bands), store.patches("train")
    if empty := [band for band in bands if band not in store.statistics]:
        raise BadStore(store.path, f"has only zeros in {', '.join(empty)} of its train split")
    found = {} if scale == "log" else {band: store.statistics[band] for band in bands}
    if scale == "linear":
        return found
    rows = np.sort(np.random.default_rng(0).permutation(patches)[:_LOG_PATCHES])
    for plane in planes:
        sums = torch.zeros(2, len(plane.bands), dtype=torch.float64)
        for k in range(0, len(rows), 64):
            values = _logarithm(torch.from_numpy(store.pixels(plane.key, rows[k : k + 64]).astype(np.float64)))
            sums += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
        mean, square = sums / (len(rows) * plane.side**2)
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        pairs = zip(mean.tolist(), deviation.tolist(), strict=True)
        found |= {f"log {band}": pair for band, pair in zip(plane.bands, pairs, strict=True) if band in bands}
    return found


def _select(tensor: Tensor, channels: list[int]) -> Tensor:
    if channels == list(range(tensor.shape[1])):
        return tensor
    if tensor.dtype == torch.uint16:  # torch converts this type but does not index it
        return _select(tensor.view(torch.int16), channels).view(torch.uint16)
    return torch.stack([tensor[:, channel] for channel in channels], dim=1)


def turn(values: Tensor, k: int) -> Tensor:
    """Rotate and reflect (…, h, w) by the k-th of the 8 symmetries of the square: k % 4 quarter turns, mirrored for k ≥ 4."""
    values = torch.rot90(values, k % 4, (-2, -1))
    return values.flip(-1) if k >= 4 else values


def turn_back(values: Tensor, k: int) -> Tensor:
    """The inverse of `turn`."""
    return torch.rot90(values.flip(-1) if k >= 4 else values, -(k % 4), (-2, -1))
