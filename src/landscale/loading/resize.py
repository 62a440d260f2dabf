"""Bringing the pixels of a band to another number of pixels a side."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The parameter a of Keys 1981, IEEE Trans. ASSP 29(6), as TensorFlow, GDAL and Pillow have it; torch has -0.75.
_KEYS = -0.5


def resize(values: Tensor, side: int, upsample: str) -> Tensor:
    """(n, c, h, h) → (n, c, side, side), both covering the same ground.

    `bicubic` is the cubic convolution of tf.image.resize, whether the side grows or shrinks. With the other methods, when the
    side shrinks, every input pixel contributes: by the mean of blocks if it shrinks by a whole number, else by a bilinear kernel
    as wide as an output pixel. When it grows, `upsample` is the method: bilinear (corners not aligned, as in GDAL), nearest, or
    stored, which is bilinear too.
    """
    before = values.shape[-1]
    if before == side:
        return values
    if upsample == "bicubic":
        weights = cubic_weights(before, side, values.device).to(values.dtype)
        return weights @ values @ weights.T
    if before > side:
        if before % side == 0:
            return F.avg_pool2d(values, before // side)
        return F.interpolate(values, size=(side, side), mode="bilinear", antialias=True)
    if upsample == "nearest":  # "nearest" of torch rounds down, which moves 60 px at 80 by half a pixel
        return F.interpolate(values, size=(side, side), mode="nearest-exact")
    return F.interpolate(values, size=(side, side), mode="bilinear", align_corners=False)


def cubic_weights(before: int, after: int, device: torch.device | None = None) -> Tensor:
    """The weights (after, before) float64 of cubic convolution: each row computes an output pixel from its 4 nearest pixels.

    At the edges the weights of pixels outside the image are dropped and the others scaled to the sum 1, as in tf.image.resize.
    The kernel is not widened when the side shrinks.
    """
    centres = (torch.arange(after, device=device, dtype=torch.float64) + 0.5) * (before / after) - 0.5
    d = (centres[:, None] - torch.arange(before, device=device)).abs()
    near = ((_KEYS + 2) * d - (_KEYS + 3)) * d**2 + 1
    far = _KEYS * (((d - 5) * d + 8) * d - 4)
    weights = torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))
    return weights / weights.sum(1, keepdim=True)
