"""The reduced scale (Wald et al. 1997): what the sensor would give from higher up, so that the bands themselves are the answer.

Blurred with a Gaussian of σ = 1/scale pixels, cut at 4 σ, the border mirrored (scipy.ndimage.gaussian_filter, which the
authors use, does the same), then averaged in blocks of scale × scale.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from landscale.superres.planes import mirror


def degrade(values: Tensor, scale: int) -> Tensor:
    """(n, c, h, w) → (n, c, h / scale, w / scale), float32; h and w are multiples of the scale."""
    h, w = values.shape[-2:]
    radius = int(4 / scale + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets * scale).square())
    taps = (kernel / kernel.sum()).tolist()
    values = mirror(values, radius)
    # Sums of shifted copies, which are four times faster than convolutions of one channel.
    values = sum(tap * values[..., k : k + h, :] for k, tap in enumerate(taps))
    values = sum(tap * values[..., k : k + w] for k, tap in enumerate(taps))
    return F.avg_pool2d(values, scale)
