"""The study, top to bottom: train the candidates, take the best, train its sizes and what only one axis gives."""

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
from landscale.runtime.files import read_json, write_json
from landscale.runtime.progress import console, progress_bar
from landscale.store import PatchStore
from landscale.studies.compound_scaling.networks import Base, Network, base
from landscale.studies.compound_scaling.search import AXES, search, sizes
from landscale.studies.compound_scaling.work import Job, work
from landscale.training.recipe import Recipe
from landscale.training.runs import Run

STARTING = 10.0  # seconds in which the processes of search or sizes start; most of it is importing torch
EACH = 0.5  # seconds of a training that its own plan does not see
FIGURES = ("micro_f1", "macro_f1", "accuracy", "seconds", "steps")  # of which a row gives the mean over the seeds


@dataclass(frozen=True)
class Plan:
    """What is asked of a study. `flops` is the budget at φ = 1, a number or as a multiple of the unscaled network's."""

    recipe: Recipe
    flops: float = 2.0
    is_multiple: bool = True
    step: float = 0.1
    phis: tuple[float, ...] = (1.0, 2.0, 3.0)
    seeds: tuple[int, ...] = (0,)


def candidates_of(plan: Plan, store: PatchStore) -> dict[str, Any]:
    """The networks that the search would train: no training.

    Raises:
        LandscaleError: see `networks.base` and `search.search`.
    """
    root = base(plan.recipe, store)
    budget = _budget(plan, root)
    rows = [_row(network) for network in search(root, budget, plan.step)]
    return {"base": plan.recipe.model, "budget": budget, "unscaled": _row(root.unscaled), "candidates": rows}


def study(plan: Plan, store: PatchStore, out: Path, workers: int = 1, seconds: float | None = None) -> dict[str, Any]:
    """Search and sizes, in a folder with a run for each network and seed; called again, go on where it was left.

    With limited time each training gets a share of it that is proportional to its FLOPs, whatever was left of another's,
    so that all are treated alike. What a single one does with its share, `train` plans.

    Args:
        out: new, or of an earlier call with the same plan; φ and seeds may be added.
        workers: trainings at a time.
        seconds: for all of it.

    Returns:
        What `scaling.json` holds: base, budget, candidates, best, sizes, registration, failed.

    Raises:
        LandscaleError: see `candidates_of`; or `out` holds something else; or no candidate could be trained.
        Stopped: by a signal, with the state saved.
    """
    ends = None if seconds is None else time.monotonic() + seconds
    root = base(plan.recipe, store)
    budget = _budget(plan, root)
    found = search(root, budget, plan.step)

    cost = budget / root.unscaled.flops
    later = [root.unscaled.flops] + [round(root.unscaled.flops * cost**phi) for phi in plan.phis for _ in range(4)]
    first, second = (_makespan(flops * len(plan.seeds), workers) for flops in ([n.flops for n in found], later))
    searching = sizing = None
    if ends is not None:
        trainings = len(plan.seeds) * (len(found) + len(later))
        left = ends - time.monotonic() - 2 * STARTING - EACH * trainings / workers
        if left < trainings / workers:
            raise LandscaleError(f"--max-time: leaves {max(left, 0):.0f} s for {trainings} trainings, expected more")
        searching, sizing = (left * part / (first + second) for part in (first, second))
    _begin(out, plan, store, budget)
    failed = _train(root, found, plan, store, out, "search", workers, searching, ends)
    candidates = [_row(network) | _scores(network, plan, out) for network in found]
    whole = [row for row in candidates if len(row["runs"]) == len(plan.seeds)]
    if not whole:
        raise LandscaleError(
            f"none of {len(found)} candidates could be trained, the first: {next(iter(failed.values()))}"
        )
    best = max(whole, key=lambda row: row["micro_f1"])

    grown = sizes(root, Scaling(*(best[axis] for axis in AXES)), plan.phis, plan.step)
    known = {network.name for network in found}
    networks = {network.name: network for network in [root.unscaled, *(n for _, _, n in grown)]}
    rest = [network for name, network in networks.items() if name not in known]
    failed |= _train(root, rest, plan, store, out, "sizes", workers, sizing, ends)
    content = {
        **read_json(out / "scaling.json"),
        "store": str(store.path),
        "seeds": list(plan.seeds),
        "unscaled": _row(root.unscaled) | _scores(root.unscaled, plan, out),
        "candidates": candidates,
        "best": {axis: best[axis] for axis in AXES},
        "sizes": [{"phi": phi, "axis": axis} | _row(n) | _scores(n, plan, out) for phi, axis, n in grown],
        "registration": [_line(phi, network.scaling) for phi, axis, network in grown if axis == "compound"],
        "failed": failed,
    }
    write_json(out / "scaling.json", content)
    return content


