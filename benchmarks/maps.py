"""A map of a whole tile: wall time and peak memory of `landscale predict`, and how long its parts take alone.

    python benchmarks/maps.py [--side 11040] [--weights bundled:bigearthnet-s2-12] [--stride 8]

The tile is a synthetic product in JPEG 2000. `decode` reads all strips, `network` classifies as many strips that are in memory,
`pixels` interpolates the windows and takes the likeliest class, `write` writes as many rows of classes as a COG; each alone, with
all cores. `over_longest` is the wall time of the command over the longest of them, `over_sum` over all together: where each of
them keeps every core busy, their sum is the least that is possible. `one_by_one` is the time that the same windows would take if
the network were given each of them, by the rate of 512 of them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rounds import record

from landscale.datasets.synthetic.products_and_map import write_country
from landscale.maps.blend import interpolate
from landscale.maps.dense import dense_rows
from landscale.maps.encoding import likeliest
from landscale.maps.frame import frame_of
from landscale.maps.rasters import CHUNK, growing_raster
from landscale.maps.strips import EmptyPixels, read_strips
from landscale.maps.windows import WindowGrid, one_by_one, window_grid
from landscale.models.encoders import load_encoder
from landscale.models.input_units import compare_units, scene_source
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene

SINGLE = 512  # windows that are classified one by one


def seconds(items: Iterable[object]) -> float:
    begun = time.perf_counter()
    for _ in items:
        pass
    return time.perf_counter() - begun


def parts(scene: Path, weights: str, stride: int | None, folder: Path) -> tuple[WindowGrid, dict[str, float]]:
    """Seconds of each part alone, and of the windows one by one."""
    classifier = load_encoder(weights)
    product = open_scene(scene)
    with rasterio.Env(GDAL_CACHEMAX=128), ScenePixels(product, classifier.description.bands) as pixels:
        factors = compare_units(classifier.description, scene_source(product, pixels)).factors
        grid = window_grid(classifier, pixels, stride)
        assert grid.tiling, "windows are classified one by one at this stride"
        tops = grid.tiling.tops
        everything = pixels, tops, [True] * len(tops), grid.side, pixels.width
        taken = {"decode": seconds(read_strips(*everything, EmptyPixels(pixels)))}
        strip = next(read_strips(*everything, EmptyPixels(pixels)))
        taken["network"] = seconds(dense_rows(classifier, [strip] * len(tops), grid.tiling, pixels, factors))
        few = WindowGrid(grid.side, grid.stride, [0], grid.columns[:SINGLE])
        taken["one_by_one"] = seconds(one_by_one(classifier, [strip], few, pixels, factors)) * grid.windows / SINGLE
        frame = frame_of(pixels)
        windows = np.random.default_rng(0).random((len(grid.columns), len(classifier.description.classes)), np.float32)
        rows = interpolate(
            (windows for _ in grid.rows), grid.rows, grid.columns, grid.side, (pixels.height, pixels.width)
        )
        taken["pixels"] = seconds(likeliest(values) for _, values in rows)
        classes = np.random.default_rng(0).integers(0, 19, (1, CHUNK // 16, frame.width // 16), np.uint8)
        classes = classes.repeat(16, axis=1).repeat(16, axis=2)
        begun = time.perf_counter()
        with growing_raster(folder / "alone.tif", folder / "alone.tif", frame, ["class"], {}, numbers="class") as write:
            for top in range(0, frame.height, CHUNK):
                write(top, classes[:, : frame.height - top])
        taken["write"] = time.perf_counter() - begun
    return grid, taken


def in_a_process(function: Callable[..., Any], *arguments: object) -> Any:
    """Run in a process of its own, whose memory is free afterwards."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_memory(process: subprocess.Popen[bytes]) -> float:
    """The most memory of a process until it ends, in MB. (`getrusage` would include that of this process before the start.)"""
    highest = 0.0
    while process.poll() is None:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                highest = int(line.split()[1]) / 1024
        time.sleep(0.2)
    return highest


def main(side: int, weights: str, stride: int | None, folder: Path) -> None:
    in_a_process(write_country, folder / "country", 1, side)
    scene = next((folder / "country").glob("*.SAFE"))
    grid, taken = in_a_process(parts, scene, weights, stride, folder)
    command = [sys.executable, "-m", "landscale", "predict", weights, str(scene), str(folder / "map.tif")]
    begun = time.perf_counter()
    process = subprocess.Popen([*command, "--stride", str(grid.stride)])
    memory = peak_memory(process)
    wall = time.perf_counter() - begun
    assert process.returncode == 0
    together = [value for name, value in taken.items() if name != "one_by_one"]
    record(
        "maps",
        {
            **{"side": side, "weights": weights, "stride": grid.stride, "windows": grid.windows},
            "seconds": taken | {"wall": wall},
            "ratios": {
                "over_longest": wall / max(together),
                "over_sum": wall / sum(together),
                "one_by_one_over_wall": taken["one_by_one"] / wall,
            },
            "peak_memory_mb": memory,
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=11040, help="pixels of the tile, a multiple of 120")
    parser.add_argument("--weights", default="bundled:bigearthnet-s2-12")
    parser.add_argument("--stride", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(options.side, options.weights, options.stride, Path(folder))
