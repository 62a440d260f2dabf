"""Train on EuroSAT within time limits, and score each training on the validation images.

    python benchmarks/eurosat.py EuroSAT_RGB_train.zip EuroSAT_RGB_validation.zip RUNS [RECIPE:TIME …]

RUNS is a folder for the store and the runs; called again with the same folder, finished trainings are not repeated. The result is
written after each training. The recipes were tuned on the same validation images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from command_line import evaluated, figures, landscale
from rounds import record

TUNED_ON = "EuroSAT RGB, the validation images scored here"
TRAININGS = ("eurosat:3m", "eurosat:45m", "eurosat_long:112m")


def main(train: Path, val: Path, folder: Path, trainings: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "eurosat.h5"
    landscale("prepare", "eurosat", f"train={train.resolve()}", f"val={val.resolve()}", store)
    runs: dict[str, Any] = {}
    for training in trainings:
        recipe, limit = training.split(":")
        run, taken = folder / f"{recipe}-{limit}", folder / f"{recipe}-{limit}.json"
        words = ("train", "--recipe", recipe, "--max-time", limit)
        if not taken.exists():
            taken.write_text(json.dumps(landscale(*words, "--store", store, "--run", run)))
        scores = evaluated(run, store, "val")
        seconds = json.loads(taken.read_text())
        runs[training] = {"command": f"landscale {' '.join(words)}", "minutes": seconds / 60, "images": scores.patches}
        runs[training] |= figures(scores, ("accuracy", "macro_f1"))
        record("eurosat", {"split": "val", "recipe_tuned_on": TUNED_ON, "runs": runs})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("trainings", nargs="*", metavar="RECIPE:TIME", default=list(TRAININGS))
    options = parser.parse_args()
    main(options.train, options.val, options.runs, options.trainings)