def _budget(plan: Plan, root: Base) -> float:
    return plan.flops * root.unscaled.flops if plan.is_multiple else plan.flops


def _begin(out: Path, plan: Plan, store: PatchStore, budget: float) -> None:
    """Write what makes the study, or make sure that it is the one that was begun."""
    recipe = asdict(replace(plan.recipe, seed=0))
    about = {"base": plan.recipe.model, "data": store.attributes["plan"], "budget": budget, "step": plan.step}
    about |= {"recipe": recipe}
    file = out / "scaling.json"
    if not file.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise BadInput(out, "is neither empty nor a scaling study; choose another --out")
        write_json(file, about)
        return
    before = read_json(file)
    if not isinstance(before, dict) or not before.keys() >= about.keys():
        raise BadInput(file, "is of no scaling study; choose another --out")
    if before["data"] != about["data"]:
        raise BadInput(out, f"holds a study on another store than {store.path}; choose another --out")
    for key, old, new in _differences(before, about):
        raise BadInput(out, f"holds a study with {key} {old}, not {new}; choose another --out")


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key, value in now.items():
        if isinstance(value, dict) and isinstance(before.get(key), dict) and key == "recipe":
            yield from _differences(before[key], value)
        elif before.get(key) != value:
            yield key, before.get(key), value


# ---- training


def _train(
    root: Base,
    networks: Sequence[Network],
    plan: Plan,
    store: PatchStore,
    out: Path,
    what: str,
    workers: int,
    seconds: float | None,
    ends: float | None,
) -> dict[str, str]:
    """Train what has not ended yet, the largest first. Returns what went wrong, by run."""
    every = [(network, seed) for network in networks for seed in plan.seeds]
    span = _makespan([network.flops for network, _ in every], workers)
    jobs = []
    for network, seed in sorted(every, key=lambda one: -one[0].flops):
        share = None if seconds is None else seconds * network.flops / span
        run = _run(out, network, seed)
        if not run.ended:
            jobs.append(Job(root.recipe_of(network, seed), store.path, run.folder, share, ends))
    failed = {}
    with progress_bar(what, len(every), "runs") as advance, closing(work(jobs, workers)) as ended:
        advance(len(every) - len(jobs))
        for job, problem in ended:
            advance(1)
            if problem is not None:
                failed[job.run.name] = problem
                console.print(f"failed: {problem}", markup=False, highlight=False, soft_wrap=True)
    return failed


def _makespan(flops: Sequence[int], workers: int) -> float:
    """FLOPs of the busiest worker."""
    return max((sum(flops[k] for k in hand) for hand in longest_first(flops, workers)), default=0)


def _run(out: Path, network: Network, seed: int) -> Run:
    """A network that is met again, as a size or alone on its axis, has its run already."""
    return Run(out / "runs" / f"{network.name}_seed-{seed}")


# ---- rows of the tables


def _row(network: Network) -> dict[str, Any]:
    return asdict(network.scaling) | {
        "options": dict(network.options),
        "side": network.side,
        "parameters": network.parameters,
        "flops": network.flops,
    }


def _scores(network: Network, plan: Plan, out: Path) -> dict[str, Any]:
    """Each seed's figures on val and, of those that ended, the mean; and the standard deviation of micro F1."""
    runs = [_figures(run, seed) for seed in plan.seeds if (run := _run(out, network, seed)).ended]
    means = {key: statistics.fmean(run[key] for run in runs) for key in FIGURES if runs and key in runs[0]}
    if len(runs) > 1:
        means["micro_f1_deviation"] = statistics.stdev(run["micro_f1"] for run in runs)
    return {**means, "runs": runs}


def _figures(run: Run, seed: int) -> dict[str, Any]:
    scores = run.scores()
    last = pd.read_csv(run.folder / "metrics.csv").iloc[-1]
    figures = {key: value for key, value in scores.headline().items() if key in FIGURES} if scores else {}
    return {
        "seed": seed,
        "run": run.folder.name,
        **figures,
        "seconds": float(last["seconds"]),
        "steps": int(last["step"]),
    }


def _line(phi: float, scaling: Scaling) -> str:
    """A size as a row of a family's table of sizes (`models/scaling.py`)."""
    size = f"b{phi:g}".replace(".", "_")
    return f'"{size}": Scaling({scaling.depth!r}, {scaling.width!r}, {scaling.resolution!r}),'
