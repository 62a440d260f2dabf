"""Trained networks together: planes at native resolution → all of them at 10 m."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscale.errors import LandscaleError
from landscale.superres.network import DIVISOR, DSen2, stack_inputs
from landscale.superres.planes import GROUPS, Planes, from_native, mirror, stacked
from landscale.superres.weights import load_networks

TILE = 480  # pixels a side that a network is given at once, without the margin; whole 60 m pixels and whole TIFF blocks
_AT_ONCE = TILE**2  # pixels of a batch of small patches


@dataclass(frozen=True)
class Superresolver:
    """The networks by the sampling distance that they sharpen, in eval mode, all on one device."""

    networks: Mapping[int, DSen2]
    config: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path, device: torch.device | None = None) -> Superresolver:
        """From a folder of weights.

        Raises:
            BadInput: missing, damaged or foreign weights.
        """
        networks, config = load_networks(path)
        return cls({gsd: network.to(device).eval() for gsd, network in networks.items()}, config)

    @property
    def device(self) -> torch.device:
        return next(next(iter(self.networks.values())).parameters()).device

    @property
    def margin(self) -> int:
        """Pixels at 10 m around a place that must be known for it to be exact; a multiple of 6."""
        return max(network.shape.margin for network in self.networks.values())

    def __call__(self, native: Mapping[tuple[str, ...], Tensor]) -> Tensor:
        """A store's planes (raw digital numbers, see `from_native`) → (n, 12, h, w) uint16 in ESA order, at 10 m.

        Patches are continued by their mirror image: what lies beyond is not known here.

        Raises:
            LandscaleError: a band is missing, or the network for it.
        """
        if missing := [f"{gsd} m" for gsd in GROUPS if gsd > 10 and gsd not in self.networks]:
            raise LandscaleError(f"the weights have no network for {' and '.join(missing)}")
        planes = from_native(native)
        padded = {gsd: mirror(values, self.margin * 10 // gsd) for gsd, values in planes.items()}
        return stacked({10: planes[10], **{gsd: self.sharpen(padded, gsd, self.margin) for gsd in self.networks}})

    @torch.inference_mode()
    def sharpen(self, planes: Planes, gsd: int, margin: int, advance: Callable[[int], None] = lambda _: None) -> Tensor:
        """The bands at `gsd` on the finest grid, digital numbers, (n, c, h, w) float32 on the CPU, without the margin.

        Args:
            planes: with `margin` pixels of the finest grid around what is asked for, which is whole pixels of the coarsest.
            gsd: 20 or 60.
            margin: at least `self.margin`, a multiple of 6.
            advance: called with 1 after each tile.

        In float32: with bfloat16 a pixel would depend by a few digital numbers on the tile it is in.
        """
        network = self.networks[gsd]
        n, _, h, w = planes[10].shape
        h, w = h - 2 * margin, w - 2 * margin
        out = torch.empty(n, len(network.shape.outputs), h, w)
        many = max(1, _AT_ONCE // (h * w))
        for k in range(0, n, many):
            for top in range(0, h, TILE):
                for left in range(0, w, TILE):
                    down, right = min(TILE, h - top), min(TILE, w - left)
                    part = {}
                    for g in network.shape.groups:
                        r = g // 10
                        rows = slice(top // r, (top + down + 2 * margin) // r)
                        columns = slice(left // r, (left + right + 2 * margin) // r)
                        part[g] = planes[g][k : k + many, :, rows, columns].to(self.device)
                    values = DIVISOR * network(stack_inputs(part, network.shape))
                    values = values[..., margin : margin + down, margin : margin + right]
                    out[k : k + many, :, top : top + down, left : left + right] = values.cpu()
                    advance(1)
        return out


def tiles(height: int, width: int) -> int:
    """How many tiles `sharpen` cuts such a plane into."""
    return ceil(height / TILE) * ceil(width / TILE)
