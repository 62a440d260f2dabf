"""Run the commands of landscale as a user does, and copy the scores of a training."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from landscale.inference.scores import Scores
from landscale.runtime.documents import read_json


def landscale(*words: str | Path) -> float:
    """Run a command; returns its duration in seconds."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "landscale", *words], stdout=sys.stderr, check=True)
    return time.perf_counter() - begun


def evaluated(run: Path, store: Path, split: str) -> Scores:
    """The scores of a training on a split."""
    path = run / f"scores-{split}.json"
    landscale("evaluate", run, store, "--split", split)
    return Scores.from_json(read_json(path))


def figures(scores: Scores, names: tuple[str, ...]) -> dict[str, Any]:
    """The named figures; of a macro average, which is over the classes that occur in the split, also that over all classes."""
    found = {name: getattr(scores, name) for name in names}
    share = occurring(scores) / len(scores.counts)
    return found | {f"{name}_all_classes": found[name] * share for name in names if name.startswith("macro_")}


def occurring(scores: Scores) -> int:
    """The number of classes that occur in the split."""
    return sum(one["support"] > 0 for one in scores.counts)
