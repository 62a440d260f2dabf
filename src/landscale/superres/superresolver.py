"""Apply the trained networks of a folder of weights: planes at native resolution → all bands at 10 m."""

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
from landscale.superres.planes import GROUPS, Planes, group_by_gsd, in_esa_order, pad_by_reflection
from landscale.superres.weights import load_networks
from landscale.vocabulary.units import Level

TILE = 480  # side in pixels of the input of a network, without the margin; a multiple of 60 m pixels and of TIFF blocks
_BATCH_PIXELS = TILE**2  # pixels of a batch of small patches


@dataclass(frozen=True)
class Superresolver:
    """Networks by the GSD in metres that they sharpen, in eval mode, all on one device."""

    networks: Mapping[int, DSen2]
    config: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path, device: torch.device | None = None) -> Superresolver:
        """Load a folder of weights.

        Raises:
            BadInput: the weights are missing or damaged, or are not those of a super-resolution network.
        """
        networks, config = load_networks(path)
        return cls({gsd: network.to(device).eval() for gsd, network in networks.items()}, config)

    @property
    def device(self) -> torch.device:
        return next(next(iter(self.networks.values())).parameters()).device

    @property
    def level(self) -> Level:
        """Processing level of the scenes in training."""
        level: Level = self.config.get("level", "unknown")
        return level

    @property
    def margin(self) -> int:
        """Pixels at 10 m that are needed around an area for its result to be exact; a multiple of 6."""
        return max(network.shape.margin for network in self.networks.values())

    def __call__(self, native: Mapping[tuple[str, ...], Tensor]) -> Tensor:
        """A store's planes (raw digital numbers, see `group_by_gsd`) → (n, 12, h, w) uint16 in ESA order, at 10 m.

        Patches are padded by reflection.

        Raises:
            LandscaleError: a band is missing, or the weights lack the network that sharpens it.
        """
        if missing := [f"{gsd} m" for gsd in GROUPS if gsd > 10 and gsd not in self.networks]:
            raise LandscaleError(f"the weights have no network for {' and '.join(missing)}")
        planes = group_by_gsd(native)
        padded = {gsd: pad_by_reflection(values, self.margin * 10 // gsd) for gsd, values in planes.items()}
        sharp = {gsd: self.sharpen(padded, gsd, self.margin) for gsd in self.networks}
        return in_esa_order({10: planes[10], **sharp})

    @torch.inference_mode()
    def sharpen(self, planes: Planes, gsd: int, margin: int, advance: Callable[[int], None] = lambda _: None) -> Tensor:
        """The bands at `gsd` metres on the finest grid, digital numbers, (n, c, h, w) float32 on the CPU, without the margin.

        Computes in float32: with bfloat16 a pixel would change by a few digital numbers with the tile it lies in.

        Args:
            planes: padded on all sides by `margin` pixels of the finest grid; the area inside is a multiple of the largest pixel.
            gsd: 20 or 60.
            margin: at least `self.margin`, a multiple of 6.
            advance: called with 1 after each tile.
        """
        network = self.networks[gsd]
        n, _, h, w = planes[10].shape
        h, w = h - 2 * margin, w - 2 * margin
        out = torch.empty(n, len(network.shape.outputs), h, w)
        batch = max(1, _BATCH_PIXELS // (h * w))
        for k in range(0, n, batch):
            for top in range(0, h, TILE):
                for left in range(0, w, TILE):
                    tile_h, tile_w = min(TILE, h - top), min(TILE, w - left)
                    part = {}
                    for g in network.shape.groups:
                        r = g // 10
                        rows = slice(top // r, (top + tile_h + 2 * margin) // r)
                        columns = slice(left // r, (left + tile_w + 2 * margin) // r)
                        part[g] = planes[g][k : k + batch, :, rows, columns].to(self.device)
                    values = DIVISOR * network(stack_inputs(part, network.shape))
                    values = values[..., margin : margin + tile_h, margin : margin + tile_w]
                    out[k : k + batch, :, top : top + tile_h, left : left + tile_w] = values.cpu()
                    advance(1)
        return out


def count_tiles(height: int, width: int) -> int:
    """Number of tiles in which `sharpen` computes an area of this size in pixels."""
    return ceil(height / TILE) * ceil(width / TILE)
