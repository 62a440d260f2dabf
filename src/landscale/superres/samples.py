"""Training pairs: patches of scenes at the reduced scale and what they should become; a function of (seed, step).

One scene shows few kinds of ground, and what a network learned of them by heart may make it worse than bicubic on others. So
patches get other spectra: every band becomes brighter or darker, as under other haze, and in some patches bands become random
blends of all bands. How bands hang together must then be read from the patch itself, which is what holds elsewhere too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from landscale.datasets.tiles.quality_masks import CLOUD_VALUES, read_covering_raster, scene_classification
from landscale.errors import BadInput
from landscale.models.input_stage import turn
from landscale.scenes.scene import Scene, ScenePixels, open_scene
from landscale.superres.network import DIVISOR, Shape, stack_inputs
from landscale.superres.planes import GROUPS, Planes, bands_of, check_grid, groups_of
from landscale.superres.wald import degrade


@dataclass(frozen=True)
class Ground:
    """Some ground: digital numbers by sampling distance (bands of GROUPS, h, w), and where clouds hide it, in pixels of 20 m."""

    bands: dict[int, NDArray[np.uint16]]
    cloud: NDArray[np.bool_]


SIDES = {20: 32, 60: 96}  # pixels a side of a patch, as published
BATCH = {20: 16, 60: 4}
BLENDED = 0.25  # share of patches with blended bands
SHIFT = 100.0  # standard deviation of what is added to a band of a patch, digital numbers
_ROWS, _STRIPS = 600, 12  # height of a strip in pixels at 10 m, and how many are kept: 75 MB each of a full tile
_DRAWS = 20  # for a patch without gaps


def read_grounds(paths: Sequence[Path]) -> list[Ground]:
    """What training sees of the scenes: all of them, or of large ones strips at even distances, as many of each.

    All grounds have the groups that every scene has.

    Raises:
        BadInput: a scene lacks bands, cannot be read, is smaller than a patch, or all of it is cloud.
    """
    scenes = [open_scene(path) for path in paths]
    groups = min((groups_of(scene) for scene in scenes), key=len)
    unit, most = max(groups) // 10, max(1, _STRIPS // len(scenes))
    grounds = []
    for scene in scenes:
        with ScenePixels(scene, bands_of(groups)) as pixels:
            check_grid(scene, pixels)
            width, height = pixels.width // unit * unit, pixels.height // unit * unit
            for gsd in groups[1:]:
                if (least := 2 * _around(gsd)) > min(width, height) * 10 // gsd:
                    needed = f"expected at least {least * gsd // 10} a side to train on"
                    raise BadInput(scene.folder, f"is {pixels.width}×{pixels.height} px, {needed}")
            cloud = _clouds(scene, pixels, height // 2, width // 2)
            rows = min(height, _ROWS)
            tops = np.linspace(0, height - rows, min(most, ceil(height / rows))).astype(int) // unit * unit
            for top in tops.tolist():
                hidden = cloud[top // 2 : (top + rows) // 2]
                if not hidden.all():
                    grounds.append(Ground(_read(pixels, groups, top, rows, width), hidden))
    if not grounds:
        raise BadInput(scenes[0].folder, "shows nothing but clouds, by its scene classification")
    return grounds


def _read(pixels: ScenePixels, groups: Sequence[int], top: int, rows: int, width: int) -> dict[int, NDArray[np.uint16]]:
    bands = {}
    for gsd in groups:
        r = gsd // 10
        values = [pixels.harmonise(pixels.read(band, top // r, rows // r))[:, : width // r] for band in GROUPS[gsd]]
        bands[gsd] = np.stack(values)
    return bands


def _clouds(scene: Scene, pixels: ScenePixels, height: int, width: int) -> NDArray[np.bool_]:
    """What the product classifies as cloud, in pixels of 20 m; nothing, where it does not tell. The bands see a cloud from
    different angles, up to 50 m apart: sharpening the one by the other is wrong there, and would be learned.
    """
    path = scene_classification(scene.folder) if scene.folder.is_dir() else None
    if path is None:
        return np.zeros((height, width), bool)
    classes, gsd = read_covering_raster(path, pixels.transform.c, pixels.transform.f, pixels.width, pixels.height)
    # It may end less than a pixel of its own before the bands do.
    rows, columns = (
        np.minimum(np.arange(size) * 20 // int(gsd), most - 1)
        for size, most in zip((height, width), classes.shape, strict=True)
    )
    cloud: NDArray[np.bool_] = np.isin(classes[np.ix_(rows, columns)], CLOUD_VALUES)
    return cloud


def _around(gsd: int) -> int:
    """Pixels of a patch that serve only to make the others exact: what the blur and the upsampling reach, on both sides."""
    return 2 * gsd // 10


def draw(grounds: Sequence[Ground], shape: Shape, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """A batch: what the network takes (n, inputs, side, side), and what it should give, both float32 numbers / 2000.

    Patches lie anywhere on the grid of their bands, in any of the 8 turns. A ground too small for the side of a patch
    gives smaller ones.
    """
    gsd, scale = shape.gsd, shape.scale
    generator = np.random.default_rng([seed, gsd, step])
    least = min(min(ground.bands[gsd].shape[1:]) for ground in grounds)
    side = min(SIDES[gsd] + _around(gsd), least) // scale * scale
    patches = [_patch(grounds, shape, side, generator) for _ in range(BATCH[gsd])]
    planes: Planes = {g: torch.stack([patch[g] for patch in patches]) for g in shape.groups}
    sharp = _other_spectra(_on_grid(planes, gsd), generator)
    inputs = stack_inputs({g: _reduced(values, g, gsd) for g, values in sharp.items()}, shape)
    cut = slice(scale, -scale)
    return inputs[..., cut, cut], sharp[gsd][..., cut, cut] / DIVISOR


def _on_grid(planes: Planes, gsd: int) -> Planes:
    """All bands on the grid of those at `gsd`, finer ones as if seen from so much higher up."""
    return {g: degrade(values, gsd // g) if g < gsd else values for g, values in planes.items()}


def _reduced(values: Tensor, g: int, gsd: int) -> Tensor:
    """Bands of `_on_grid` as coarse as theirs are beside the finest: the reduced scale. The blur stands for a sensor's own."""
    if g == gsd:
        return degrade(values, g // 10)
    return F.avg_pool2d(values, g // 10)  # they are blurred already


def _other_spectra(planes: Planes, generator: np.random.Generator) -> Planes:
    """All bands of patches shifted, and in a share of them, around the mean, drawn towards random blends of all bands."""
    values = torch.cat(list(planes.values()), 1)
    n, bands = values.shape[:2]
    chosen = generator.random((n, bands, 1)) < 0.5
    chosen[: n - round(BLENDED * n)] = False
    kept = 1 - chosen * generator.random((n, bands, 1))
    blend = np.eye(bands) * kept + chosen * generator.normal(0, 0.5 / np.sqrt(bands), (n, bands, bands))
    shift = torch.from_numpy(generator.normal(0, SHIFT, (n, bands, 1, 1)).astype(np.float32))
    mean = values.mean((2, 3), keepdim=True)
    mixed = torch.einsum("nij,njhw->nihw", torch.from_numpy(blend.astype(np.float32)), values - mean) + mean + shift
    sizes = [part.shape[1] for part in planes.values()]
    return dict(zip(planes, torch.split(mixed, sizes, 1), strict=True))


def _patch(grounds: Sequence[Ground], shape: Shape, side: int, generator: np.random.Generator) -> Planes:
    """A patch of `side` pixels of the bands to be sharpened, at native resolution: of some draws, the first without gaps and
    clouds, or the one with least.
    """
    gsd = shape.gsd
    areas = np.array([ground.bands[gsd][0].size for ground in grounds], float)
    best: tuple[float, dict[int, NDArray[np.uint16]]] = np.inf, {}
    for _ in range(_DRAWS):
        ground = grounds[generator.choice(len(grounds), p=areas / areas.sum())]
        top, left = (int(generator.integers(size - side + 1)) for size in ground.bands[gsd].shape[1:])
        bands = {g: _cut(ground.bands[g], gsd // g, top, left, side) for g in shape.groups}
        cloud = _cut(ground.cloud, gsd // 20, top, left, side)
        hidden = float((bands[gsd] == 0).mean() + cloud.mean())
        if hidden < best[0]:
            best = hidden, bands
        if not hidden:
            break
    k = int(generator.integers(8))
    return {g: turn(torch.from_numpy(values.astype(np.float32)), k) for g, values in best[1].items()}


def _cut(values: NDArray[Any], ratio: int, top: int, left: int, side: int) -> NDArray[Any]:
    """A square of (…, h, w), told in pixels that are `ratio` times as large."""
    return values[..., top * ratio : (top + side) * ratio, left * ratio : (left + side) * ratio]
