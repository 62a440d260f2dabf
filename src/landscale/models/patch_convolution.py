"""Convolutions that cut an image into patches, computed in float32 where a CPU would compute them in bfloat16.

The bfloat16 convolutions of oneDNN for Intel's AMX return wrong numbers, off by several standard deviations, when the
kernel is as large as the stride, for many sizes from 4×4 on (seen with torch 2.11; github.com/pytorch/pytorch,
issue 169688; github.com/uxlfoundation/oneDNN, pull request 5494). Patch embeddings of transformers and MLP-Mixers, and the
stems of ConvNeXt and Swin, are such convolutions. They are a small part of a network, so float32 costs little.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchConvolution(nn.Conv2d):
    """A convolution that autocast leaves in float32 on a CPU; on other devices, and without autocast, an ordinary convolution."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


def use_patch_convolutions(network: nn.Module) -> None:
    """Make every convolution of a network whose kernel is as large as its stride, and larger than 2×2, a `PatchConvolution`."""
    for module in network.modules():
        if type(module) is nn.Conv2d and module.kernel_size == module.stride and max(module.kernel_size) > 2:
            module.__class__ = PatchConvolution  # parameters, hooks and names stay
