"""The compound-scaling study: train the candidates, and from the best one larger networks, and others of single axes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from landscale.errors import BadInput, LandscaleError
from landscale.models.compound import Scaling
from landscale.preparation.plan import longest_first
from landscale.runtime.documents import read_json, write_json
from landscale.runtime.progress import console, progress_bar
from landscale.store import PatchStore
from landscale.studies.compound_scaling.networks import ScalableNetwork, ScaledNetwork, scalable_network
from landscale.studies.compound_scaling.search import AXES, networks_of_sizes, search_candidates
from landscale.studies.compound_scaling.trainings import TrainingJob, run_trainings
from landscale.training.recipe import Recipe
from landscale.training.runs import Run

RESULTS_FILE = "compound-scaling.json"
START_SECONDS = 10.0  # until the processes of the search, or of the sizes, have started; most of it is importing torch
TRAINING_OVERHEAD = 0.5  # seconds of a training that its own time limit does not include
AVERAGED = ("micro_f1", "macro_f1", "accuracy", "seconds", "steps")  # a row of results has their means over the seeds


@dataclass(frozen=True)
class CompoundScalingPlan:
    """The settings of a study.

    Args:
        recipe: trains every network; names the network to scale.
        flops: budget at φ = 1: a multiple of the unscaled network's FLOPs, or FLOPs if `is_multiple` is false.
        step: step of the grid of α, β and γ.
        phis: the sizes to train.
        seeds: every network is trained once with each of them.
    """

    recipe: Recipe
    flops: float = 2.0
    is_multiple: bool = True
    step: float = 0.1
    phis: tuple[float, ...] = (1.0, 2.0, 3.0)
    seeds: tuple[int, ...] = (0,)


def list_candidates(plan: CompoundScalingPlan, store: PatchStore) -> dict[str, Any]:
    """The networks that the search would train. Trains nothing.

    Raises:
        LandscaleError: see `scalable_network` and `search_candidates`.
    """
    base = scalable_network(plan.recipe, store)
    budget = _budget(plan, base)
    rows = [_row(network) for network in search_candidates(base, budget, plan.step)]
    return {"base": plan.recipe.model, "budget": budget, "unscaled": _row(base.unscaled), "candidates": rows}


def run_compound_scaling(
    plan: CompoundScalingPlan, store: PatchStore, out: Path, workers: int = 1, seconds: float | None = None
) -> dict[str, Any]:
    """Train candidates and sizes in a folder that has a run for each network and seed. Call it again to resume.

    If the time is limited, each training gets a part of it that is proportional to its FLOPs, so that all networks are
    treated alike; time that one training does not use is not given to another. `train` fits its schedule into its part.

    Args:
        out: a new folder, or the folder of an earlier call with the same plan; φ and seeds may be added.
        workers: number of trainings at a time.
        seconds: time limit of the whole study.

    Returns:
        The content of `compound-scaling.json`: base, budget, candidates, best, sizes, registration, failed.

    Raises:
        LandscaleError: see `list_candidates`; or `out` contains something else; or no candidate could be trained.
        Stopped: a signal came; the state is saved.
    """
    ends = None if seconds is None else time.monotonic() + seconds
    base = scalable_network(plan.recipe, store)
    budget = _budget(plan, base)
    found = search_candidates(base, budget, plan.step)

    cost = budget / base.unscaled.flops
    later = [base.unscaled.flops] + [round(base.unscaled.flops * cost**phi) for phi in plan.phis for _ in range(4)]
    first, second = (_makespan(flops * len(plan.seeds), workers) for flops in ([n.flops for n in found], later))
    searching = sizing = None
    if ends is not None:
        trainings = len(plan.seeds) * (len(found) + len(later))
        left = ends - time.monotonic() - 2 * START_SECONDS - TRAINING_OVERHEAD * trainings / workers
        if left < trainings / workers:
            raise LandscaleError(
                f"--max-time: leaves {max(left, 0):.0f} s for {trainings} trainings, expected at least 1 s for each"
            )
        searching, sizing = (left * part / (first + second) for part in (first, second))
    _begin(out, plan, store, budget)
    failed = _train(base, found, plan, store, out, "search", workers, searching, ends)
    candidates = [_row(network) | _scores(network, plan, out) for network in found]
    complete = [row for row in candidates if len(row["runs"]) == len(plan.seeds)]
    if not complete:
        raise LandscaleError(
            f"none of {len(found)} candidates could be trained; the first failed: {next(iter(failed.values()))}"
        )
    best = max(complete, key=lambda row: row["micro_f1"])

    grown = networks_of_sizes(base, Scaling(*(best[axis] for axis in AXES)), plan.phis, plan.step)
    known = {network.name for network in found}
    networks = {network.name: network for network in [base.unscaled, *(n for _, _, n in grown)]}
    rest = [network for name, network in networks.items() if name not in known]
    failed |= _train(base, rest, plan, store, out, "sizes", workers, sizing, ends)
    content = {
        **read_json(out / RESULTS_FILE),
        "store": str(store.path),
        "seeds": list(plan.seeds),
        "unscaled": _row(base.unscaled) | _scores(base.unscaled, plan, out),
        "candidates": candidates,
        "best": {axis: best[axis] for axis in AXES},
        "sizes": [{"phi": phi, "axis": axis} | _row(n) | _scores(n, plan, out) for phi, axis, n in grown],
        "registration": [_line(phi, network.scaling) for phi, axis, network in grown if axis == "compound"],
        "failed": failed,
    }
    write_json(out / RESULTS_FILE, content)
    return content


def _budget(plan: CompoundScalingPlan, base: ScalableNetwork) -> float:
    return plan.flops * base.unscaled.flops if plan.is_multiple else plan.flops


def _begin(out: Path, plan: CompoundScalingPlan, store: PatchStore, budget: float) -> None:
    """Write the settings of the study to `out`; if a study has begun there, check that its settings are the same.

    Raises:
        BadInput: `out` contains another study or something else.
    """
    recipe = asdict(replace(plan.recipe, seed=0))
    about = {"base": plan.recipe.model, "data": store.attributes["plan"], "budget": budget, "step": plan.step}
    about |= {"recipe": recipe}
    file = out / RESULTS_FILE
    if not file.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise BadInput(out, "is neither empty nor the folder of a compound-scaling study; choose another --out")
        write_json(file, about)
        return
    before = read_json(file)
    if not isinstance(before, dict) or not before.keys() >= about.keys():
        raise BadInput(file, "is not the file of a compound-scaling study; choose another --out")
    if before["data"] != about["data"]:
        raise BadInput(out, f"contains a study on another store than {store.path}; choose another --out")
    for key, old, new in _differences(before, about):
        raise BadInput(out, f"contains a study with {key} {old}, not {new}; choose another --out")


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key, value in now.items():
        if isinstance(value, dict) and isinstance(before.get(key), dict) and key == "recipe":
            yield from _differences(before[key], value)
        elif before.get(key) != value:
            yield key, before.get(key), value


# ---- training


def _train(
    base: ScalableNetwork,
    networks: Sequence[ScaledNetwork],
    plan: CompoundScalingPlan,
    store: PatchStore,
    out: Path,
    label: str,
    workers: int,
    seconds: float | None,
    ends: float | None,
) -> dict[str, str]:
    """Run the trainings that have not ended yet, the largest first. Returns the error of each run that failed."""
    every = [(network, seed) for network in networks for seed in plan.seeds]
    span = _makespan([network.flops for network, _ in every], workers)
    jobs = []
    for network, seed in sorted(every, key=lambda pair: -pair[0].flops):
        limit = None if seconds is None else seconds * network.flops / span
        run = _run(out, network, seed)
        if not run.ended:
            jobs.append(TrainingJob(base.recipe_of(network, seed), store.path, run.folder, limit, ends))
    failed = {}
    with progress_bar(label, len(every), "runs") as advance, closing(run_trainings(jobs, workers)) as ended:
        advance(len(every) - len(jobs))
        for job, problem in ended:
            advance(1)
            if problem is not None:
                failed[job.run.name] = problem
                console.print(f"failed: {problem}", markup=False, highlight=False, soft_wrap=True)
    return failed


def _makespan(flops: Sequence[int], workers: int) -> float:
    """FLOPs of the busiest worker."""
    return max((sum(flops[k] for k in assigned) for assigned in longest_first(flops, workers)), default=0)


def _run(out: Path, network: ScaledNetwork, seed: int) -> Run:
    """A network that occurs several times, as a candidate, a size or on one axis, has one run for all of them."""
    return Run(out / "runs" / f"{network.name}_seed-{seed}")


# ---- rows of the tables


def _row(network: ScaledNetwork) -> dict[str, Any]:
    return asdict(network.scaling) | {
        "options": dict(network.options),
        "side": network.side,
        "parameters": network.parameters,
        "flops": network.flops,
    }


def _scores(network: ScaledNetwork, plan: CompoundScalingPlan, out: Path) -> dict[str, Any]:
    """Scores on the val split: of each seed whose run has ended, their means, and the standard deviation of micro F1."""
    runs = [_figures(run, seed) for seed in plan.seeds if (run := _run(out, network, seed)).ended]
    means = {key: statistics.fmean(run[key] for run in runs) for key in AVERAGED if runs and key in runs[0]}
    if len(runs) > 1:
        means["micro_f1_deviation"] = statistics.stdev(run["micro_f1"] for run in runs)
    return {**means, "runs": runs}


def _figures(run: Run, seed: int) -> dict[str, Any]:
    scores = run.scores()
    last = pd.read_csv(run.folder / "metrics.csv").iloc[-1]
    figures = {key: value for key, value in scores.headline().items() if key in AVERAGED} if scores else {}
    return {
        "seed": seed,
        "run": run.folder.name,
        **figures,
        "seconds": float(last["seconds"]),
        "steps": int(last["step"]),
    }


def _line(phi: float, scaling: Scaling) -> str:
    """A size as a row of a family's table of sizes, see `models/compound.py`."""
    size = f"b{phi:g}".replace(".", "_")
    return f'"{size}": Scaling({scaling.depth!r}, {scaling.width!r}, {scaling.resolution!r}),'
