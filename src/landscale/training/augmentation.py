"""Random augmentation of a training batch, on the device, after normalisation.

All random numbers come from a generator on the host that is seeded for each step, so that a GPU gives the same ones as a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from landscale.loading.transfer import to_device
from landscale.models.input_stage import turn

if TYPE_CHECKING:
    from landscale.training.recipe import Recipe


@dataclass(frozen=True)
class Augmentation:
    """Settings of the augmentation. Each attribute is the recipe's key of the same name.

    turns: put each patch into one of the 8 rotations and reflections, all equally likely (Sedona et al. 2019).
    shift: largest shift in pixels, in both directions of both axes; the border is mirrored.
    zoom: a random crop of 1 − zoom to 1 of the side is resized to the whole side.
    jitter: standard deviation of a gain and an offset for each patch and band, in standard deviations of the band.
    drop_bands: probability that a band of a patch is replaced by its mean over the train split.
    mixup: parameter of the beta distribution by which each patch is blended with another one (Zhang et al. 2018); 0: no mixup.
    cutmix: the same for pasted rectangles (Yun et al. 2019). With both, each batch gets one of the two, with probability ½ each.
    """

    turns: bool = True
    shift: int = 0
    zoom: float = 0.0
    jitter: float = 0.0
    drop_bands: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(self, values: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Change values (n, bands, side, side) and, where patches are blended, targets (n, C)."""
        n, bands = values.shape[:2]
        if self.turns:
            values = _turned(values, torch.randint(8, (n,), generator=generator))
        if self.shift:
            values = _shifted(values, torch.randint(-self.shift, self.shift + 1, (n, 2), generator=generator))
        if self.zoom:
            values = _zoomed(values, self.zoom, generator)
        if self.jitter:
            noise = to_device(self.jitter * torch.randn((2, n, bands, 1, 1), generator=generator), values.device)
            values = values * (1 + noise[0]) + noise[1]
        if self.drop_bands:
            kept = torch.rand((n, bands, 1, 1), generator=generator) >= self.drop_bands
            values = values * to_device(kept, values.device)
        if self.mixup or self.cutmix:
            paste = self.cutmix and (not self.mixup or bool(torch.rand((), generator=generator) < 0.5))
            blend = _pasted if paste else _mixed
            values, targets = blend(values, targets, self.cutmix if paste else self.mixup, generator)
        return values, targets


def augment_with_maps(
    augmentation: Augmentation, values: Tensor, maps: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Change values (n, bands, side, side), and move the classes of their pixels (n, any side, any side) uint8 with them.

    The maps are brought to the side of the values: their pixels are chosen, not interpolated.
    """
    moved = F.interpolate(maps[:, None].to(values.dtype), values.shape[-2:], mode="nearest-exact")
    moves = Augmentation(turns=augmentation.turns, shift=augmentation.shift)
    both, _ = moves(torch.cat([values, moved], 1), maps, generator)
    values, _ = replace(augmentation, turns=False, shift=0)(both[:, :-1], maps, generator)
    return values, both[:, -1].to(torch.uint8)


def augmentation_at(recipe: Recipe, progress: float) -> Augmentation:
    """The augmentation of a recipe when the fraction `progress` of the training is done."""
    keys = [field.name for field in fields(Augmentation)] if progress < recipe.augment_until else ["turns", "shift"]
    return Augmentation(**{key: getattr(recipe, key) for key in keys})


def _turned(values: Tensor, ks: Tensor) -> Tensor:
    out = torch.empty_like(values)
    drawn = ks.numpy()
    order = to_device(torch.from_numpy(np.argsort(drawn, kind="stable")), values.device)
    by_turn = torch.split(order, np.bincount(drawn, minlength=8).tolist())
    for k, rows in enumerate(by_turn):
        if len(rows):
            out[rows] = turn(values[rows], k)
    return out


def _shifted(values: Tensor, by: Tensor) -> Tensor:
    """Move each patch by its own (dy, dx), with one gather operation for each axis."""
    side = values.shape[-1]
    place = torch.arange(side)[None] + by.T[:, :, None]  # (2, n, side)
    place = side - 1 - (side - 1 - place.abs()).abs()  # mirrored at both borders
    rows, columns = to_device(place, values.device)
    values = values.gather(2, rows[:, None, :, None].expand_as(values))
    return values.gather(3, columns[:, None, None, :].expand_as(values))


def _zoomed(values: Tensor, largest: float, generator: Generator) -> Tensor:
    n = len(values)
    size = 1 - largest * torch.rand(n, generator=generator)
    centre = (1 - size)[:, None] * (2 * torch.rand((n, 2), generator=generator) - 1)
    window = torch.zeros(n, 2, 3)
    window[:, 0, 0] = window[:, 1, 1] = size
    window[:, :, 2] = centre
    grid = F.affine_grid(to_device(window, values.device), list(values.shape), align_corners=False)
    return F.grid_sample(values, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _beta(n: int, alpha: float, generator: Generator) -> Tensor:
    """n draws of Beta(α, α), as ratios of gamma draws, since torch's beta distribution takes no generator."""
    a = torch._standard_gamma(torch.full((2, n), alpha), generator=generator)
    return a[0] / a.sum(0).clamp(min=1e-12)


def _mixed(values: Tensor, targets: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Blend the batch with a shuffled copy of itself, with a weight for each patch (Sedona et al. 2019)."""
    weight = to_device(_beta(len(values), alpha, generator), values.device)
    other = to_device(torch.randperm(len(values), generator=generator), values.device)
    values = values[other].lerp(values, weight[:, None, None, None])
    return values, targets[other].lerp(targets, weight[:, None])


def _pasted(values: Tensor, targets: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Replace a rectangle of each patch by that of a shuffled copy, and blend targets by its fraction of the area."""
    side = values.shape[-1]
    edge = int(side * (1 - _beta(1, alpha, generator).item()) ** 0.5)
    top, left = (int(v) for v in torch.randint(0, side - edge + 1, (2,), generator=generator))
    other = to_device(torch.randperm(len(values), generator=generator), values.device)
    values = values.clone()
    box = (..., slice(top, top + edge), slice(left, left + edge))
    values[box] = values[other][box]
    return values, targets.lerp(targets[other], edge * edge / side**2)
