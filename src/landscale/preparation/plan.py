"""Who reads what: patches → jobs, and jobs → workers so that all end at about the same time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.survey import Survey

CHUNK = 64  # patches written, synced and counted together: 10 MB of BigEarthNet
_LARGEST = 16 * CHUNK  # of a job whose patches share no file


@dataclass(frozen=True)
class Chunk:
    """Consecutive patches of a store, at most CHUNK."""

    start: int
    names: list[str]
    wheres: list[Any]
    classes: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Job:
    """Patches that one worker reads in order: of one tile, or simply some."""

    chunks: list[Chunk]

    def __len__(self) -> int:
        return sum(len(chunk.names) for chunk in self.chunks)


def jobs(survey: Survey, todo: NDArray[np.int64], workers: int) -> list[Job]:
    """The patches `todo` (ascending rows of the survey) as jobs, in the survey's order."""
    if not len(todo):
        return []
    if "job" in survey.table:
        number = survey.table["job"].to_numpy()[todo]
        parts = np.split(todo, np.flatnonzero(np.diff(number)) + 1)
    else:  # several a worker, so that none waits long for the last
        size = CHUNK * int(np.clip(len(todo) // (8 * workers * CHUNK), 1, _LARGEST // CHUNK))
        parts = np.split(todo, np.flatnonzero(np.diff(todo // size)) + 1)
    return [Job(list(_chunks(survey, part))) for part in parts]


def _chunks(survey: Survey, rows: NDArray[np.int64]) -> Iterator[Chunk]:
    names, wheres = survey.table["name"], survey.table["where"]
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        first, end = int(run[0]), int(run[-1]) + 1
        # At whole CHUNKs of the store, so that whole pages of the file are written.
        for start in range(first // CHUNK * CHUNK, end, CHUNK):
            part = slice(max(first, start), min(start + CHUNK, end))
            classes = None if survey.classes is None else survey.classes[part]
            yield Chunk(part.start, list(names[part]), list(wheres[part]), classes)


Deal = list[list[int]]  # for each worker, the numbers of its jobs


def back_and_forth(sizes: Sequence[int], workers: int) -> Deal:
    """Algorithm 1 of Sedona et al. 2019: sorted by size and dealt in rounds, every other round in reverse."""
    order = sorted(range(len(sizes)), key=lambda k: -sizes[k])
    hands: Deal = [[] for _ in range(workers)]
    for begin in range(0, len(order), workers):
        part = order[begin : begin + workers]
        places = range(workers) if begin // workers % 2 == 0 else reversed(range(workers))
        for place, job in zip(places, part, strict=False):
            hands[place].append(job)
    return hands


def longest_first(sizes: Sequence[int], workers: int) -> Deal:
    """The largest job left goes to whoever has least (Graham 1969: at most 4/3 of the best possible)."""
    loads = [(0, worker) for worker in range(workers)]
    hands: Deal = [[] for _ in range(workers)]
    for job in sorted(range(len(sizes)), key=lambda k: -sizes[k]):
        load, worker = heapq.heappop(loads)
        hands[worker].append(job)
        heapq.heappush(loads, (load + sizes[job], worker))
    return hands


def imbalance(sizes: Sequence[int], deal: Deal) -> float:
    """By how much the busiest worker has more than the mean: 0 is perfect, 0.1 means everyone waits a tenth longer."""
    loads = [sum(sizes[job] for job in hand) for hand in deal]
    return max(loads) * len(loads) / sum(loads) - 1 if sum(loads) else 0.0
