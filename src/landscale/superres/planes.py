"""Bands grouped by ground sampling distance (GSD): read from a scene, padded by reflection, converted to and from stores.

In this package the bands of a group are in the order of the published weights, which is GDAL's order: B04, B03, B02, B08 at
10 m. Elsewhere in landscale a band is found by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from landscale.errors import BadInput, LandscaleError
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import Scene
from landscale.vocabulary.bands import BAND_SETS

GROUPS = {
    10: ("B04", "B03", "B02", "B08"),
    20: ("B05", "B06", "B07", "B8A", "B11", "B12"),
    60: ("B01", "B09"),
}
ESA_ORDER = BAND_SETS["s2-12"].names

# Digital numbers by GSD in metres, (n, bands of the group, h, w) float32. At a reduced scale, key 10 is still the finest grid.
Planes = dict[int, Tensor]


def groups_of(scene: Scene) -> tuple[int, ...]:
    """GSDs in metres of the groups that a scene has: 10, 20 and, if it has both bands, 60.

    Raises:
        BadInput: a band at 10 or 20 m is missing, or one of the two at 60 m.
    """
    required = [*GROUPS[10], *GROUPS[20]]
    coarse = [band for band in GROUPS[60] if band in scene.files]
    if missing := [b for b in (*required, *(GROUPS[60] if coarse else ())) if b not in scene.files]:
        raise BadInput(scene.folder, f"lacks {', '.join(missing)}; it has {', '.join(scene.files)}")
    return (10, 20, 60) if coarse else (10, 20)


def bands_of_groups(groups: Sequence[int]) -> tuple[str, ...]:
    return tuple(band for gsd in groups for band in GROUPS[gsd])


def check_grid(scene: Scene, pixels: ScenePixels) -> None:
    """Check that all bands are at their native resolution.

    Raises:
        BadInput: a band has another resolution.
    """
    for gsd, bands in GROUPS.items():
        for band in bands:
            if band in pixels.files and pixels.ratios[band] * 10 != gsd:
                found = pixels.files[band].transform.a
                raise BadInput(scene.files[band], f"has pixels of {found:g} m, expected {band} at {gsd} m")


def reflected_indices(first: int, last: int, size: int) -> NDArray[np.int64]:
    """Indices first … last − 1 of an axis of `size` pixels, reflected at both ends into 0 … size − 1."""
    index = np.arange(first, last) % (2 * size)
    return np.minimum(index, 2 * size - 1 - index)


def pad_by_reflection(values: Tensor, margin: int) -> Tensor:
    """Pad (…, h, w) on all sides; the border pixel is repeated, as by `numpy.pad(mode="symmetric")`; for any margin."""
    for axis in (-2, -1):
        size = values.shape[axis]
        index = torch.from_numpy(reflected_indices(-margin, size + margin, size)).to(values.device)
        values = values.index_select(axis, index)
    return values


def read_rows(
    pixels: ScenePixels, groups: Sequence[int], top: int, rows: int, margin: int, size: tuple[int, int] | None = None
) -> Planes:
    """Read harmonised rows of a scene with a margin on all four sides, reflected where the scene ends, as a batch of one (n = 1).

    Args:
        pixels: open, with all bands of the groups.
        groups: GSDs in metres.
        top: first row, in pixels at 10 m; a multiple of the coarsest pixel, as are `rows` and `margin`.
        rows: number of rows; may go beyond the scene.
        margin: pixels at 10 m.
        size: height and width to which the scene is cut, in pixels at 10 m; multiples of the coarsest pixel. By default the
            scene is not cut, and the width of the result is rounded up to such a multiple.
    """
    coarsest = max(groups) // 10
    across = size[1] if size else ceil(pixels.width / coarsest) * coarsest
    planes: Planes = {}
    for gsd in groups:
        ratio = gsd // 10
        stack = []
        for band in GROUPS[gsd]:
            file = pixels.files[band]
            height, width = (size[0] // ratio, size[1] // ratio) if size else (file.height, file.width)
            down = reflected_indices((top - margin) // ratio, (top + rows + margin) // ratio, height)
            right = reflected_indices(-margin // ratio, (across + margin) // ratio, width)
            first = int(down.min())
            values = pixels.harmonise(pixels.read(band, first, int(down.max()) + 1 - first))
            stack.append(values[down - first][:, right])
        planes[gsd] = torch.from_numpy(np.stack(stack)[None].astype(np.float32))
    return planes


def group_by_gsd(native: Mapping[tuple[str, ...], Tensor]) -> Planes:
    """Group the bands of a store's batch: tensors (n, bands, h, w) with the names of their bands, in any order.

    Raises:
        LandscaleError: some of the twelve bands are missing.
    """
    found = {band: tensor[:, k] for names, tensor in native.items() for k, band in enumerate(names)}
    if missing := [band for band in ESA_ORDER if band not in found]:
        raise LandscaleError(f"super-resolution needs all twelve bands; {', '.join(missing)} are missing")
    return {gsd: torch.stack([found[band].float() for band in bands], 1) for gsd, bands in GROUPS.items()}


def upsample(values: Tensor, scale: int, mode: str = "bilinear") -> Tensor:
    """(n, c, h, w) → (n, c, h·scale, w·scale); mode as in `torch.nn.functional.interpolate`, corners not aligned."""
    return F.interpolate(values, scale_factor=scale, mode=mode, align_corners=False) if scale > 1 else values


def interpolate(native: Mapping[tuple[str, ...], Tensor], mode: str) -> Tensor:
    """All bands at 10 m by "bilinear" or "bicubic" interpolation; arguments as `group_by_gsd`, result as `in_esa_order`."""
    return in_esa_order({gsd: upsample(values, gsd // 10, mode) for gsd, values in group_by_gsd(native).items()})


def in_esa_order(planes: Planes) -> Tensor:
    """Planes that are all on one grid → (n, 12, h, w) uint16 in the order B01 … B8A, B09, B11, B12, rounded and clipped."""
    found = {band: planes[gsd][:, k] for gsd, bands in GROUPS.items() for k, band in enumerate(bands)}
    return torch.stack([found[band] for band in ESA_ORDER], 1).round().clamp(0, 65535).to(torch.uint16)
