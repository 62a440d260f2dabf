"""A map of a whole tile: wall time and peak memory of `landscale predict`, and how long its parts take alone.

    python benchmarks/maps.py [--side 11040] [--weights bundled:bigearthnet-s2-12] [--stride 8]

The tile is a synthetic product in JPEG 2000. `decode` reads all strips, `network` classifies as many strips that are in memory,
both in this process and with its threads. `overlap` is the wall time of the command divided by the longer of the two.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import rasterio
from rounds import record

from landscale.datasets.synthetic.products_and_map import write_country
from landscale.maps.dense import dense_rows
from landscale.maps.strips import EmptyPixels, read_strips
from landscale.maps.windows import window_grid
from landscale.models.encoders import load_encoder
from landscale.models.input_units import compare_units, scene_source
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene


def seconds(items: Iterable[object]) -> float:
    begun = time.perf_counter()
    for _ in items:
        pass
    return time.perf_counter() - begun


def main(side: int, weights: str, stride: int | None, folder: Path) -> None:
    write_country(folder / "country", 1, side)
    scene = next((folder / "country").glob("*.SAFE"))
    classifier = load_encoder(weights)
    product = open_scene(scene)
    with rasterio.Env(GDAL_CACHEMAX=256), ScenePixels(product, classifier.description.bands) as pixels:
        factors = compare_units(classifier.description, scene_source(product, pixels)).factors
        grid = window_grid(classifier, pixels, stride)
        assert grid.tiling, "windows are classified one by one at this stride"
        tops = grid.tiling.tops
        everything = pixels, tops, [True] * len(tops), grid.side, pixels.width
        decode = seconds(read_strips(*everything, EmptyPixels(pixels)))
        strip = next(read_strips(*everything, EmptyPixels(pixels)))
        network = seconds(dense_rows(classifier, [strip] * len(tops), grid.tiling, pixels, factors))
    command = [
        sys.executable,
        "-m",
        "landscale",
        "predict",
        weights,
        scene,
        folder / "map.tif",
        "--stride",
        str(grid.stride),
    ]
    begun = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command])
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    assert status == 0
    figures = {"decode": decode, "network": network, "wall": wall, "overlap": wall / max(decode, network)}
    shape = {"side": side, "weights": weights, "stride": grid.stride, "windows": grid.windows}
    record("maps", {**shape, "seconds": figures, "peak_memory_mb": usage.ru_maxrss / 1024})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=11040, help="pixels of the tile, a multiple of 120")
    parser.add_argument("--weights", default="bundled:bigearthnet-s2-12")
    parser.add_argument("--stride", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(options.side, options.weights, options.stride, Path(folder))
