"""Efficiency and speed-up are relative to the smallest number of ranks of the study, whichever that is."""

from __future__ import annotations

from typing import Any

import pytest

from landscale.studies.rank_scaling.rows import rank_scaling_rows


def training(ranks: int, seconds: float) -> dict[str, Any]:
    """A training with epochs of ten steps of ten patches per rank."""
    return {"kind": "weak", "ranks": ranks, "batch": 10, "epochs": [{"steps": 10, "seconds": seconds, "counts": True}]}


@pytest.mark.parametrize(
    ("seconds", "speedup", "efficiency"),
    [
        ({1: 10.0, 8: 16.0}, 5.0, 0.625),
        ({2: 10.0, 8: 16.0}, 2.5, 0.625),
        ({4: 10.0, 8: 16.0}, 1.25, 0.625),
    ],
)
def test_relative_to_the_smallest_number_of_ranks(seconds: dict[int, float], speedup: float, efficiency: float) -> None:
    settings = {"accumulate": 1, "patches": 10_000, "compress": "powersgd"}
    content = {
        "settings": settings,
        "trainings": [training(ranks, s) for ranks, s in seconds.items()],
        "all_reduce": [],
    }
    first, last = rank_scaling_rows(content)
    assert (first["speedup"], first["efficiency"]) == (1, 1)
    assert last["ranks"] == 8
    assert last["rate"] == pytest.approx(50)
    assert last["speedup"] == pytest.approx(speedup)
    assert last["efficiency"] == pytest.approx(efficiency)
