"""The folder of a training: recipe, environment, metrics, events, checkpoints, weights, scores."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.distributed as dist

from landscale.errors import BadInput
from landscale.formats.names import check_text
from landscale.inference.pixel_scores import PixelScores
from landscale.inference.scores import Scores, read_scores
from landscale.runtime.documents import read_json_object, write_json
from landscale.runtime.files import named_lock, remove_abandoned, write_text
from landscale.runtime.portability import usable_cores
from landscale.runtime.yaml_files import read_yaml_object
from landscale.store import PatchStore
from landscale.training.recipe import RESUMABLE_CHANGES, Recipe, as_yaml


@dataclass(frozen=True)
class Run:
    """The files of a run. `recipe.yaml` and `run.json` are written when it begins, `weights` and `scores.json` when it ends."""

    folder: Path

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        return self.folder / "checkpoints" / "best.safetensors"

    @property
    def weights(self) -> Path:
        return self.folder / "weights"

    @property
    def test_scores_file(self) -> Path:
        """The scores that `landscale evaluate --split test` writes into the run."""
        return self.folder / "scores-test.json"

    @property
    def ended(self) -> bool:
        return (self.folder / "scores.json").exists()

    def lock(self) -> AbstractContextManager[None]:
        """Hold the run, so that no other process trains into it at the same time. The folder must exist.

        Raises:
            BadInput: another process does.
        """
        return named_lock(self.folder / ".lock", self.folder, "is being trained")

    def remove_abandoned(self) -> None:
        """Remove the partial files of processes that were killed while they wrote. The caller must hold the lock."""
        for path in (self.last, self.best, self.weights):
            if path.parent.is_dir():
                remove_abandoned(path)
        for left in self.last.parent.glob(".tmp*"):  # safetensors writes to these names first
            left.unlink()

    def threads(self) -> int | None:
        """The number of threads that a run of one process computes with on CPUs; None if it has not begun, or by several.

        Raises:
            BadInput: `environment.json` is damaged.
        """
        file = self.folder / "environment.json"
        if not file.exists():
            return None
        found = read_json_object(file, "a description of a run's environment", ("threads",))
        threads = found["threads"]
        if type(threads) is not int or threads < 1:
            raise BadInput(file, f"threads: found {threads!r}, expected a whole number from 1")
        return threads if found.get("processes", 1) == 1 else None

    def scores(self) -> Scores | PixelScores | None:
        """The scores on the val split; None if the store has no val split."""
        return read_scores(self.folder / "scores.json")

    def begin(self, recipe: Recipe, store: PatchStore) -> None:
        """Write the run's description. If the run has begun before, check that recipe and store are the same.

        Raises:
            BadInput: the folder holds other files, or a run of another recipe or store.
        """
        about = {"store": str(store.path), "plan": store.attributes["plan"], "splits": store.split_sizes()}
        check_text([str(self.folder)], self.folder)
        described = self.folder / "recipe.yaml"
        if described.exists():
            self._check_recipe(recipe, read_yaml_object(described, "a recipe"))
        elif self.folder.exists() and any(not path.name.startswith(".") for path in self.folder.iterdir()):
            raise BadInput(self.folder, "is neither empty nor a run; choose another --run")
        else:
            write_text(described, as_yaml(recipe))
        if not (self.folder / "run.json").exists():
            write_json(self.folder / "environment.json", environment())
            write_json(self.folder / "run.json", about)
        elif read_json_object(self.folder / "run.json", "a description of a run", ("plan",))["plan"] != about["plan"]:
            raise BadInput(self.folder, f"holds a run on another store than {store.path}; choose another --run")

    def _check_recipe(self, recipe: Recipe, before: dict[str, Any]) -> None:
        for key, value in asdict(recipe).items():
            if key not in RESUMABLE_CHANGES and before.get(key, getattr(Recipe, key, None)) != value:
                raise BadInput(
                    self.folder, f"holds a run with {key} {before.get(key)}, not {value}; choose another --run"
                )

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Write the metrics table, a row for each epoch; always the whole, so that a kill leaves no partial or repeated rows."""
        write_text(self.folder / "metrics.csv", pd.DataFrame(history).to_csv(index=False))

    def events(self, epoch: int) -> Callable[[dict[str, Any]], None]:
        """A function that writes an epoch's metrics as TensorBoard events; older events of `epoch` and later are discarded."""
        from torch.utils.tensorboard import SummaryWriter  # imported here, because it takes a second

        writer = SummaryWriter(str(self.folder / "events"), purge_step=epoch)  # type: ignore[no-untyped-call]

        def note(row: dict[str, Any]) -> None:
            for key, value in row.items():
                if key not in ("epoch", "step"):
                    writer.add_scalar(key, value, row["epoch"])  # type: ignore[no-untyped-call]
            writer.flush()  # type: ignore[no-untyped-call]

        return note


def default_run(recipe: Recipe) -> Path:
    return Path("runs") / f"{recipe.name}-{recipe.model}-{recipe.seed}"


def environment() -> dict[str, Any]:
    """Versions, hardware and command, on which scores and times depend in addition to the recipe."""
    packages = ("landscale", "torch", "timm", "numpy", "h5py", "rasterio")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "processes": dist.get_world_size() if dist.is_initialized() else 1,
        "gpu": gpu,
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "command": " ".join(Path(word).name if "/" in word else word for word in sys.argv),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
