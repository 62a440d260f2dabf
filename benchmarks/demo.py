"""Run the demonstration once: its duration, and the scores of its training.

    python benchmarks/demo.py

The data are synthetic, and the recipe `demo` was tuned on such data.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from command_line import figures, landscale
from rounds import record

from landscale.inference.scores import Scores
from landscale.runtime.documents import read_json

TUNED_ON = "patches of the same synthetic landscape"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        seconds = landscale("demo", "--out", Path(name) / "demo")
        scores = Scores.from_json(read_json(Path(name) / "demo" / "run" / "scores-test.json"))
    found = figures(scores, ("micro_f1", "macro_f1", "micro_ap", "macro_ap"))
    record("demo", {"seconds": seconds, "recipe_tuned_on": TUNED_ON, "test": {"patches": scores.patches} | found})


if __name__ == "__main__":
    main()
