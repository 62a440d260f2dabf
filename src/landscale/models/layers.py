"""Layers that timm lacks or has otherwise, and channel attention by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn

from landscale.errors import UnknownName


class Eca(nn.Module):
    """Efficient channel attention: every channel is weighted by what its neighbours in channel order hold.

    A 1-D convolution over the channel means, then a sigmoid; the kernel grows with the number of channels C as the
    odd number next to (log2 C + 1) / 2 (Wang et al. 2020, ECA-Net, section 3.2). timm's `EcaModule` is the same without
    the bias; the networks of Papoutsis et al. 2022 have one.

    Shapes: (N, C, H, W) → (N, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernel = max(3, int((math.log2(channels) + 1) / 2) | 1)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3)).unsqueeze(1)
        weights = torch.sigmoid(self.conv(means)).squeeze(1)
        return x * weights[:, :, None, None]


def _squeeze_excite(channels: int) -> nn.Module:
    # Hu et al. 2018 at reduction 16, with the SiLU of Papoutsis et al. 2022; no rounding of the inner width
    return SEModule(channels, rd_ratio=1 / 16, rd_divisor=1, act_layer=nn.SiLU)


ATTENTION: dict[str, Callable[[int], nn.Module]] = {"none": nn.Identity, "eca": Eca, "se": _squeeze_excite}


def attention(name: str, channels: int) -> nn.Module:
    """The attention layer called `name` (`none`, `eca`, `se`) for `channels` channels; it keeps the shape (N, C, H, W).

    Raises:
        UnknownName: no such attention.
    """
    if name not in ATTENTION:
        raise UnknownName("attention", name, ATTENTION)
    return ATTENTION[name](channels)
