"""The networks of DSen2 and VDSen2 (Lanaras et al. 2018, figures 3 and 4)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn

from landscale.superres.planes import GROUPS, Planes, bands_of_groups, upsample

DIVISOR = 2000.0  # inputs and outputs of the networks are digital numbers / 2000, as published
RESIDUAL_SCALE = 0.1


@dataclass(frozen=True)
class NetworkShape:
    """Size of a network that takes the bands at `gsd` metres (20 or 60) and all finer ones, and sharpens those at `gsd`.

    features: channels of the convolutions. blocks: number of residual blocks.
    """

    gsd: int
    features: int = 128
    blocks: int = 6

    @property
    def groups(self) -> tuple[int, ...]:
        return tuple(gsd for gsd in GROUPS if gsd <= self.gsd)

    @property
    def inputs(self) -> tuple[str, ...]:
        return bands_of_groups(self.groups)

    @property
    def outputs(self) -> tuple[str, ...]:
        return GROUPS[self.gsd]

    @property
    def scale(self) -> int:
        return self.gsd // 10

    @property
    def margin(self) -> int:
        """Upper bound of the radius of the receptive field, in pixels at 10 m; a multiple of 6.

        The convolutions reach 2 · blocks + 2 pixels, the upsampling one coarse pixel. 6 pixels at 10 m are one at 60 m.
        """
        return ceil((2 * self.blocks + 2 + self.scale) / 6) * 6


def network_shape(gsd: int, *, deep: bool) -> NetworkShape:
    """Shape of the published network for 20 or 60 m: DSen2, or VDSen2 if `deep`."""
    return NetworkShape(gsd, 256, 32) if deep else NetworkShape(gsd)


class ScaledResidualBlock(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(self.first(x).relu())
        return x + RESIDUAL_SCALE * change


class DSen2(nn.Module):
    """forward: output of `stack_inputs` → the bands to sharpen, at 10 m, (n, outputs, h, w) float32."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        self.head = nn.Conv2d(len(shape.inputs), shape.features, 3, padding=1)
        self.blocks = nn.Sequential(*(ScaledResidualBlock(shape.features) for _ in range(shape.blocks)))
        self.tail = nn.Conv2d(shape.features, len(shape.outputs), 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.tail.weight)  # so that an untrained network returns the upsampled bands, not noise
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.tail(self.blocks(self.head(x).relu()))
        return x[:, -len(self.shape.outputs) :] + change.float()


def stack_inputs(planes: Planes, shape: NetworkShape) -> Tensor:
    """Input of a network: bands upsampled bilinearly to 10 m, concatenated, divided by 2000; (n, inputs, h, w)."""
    parts = [upsample(planes[gsd], gsd // 10) for gsd in shape.groups]
    return (torch.cat(parts, 1) / DIVISOR).contiguous(memory_format=torch.channels_last)
