"""Compare windows that are computed together with the same windows one by one: windows a second, and how far they differ.

    python benchmarks/dense.py [SCENE] [--models wide_resnet resnet18 …] [--side 600]

Both take turns on one core, at a stride of one feature cell. A model is a bundled classifier, or a network with random weights,
whose differences mean little. SCENE is a folder of band rasters, of which the upper left corner is used; by default it is a
synthetic product.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rounds import interleaved, record

from landscale.datasets.synthetic.products_and_map import write_country
from landscale.maps.windows import WindowGrid, probability_rows, window_grid
from landscale.models.classifier import Classifier, Description
from landscale.models.encoders import load_encoder
from landscale.models.input_units import compare_units, scene_source
from landscale.models.registry import zoo
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene
from landscale.vocabulary.bands import BAND_SETS

MODELS = ("bundled:bigearthnet-s2-10", "bundled:eurosat-rgb", "wide_resnet", "resnet18", "resnet50")


class Nothing:
    """No finished parts."""

    def get(self, name: str) -> None: ...

    def put(self, name: str, array: object) -> None: ...


def find_classifier(name: str) -> Classifier:
    if name.startswith("bundled:"):
        return load_encoder(name)
    bands = BAND_SETS["s2-10"].names
    classes = tuple(f"class {k}" for k in range(19))
    statistics = dict.fromkeys(bands, (2000.0, 1000.0))
    return Classifier(Description(name, bands, classes, "custom", True, statistics, zoo(name)[0].side, 1200)).eval()


def measure(name: str, scene: Path, side: int, rounds: int) -> dict[str, Any]:
    classifier = find_classifier(name)
    product = open_scene(scene)
    with ScenePixels(product, classifier.description.bands) as pixels:
        factors = compare_units(classifier.description, scene_source(product, pixels)).factors
        window = round(classifier.description.ground / pixels.gsd)
        pixels.height = pixels.width = width = min(side, pixels.height, pixels.width) // window * window
        read, ratios = pixels.read, pixels.ratios
        pixels.read = lambda band, row, rows: read(band, row, rows, 0, width // ratios[band])  # type: ignore[assignment]
        together = window_grid(classifier, pixels, None)
        maps: dict[str, Any] = {}

        def classify(kind: str, grid: WindowGrid) -> int:
            rows = probability_rows(classifier, pixels, grid, Nothing(), factors, lambda _: None)  # type: ignore[arg-type]
            maps[kind] = np.concatenate([values for _, values in rows], axis=1)
            return grid.windows

        rates = interleaved(
            {
                "together": lambda: classify("together", together),
                "one by one": lambda: classify("one by one", replace(together, tiling=None)),
            },
            rounds,
        )
    difference = np.abs(maps["together"] - maps["one by one"])
    return {
        "stride": together.stride,
        "windows": together.windows,
        "per_second": rates,
        "times_faster": rates["together"] / rates["one by one"],
        "difference": {
            "mean": float(np.nanmean(difference)),
            "99%": float(np.nanquantile(difference, 0.99)),
            "max": float(np.nanmax(difference)),
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path, nargs="?")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--side", type=int, default=600, help="pixels of the corner of the scene")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        chosen = options.scene
        if chosen is None:
            write_country(Path(folder) / "country", 1, 1200)
            chosen = next((Path(folder) / "country").glob("*.SAFE"))
        figures = {name: measure(name, chosen, options.side, options.rounds) for name in options.models}
    record("dense", {"scene": "synthetic" if options.scene is None else options.scene.name, "models": figures})
