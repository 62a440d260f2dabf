"""Bringing the pixels of a band to another number of pixels a side."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize(values: Tensor, side: int, upsample: str) -> Tensor:
    """(n, c, h, h) → (n, c, side, side), both covering the same ground.

    When the side shrinks, every input pixel contributes: by the mean of blocks if it shrinks by a whole number, else by a
    bilinear kernel as wide as an output pixel. When it grows, `upsample` is the method: bilinear, bicubic (both with corners not
    aligned, as GDAL does), nearest, or stored, which is bilinear too.
    """
    before = values.shape[-1]
    if before == side:
        return values
    if before > side:
        if before % side == 0:
            return F.avg_pool2d(values, before // side)
        return F.interpolate(values, size=(side, side), mode="bilinear", antialias=True)
    if upsample == "nearest":  # "nearest" of torch rounds down, which moves 60 px at 80 by half a pixel
        return F.interpolate(values, size=(side, side), mode="nearest-exact")
    mode = "bilinear" if upsample == "stored" else upsample
    return F.interpolate(values, size=(side, side), mode=mode, align_corners=False)
