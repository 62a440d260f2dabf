"""Plans: every patch is read once, and the assignment of jobs is close to the best one."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from conftest import Cli
from landscale.datasets.survey import OneByOne, PatchDetails, Survey
from landscale.preparation.plan import CHUNK, Assignment, back_and_forth, imbalance, longest_first, make_jobs
from landscale.store import Layout

Sizes = list[int]
sizes_of_jobs = st.lists(st.integers(0, 8_281), max_size=60)  # patches of a tile: at most 91 × 91
counts_of_workers = st.integers(1, 12)


def loads(sizes: Sizes, assignment: Assignment) -> Sizes:
    return [sum(sizes[k] for k in jobs) for jobs in assignment]


@given(sizes_of_jobs, counts_of_workers)
def test_every_job_is_assigned_once(sizes: Sizes, workers: int) -> None:
    for rule in (back_and_forth, longest_first):
        assignment = rule(sizes, workers)
        assert len(assignment) == workers
        assert sorted(k for jobs in assignment for k in jobs) == list(range(len(sizes)))


@given(sizes_of_jobs, counts_of_workers)
def test_back_and_forth_is_algorithm_1(sizes: Sizes, workers: int) -> None:
    """Jobs sorted by size, assigned in rounds, every other round in reverse order of the workers."""
    assignment = back_and_forth(sizes, workers)
    ordered = sorted(sizes, reverse=True)
    for worker, jobs in enumerate(assignment):
        places = [
            r * workers + (worker if r % 2 == 0 else workers - 1 - worker) for r in range(len(sizes) // workers + 1)
        ]
        assert [sizes[k] for k in jobs] == [ordered[place] for place in places if place < len(sizes)]


def test_nine_tiles_for_four_workers() -> None:
    """An example of Algorithm 1 that was worked out by hand."""
    sizes = [10, 90, 30, 70, 50, 60, 40, 80, 20]
    assignment = back_and_forth(sizes, 4)
    assert [[sizes[k] for k in jobs] for jobs in assignment] == [[90, 20, 10], [80, 30], [70, 40], [60, 50]]
    assert imbalance(sizes, assignment) == 120 * 4 / 450 - 1


@given(sizes_of_jobs, counts_of_workers)
def test_back_and_forth_loads_differ_by_at_most_the_largest_job(sizes: Sizes, workers: int) -> None:
    found = loads(sizes, back_and_forth(sizes, workers))
    assert max(found) - min(found) <= max(sizes, default=0)


@given(sizes_of_jobs, counts_of_workers)
def test_longest_first_gives_each_job_to_the_least_loaded_worker(sizes: Sizes, workers: int) -> None:
    assignment = longest_first(sizes, workers)
    order = sorted(range(len(sizes)), key=lambda k: -sizes[k])
    worker_of = {k: worker for worker, jobs in enumerate(assignment) for k in jobs}
    so_far = [0] * workers
    for k in order:
        assert so_far[worker_of[k]] == min(so_far)
        so_far[worker_of[k]] += sizes[k]
    assert max(so_far) <= sum(sizes) / workers + max(sizes, default=0)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=7), st.integers(1, 3))
def test_longest_first_is_within_a_third_of_the_best(sizes: Sizes, workers: int) -> None:
    """Graham's bound, 4/3 − 1/(3m), against every possible assignment."""
    best = min(
        max(sum(s for s, w in zip(sizes, places, strict=True) if w == worker) for worker in range(workers))
        for places in product(range(workers), repeat=len(sizes))
    )
    assert max(loads(sizes, longest_first(sizes, workers))) * 3 * workers <= best * (4 * workers - 1)


@given(sizes_of_jobs, counts_of_workers)
def test_imbalance_is_largest_if_one_worker_has_all_jobs(sizes: Sizes, workers: int) -> None:
    for rule in (back_and_forth, longest_first):
        found = imbalance(sizes, rule(sizes, workers))
        assert -1e-12 <= found <= workers - 1 + 1e-12
    everything = [list(range(len(sizes))), *([] for _ in range(workers - 1))]
    assert imbalance(sizes, everything) == (workers - 1 if sum(sizes) else 0)
    assert imbalance([5] * workers, longest_first([5] * workers, workers)) == 0


# ---- patches → jobs


def survey_of(patches: int, of_tiles: list[int] | None = None) -> Survey:
    """A survey of so many patches; `of_tiles`: the number in each tile."""
    table = pd.DataFrame({"name": [f"p{k}" for k in range(patches)], "split": np.uint8(1)})
    table["location"] = table["name"] + "/file"
    if of_tiles is not None:
        table["job"] = np.repeat(np.arange(len(of_tiles)), of_tiles)
    return Survey(Layout((), ("a",), "custom", True), table, None, OneByOne(lambda *_: PatchDetails()), {})


@given(st.data(), st.integers(1, 4), st.booleans())
def test_jobs_have_every_remaining_patch_once_and_in_order(data: st.DataObject, workers: int, tiled: bool) -> None:
    tiles = data.draw(st.lists(st.integers(1, 150), min_size=1, max_size=5))
    survey = survey_of(sum(tiles), tiles if tiled else None)
    left = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=sum(tiles), max_size=sum(tiles))))
    found = make_jobs(survey, left, workers)
    rows = [chunk.start + k for job in found for chunk in job.chunks for k in range(len(chunk.names))]
    assert rows == left.tolist()
    for job in found:
        assert len(job) == sum(len(chunk.names) for chunk in job.chunks) > 0
        for chunk in job.chunks:
            assert 0 < len(chunk.names) <= CHUNK
            assert chunk.locations == [f"{name}/file" for name in chunk.names]
            assert chunk.names == [f"p{chunk.start + k}" for k in range(len(chunk.names))]
        if tiled:
            assert (
                len({survey.table["job"][chunk.start + k] for chunk in job.chunks for k in range(len(chunk.names))})
                == 1
            )


# ---- the command


def test_plan_shows_both_rules_and_writes_nothing(v2: Path, tmp_path: Path, cli: Cli) -> None:
    words = ("prepare", "bigearthnet", v2, tmp_path / "s.h5", "--workers", 3, "--plan")
    shown = cli(*words, "--json")
    assert (shown.code, shown.lines) == (0, [])
    content = shown.json
    assert (content["patches"], content["jobs"], content["workers"]) == (12, 1, 3)
    assert list(content["plans"]) == ["Algorithm 1 of Sedona et al. 2019", "longest first (used)"]
    for found in content["plans"].values():
        assert found == {"imbalance": 2.0, "jobs": [1, 0, 0], "patches": [12, 0, 0]}
    text = cli(*words)
    assert text.code == 0
    assert "12 patches in 1 jobs for 3 workers" in text.out
    assert "Algorithm 1" in text.out
    assert "200.0%" in text.out
    assert list(tmp_path.iterdir()) == []
