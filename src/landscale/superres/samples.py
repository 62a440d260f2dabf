"""Training samples of DSen2: patches of scenes, degraded by Wald's protocol, and their targets; a function of (seed, step).

One scene shows few kinds of land cover, and a network that overfits to its spectra can be worse than bicubic interpolation
elsewhere. So the spectra of patches are augmented: every band becomes brighter or darker, as under other haze, and in a
fraction of the patches bands become random mixtures of all bands. The network must then derive the relation between bands from
the patch itself.
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

from landscale.datasets.tiles.quality_masks import read_covering_raster
from landscale.errors import BadInput
from landscale.models.input_stage import turn
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import Scene, open_scene
from landscale.superres.network import DIVISOR, NetworkShape, stack_inputs
from landscale.superres.planes import GROUPS, Planes, bands_of_groups, check_grid, groups_of
from landscale.superres.units import check_units
from landscale.superres.wald import degrade
from landscale.vocabulary.scene_classification import CLOUDS
from landscale.vocabulary.units import Level


@dataclass(frozen=True)
class TrainingArea:
    """Part of a scene: digital numbers by GSD (bands of the group, h, w), and a cloud mask (h, w) with pixels of 20 m.

    level: processing level of the scene.
    """

    bands: dict[int, NDArray[np.uint16]]
    cloud: NDArray[np.bool_]
    level: Level = "unknown"


PATCH_SIDES = {20: 32, 60: 96}  # pixels of the bands to sharpen, as published
BATCH_SIZES = {20: 16, 60: 4}
MIXED_FRACTION = 0.25  # fraction of patches with mixed bands
OFFSET_STD = 100.0  # standard deviation of the offset added to a band of a patch, digital numbers
_ROWS, _STRIPS = 600, 12  # height of a strip in pixels at 10 m, and strips in all; one of a full tile takes 75 MB
_MAX_DRAWS = 20  # draws for one patch, to find one without nodata and clouds


def read_training_areas(paths: Sequence[Path], offset: int | None = None) -> list[TrainingArea]:
    """Read small scenes completely; of large scenes read equally spaced strips, the same number of each scene.

    A group of bands that one of the scenes lacks is not read from the others either. `offset` as for `open_scene`.

    Raises:
        BadInput: a scene lacks bands, cannot be read or is smaller than a patch, or all scenes are covered by clouds.
    """
    scenes = [open_scene(path, offset) for path in paths]
    groups = min((groups_of(scene) for scene in scenes), key=len)
    unit, max_strips = max(groups) // 10, max(1, _STRIPS // len(scenes))
    areas = []
    for scene in scenes:
        with ScenePixels(scene, bands_of_groups(groups)) as pixels:
            check_grid(scene, pixels)
            check_units(scene, pixels)
            width, height = pixels.width // unit * unit, pixels.height // unit * unit
            for gsd in groups[1:]:
                if (min_side := 2 * _border(gsd)) > min(width, height) * 10 // gsd:
                    expected = f"expected at least {min_side * gsd // 10} a side to train on"
                    raise BadInput(scene.folder, f"is {pixels.width}×{pixels.height} px, {expected}")
            cloud = _cloud_mask(scene, pixels, height // 2, width // 2)
            rows = min(height, _ROWS)
            tops = np.linspace(0, height - rows, min(max_strips, ceil(height / rows))).astype(int) // unit * unit
            for top in tops.tolist():
                strip_cloud = cloud[top // 2 : (top + rows) // 2]
                if not strip_cloud.all():
                    areas.append(TrainingArea(_read_bands(pixels, groups, top, rows, width), strip_cloud, scene.level))
    if not areas:
        raise BadInput(scenes[0].folder, "is completely covered by clouds, according to its scene classification")
    return areas


def _read_bands(
    pixels: ScenePixels, groups: Sequence[int], top: int, rows: int, width: int
) -> dict[int, NDArray[np.uint16]]:
    bands = {}
    for gsd in groups:
        r = gsd // 10
        values = [pixels.harmonise(pixels.read(band, top // r, rows // r))[:, : width // r] for band in GROUPS[gsd]]
        bands[gsd] = np.stack(values)
    return bands


def _cloud_mask(scene: Scene, pixels: ScenePixels, height: int, width: int) -> NDArray[np.bool_]:
    """Clouds by the product's scene classification, in pixels of 20 m; all false if the product has none.

    The bands are recorded from different angles, so a cloud is displaced by up to 50 m between them; do not train on it.
    """
    path = scene.classification
    if path is None:
        return np.zeros((height, width), bool)
    extent = pixels.transform.c, pixels.transform.f, pixels.width, pixels.height
    classes, gsd = read_covering_raster(path, *extent, scene.classification_index)
    # The classification may end up to one of its own pixels before the bands do.
    rows, columns = (
        np.minimum(np.arange(size) * 20 // int(gsd), available - 1)
        for size, available in zip((height, width), classes.shape, strict=True)
    )
    cloud: NDArray[np.bool_] = np.isin(classes[np.ix_(rows, columns)], CLOUDS)
    return cloud


def _border(gsd: int) -> int:
    """Border of a patch that is cut off after blur and upsampling, both sides together, in pixels at `gsd` metres."""
    return 2 * gsd // 10


def draw_batch(areas: Sequence[TrainingArea], shape: NetworkShape, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """A batch: input of the network (n, inputs, side, side), and its target, both digital numbers / 2000, float32.

    Patches lie anywhere on the grid of their bands, in any of the 8 rotations and reflections. An area smaller than the side
    of a patch gives smaller patches.
    """
    gsd, scale = shape.gsd, shape.scale
    generator = np.random.default_rng([seed, gsd, step])
    smallest = min(min(area.bands[gsd].shape[1:]) for area in areas)
    side = min(PATCH_SIDES[gsd] + _border(gsd), smallest) // scale * scale
    patches = [draw_patch(areas, shape, side, generator) for _ in range(BATCH_SIZES[gsd])]
    planes: Planes = {g: torch.stack([patch[g] for patch in patches]) for g in shape.groups}
    sharp = _augment_spectra(_to_one_grid(planes, gsd), generator)
    inputs = stack_inputs({g: _reduce(values, g, gsd) for g, values in sharp.items()}, shape)
    cut = slice(scale, -scale)
    return inputs[..., cut, cut], sharp[gsd][..., cut, cut] / DIVISOR


def _to_one_grid(planes: Planes, gsd: int) -> Planes:
    """Degrade all finer bands to the grid of those at `gsd`."""
    return {g: degrade(values, gsd // g) if g < gsd else values for g, values in planes.items()}


def _reduce(values: Tensor, g: int, gsd: int) -> Tensor:
    """Degrade the output of `_to_one_grid` again, until bands at g metres are g / 10 times as coarse as the finest ones."""
    if g == gsd:
        return degrade(values, g // 10)
    return F.avg_pool2d(values, g // 10)  # `_to_one_grid` has blurred them


def _augment_spectra(planes: Planes, generator: np.random.Generator) -> Planes:
    """Add an offset to every band of a patch and, in a fraction of the patches, mix bands around their mean with all bands."""
    values = torch.cat(list(planes.values()), 1)
    n, bands = values.shape[:2]
    mixed = generator.random((n, bands, 1)) < 0.5
    mixed[: n - round(MIXED_FRACTION * n)] = False
    kept = 1 - mixed * generator.random((n, bands, 1))
    mixture = np.eye(bands) * kept + mixed * generator.normal(0, 0.5 / np.sqrt(bands), (n, bands, bands))
    offset = torch.from_numpy(generator.normal(0, OFFSET_STD, (n, bands, 1, 1)).astype(np.float32))
    mean = values.mean((2, 3), keepdim=True)
    augmented = torch.einsum("nij,njhw->nihw", torch.from_numpy(mixture.astype(np.float32)), values - mean)
    augmented = augmented + mean + offset
    sizes = [part.shape[1] for part in planes.values()]
    return dict(zip(planes, torch.split(augmented, sizes, 1), strict=True))


def draw_patch(areas: Sequence[TrainingArea], shape: NetworkShape, side: int, generator: np.random.Generator) -> Planes:
    """Draw a patch of `side` pixels of the bands to be sharpened, at native resolution, without a batch axis.

    Of several draws, the first without nodata and clouds is taken, or else the one with the fewest such pixels.
    """
    gsd = shape.gsd
    sizes = np.array([area.bands[gsd][0].size for area in areas], float)
    best: tuple[float, dict[int, NDArray[np.uint16]]] = np.inf, {}
    for _ in range(_MAX_DRAWS):
        area = areas[generator.choice(len(areas), p=sizes / sizes.sum())]
        top, left = (int(generator.integers(size - side + 1)) for size in area.bands[gsd].shape[1:])
        bands = {g: _crop(area.bands[g], gsd // g, top, left, side) for g in shape.groups}
        cloud = _crop(area.cloud, gsd // 20, top, left, side)
        invalid = float((bands[gsd] == 0).mean() + cloud.mean())
        if invalid < best[0]:
            best = invalid, bands
        if not invalid:
            break
    k = int(generator.integers(8))
    return {g: turn(torch.from_numpy(values.astype(np.float32)), k) for g, values in best[1].items()}


def _crop(values: NDArray[Any], ratio: int, top: int, left: int, side: int) -> NDArray[Any]:
    """A square of (…, h, w); top, left and side are in pixels that are `ratio` times as large as those of `values`."""
    return values[..., top * ratio : (top + side) * ratio, left * ratio : (left + side) * ratio]
