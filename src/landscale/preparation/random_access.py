"""A survey whose patches can be read in any order → store: create it, fill it by any number of processes, finish it.

The store is created at its full size as `STORE.h5.partial`, with every patch pending. When all are written, it is renamed.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.survey import Survey
from landscale.errors import BadStore, LandscaleError
from landscale.preparation.damage import damage_error
from landscale.preparation.extract import ExtractionTask
from landscale.preparation.partial import another_preparation, finished_result, partial_path
from landscale.preparation.plan import ReadJob, longest_first, make_jobs
from landscale.preparation.pool import run_locally
from landscale.preparation.ranks import on_all_ranks, on_first_rank
from landscale.preparation.result import DamagedPatches, PreparationResult
from landscale.runtime.files import sync
from landscale.runtime.progress import progress_bar
from landscale.store import PENDING, WHOLE, StoreWriter, create_store, open_store

if TYPE_CHECKING:  # it imports torch, which a preparation by one process does not need
    from landscale.distributed import Ranks

_READER_COLUMNS = ("location", "job")  # columns of a survey that are not stored: the files may be moved


def prepare_random_access(
    survey: Survey,
    path: Path,
    workers: int = 1,
    *,
    skip_bad: bool = False,
    scheduler: str | None = None,
    ranks: Ranks | None = None,
) -> PreparationResult:
    """Fill the store at `path`; see `prepare_survey`."""
    started = on_first_rank(ranks, lambda: _start(survey, path))
    if isinstance(started, PreparationResult):
        return started
    by_rank = on_all_ranks(ranks, lambda: _fill(survey, path, started, workers, skip_bad, scheduler, ranks))
    skipped = sorted(one for damaged in by_rank for one in damaged)
    on_first_rank(ranks, lambda: _finish(path, skipped))
    return PreparationResult(path, len(survey.table), len(started) - len(skipped), skipped)


def _start(survey: Survey, path: Path) -> PreparationResult | NDArray[np.int64]:
    """Create the partial store, or find it. Returns the rows to write, or the result if the store is complete already."""
    digest, partial = _digest(survey), partial_path(path)
    if path.exists():
        return finished_result(path, digest)
    if not partial.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(survey, partial, digest)
    unfinished = open_store(partial, unfinished=True)
    if unfinished.attributes["plan"] != digest:
        raise another_preparation(partial)
    # A damaged patch is read again: its file may have been repaired.
    return np.flatnonzero(unfinished.states != WHOLE)


def _fill(
    survey: Survey,
    path: Path,
    todo: NDArray[np.int64],
    workers: int,
    skip_bad: bool,
    scheduler: str | None,
    ranks: Ranks | None,
) -> DamagedPatches:
    """Extract this rank's part of the patches `todo`. Returns the damaged ones."""
    partial = partial_path(path).resolve()
    task = ExtractionTask(survey.read, survey.layout, partial, skip_bad)
    jobs = _jobs_of_rank(survey, todo, workers, ranks)
    if scheduler:
        from landscale.preparation.cluster import run_on_cluster

        run = run_on_cluster(task, jobs, scheduler)
    else:
        run = run_locally(task, jobs, workers)
    skipped: DamagedPatches = []
    visible = ranks is None or ranks.first
    with (
        closing(StoreWriter(partial)) as store,
        progress_bar("prepare", len(todo), visible=visible) as advance,
        closing(run),
    ):
        states, shown = store.states(), 0
        for damaged in run:
            if damaged and not skip_bad:
                raise damage_error(damaged[0][1])
            skipped += damaged
            done = int((states[todo] == WHOLE).sum())  # by all workers, wherever they run
            advance(done - shown)
            shown = done
    return skipped


def _jobs_of_rank(survey: Survey, todo: NDArray[np.int64], workers: int, ranks: Ranks | None) -> list[ReadJob]:
    if ranks is None:
        return make_jobs(survey, todo, workers)
    jobs = make_jobs(survey, todo, ranks.world * workers)
    assignment = longest_first([len(job) for job in jobs], ranks.world)
    return [jobs[k] for k in sorted(assignment[ranks.rank])]


def _finish(path: Path, skipped: DamagedPatches) -> None:
    partial = partial_path(path)
    states = open_store(partial, unfinished=True).states
    if len(skipped) == len(states):
        raise LandscaleError(f"none of {len(skipped)} patches can be read: {skipped[0][1]}")
    if (states == PENDING).any():
        raise BadStore(
            partial, "was replaced while it was being filled, perhaps by another prepare; run the same command again"
        )
    with closing(StoreWriter(partial)) as writer:
        writer.finish()
    partial.rename(path)
    sync(path.parent)


def _digest(survey: Survey) -> str:
    """64 hexadecimal digits that change whenever the content of the store would change; resuming needs the same."""
    digest = hashlib.sha256(json.dumps([survey.layout.identity(), survey.provenance], sort_keys=True).encode())
    for key in sorted(map(str, survey.table)):
        if key not in _READER_COLUMNS:
            digest.update("\n".join([key, *map(str, survey.table[key])]).encode())
    if survey.classes is not None:
        digest.update(survey.classes.tobytes())
    return digest.hexdigest()


def _create(survey: Survey, path: Path, digest: str) -> None:
    columns = {str(key): survey.table[key].to_numpy() for key in survey.table if key not in _READER_COLUMNS}
    provenance = json.dumps(survey.provenance | {"landscale": version("landscale")})
    create_store(path, survey.layout, columns, {"plan": digest, "provenance": provenance})
