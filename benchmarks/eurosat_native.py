"""EuroSAT's 13-band patches at native resolution again: level 1C scenes with which super-resolution can be measured.

    python benchmarks/eurosat_native.py EuroSAT_MS OUT

EuroSAT was published with its bands at 20 m interpolated to 10 m by cubic splines (Helber et al. 2019). What these bands say,
to the rounding of their numbers, is a cubic B-spline with a coefficient a pixel at 20 m: 29 of 64 numbers in a row are free to
contradict that, and do not. The coefficients are taken for the pixels themselves, as GDAL's `cubicspline` has it: they are as
sharp as such bands are, and what a spline through the pixels would make of them is not. Patches that contradict are left out.
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
FIRST, LAST = 2, 30  # pixels at 20 m that are kept: the spline reaches two pixels far
ROUNDING = 0.3  # digital numbers, rms, that rounding to whole ones explains


@cache
def spline(shift: int) -> tuple[Numbers, Numbers]:
    """What makes SIDE pixels at 10 m of pixels at 20 m, the first of which begins `shift` pixels before them: (SIDE, pixels);
    and what makes them back.
    """
    places = (np.arange(SIDE) + 0.5 + shift) / 2 - 0.5
    distance = np.abs(places[:, None] - np.arange(-2, SIDE // 2 + 3))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - np.minimum(distance, 2)) ** 3 / 6
    matrix = np.where(distance < 1, near, far)
    return matrix, np.linalg.pinv(matrix)


def restored(band: Numbers, down: int, right: int) -> tuple[Numbers, float]:
    """The pixels at 20 m, and how far (rms) the band is from what they make of it."""
    (rows, rows_back), (columns, columns_back) = spline(down), spline(right)
    pixels = rows_back @ band @ columns_back.T
    rest = float((band - rows @ pixels @ columns.T).std())
    first, last = FIRST + 2, LAST + 2  # the two that lie before the patch
    return pixels[first:last, first:last], rest


def native(bands: dict[str, Numbers]) -> dict[str, NDArray[np.uint16]] | None:
    """The bands at their own resolution, of the middle of the patch; None where they are no spline."""
    for down in (0, 1):
        for right in (0, 1):
            found = {name: restored(bands[name], down, right) for name in GROUPS[20]}
            if max(rest for _, rest in found.values()) < ROUNDING:
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
        for name, values in (native(bands) or {}).items():
            gsd = 20 if name in GROUPS[20] else 10
            path = out / file.stem / f"{file.stem}_{name}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            side, place = values.shape[0], from_origin(*corner, gsd, gsd)
            about = {"width": side, "height": side, "count": 1, "dtype": "uint16", "crs": crs, "transform": place}
            with rasterio.open(path, "w", driver="GTiff", **about) as opened:
                opened.write(values, 1)
            written += name == GROUPS[20][0]
    print(f"{out}: {written} of {len(files)} patches")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    main(options.source, options.out)
