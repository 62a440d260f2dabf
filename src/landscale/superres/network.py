"""The networks of DSen2 and VDSen2 (Lanaras et al. 2018, figures 3 and 4)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn

from landscale.superres.planes import GROUPS, Planes, bands_of, upsample

DIVISOR = 2000.0  # of digital numbers, as published
RESIDUAL = 0.1


@dataclass(frozen=True)
class Shape:
    """A network: it sharpens the bands at `gsd` (20 or 60 m) and sees those and all finer ones."""

    gsd: int
    features: int = 128
    blocks: int = 6

    @property
    def groups(self) -> tuple[int, ...]:
        return tuple(gsd for gsd in GROUPS if gsd <= self.gsd)

    @property
    def inputs(self) -> tuple[str, ...]:
        return bands_of(self.groups)

    @property
    def outputs(self) -> tuple[str, ...]:
        return GROUPS[self.gsd]

    @property
    def scale(self) -> int:
        return self.gsd // 10

    @property
    def margin(self) -> int:
        """Pixels on each side that an output pixel can depend on (its convolutions, the upsampling), in whole 60 m ones."""
        return ceil((2 * self.blocks + 2 + self.scale) / 6) * 6


def shape(gsd: int, *, deep: bool) -> Shape:
    """DSen2's network for 20 or 60 m, or VDSen2's."""
    return Shape(gsd, 256, 32) if deep else Shape(gsd)


class Block(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(self.first(x).relu())
        return x + RESIDUAL * change


class DSen2(nn.Module):
    """forward: what `stack_inputs` gives → its last bands, sharpened, (n, outputs, h, w) float32."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.head = nn.Conv2d(len(shape.inputs), shape.features, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(shape.features) for _ in range(shape.blocks)))
        self.tail = nn.Conv2d(shape.features, len(shape.outputs), 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.tail.weight)  # so that training begins at the upsampled bands, not at noise
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.tail(self.blocks(self.head(x).relu()))
        return x[:, -len(self.shape.outputs) :] + change.float()


def stack_inputs(planes: Planes, shape: Shape) -> Tensor:
    """What a network of this shape takes: bilinearly upsampled, concatenated, divided by 2000; (n, inputs, h, w)."""
    parts = [upsample(planes[gsd], gsd // 10) for gsd in shape.groups]
    return (torch.cat(parts, 1) / DIVISOR).contiguous(memory_format=torch.channels_last)
