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
    n, c, h, w = values.shape
    radius = int(4 / scale + 0.5)
    offsets = torch.arange(-radius, radius + 1, device=values.device)
    kernel = torch.exp(-0.5 * (offsets * scale).square())
    kernel = kernel / kernel.sum()
    flat = mirror(values.reshape(n * c, 1, h, w), radius)
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return F.avg_pool2d(flat, scale).view(n, c, h // scale, w // scale)
