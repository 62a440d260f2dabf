"""On the device: raw numbers at native resolution → what a network sees.

Normalise (at native resolution, where there are fewer numbers), bring every band to one side, augment. The stage is part of
the model and saved with it, so no weights can meet another normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscale.batches import Native
from landscale.errors import LandscaleError, UnknownName

UPSAMPLING = ("bilinear", "bicubic", "nearest")


class InputStage(nn.Module):
    """Planes of raw digital numbers → (n, bands, side, side) float32, each band near mean 0 and standard deviation 1.

    Args:
        bands: in the order of the network's channels.
        statistics: mean and standard deviation of each band, in digital numbers.
        side: pixels a side of the output; None keeps the finest plane's own.
        upsample: how coarser bands are brought there: bilinear (corners not aligned, as GDAL), bicubic or nearest.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        bands: Sequence[str],
        statistics: Mapping[str, tuple[float, float]],
        side: int | None = None,
        upsample: str = "bilinear",
    ) -> None:
        super().__init__()
        missing = [band for band in bands if band not in statistics]
        if missing:
            raise LandscaleError(f"no statistics for {', '.join(missing)}; known: {', '.join(statistics)}")
        if upsample not in UPSAMPLING:
            raise UnknownName("upsampling", upsample, UPSAMPLING)
        self.bands = tuple(bands)
        self.side = side
        self.upsample = upsample
        values = torch.tensor([statistics[band] for band in bands], dtype=torch.float32)
        self.register_buffer("mean", values[:, 0].clone(), persistent=False)  # they live in the weights' config
        self.register_buffer("std", values[:, 1].clamp(min=1e-6), persistent=False)

    def forward(self, planes: Native) -> Tensor:
        finest = max(tensor.shape[-1] for tensor in planes.values())
        side = self.side or finest
        n = next(iter(planes.values())).shape[0]
        out = torch.empty((n, len(self.bands), side, side), device=self.mean.device)
        filled = 0
        for names, tensor in planes.items():
            wanted = [band for band in names if band in self.bands]
            if not wanted:
                continue
            there = torch.tensor([self.bands.index(band) for band in wanted], device=tensor.device)
            values = _select(tensor, [names.index(band) for band in wanted]).float()
            values = (values - self.mean[there, None, None]) / self.std[there, None, None]
            out[:, there] = resize(values, side, self.upsample)
            filled += len(wanted)
        if filled != len(self.bands):
            have = {band for names in planes for band in names}
            raise LandscaleError(f"the input lacks {', '.join(b for b in self.bands if b not in have)}")
        return out


def _select(tensor: Tensor, channels: list[int]) -> Tensor:
    if channels == list(range(tensor.shape[1])):
        return tensor
    if tensor.dtype == torch.uint16:  # which torch converts but does not index
        return tensor.view(torch.int16)[:, channels].view(torch.uint16)
    return tensor[:, channels]


def resize(values: Tensor, side: int, upsample: str) -> Tensor:
    """(n, c, h, w) → (n, c, side, side); downward by averaging the area, so that no pixel is lost."""
    if values.shape[-1] == side:
        return values
    if values.shape[-1] > side:
        return F.adaptive_avg_pool2d(values, side)
    align = None if upsample == "nearest" else False
    return F.interpolate(values, size=(side, side), mode=upsample, align_corners=align)


def turn(values: Tensor, k: int) -> Tensor:
    """One of the 8 symmetries of the square: k % 4 quarter turns, mirrored for k ≥ 4."""
    values = torch.rot90(values, k % 4, (-2, -1))
    return values.flip(-1) if k >= 4 else values
