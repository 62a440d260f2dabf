"""Compare windows that are computed together with the same windows one by one: windows a second, and how far they differ.

    python benchmarks/dense.py [SCENE] [--models wide_resnet resnet18 …] [--side 600]

Both take turns on one core, at a stride of one feature cell. A model is a bundled classifier, or a network with random weights,
whose differences mean little. SCENE is a folder of band rasters, of which the upper left corner is used; by default it is a
synthetic product.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rounds import interleaved, record

from landscale.datasets.synthetic.products_and_map import write_country
from landscale.maps.dense import dense_rows
from landscale.maps.strips import EmptyPixels, read_strips
from landscale.maps.windows import one_by_one, window_grid
from landscale.models.classifier import Classifier, Description
from landscale.models.encoders import load_encoder
from landscale.models.input_units import compare_units, scene_source
from landscale.models.registry import zoo
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene
from landscale.vocabulary.bands import BAND_SETS

MODELS = ("bundled:bigearthnet-s2-10", "bundled:eurosat-rgb", "wide_resnet", "resnet18", "resnet50")


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
        width = min(side, pixels.height, pixels.width) // window * window
        pixels.crop(0, 0, width, width)
        together = window_grid(classifier, pixels, None)
        tiling = together.tiling
        assert tiling is not None
        found: dict[str, list[Any]] = {}
        strips = {  # in memory, because decoding is the same for both
            kind: list(read_strips(pixels, tops, [True] * len(tops), window, width, EmptyPixels(pixels)))
            for kind, tops in (("together", tiling.tops), ("one by one", together.rows))
        }

        def work_together() -> int:
            found["together"] = list(dense_rows(classifier, strips["together"], tiling, pixels, factors))
            return together.windows

        def work_one_by_one() -> int:
            found["one by one"] = list(one_by_one(classifier, strips["one by one"], together, pixels, factors))
            return together.windows

        rates = interleaved({"together": work_together, "one by one": work_one_by_one}, rounds)
    first, second = (np.concatenate([rows for rows in found[kind] if rows is not None]) for kind in strips)
    difference = np.abs(first - second)
    return {
        "stride": together.stride,
        "windows": together.windows,
        "per_second": rates,
        "times_faster": rates["together"] / rates["one by one"],
        "difference": {
            "mean": float(np.mean(difference)),
            "99%": float(np.quantile(difference, 0.99)),
            "max": float(np.max(difference)),
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
