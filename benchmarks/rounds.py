"""Measuring as ratios: the contenders take turns, the medians of the rounds are compared, the machine is recorded."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from landscale.training.runs import environment


def interleaved(
    contenders: dict[str, Callable[[], int]], rounds: int = 5, before: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Items a second of each contender: the median of `rounds`, in which they take turns, after one uncounted round.

    A contender does its work and returns the number of items; `before` clears away what the one before it has left.
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
    """Print the results and keep them, with the machine, in `benchmarks/results`."""
    content = {"benchmark": name, **results, "environment": environment()}
    text = json.dumps(content, indent=1)
    print(text)
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(text + "\n")
