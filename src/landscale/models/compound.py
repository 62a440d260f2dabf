"""Compound scaling: enlarge depth, width and resolution of a network together.

Tan & Le 2019 (EfficientNet, eq. 3): depth α^φ, width β^φ, resolution γ^φ with α, β, γ ≥ 1. The cost of a convolutional
network grows with α·β²·γ²; a small search at φ = 1 under α·β²·γ² ≈ 2 fixes the three, then φ alone sets the size.
Papoutsis et al. 2022 scale their Wide ResNet in this way.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scaling:
    """Factors of depth (α), width (β) and resolution (γ), relative to the unscaled network."""

    depth: float = 1.0
    width: float = 1.0
    resolution: float = 1.0

    @property
    def cost(self) -> float:
        """Multiply-adds, as a multiple of the unscaled network's: α·β²·γ²."""
        return self.depth * self.width**2 * self.resolution**2

    def power(self, phi: float) -> Scaling:
        """(α^φ, β^φ, γ^φ)."""
        return Scaling(self.depth**phi, self.width**phi, self.resolution**phi)

    def side(self, base: int = 60, step: int = 10) -> int:
        """The input side in pixels, ⌈base·γ / step⌉·step."""
        return math.ceil(round(base * self.resolution / step, 9)) * step  # 12.000000000000002 is 12, not 13


# B4 is published (configs/base.json of github.com/Orion-AI-Lab/EfficientBigEarthNet). The others are in none of its
# readable files; they are OUR RECONSTRUCTION: B4's (α, β) are the first two columns of EfficientNet-B4's row
# in Tan & Le's released code (there width and depth), and its γ equals its α. The same reading of the other rows gives
# this table. It agrees with a search in steps of 0.1, for B2 (φ = 1) is (1.1, 1.2, 1.1) of cost 1.92 ≈ 2, and it takes
# B7 to 120 px, exactly a BigEarthNet patch at 10 m.
WIDE_RESNET = {
    "b1": Scaling(1.0, 1.1, 1.0),
    "b2": Scaling(1.1, 1.2, 1.1),
    "b3": Scaling(1.2, 1.4, 1.2),
    "b4": Scaling(1.4, 1.8, 1.4),
    "b5": Scaling(1.6, 2.2, 1.6),
    "b6": Scaling(1.8, 2.6, 1.8),
    "b7": Scaling(2.0, 3.1, 2.0),
}

# Tan & Le 2019, released code: width and depth, input side as a multiple of B0's 224 px, and dropout before the classifier.
EFFICIENTNET = {
    "b1": Scaling(1.1, 1.0, 240 / 224),
    "b2": Scaling(1.2, 1.1, 260 / 224),
    "b3": Scaling(1.4, 1.2, 300 / 224),
    "b4": Scaling(1.8, 1.4, 380 / 224),
    "b5": Scaling(2.2, 1.6, 456 / 224),
    "b6": Scaling(2.6, 1.8, 528 / 224),
    "b7": Scaling(3.1, 2.0, 600 / 224),
}
EFFICIENTNET_DROPOUT = {"b1": 0.2, "b2": 0.3, "b3": 0.3, "b4": 0.4, "b5": 0.4, "b6": 0.5, "b7": 0.5}


def candidates(cost: float = 2.0, tolerance: float = 0.1, step: float = 0.1) -> list[Scaling]:
    """Scalings for a search at φ = 1: every (α, β, γ) on a grid of `step` from 1 up whose cost is `cost` ± `tolerance`."""
    reach = cost + tolerance

    def axis(most: float) -> list[float]:
        return [round(1 + i * step, 10) for i in range(math.floor((most - 1) / step + 1e-9) + 1)]

    scalings = itertools.starmap(Scaling, itertools.product(axis(reach), axis(reach**0.5), axis(reach**0.5)))
    return [s for s in scalings if abs(s.cost - cost) <= tolerance]
