"""Read the folder of a finished run for the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from landscale.errors import BadInput, reason
from landscale.inference.pixel_scores import PixelScores
from landscale.inference.scores import Scores, read_scores
from landscale.models.weights import read_config
from landscale.runtime.documents import read_json_object
from landscale.runtime.yaml_files import read_yaml_object
from landscale.training.runs import Run


@dataclass(frozen=True)
class FinishedRun:
    """The content of a run's files.

    Args:
        data: `run.json`: the store, its plan and the patches of its splits.
        config: content of the `config.json` of the weights.
        history: `metrics.csv`, one row per epoch.
        scores: by split, test first.
    """

    name: str
    folder: Path
    recipe: dict[str, Any]
    environment: dict[str, Any]
    data: dict[str, Any]
    config: dict[str, Any]
    history: pd.DataFrame
    scores: dict[str, Scores | PixelScores]

    @property
    def synthetic(self) -> bool:
        return bool(self.config.get("provenance", {}).get("synthetic"))

    @property
    def patches(self) -> dict[str, int]:
        """Number of patches by split: of the store it was trained on, or, if that is not recorded, of the scores."""
        splits: dict[str, int] = self.data.get("splits") or {s: scores.patches for s, scores in self.scores.items()}
        return splits

    @property
    def epochs(self) -> int:
        return int(self.history["epoch"].iloc[-1])

    @property
    def seconds(self) -> float:
        return float(self.history["seconds"].iloc[-1])


def read_finished_runs(folders: list[Path]) -> list[FinishedRun]:
    """Read runs, in order, and name them by their folder, or by its path if two folders have the same name.

    Raises:
        BadInput: a folder is not a run, a run has not finished, or files are missing or damaged.
    """
    names = [folder.absolute().name for folder in folders]
    return [
        _read_run(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]


def _read_run(folder: Path, name: str) -> FinishedRun:
    if not (folder / "run.json").is_file():
        raise BadInput(folder, "is not a run: expected a folder that `landscale train` wrote, with run.json")
    if not Run(folder).ended:
        raise BadInput(
            folder, "contains a run that has not finished; run the same `landscale train` again to resume it"
        )
    files = {"test": folder / "scores-test.json", "val": folder / "scores.json"}
    known = {split: read_scores(path) for split, path in files.items() if path.exists()}
    return FinishedRun(
        name=name,
        folder=folder,
        recipe=read_yaml_object(folder / "recipe.yaml", "a recipe"),
        environment=read_json_object(folder / "environment.json", "a description of a run's environment"),
        data=read_json_object(folder / "run.json", "a description of a run"),
        config=read_config(folder),
        history=_read_history(folder / "metrics.csv"),
        scores={split: scores for split, scores in known.items() if scores},  # the store may have no val split
    )


def _read_history(path: Path) -> pd.DataFrame:
    try:
        history = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise BadInput(path, f"is not a table of epochs ({reason(error)})") from None
    missing = {"epoch", "seconds", "rate", "loss"} - set(history)
    if missing or history.empty:
        raise BadInput(path, f"is not a table of epochs: it lacks {', '.join(sorted(missing)) or 'rows'}")
    return history
