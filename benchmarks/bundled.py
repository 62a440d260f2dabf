"""Make the bundled weights again from the published files: train, convert to half precision, and write the folders.

    python benchmarks/bundled.py EuroSAT_RGB_train.zip EuroSAT_RGB_validation.zip BigEarthNet-v2 RUNS [NAME …]

RUNS is a folder for stores and runs; called again with the same folder, finished trainings are not repeated. With NAMEs, only
these weights are made. The scores in the cards are those of the val splits, on which the recipes were tuned. Tensors are in
half precision, which halves their size; they are computed with in single precision.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from command_line import landscale

from landscale.models.encoders.bundled import PLACE
from landscale.models.weights import load_model, read_config, save_weights

# The arguments of `landscale train` for each of the weights, one training after another, each of which begins from the weights of
# the one before. Those named eurosat are trained on EuroSAT, the others on BigEarthNet.
BLENDED = (
    "--zoom",
    "0.25",
    "--jitter",
    "0.05",
    "--cutmix",
    "0.5",
    "--mixup",
    "0.2",
    "--smoothing",
    "0.05",
    "--epochs",
    "300",
)
WHOLE = ("--progressive", "[]", "--epochs", "12", "--warmup-epochs", "0.3", "--rate", "1e-3")
SMALL = ("--recipe", "few_labels", "--model", "wide_resnet_eca_ghost")
TRAININGS = {
    "eurosat-rgb": (
        ("--recipe", "eurosat", "--max-time", "110m", "--warmup-epochs", "12", *BLENDED),
        ("--recipe", "eurosat", "--max-time", "10m", *WHOLE),
    ),
    "bigearthnet-s2-12": (SMALL,),
    "bigearthnet-s2-10": ((*SMALL, "--bands", "s2-10"),),
}


def bundle(run: Path, folder: Path) -> None:
    """Write the weights of a run in half precision, with the val scores that they have then."""
    model, config = load_model(run), read_config(run)
    model.network.half()
    for name, tensor in model.network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise SystemExit(f"{run}: {name} is not finite in half precision")
    save_weights(folder, model, config["provenance"], licence="apache-2.0", exported=True)


def main(eurosat: tuple[Path, Path], bigearthnet: Path, runs: Path, names: list[str]) -> None:
    runs.mkdir(parents=True, exist_ok=True)
    train, val = eurosat
    landscale("prepare", "eurosat", f"train={train.resolve()}", f"val={val.resolve()}", runs / "eurosat.h5")
    landscale("prepare", "bigearthnet", bigearthnet, runs / "bigearthnet.h5")
    for name in names:
        store = runs / ("eurosat.h5" if name.startswith("eurosat") else "bigearthnet.h5")
        run, begin = runs / name, list[str | Path]()
        for number, words in enumerate(TRAININGS[name]):
            run = runs / f"{name}-{number}"
            landscale("train", *words, *begin, "--store", store, "--run", run)
            begin = ["--init", run]
        bundle(run, PLACE / name)
        landscale("evaluate", f"bundled:{name}", store, "--split", "val")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("bigearthnet", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("names", nargs="*", choices=[*TRAININGS, []], default=list(TRAININGS))
    options = parser.parse_args()
    main((options.train, options.val), options.bigearthnet, options.runs, options.names)
