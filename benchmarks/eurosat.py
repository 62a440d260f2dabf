"""Train the recipe `eurosat` within a time limit, and score it on the validation images.

    python benchmarks/eurosat.py EuroSAT_RGB_train.zip EuroSAT_RGB_validation.zip [--max-time 3m 45m]

The result is written after each training. The recipe was tuned on the same validation images.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from command_line import evaluated, figures, landscale
from rounds import record

TUNED_ON = "EuroSAT RGB, the validation images scored here"


def main(train: Path, val: Path, limits: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "eurosat.h5"
        landscale("prepare", "eurosat", f"train={train.resolve()}", f"val={val.resolve()}", store)
        runs: dict[str, Any] = {}
        for limit in limits:
            run = Path(name) / limit
            words = ("train", "--recipe", "eurosat", "--max-time", limit)
            seconds = landscale(*words, "--store", store, "--run", run)
            scores = evaluated(run, store, "val")
            command = f"landscale {' '.join(words)}"
            runs[limit] = {"command": command, "minutes": seconds / 60, "images": scores.patches}
            runs[limit] |= figures(scores, ("accuracy", "macro_f1"))
            record("eurosat", {"split": "val", "recipe_tuned_on": TUNED_ON, "runs": runs})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--max-time", nargs="+", default=["3m", "45m"])
    options = parser.parse_args()
    main(options.train, options.val, options.max_time)
