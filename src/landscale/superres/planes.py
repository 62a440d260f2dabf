"""The bands of some ground by their sampling distance: read from a scene, continued over its border, in and out of stores.

Here and in the networks, bands are in the order of the authors' files, in which their published weights are too: GDAL lists
the 10 m bands of a product as B04, B03, B02, B08. Everywhere else a band's place is told by its name.
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
from landscale.scenes.scene import Scene, ScenePixels
from landscale.vocabulary.bands import BAND_SETS

GROUPS = {
    10: ("B04", "B03", "B02", "B08"),
    20: ("B05", "B06", "B07", "B8A", "B11", "B12"),
    60: ("B01", "B09"),
}
ESA_ORDER = BAND_SETS["s2-12"].names

# Digital numbers by sampling distance, (n, bands of GROUPS, h, w) float32. At a reduced scale "10" is the finest grid still.
Planes = dict[int, Tensor]


def groups_of(scene: Scene) -> tuple[int, ...]:
    """The sampling distances of which a scene has all bands: 10, 20 and perhaps 60.

    Raises:
        BadInput: a band at 10 or 20 m is missing, or one of the two at 60 m.
    """
    needed = [*GROUPS[10], *GROUPS[20]]
    coarse = [band for band in GROUPS[60] if band in scene.files]
    if missing := [b for b in (*needed, *(GROUPS[60] if coarse else ())) if b not in scene.files]:
        raise BadInput(scene.folder, f"lacks {', '.join(missing)}; it has {', '.join(scene.files)}")
    return (10, 20, 60) if coarse else (10, 20)


def bands_of(groups: Sequence[int]) -> tuple[str, ...]:
    return tuple(band for gsd in groups for band in GROUPS[gsd])


def check_grid(scene: Scene, pixels: ScenePixels) -> None:
    """That bands are at their native resolution.

    Raises:
        BadInput: one is not.
    """
    for gsd, bands in GROUPS.items():
        for band in bands:
            if band in pixels.files and pixels.ratios[band] * 10 != gsd:
                found = pixels.files[band].transform.a
                raise BadInput(scene.files[band], f"has pixels of {found:g} m, expected {band} at {gsd} m")


def mirrored(first: int, last: int, size: int) -> NDArray[np.int64]:
    """For the places first … last − 1 on an axis of `size` pixels, mirrored without end: the pixel that stands there."""
    place = np.arange(first, last) % (2 * size)
    return np.minimum(place, 2 * size - 1 - place)


def mirror(values: Tensor, margin: int) -> Tensor:
    """(…, h, w) continued on all sides by its mirror image, which begins with the border pixel itself."""
    for axis in (-2, -1):
        size = values.shape[axis]
        there = torch.from_numpy(mirrored(-margin, size + margin, size)).to(values.device)
        values = values.index_select(axis, there)
    return values


def read_rows(
    pixels: ScenePixels, groups: Sequence[int], top: int, rows: int, margin: int, size: tuple[int, int] | None = None
) -> Planes:
    """Harmonised rows of a scene with a margin on all four sides, mirrored where the scene ends; n = 1.

    Args:
        pixels: open, with all bands of the groups.
        groups: sampling distances in metres.
        top: first row, in pixels at 10 m; a multiple of the coarsest pixel, as are rows and margin.
        rows: how many; may go beyond the scene.
        margin: pixels at 10 m.
        size: height and width where the scene is taken to end, whole pixels of the coarsest group. By default at its
            true ends; the width that comes out is then rounded up to such pixels.
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
            down = mirrored((top - margin) // ratio, (top + rows + margin) // ratio, height)
            right = mirrored(-margin // ratio, (across + margin) // ratio, width)
            first = int(down.min())
            values = pixels.harmonise(pixels.read(band, first, int(down.max()) + 1 - first))
            stack.append(values[down - first][:, right])
        planes[gsd] = torch.from_numpy(np.stack(stack)[None].astype(np.float32))
    return planes


def from_native(native: Mapping[tuple[str, ...], Tensor]) -> Planes:
    """Planes of a store's batch: tensors (n, bands, h, w) by the bands they hold, in any order.

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
    """All bands at the side of the finest by plain interpolation, "bilinear" or "bicubic"; see `stacked` for the result."""
    return stacked({gsd: upsample(values, gsd // 10, mode) for gsd, values in from_native(native).items()})


def stacked(planes: Planes) -> Tensor:
    """Planes that are all on one grid → (n, 12, h, w) uint16 in ESA order B01 … B8A, B09, B11, B12, rounded and clipped."""
    found = {band: planes[gsd][:, k] for gsd, bands in GROUPS.items() for k, band in enumerate(bands)}
    return digital(torch.stack([found[band] for band in ESA_ORDER], 1))


def digital(values: Tensor) -> Tensor:
    return values.round().clamp(0, 65535).to(torch.uint16)
