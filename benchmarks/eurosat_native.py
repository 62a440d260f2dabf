"""Restore the native resolution of EuroSAT's 13-band patches, so that super-resolution can be measured on them.

    python benchmarks/eurosat_native.py EuroSAT_MS OUT

EuroSAT was published with its bands at 20 m interpolated to 10 m by cubic splines (Helber et al. 2019). Up to rounding, such a
band is a cubic B-spline with one coefficient for each pixel at 20 m. This can be checked, because a row of 64 values has only 35
coefficients. The coefficients are taken as the pixels at 20 m, as in GDAL's `cubicspline`: they are as sharp as bands at 20 m
are, unlike the values of a spline that interpolates the pixels. Patches whose bands are not such splines are left out.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from landscale.datasets.eurosat import MS, SIDE
from landscale.superres.planes import GROUPS

Numbers = NDArray[np.float64]
FIRST, LAST = 2, 30  # range of pixels at 20 m that are kept; the spline depends on two pixels on each side
ROUNDING = 0.3  # rms of the error by rounding to integers, digital numbers


@cache
def spline(shift: int) -> tuple[Numbers, Numbers]:
    """Matrix (SIDE, pixels) that interpolates from 20 m to 10 m, and its pseudo-inverse.

    The first pixel at 20 m begins `shift` pixels at 10 m before the patch.
    """
    positions = (np.arange(SIDE) + 0.5 + shift) / 2 - 0.5
    distance = np.abs(positions[:, None] - np.arange(-2, SIDE // 2 + 3))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - np.minimum(distance, 2)) ** 3 / 6
    matrix = np.where(distance < 1, near, far)
    return matrix, np.linalg.pinv(matrix)


def restore(band: Numbers, down: int, right: int) -> tuple[Numbers, float]:
    """The pixels at 20 m, and the rms difference between the band and their interpolation."""
    (rows, rows_back), (columns, columns_back) = spline(down), spline(right)
    pixels = rows_back @ band @ columns_back.T
    residual = float((band - rows @ pixels @ columns.T).std())
    first, last = FIRST + 2, LAST + 2  # the matrix has two pixels before the patch
    return pixels[first:last, first:last], residual


def to_native(bands: dict[str, Numbers]) -> dict[str, NDArray[np.uint16]] | None:
    """The bands at their native resolution in the middle of the patch; None if they are not such splines."""
    for down in (0, 1):
        for right in (0, 1):
            found = {name: restore(bands[name], down, right) for name in GROUPS[20]}
            if max(residual for _, residual in found.values()) < ROUNDING:
                coarse = {name: pixels.round().clip(0).astype(np.uint16) for name, (pixels, _) in found.items()}
                rows = slice(2 * FIRST - down, 2 * LAST - down)
                columns = slice(2 * FIRST - right, 2 * LAST - right)
                return coarse | {name: bands[name][rows, columns].astype(np.uint16) for name in GROUPS[10]}
    return None


def main(source: Path, out: Path) -> None:
    files = sorted(source.glob("*/*.tif"))
    written = 0
    for file in files:
        with rasterio.open(file) as opened:
            bands = dict(zip(MS.bands, opened.read().astype(np.float64), strict=True))
            crs, corner = opened.crs, (opened.transform.c, opened.transform.f)
        for name, values in (to_native(bands) or {}).items():
            gsd = 20 if name in GROUPS[20] else 10
            path = out / file.stem / f"{file.stem}_{name}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            side, transform = values.shape[0], from_origin(*corner, gsd, gsd)
            profile = {"width": side, "height": side, "count": 1, "dtype": "uint16", "crs": crs, "transform": transform}
            with rasterio.open(path, "w", driver="GTiff", **profile) as opened:
                opened.write(values, 1)
            written += name == GROUPS[20][0]
    print(f"{out}: {written} of {len(files)} patches")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    main(options.source, options.out)
