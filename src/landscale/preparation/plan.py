"""Which worker reads which patches: patches → jobs, and jobs → workers, so that all finish at about the same time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.survey import Survey

CHUNK = 64  # patches written, synced and counted together: 10 MB of BigEarthNet
_MAX_JOB = 16 * CHUNK  # patches of a job whose patches share no file


@dataclass(frozen=True)
class PatchChunk:
    """Consecutive patches of a store, at most CHUNK; `start` is the row of the first."""

    start: int
    names: list[str]
    locations: list[Any]
    classes: NDArray[np.uint8] | None


@dataclass(frozen=True)
class ReadJob:
    """Patches that one worker reads in order: those of a tile, or any consecutive ones."""

    chunks: list[PatchChunk]

    def __len__(self) -> int:
        return sum(len(chunk.names) for chunk in self.chunks)


def make_jobs(survey: Survey, todo: NDArray[np.int64], workers: int) -> list[ReadJob]:
    """The patches `todo` (ascending rows of the survey) as jobs, in the survey's order."""
    if not len(todo):
        return []
    if "job" in survey.table:
        number = survey.table["job"].to_numpy()[todo]
        parts = np.split(todo, np.flatnonzero(np.diff(number)) + 1)
    else:  # about eight jobs per worker, so that all workers end at about the same time
        size = CHUNK * int(np.clip(len(todo) // (8 * workers * CHUNK), 1, _MAX_JOB // CHUNK))
        parts = np.split(todo, np.flatnonzero(np.diff(todo // size)) + 1)
    return [ReadJob(list(_chunks(survey, part))) for part in parts]


def _chunks(survey: Survey, rows: NDArray[np.int64]) -> Iterator[PatchChunk]:
    names, locations = survey.table["name"], survey.table["location"]
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        first, end = int(run[0]), int(run[-1]) + 1
        # Chunks begin at multiples of CHUNK, so that whole pages of the file are written.
        for start in range(first // CHUNK * CHUNK, end, CHUNK):
            part = slice(max(first, start), min(start + CHUNK, end))
            classes = None if survey.classes is None else survey.classes[part]
            yield PatchChunk(part.start, list(names[part]), list(locations[part]), classes)


Assignment = list[list[int]]  # for each worker, the numbers of its jobs


def back_and_forth(sizes: Sequence[int], workers: int) -> Assignment:
    """Algorithm 1 of Sedona et al. 2019: sorted by size and dealt in rounds, every other round in reverse."""
    order = sorted(range(len(sizes)), key=lambda k: -sizes[k])
    assignment: Assignment = [[] for _ in range(workers)]
    for begin in range(0, len(order), workers):
        part = order[begin : begin + workers]
        places = range(workers) if begin // workers % 2 == 0 else reversed(range(workers))
        for place, job in zip(places, part, strict=False):
            assignment[place].append(job)
    return assignment


def longest_first(sizes: Sequence[int], workers: int) -> Assignment:
    """The largest remaining job goes to the worker with the least (Graham 1969: at most 4/3 of the best possible)."""
    loads = [(0, worker) for worker in range(workers)]
    assignment: Assignment = [[] for _ in range(workers)]
    for job in sorted(range(len(sizes)), key=lambda k: -sizes[k]):
        load, worker = heapq.heappop(loads)
        assignment[worker].append(job)
        heapq.heappush(loads, (load + sizes[job], worker))
    return assignment


def imbalance(sizes: Sequence[int], assignment: Assignment) -> float:
    """By how much the busiest worker exceeds the mean: 0 is perfect, 0.1 means that the work takes a tenth longer."""
    loads = [sum(sizes[job] for job in jobs) for jobs in assignment]
    return max(loads) * len(loads) / sum(loads) - 1 if sum(loads) else 0.0


def compare_plans(survey: Survey, workers: int) -> dict[str, Any]:
    """How both rules would distribute all patches of a survey: jobs and patches of each worker, and the imbalance."""
    sizes = [len(job) for job in make_jobs(survey, np.arange(len(survey.table)), workers)]
    rules = {"Algorithm 1 of Sedona et al. 2019": back_and_forth, "longest first (used)": longest_first}
    plans = {}
    for name, rule in rules.items():
        assignment = rule(sizes, workers)
        plans[name] = {
            "imbalance": imbalance(sizes, assignment),
            "jobs": [len(jobs) for jobs in assignment],
            "patches": [sum(sizes[k] for k in jobs) for jobs in assignment],
        }
    return {"patches": sum(sizes), "jobs": len(sizes), "workers": workers, "plans": plans}
