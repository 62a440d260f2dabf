"""Wald's protocol (Wald et al. 1997): degrade all bands by the same factor, so that the original bands are the ground truth.

A Gaussian blur of σ = 1/scale pixels, cut at 4 σ, with a reflected border (as scipy.ndimage.gaussian_filter, which the authors
of DSen2 use), then the mean of blocks of scale × scale pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from landscale.superres.planes import pad_by_reflection


def degrade(values: Tensor, scale: int) -> Tensor:
    """(n, c, h, w) → (n, c, h / scale, w / scale), float32; h and w are multiples of the scale."""
    h, w = values.shape[-2:]
    radius = int(4 / scale + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets * scale).square())
    taps = (kernel / kernel.sum()).tolist()
    values = pad_by_reflection(values, radius)
    # A sum of shifted copies is four times faster than convolutions of one channel.
    values = sum(tap * values[..., k : k + h, :] for k, tap in enumerate(taps))
    values = sum(tap * values[..., k : k + w] for k, tap in enumerate(taps))
    return F.avg_pool2d(values, scale)
