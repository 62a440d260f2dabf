"""Attention layers and convolutions by name: timm's where they equal those of the papers, otherwise our own."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from timm.layers import SEModule
from timm.layers.cbam import ChannelAttn
from timm.layers.coord_attn import CoordAttn
from timm.models.ghostnet import GhostModule
from torch import Tensor, nn

from landscale.errors import UnknownName


class Eca(nn.Module):
    """Efficient channel attention: every channel is weighted by the means of its neighbours in channel order.

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


class SpatialAttention(nn.Module):
    """The second half of CBAM: every pixel is weighted by the mean and the maximum over channels around it.

    σ(conv7×7([mean; max])) without a bias (Woo et al. 2018, eq. 3). timm's `SpatialAttn` adds a batch norm to the
    equation, which the networks of Papoutsis et al. 2022 do not have either.

    Shapes: (N, C, H, W) → (N, C, H, W).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(pooled))


def _cbam(channels: int) -> nn.Module:
    # Woo et al. 2018 at reduction 16, channels before space; biases in the dense layers as in Papoutsis et al. 2022
    return nn.Sequential(ChannelAttn(channels, rd_ratio=1 / 16, mlp_bias=True), SpatialAttention())


def _coordinate(channels: int) -> nn.Module:
    # Hou et al. 2021: reduction 32 to no less than 8 channels, h-swish, biases
    return CoordAttn(channels, rd_channels=max(8, channels // 32), bias=True)


ATTENTION: dict[str, Callable[[int], nn.Module]] = {
    "none": nn.Identity,
    "se": _squeeze_excite,
    "cbam": _cbam,
    "coord": _coordinate,
    "eca": Eca,
}


def attention_layer(name: str, channels: int) -> nn.Module:
    """The attention layer called `name` (`none`, `se`, `cbam`, `coord`, `eca`); it keeps the shape (N, channels, H, W).

    Raises:
        UnknownName: no such attention.
    """
    if name not in ATTENTION:
        raise UnknownName("attention", name, ATTENTION)
    return ATTENTION[name](channels)


def _plain(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _ghost(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
    # no ReLU inside: the cheap half is a linear map of the first (Han et al. 2020, eq. 3), and the block activates
    return GhostModule(inputs, outputs, kernel, stride=stride, act_layer=nn.Identity)


CONVOLUTIONS: dict[str, Callable[[int, int, int, int], nn.Module]] = {"plain": _plain, "ghost": _ghost}


def convolution_layer(name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    """The convolution called `name`, with an odd kernel, padded, and without a bias.

    `plain`, or `ghost` (Han et al. 2020, GhostNet): half of the outputs by a convolution and batch norm, and from each of
    those another one by a 3×3 depthwise convolution and batch norm.

    Shapes: (N, inputs, H, W) → (N, outputs, ⌈H / stride⌉, ⌈W / stride⌉).

    Raises:
        UnknownName: no such convolution.
    """
    if name not in CONVOLUTIONS:
        raise UnknownName("convolution", name, CONVOLUTIONS)
    return CONVOLUTIONS[name](inputs, outputs, kernel, stride)
