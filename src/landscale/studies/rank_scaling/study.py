"""Strong and weak scaling of training, top to bottom: for every repeat and number of ranks a training by the launcher.

*Weak*: each rank has the recipe's batch, so the global batch grows with the ranks, and where the recipe says so its rate
(Sedona et al. 2019). *Strong*: the global batch is that of one rank, each of k has a k-th of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from landscale.errors import BadInput, LandscaleError
from landscale.runtime.files import read_json, write_json, write_text
from landscale.runtime.progress import console, progress_bar
from landscale.runtime.signals import deferred_signals
from landscale.store import PatchStore
from landscale.studies.rank_scaling.figures import rows
from landscale.studies.rank_scaling.launch import TORCHRUN, last_line, launch, launcher
from landscale.studies.results import begin
from landscale.training.build import build_classifier
from landscale.training.recipe import Recipe, as_yaml
from landscale.training.runs import Run

WEAK, STRONG = "weak", "strong"

Figures = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is asked of a study: `recipe.batch` is that of one rank, `recipe.seed` that of the first repeat."""

    recipe: Recipe
    ranks: tuple[int, ...] = (1, 2, 4)
    repeats: int = 2
    kinds: tuple[str, ...] = (WEAK, STRONG)
    launch: str = TORCHRUN


@dataclass(frozen=True)
class Training:
    kind: str
    ranks: int
    repeat: int
    batch: int
    """patches a rank and step"""
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.ranks}-r{self.repeat}"


def trainings(plan: Plan) -> list[Training]:
    """All trainings of a study. Each repeat goes through all numbers of ranks, as a machine's speed drifts over hours.

    On one rank weak and strong are the same training.

    Raises:
        LandscaleError: a batch that cannot be dealt to the ranks.
    """
    recipe, found = plan.recipe, []
    for repeat in range(1, plan.repeats + 1):
        for ranks in plan.ranks:
            for kind in dict.fromkeys(WEAK if ranks == 1 else kind for kind in plan.kinds):
                if kind == STRONG and recipe.batch % ranks:
                    raise LandscaleError(
                        f"--ranks: found {ranks}, expected divisors of the batch of {recipe.batch} for strong scaling;"
                        " choose another --batch, or --weak alone"
                    )
                batch = recipe.batch // ranks if kind == STRONG else recipe.batch
                found.append(Training(kind, ranks, repeat, batch, recipe.seed + repeat - 1))
    return found


def study(plan: Plan, store: PatchStore, out: Path) -> Figures:
    """Train what has not ended yet, in a folder with a run for each training. Called again, go on where it was left.

    Args:
        out: new, or of an earlier call with the same settings; numbers of ranks, kinds and repeats may be added.

    Returns:
        What `scaling.json` holds: `settings`, `environment`, `all_reduce` by number of ranks, `trainings` with the time of
        every epoch or why they `failed`, and the `rows` of figures that follow (`ranks_figures.rows`).

    Raises:
        LandscaleError: see `trainings` and `launcher`; or `out` holds something else.
        Stopped: by a signal, after the training has saved its state.
    """
    todo = trainings(plan)
    for ranks in plan.ranks:
        launcher(plan.launch, ranks)
    results = out / "scaling.json"
    content = _begin(plan, store, out)
    broken: dict[int, str] = {}
    with deferred_signals(alone=True) as caught, progress_bar("scaling", len(todo), "trainings") as advance:
        for training in todo:
            run = Run(out / training.name)
            row = _row(content["trainings"], asdict(training) | {"name": training.name})
            if not run.ended or "epochs" not in row:
                problem = broken.get(training.ranks) or _measure_all_reduce(plan, training.ranks, out, content, caught)
                if problem:
                    broken[training.ranks] = problem  # and its trainings need not be tried
                elif not run.ended:
                    _begin_session(run, row, plan.recipe.epochs)
                    _write(results, content)
                    problem = _train(plan, training, store, out, caught)
                row.pop("failed", None)
                row |= {"failed": problem} if problem else _figures(run, row["starts"])
                _write(results, content)
                if problem:
                    console.print(f"failed: {problem}", markup=False, highlight=False, soft_wrap=True)
            advance(1)
    _write(results, content)
    return content


