"""The story: create the store, fill it, finish it.

The store grows as `STORE.h5.partial`, which is created whole, and takes its name when every patch is in it.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.survey import Survey
from landscale.errors import BadStore, LandscaleError
from landscale.preparation.extract import Damaged, Task
from landscale.preparation.plan import jobs, longest_first
from landscale.preparation.pool import run_here
from landscale.preparation.ranks import on_all, on_first
from landscale.runtime.files import sync
from landscale.runtime.progress import progress_bar
from landscale.store import BAD, PENDING, WHOLE, StoreWriter, create_store, open_store

if TYPE_CHECKING:  # it imports torch, which a preparation by one process does without
    from landscale.distributed import Ranks

_HOW = ("where", "job")  # columns of a survey that are for the reader: an archive may move


@dataclass(frozen=True)
class Outcome:
    """What a call of prepare did. `skipped` are damaged patches: name and reason."""

    patches: int
    written: int
    skipped: Damaged


def prepare(
    survey: Survey,
    path: Path,
    workers: int = 1,
    *,
    skip_bad: bool = False,
    scheduler: str | None = None,
    ranks: Ranks | None = None,
) -> Outcome:
    """Fill the store at `path` with the patches of `survey`.

    Args:
        survey: the same on all ranks.
        path: the store; its folder is made.
        workers: processes on this machine, for each rank.
        skip_bad: leave damaged patches out.
        scheduler: address of a dask scheduler whose workers do the work instead.
        ranks: processes that share the work by the plan, on a file system that they share too.

    Raises:
        LandscaleError: a damaged patch (unless `skip_bad`); what is done stays and counts when called again.
        BadStore: `path` holds something else already.
    """
    begun = on_first(ranks, lambda: _begin(survey, path))
    if isinstance(begun, Outcome):
        return begun
    damaged = on_all(ranks, lambda: _fill(survey, path, begun, workers, skip_bad, scheduler, ranks))
    skipped = sorted(one for of_a_rank in damaged for one in of_a_rank)
    on_first(ranks, lambda: _finish(path, skipped))
    return Outcome(len(survey.table), len(begun) - len(skipped), skipped)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _begin(survey: Survey, path: Path) -> Outcome | NDArray[np.int64]:
    """Create the store or find its beginning; the rows that are still to do, or the outcome if all is done already."""
    plan, partial = _digest(survey), _partial(path)
    if path.exists():
        store = open_store(path)
        if store.attributes["plan"] != plan:
            raise BadStore(path, "exists and was prepared from something else; remove it or choose another name")
        names = survey.table["name"].to_numpy()[store.states == BAD]
        return Outcome(len(survey.table), 0, [(str(name), f"was damaged when {path} was made") for name in names])
    if not partial.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(survey, partial, plan)
    begun = open_store(partial, unfinished=True)
    if begun.attributes["plan"] != plan:
        raise BadStore(partial, "is the beginning of another preparation; remove it to start anew")
    # A patch that was bad is tried again: its file may have been mended.
    return np.flatnonzero(begun.states != WHOLE)


def _fill(
    survey: Survey,
    path: Path,
    todo: NDArray[np.int64],
    workers: int,
    skip_bad: bool,
    scheduler: str | None,
    ranks: Ranks | None,
) -> Damaged:
    """Extract this rank's part of the patches `todo`; the damaged ones."""
    partial = _partial(path).resolve()
    task = Task(survey.read, survey.layout, partial, skip_bad)
    world = ranks.world if ranks else 1
    mine = jobs(survey, todo, world * workers)
    if ranks:
        hand = longest_first([len(job) for job in mine], world)[ranks.rank]
        mine = [mine[k] for k in sorted(hand)]
    if scheduler:
        from landscale.preparation.cluster import run_on_cluster

        run = run_on_cluster(task, mine, scheduler)
    else:
        run = run_here(task, mine, workers)
    skipped: Damaged = []
    visible = ranks is None or ranks.first
    with (
        closing(StoreWriter(partial)) as store,
        progress_bar("prepare", len(todo), visible=visible) as advance,
        closing(run),
    ):
        states, shown = store.states(), 0
        for damaged in run:
            if damaged and not skip_bad:
                raise LandscaleError(f"{damaged[0][1]} (--skip-bad leaves such patches out)")
            skipped += damaged
            done = int((states[todo] == WHOLE).sum())  # by all workers, wherever they are
            advance(done - shown)
            shown = done
    return skipped


def _finish(path: Path, skipped: Damaged) -> None:
    partial = _partial(path)
    states = open_store(partial, unfinished=True).states
    if len(skipped) == len(states):
        raise LandscaleError(f"none of {len(skipped)} patches can be read: {skipped[0][1]}")
    if (states == PENDING).any():
        raise BadStore(partial, "was replaced meanwhile, as by another prepare of it; run the same command again")
    with closing(StoreWriter(partial)) as writer:
        writer.finish()
    partial.rename(path)
    sync(path.parent)


def _digest(survey: Survey) -> str:
    """What decides the content of a store: a resumed preparation must have the same."""
    digest = hashlib.sha256(json.dumps([survey.layout.identity(), survey.provenance], sort_keys=True).encode())
    for key in sorted(map(str, survey.table)):
        if key not in _HOW:
            digest.update("\n".join([key, *map(str, survey.table[key])]).encode())
    if survey.classes is not None:
        digest.update(survey.classes.tobytes())
    return digest.hexdigest()


def _create(survey: Survey, path: Path, plan: str) -> None:
    columns = {str(key): survey.table[key].to_numpy() for key in survey.table if key not in _HOW}
    provenance = json.dumps(survey.provenance | {"landscale": version("landscale")})
    create_store(path, survey.layout, columns, {"plan": plan, "provenance": provenance})
