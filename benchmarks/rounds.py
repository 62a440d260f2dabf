"""Compare contenders, which take turns in several rounds, and record the results with a description of the machine."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from landscale.studies.results import date_and_load
from landscale.training.runs import environment

BEGUN = date_and_load()  # before the benchmark itself makes the machine busy


def interleaved(
    contenders: dict[str, Callable[[], int]], rounds: int = 5, before: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Items a second of each contender: the median over the rounds, after one round that is not counted.

    Args:
        contenders: functions that do some work and return the number of items; they take turns in every round.
        rounds: number of rounds that count.
        before: called before each contender, to restore the initial state.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            before()
            begun = time.perf_counter()
            items = work()
            rate = items / (time.perf_counter() - begun)
            if number:
                rates[name].append(rate)
            print(f"round {number}: {name:<34} {rate:12,.1f}/s", file=sys.stderr)
    return {name: statistics.median(values) for name, values in rates.items()}


def record(name: str, results: dict[str, Any]) -> None:
    """Print the results and write them to `benchmarks/results`, with the machine, its load before, the date, and all versions."""
    content = {"benchmark": name, **BEGUN, **results, "environment": environment()}
    text = json.dumps(content, indent=1)
    print(text)
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(text + "\n")
