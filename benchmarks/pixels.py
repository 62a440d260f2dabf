"""What labels of pixels bring: networks trained on reference maps, or on labels of patches, compared on pixels of other patches.

    python benchmarks/pixels.py PATCHES.npz [--minutes 3]

PATCHES.npz has patches of BigEarthNet v2 with their reference maps: `patch_id` (n,), `s2` (n, 4, 120, 120) uint16, B02 B03 B04
B08, and `clc` (n, 120, 120) uint16, codes of CORINE. A quarter of them, drawn with seed 0, are the validation split, on which
nothing is chosen. All trainings take the same time on one core, from random weights or from a bundled encoder. Weights of
patches give all pixels of a patch its likeliest class.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from command_line import landscale
from rounds import record

from landscale.datasets.corine_codes import reference_map
from landscale.runtime.documents import read_json
from landscale.store import NO_CLASS, REFERENCE, Plane, open_store
from landscale.store.planes import REFERENCE_MAP
from landscale.testing import make_store
from landscale.vocabulary.nomenclatures import BEN19

BANDS = ("B02", "B03", "B04", "B08")
ENCODER = "bundled:bigearthnet-s2-10"
SETTINGS = ("--bands", ",".join(BANDS), "--batch", "8", "--rate", "2e-3", "--epochs", "400", "--warmup-epochs", "5")
TRAININGS = {  # name: task, and whether it begins with the encoder
    "patches, from scratch": ("patches", False),
    "patches, from the encoder": ("patches", True),
    "pixels, from scratch": ("pixels", False),
    "pixels, from the encoder": ("pixels", True),
}


def write_store(source: Path, path: Path) -> None:
    with np.load(source, allow_pickle=False) as content:
        s2, codes = content["s2"], content["clc"]
    order = np.random.default_rng(0).permutation(len(s2))
    maps = reference_map(codes, BEN19)[order]
    labels = np.array([[(one == k).any() for k in range(len(BEN19.names))] for one in maps], np.uint8)
    make_store(
        path,
        planes=[Plane("data_10m", BANDS, 120, 10, unit="digital number"), REFERENCE_MAP],
        classes=BEN19.names,
        nomenclature=BEN19.name,
        splits={"train": len(s2) - len(s2) // 4, "val": len(s2) // 4},
        labels=labels,
        pixels={"data_10m": s2[order], REFERENCE: maps[:, None]},
        provenance={"source": "bigearthnet", "version": "v2", "synthetic": False},
    )


def score(store: Path, run: Path, name: str, minutes: float) -> dict[str, Any]:
    task, encoder = TRAININGS[name]
    network = ("--init", ENCODER) if encoder else ("--model", "wide_resnet_eca_ghost")
    words = ("train", "--store", store, "--run", run, "--task", task, "--max-time", f"{round(60 * minutes)}s")
    landscale(*words, *network, *SETTINGS)
    landscale("evaluate", run, store, "--split", "val", "--pixels", "--out", run / "pixels.json")
    found = read_json(run / "pixels.json")
    return {key: found[key] for key in ("pixels", "accuracy", "mean_iou", "macro_f1")}


def likeliest_of_all(store: Path) -> dict[str, float]:
    """Accuracy if all pixels get the class that has most pixels in the train split."""
    opened = open_store(store)
    train, val = (opened.pixels(REFERENCE, opened.patches(split)) for split in ("train", "val"))
    most = np.bincount(train[train != NO_CLASS]).argmax()
    return {"accuracy": float((val[val != NO_CLASS] == most).mean())}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patches", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0, help="of each training")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "pixels.h5"
        write_store(options.patches, store)
        found = {
            name: score(store, Path(folder) / str(number), name, options.minutes)
            for number, name in enumerate(TRAININGS)
        }
        constant = likeliest_of_all(store)
    record("pixels", {"minutes": options.minutes, "val": {**found, "the commonest class": constant}})
