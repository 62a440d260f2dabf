"""Measure networks on a scene by Wald's protocol, against bicubic interpolation."""

from __future__ import annotations

from math import degrees
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscale.errors import BadInput
from landscale.runtime.progress import progress_bar
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene
from landscale.superres.planes import GROUPS, bands_of_groups, check_grid, groups_of, read_rows, upsample
from landscale.superres.superresolver import Superresolver
from landscale.superres.units import check_units
from landscale.superres.wald import degrade

_ROWS = 576  # height of a strip in pixels at 10 m; a multiple of 360 m, to which bands at 60 m are degraded
_BLUR_BORDER = 6  # pixels of the reduced grid that the blur at the border of a strip changes, rounded up to 60 m


class ErrorSums:
    """Sums over the pixels of a group of bands, from which all errors are computed. Nodata pixels (0 in all bands) are left out.

    RMSE in digital numbers; SRE = 10 log10(mean² / MSE) in dB; SAM, the mean angle between spectra, in degrees;
    ERGAS = 100 / scale · root mean (RMSE / mean)². Definitions: Lanaras et al. 2018, section 4.1.
    """

    def __init__(self, bands: int) -> None:
        self.squares, self.truth, self.angles, self.pixels = np.zeros(bands), np.zeros(bands), 0.0, 0

    def add(self, truth: Tensor, guess: Tensor) -> None:
        """Add an image; both (1, c, h, w), digital numbers."""
        valid = truth[0].amax(0) > 0
        t, g = truth[0][:, valid].double(), guess[0][:, valid].double()
        self.squares += (t - g).square().sum(1).numpy()
        self.truth += t.sum(1).numpy()
        cosine = (t * g).sum(0) / (t.norm(dim=0) * g.norm(dim=0)).clamp(min=1e-9)
        self.angles += float(cosine.clamp(-1, 1).acos().sum())
        self.pixels += t.shape[1]

    def by_band(self) -> dict[str, NDArray[np.float64]]:
        error, mean = self.squares / self.pixels, self.truth / self.pixels
        return {"rmse": np.sqrt(error), "sre": 10 * np.log10(np.maximum(mean**2, 1e-9) / np.maximum(error, 1e-9))}

    def overall(self, scale: int) -> dict[str, float]:
        """RMSE over all pixels and bands, mean SRE, SAM, ERGAS."""
        error, mean = self.squares / self.pixels, self.truth / self.pixels
        return {
            "rmse": float(np.sqrt(error.mean())),
            "sre": float(self.by_band()["sre"].mean()),
            "sam": degrees(self.angles / self.pixels),
            "ergas": float(100 / scale * np.sqrt((error / np.maximum(mean, 1e-9) ** 2).mean())),
        }


@torch.inference_mode()
def evaluate_on_scene(superresolver: Superresolver, scene_path: Path, offset: int | None = None) -> dict[str, Any]:
    """Errors of the networks and of bicubic interpolation, for every network whose bands the scene has.

    `offset` as for `open_scene`.

    Returns:
        `rmse_20m`, `bicubic_rmse_20m`, `ratio_20m` and the same for sre, sam, ergas and 60m; `bands`: a list, one dict per band.

    Raises:
        BadInput: the scene lacks bands, cannot be read, or is too small.
    """
    scene = open_scene(scene_path, offset)
    available = groups_of(scene)
    with ScenePixels(scene, bands_of_groups(available)) as pixels:
        check_grid(scene, pixels)
        check_units(scene, pixels, superresolver.level)
        figures: dict[str, Any] = {"scene": str(scene_path), "weights": superresolver.config["digest"], "bands": []}
        for gsd in superresolver.networks:
            if gsd in available:
                network, bicubic = _errors(superresolver, pixels, gsd, scene_path)
                figures |= _overall_row(gsd, network.overall(gsd // 10), bicubic.overall(gsd // 10))
                network_bands, bicubic_bands = network.by_band(), bicubic.by_band()
                figures["bands"] += [
                    {
                        "name": band,
                        "gsd": gsd,
                        **{key: float(values[k]) for key, values in network_bands.items()},
                        **{f"bicubic_{key}": float(values[k]) for key, values in bicubic_bands.items()},
                    }
                    for k, band in enumerate(GROUPS[gsd])
                ]
    return figures


def _overall_row(gsd: int, network: dict[str, float], bicubic: dict[str, float]) -> dict[str, float]:
    row = {f"{key}_{gsd}m": value for key, value in network.items()}
    row |= {f"bicubic_{key}_{gsd}m": value for key, value in bicubic.items()}
    return row | {f"ratio_{gsd}m": network["rmse"] / max(bicubic["rmse"], 1e-9)}


def _errors(superresolver: Superresolver, pixels: ScenePixels, gsd: int, path: Path) -> tuple[ErrorSums, ErrorSums]:
    """Errors of the network for `gsd` metres, and of bicubic interpolation."""
    network, margin = superresolver.networks[gsd], superresolver.margin
    scale = network.shape.scale
    unit = scale * scale  # pixels at 10 m that a pixel of the reduced bands covers
    height, width = pixels.height // unit * unit, pixels.width // unit * unit
    if not height or not width:
        raise BadInput(path, f"is {pixels.width}×{pixels.height} px, too small to be reduced by a factor of {scale}")
    errors, bicubic = ErrorSums(len(GROUPS[gsd])), ErrorSums(len(GROUPS[gsd]))
    around = (margin + _BLUR_BORDER) * scale
    with progress_bar(f"{gsd} m", -(-height // _ROWS), "strips") as advance:
        for top in range(0, height, _ROWS):
            rows = min(_ROWS, height - top)
            planes = read_rows(pixels, network.shape.groups, top, rows, around, (height, width))
            reduced = {}
            for g, values in planes.items():
                border = _BLUR_BORDER * 10 // g
                reduced[g] = degrade(values, scale)[..., border:-border, border:-border]
            cut = around * 10 // gsd
            truth = planes[gsd][..., cut:-cut, cut:-cut]
            errors.add(truth, superresolver.sharpen(reduced, gsd, margin))
            bicubic.add(truth, upsample(reduced[gsd], scale, "bicubic")[..., margin:-margin, margin:-margin])
            advance(1)
    if not errors.pixels:
        raise BadInput(path, f"has only nodata in its bands at {gsd} m")
    return errors, bicubic
