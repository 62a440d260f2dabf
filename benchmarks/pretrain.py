"""Pretraining without labels, judged by a linear probe: `landscale pretrain` against the same network with random weights.

    python benchmarks/pretrain.py LABELLED.h5 TILES.npz [KEY=VALUE …]

LABELLED.h5 is a multi-label store with the splits train and val. TILES.npz has `x` (n, 12, side, side), uint16: images of level
2A without labels, in which all bands have 10 m. Patches of the train split are cut to the side of these images and added,
without their labels. So nothing of the val split is used before the probe. KEY=VALUE are keys of the recipe, or max-time.

The probe is logistic regression on the features of the train split, one for each class. Its C is chosen on the val split by
micro AP, for each network by itself.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from command_line import landscale
from rounds import record
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from landscale.inference.metrics import compute_scores
from landscale.loading import batches, evaluation_steps
from landscale.models.classifier import Classifier
from landscale.models.weights import load_model
from landscale.store import PatchStore, Plane, open_store
from landscale.testing import make_store
from landscale.training.build import build_classifier
from landscale.training.recipe import load_recipe
from landscale.vocabulary.bands import band_set

BANDS = band_set("s2-12").names
CS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
SEEDS = 3  # networks with random weights


def unlabelled(path: Path, labelled: PatchStore, tiles: np.ndarray) -> PatchStore:
    """A store of the tiles, and of four corners of each patch of the train split, all bands at 10 m."""
    side, rows = tiles.shape[-1], labelled.patches("train")
    found = np.empty((len(rows), len(BANDS), labelled.layout.side, labelled.layout.side), np.uint16)
    for plane in labelled.planes_for(BANDS):
        values = torch.from_numpy(labelled.pixels(plane.key, rows).astype(np.float32))
        finest = F.interpolate(values, labelled.layout.side, mode="bilinear", align_corners=False)
        found[:, [BANDS.index(band) for band in plane.bands]] = finest.round().numpy().astype(np.uint16)
    corners = [found[:, :, y, x] for y in (slice(side), slice(-side, None)) for x in (slice(side), slice(-side, None))]
    pixels = np.concatenate([tiles, *corners])
    plane = Plane("data_10m", BANDS, side, 10, "uint16", "digital number")
    return make_store(
        path,
        planes=(plane,),
        classes=(),
        splits={"train": len(pixels)},
        nomenclature="none",
        labels=np.zeros((len(pixels), 0), np.uint8),
        pixels={plane.key: pixels},
        provenance={"synthetic": False},
    )


def features(classifier: Classifier, store: PatchStore, split: str) -> np.ndarray:
    """The features of a split (n, F), with pixels of the same size as in the training."""
    d = classifier.description
    classifier.inputs.side = round(d.side * store.layout.ground / d.ground)
    rows = store.patches(split)
    targets = np.empty((len(store.states), 0), np.uint8)
    steps = evaluation_steps(rows, 32)
    device = torch.device("cpu")
    parts = batches(store, d.bands, targets, steps, device)
    return np.concatenate([classifier.eval().features(part.planes).numpy() for part in parts])


def probe(known: np.ndarray, new: np.ndarray, store: PatchStore) -> dict[str, float]:
    """The best scores on val over the values of C."""
    train, val = (store.classes[store.patches(split)] for split in ("train", "val"))
    seen = np.flatnonzero((train.sum(0) > 0) & (train.sum(0) < len(train)))
    found = []
    for c in CS:
        model = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(C=c, max_iter=2000)))
        probabilities = np.zeros(val.shape)
        probabilities[:, seen] = model.fit(known, train[:, seen]).predict_proba(new)
        scores = compute_scores(probabilities, val, store.layout.classes, 0.5, multi_label=True, split="val")
        found.append({"micro_ap": scores.micro_ap, "macro_ap": scores.macro_ap, "C": c})
    return max(found, key=lambda one: one["micro_ap"])


def main(path: Path, tiles: Path, words: list[str]) -> None:
    labelled = open_store(path)
    flags = [f"--{word}" for word in words]
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = unlabelled(Path(folder) / "unlabelled.h5", labelled, np.load(tiles)["x"])
        run = Path(folder) / "run"
        seconds = landscale("pretrain", "--store", store.path, "--run", run, *flags)
        table = (run / "metrics.csv").read_text().splitlines()
        keys = [flag for flag in flags if not flag.startswith("--max-time")]
        networks = {
            f"random_{k}": build_classifier(load_recipe("vicreg", [*keys, f"--seed={k}"]), store) for k in range(SEEDS)
        }
        networks["pretrained"] = load_model(run)
        for name, network in networks.items():
            results[name] = probe(features(network, labelled, "train"), features(network, labelled, "val"), labelled)
            print(name, results[name], file=sys.stderr)
    content = {
        "labelled": path.name,
        "patches": {split: len(labelled.patches(split)) for split in ("train", "val")}
        | {"unlabelled": len(store.states)},
        "keys": words,
        "seconds": seconds,
        "last_epoch": dict(zip(table[0].split(","), map(float, table[-1].split(",")), strict=True)),
        "val": results,
    }
    record("pretrain", content)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
