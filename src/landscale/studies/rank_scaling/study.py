"""Strong and weak scaling of training: a launcher starts one training for each repeat, kind and number of ranks.

*Weak*: each rank has the recipe's batch, so the global batch grows with the number of ranks, and the learning rate with it
if the recipe has a `rate_batch` (Sedona et al. 2019). *Strong*: the global batch is the recipe's, and each of k ranks has a
k-th of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from landscale.errors import BadInput, LandscaleError
from landscale.inference.scores import Scores, read_scores
from landscale.loading import labelled_patches
from landscale.runtime.documents import read_json, write_json
from landscale.runtime.files import write_text
from landscale.runtime.portability import usable_cores
from landscale.runtime.progress import console, progress_bar
from landscale.runtime.signals import deferred_signals
from landscale.store import PatchStore
from landscale.studies.rank_scaling.launch import TORCHRUN, last_error, launcher_command, run_to_end
from landscale.studies.rank_scaling.rows import rank_scaling_rows
from landscale.studies.results import open_results
from landscale.training.build import build_classifier
from landscale.training.recipe import Recipe, as_yaml
from landscale.training.runs import Run
from landscale.training.transfer import find_beginning, with_network

RESULTS_FILE = "rank-scaling.json"
WEAK, STRONG = "weak", "strong"

Figures = dict[str, Any]


@dataclass(frozen=True)
class RankScalingPlan:
    """Which trainings a study consists of. `recipe.batch` is that of one rank, `recipe.seed` that of the first repeat."""

    recipe: Recipe
    ranks: tuple[int, ...] = (1, 2, 4)
    repeats: int = 2
    kinds: tuple[str, ...] = (WEAK, STRONG)
    launch: str = TORCHRUN
    """command line that starts `{ranks}` processes"""


@dataclass(frozen=True)
class PlannedTraining:
    """One training of a study."""

    kind: str
    ranks: int
    repeat: int
    """from 1"""
    batch: int
    """patches per rank and step"""
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.ranks}-r{self.repeat}"


def planned_trainings(plan: RankScalingPlan) -> list[PlannedTraining]:
    """All trainings of a study, in order. Each repeat covers all numbers of ranks, as a machine's speed drifts over hours.

    On one rank weak and strong scaling are the same training.

    Raises:
        LandscaleError: the batch is not divisible by a number of ranks.
    """
    recipe, trainings = plan.recipe, []
    for repeat in range(1, plan.repeats + 1):
        for ranks in plan.ranks:
            for kind in dict.fromkeys(WEAK if ranks == 1 else kind for kind in plan.kinds):
                if kind == STRONG and recipe.batch % ranks:
                    raise LandscaleError(
                        f"--ranks: found {ranks}, expected divisors of the batch of {recipe.batch} for strong scaling;"
                        " choose another --batch, or --weak alone"
                    )
                batch = recipe.batch // ranks if kind == STRONG else recipe.batch
                trainings.append(PlannedTraining(kind, ranks, repeat, batch, recipe.seed + repeat - 1))
    return trainings


def run_rank_scaling(plan: RankScalingPlan, store: PatchStore, out: Path) -> Figures:
    """Run all trainings that have not ended yet, in a folder with one run per training. A later call resumes the study.

    Args:
        out: a new folder, or that of an earlier call with the same settings; numbers of ranks, kinds and repeats may be added.

    Returns:
        The content of `rank-scaling.json`: `settings`, `environment`, `all_reduce` by number of ranks, `trainings` with the
        time of every epoch and their scores, or the reason why they `failed`, and the table `rows` (see `rank_scaling_rows`).

    Raises:
        LandscaleError: see `planned_trainings` and `launcher_command`; or `out` holds something else.
        Stopped: after a signal, once the running training has saved its state.
    """
    trainings = planned_trainings(plan)
    for ranks in plan.ranks:
        launcher_command(plan.launch, ranks)  # raises before anything is written
    results = out / RESULTS_FILE
    content = _begin(plan, store, out)
    failed_all_reduce: dict[int, str] = {}
    tested = store.has_split("test")
    with deferred_signals(alone=True) as first_signal, progress_bar("scaling", len(trainings), "trainings") as advance:
        for training in trainings:
            run = Run(out / training.name)
            row = _training_row(content["trainings"], asdict(training) | {"name": training.name})
            if not run.ended or "epochs" not in row or (tested and "test_micro_f1" not in row):
                problem = failed_all_reduce.get(training.ranks)
                if problem is None:
                    problem = _measure_all_reduce(plan, training.ranks, out, content, first_signal)
                if problem is not None:
                    failed_all_reduce[training.ranks] = problem  # trainings on as many ranks would fail as well
                elif not run.ended:
                    _begin_session(run, row, plan.recipe.epochs)
                    _write(results, content)
                    problem = _train(plan, training, store, out, first_signal)
                if problem is None and tested:
                    problem = _evaluate_on_test(plan, training, store, out, first_signal)
                row.pop("failed", None)
                row |= {"failed": problem} if problem else _epochs_and_scores(run, row["starts"])
                _write(results, content)
                if problem:
                    console.print(f"failed: {problem}", markup=False, highlight=False, soft_wrap=True)
            advance(1)
    _write(results, content)
    return content


def _begin(plan: RankScalingPlan, store: PatchStore, out: Path) -> Figures:
    """The results of an earlier call, or empty ones; also writes the recipe to the file that the trainings read."""
    results = out / RESULTS_FILE
    if not results.exists() and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(out, "is neither empty nor a rank-scaling study; choose another --out")
    recipe = with_network(plan.recipe, find_beginning(plan.recipe, Run(out), resumes=False), store)
    classifier = build_classifier(recipe, store)  # raises if the recipe does not fit the store
    patches = labelled_patches(store, "train", classifier.description.classes)
    settings = asdict(plan.recipe) | {
        "store": store.attributes["plan"],
        "synthetic": bool(store.attributes["provenance"].get("synthetic")),
        "patches": len(patches),
        "parameters": sum(p.numel() for p in classifier.network.parameters() if p.requires_grad),
        "launch": plan.launch,
        "threads": _threads_per_rank(plan),
    }
    content = open_results(results, "scaling", settings, ("all_reduce", "trainings"))
    write_text(out / "recipe.yaml", as_yaml(plan.recipe))
    _write(results, content)
    return content


def _threads_per_rank(plan: RankScalingPlan) -> int | None:
    """The same at every number of ranks, as a rank stands for a GPU. None if the user chose the launcher."""
    return max(1, usable_cores() // max(plan.ranks)) if plan.launch == TORCHRUN else None


def _write(results: Path, content: Figures) -> None:
    content["rows"] = rank_scaling_rows(content)
    write_json(results, content)


def _training_row(rows: list[Figures], training: Figures) -> Figures:
    """The row of a training in the results; added if it is missing."""
    for row in rows:
        if row["name"] == training["name"]:
            return row
    rows.append(training)
    return training


def _measure_all_reduce(
    plan: RankScalingPlan, ranks: int, out: Path, content: Figures, first_signal: Callable[[], int]
) -> str | None:
    """Measure the all-reduce, once for each number of ranks. Returns the reason if that fails.

    Raises:
        LandscaleError: the launcher starts another number of ranks.
    """
    if any(all_reduce["ranks"] == ranks for all_reduce in content["all_reduce"]):
        return None
    result, log = out / f"all-reduce-{ranks}.json", out / f"all-reduce-{ranks}.log"
    command = [*launcher_command(plan.launch, ranks), "benchmark", "allreduce", f"--out={result}"]
    code = run_to_end(command, log, _threads_per_rank(plan), first_signal)
    if code or not result.exists():
        return f"{log}: an all-reduce on {ranks} ranks ended with exit code {code}: {last_error(log)}"
    figures = read_json(result)
    if figures["ranks"] != ranks:
        raise LandscaleError(f"--launch: found {figures['ranks']} ranks, expected {ranks} from '{plan.launch}'")
    content["all_reduce"] = sorted([*content["all_reduce"], figures], key=lambda known: int(known["ranks"]))
    return None


def _train(
    plan: RankScalingPlan, training: PlannedTraining, store: PatchStore, out: Path, first_signal: Callable[[], int]
) -> str | None:
    """Train to the end. Returns the reason if that fails."""
    run, log = Run(out / training.name), out / f"{training.name}.log"
    files = [f"--recipe={out / 'recipe.yaml'}", f"--store={store.path}", f"--run-dir={run.folder}", "--json"]
    command = [*launcher_command(plan.launch, training.ranks), "train", *files]
    command += [f"--batch={training.batch}", f"--seed={training.seed}"]
    code = run_to_end(command, log, _threads_per_rank(plan), first_signal)
    if code or not run.ended:
        return f"{log}: {training.name} ended with exit code {code}: {last_error(log)}"
    return None


def _evaluate_on_test(
    plan: RankScalingPlan, training: PlannedTraining, store: PatchStore, out: Path, first_signal: Callable[[], int]
) -> str | None:
    """Score an ended training on the test split, on as many ranks. Returns the reason if that fails."""
    run, log = Run(out / training.name), out / f"{training.name}.log"
    if run.test_scores_file.exists():
        return None
    command = [*launcher_command(plan.launch, training.ranks), "evaluate", str(run.folder), str(store.path)]
    command += ["--split=test", f"--out={run.test_scores_file}", "--json"]
    code = run_to_end(command, log, _threads_per_rank(plan), first_signal)
    if code or not run.test_scores_file.exists():
        return f"{log}: the evaluation of {training.name} ended with exit code {code}: {last_error(log)}"
    return None


def _begin_session(run: Run, row: Figures, epochs: int) -> None:
    """Note the first epoch of this session, which is not timed, as libraries are set up in it.

    If no epoch would be left to be timed, the run is deleted and started again.
    """
    metrics = run.folder / "metrics.csv"
    next_epoch = len(pd.read_csv(metrics)) + 1 if metrics.exists() else 1
    row["starts"] = sorted({*row.get("starts", []), next_epoch})
    if len(row["starts"]) >= epochs:
        shutil.rmtree(run.folder)
        row["starts"] = [1]


def _epochs_and_scores(run: Run, starts: Sequence[int]) -> Figures:
    """Steps and seconds of each epoch (without evaluation), whether it counts, and the scores on val and test."""
    file = run.folder / "metrics.csv"
    table = pd.read_csv(file)
    if "train_seconds" not in table:
        raise BadInput(file, "has no column train_seconds, expected the seconds of each epoch's steps")
    steps = table["step"].diff().fillna(table["step"])
    epochs = [
        {"epoch": int(epoch), "steps": int(n), "seconds": float(seconds), "counts": int(epoch) not in starts}
        for epoch, n, seconds in zip(table["epoch"], steps, table["train_seconds"], strict=True)
    ]
    found: Figures = {"epochs": epochs, "support": {}}
    scored = {"": run.scores(), "test_": read_scores(run.test_scores_file) if run.test_scores_file.exists() else None}
    for prefix, scores in scored.items():
        if isinstance(scores, Scores):
            found |= {f"{prefix}micro_f1": scores.micro_f1_at_half, f"{prefix}macro_f1": scores.macro_f1_at_half}
            found["support"][scores.split] = [scores.classes_with_support, len(scores.counts)]
    return found
