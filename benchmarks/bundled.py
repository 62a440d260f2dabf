"""Make the bundled weights again from the published files: train, convert to half precision, and write the folders.

    python benchmarks/bundled.py EuroSAT_RGB_train.zip EuroSAT_RGB_validation.zip BigEarthNet-v2 RUNS [NAME …]

RUNS is a folder for stores and runs; called again with the same folder, finished trainings are not repeated. With NAMEs, only
these weights are made. Those of EuroSAT are trained on the train images, which gives their score on the val images in
RUNS/eurosat-rgb-0, and then on both. The scores in the other cards are those of the val splits, on which the recipes were tuned.
Tensors are in half precision, which halves their size; they are computed with in single precision.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from command_line import landscale

from landscale.models.encoders.bundled import PLACE
from landscale.models.weights import load_model, read_config, save_weights

# The arguments of `landscale train` for each of the weights, one training after another, each of which begins from the weights of
# the one before, and the store that each is trained on.
MORE = ("--progressive", "[]", "--augment-until", "0", "--epochs", "14", "--warmup-epochs", "0.3", "--rate", "5e-4")
SMALL = ("--recipe", "few_labels", "--model", "wide_resnet_eca_ghost")
TRAININGS = {
    "eurosat-rgb": (
        ("eurosat", "--recipe", "eurosat_long", "--max-time", "112m"),
        ("eurosat_all", "--recipe", "eurosat_long", "--max-time", "21m", *MORE),
    ),
    "bigearthnet-s2-12": (("bigearthnet", *SMALL),),
    "bigearthnet-s2-10": (("bigearthnet", *SMALL, "--bands", "s2-10"),),
}


def bundle(run: Path, begin: Path | None, folder: Path) -> None:
    """Write the weights of a run in half precision. `begin`: the run that it began from, whose score on val is recorded."""
    model, config = load_model(run), read_config(run)
    model.network.half()
    for name, tensor in model.network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise SystemExit(f"{run}: {name} is not finite in half precision")
    provenance = config["provenance"]
    if begin is not None:
        before = read_config(begin)["provenance"]
        train, val = before["splits"]["train"], before["splits"]["val"]
        text = (
            f"the weights of a training on {train:,} images, whose accuracy on the {val:,} val images was"
            f" {before['scores']['accuracy']:.4f}; after it, these were trained on the val images as well"
        )
        provenance["settings"]["init"] = provenance["init"]["init"] = text
        del provenance["init"]["done"]  # has the path of the run
    save_weights(folder, model, provenance, licence="apache-2.0", exported=True)


def main(eurosat: tuple[Path, Path], bigearthnet: Path, runs: Path, names: list[str]) -> None:
    runs.mkdir(parents=True, exist_ok=True)
    train, val = (path.resolve() for path in eurosat)
    landscale("prepare", "eurosat", f"train={train}", f"val={val}", runs / "eurosat.h5")
    landscale("prepare", "eurosat", f"train={train}", f"train={val}", runs / "eurosat_all.h5")
    landscale("prepare", "bigearthnet", bigearthnet, runs / "bigearthnet.h5")
    for name in names:
        run, begin = runs / name, None
        for number, (store, *words) in enumerate(TRAININGS[name]):
            begin, run = run if number else None, runs / f"{name}-{number}"
            init: list[str | Path] = [] if begin is None else ["--init", begin]
            landscale("train", *words, *init, "--store", runs / f"{store}.h5", "--run", run)
        bundle(run, begin, PLACE / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("bigearthnet", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("names", nargs="*", choices=[*TRAININGS, []], default=list(TRAININGS))
    options = parser.parse_args()
    main((options.train, options.val), options.bigearthnet, options.runs, options.names)