def _begin(plan: Plan, store: PatchStore, out: Path) -> Figures:
    """What was found before; and the recipe, where the trainings read it."""
    results = out / "scaling.json"
    if not results.exists() and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(out, "is neither empty nor a scaling study; choose another --out")
    network = build_classifier(plan.recipe, store).network  # which refuses what cannot be trained
    settings = asdict(plan.recipe) | {
        "store": store.attributes["plan"],
        "synthetic": bool(store.attributes["provenance"].get("synthetic")),
        "patches": len(store.patches("train")),
        "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "launch": plan.launch,
        "threads": _threads(plan),
    }
    content = begin(results, "scaling", settings, ("all_reduce", "trainings"))
    write_text(out / "recipe.yaml", as_yaml(plan.recipe))
    _write(results, content)
    return content


def _threads(plan: Plan) -> int | None:
    """Threads of a rank, where all ranks share this machine: as many at every number of ranks, as a GPU is a GPU."""
    return max(1, len(os.sched_getaffinity(0)) // max(plan.ranks)) if plan.launch == TORCHRUN else None


def _write(results: Path, content: Figures) -> None:
    content["rows"] = rows(content)
    write_json(results, content)


def _row(known: list[Figures], about: Figures) -> Figures:
    """The row of a training; a new one if there is none."""
    for row in known:
        if row["name"] == about["name"]:
            return row
    known.append(about)
    return about


def _measure_all_reduce(plan: Plan, ranks: int, out: Path, content: Figures, caught: Callable[[], int]) -> str | None:
    """Measure it once for each number of ranks. Returns what went wrong.

    Raises:
        LandscaleError: the launcher starts another number of ranks.
    """
    if any(known["ranks"] == ranks for known in content["all_reduce"]):
        return None
    answer, log = out / f"all-reduce-{ranks}.json", out / f"all-reduce-{ranks}.log"
    command = [*launcher(plan.launch, ranks), "benchmark", "allreduce", f"--out={answer}"]
    code = launch(command, log, _threads(plan), caught)
    if code or not answer.exists():
        return f"{log}: an all-reduce over {ranks} ranks ended with exit code {code}: {last_line(log)}"
    figures = read_json(answer)
    if figures["ranks"] != ranks:
        raise LandscaleError(f"--launch: found {figures['ranks']} ranks where {ranks} were asked for: '{plan.launch}'")
    content["all_reduce"] = sorted([*content["all_reduce"], figures], key=lambda known: int(known["ranks"]))
    return None


def _train(plan: Plan, training: Training, store: PatchStore, out: Path, caught: Callable[[], int]) -> str | None:
    """Train to the end. Returns what went wrong."""
    run, log = Run(out / training.name), out / f"{training.name}.log"
    files = [f"--recipe={out / 'recipe.yaml'}", f"--store={store.path}", f"--run-dir={run.folder}", "--json"]
    command = [*launcher(plan.launch, training.ranks), "train", *files]
    command += [f"--batch={training.batch}", f"--seed={training.seed}"]
    code = launch(command, log, _threads(plan), caught)
    if code or not run.ended:
        return f"{log}: {training.name} ended with exit code {code}: {last_line(log)}"
    return None


def _begin_session(run: Run, row: Figures, epochs: int) -> None:
    """Note the epoch in which libraries are set up, as it does not count. Where no epoch would count, begin anew."""
    metrics = run.folder / "metrics.csv"
    next_epoch = len(pd.read_csv(metrics)) + 1 if metrics.exists() else 1
    row["starts"] = sorted({*row.get("starts", []), next_epoch})
    if len(row["starts"]) >= epochs:
        shutil.rmtree(run.folder)
        row["starts"] = [1]


def _figures(run: Run, starts: Sequence[int]) -> Figures:
    """Steps and seconds of each epoch, without evaluation, and whether it counts; the scores on val."""
    file = run.folder / "metrics.csv"
    table = pd.read_csv(file)
    if "train_seconds" not in table:
        raise BadInput(file, "has no column train_seconds, expected the seconds of each epoch's steps")
    steps = table["step"].diff().fillna(table["step"])
    epochs = [
        {"epoch": int(epoch), "steps": int(n), "seconds": float(seconds), "counts": int(epoch) not in starts}
        for epoch, n, seconds in zip(table["epoch"], steps, table["train_seconds"], strict=True)
    ]
    scores = run.scores()
    if scores is None:
        return {"epochs": epochs}
    return {"epochs": epochs, "micro_f1": scores.micro_f1_at_half, "macro_f1": scores.macro_f1_at_half}
