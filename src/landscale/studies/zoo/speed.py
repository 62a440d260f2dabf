"""The speed of networks on one machine, measured in rounds. Every measurement has its own process and is written at once.

The speed of a machine drifts, and other programs slow it down. So every network is measured once in each round, the order is
turned from round to round, and a reference computation beside each measurement shows how fast the machine was at that time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from landscale.errors import reason
from landscale.models.registry import PATCH_SIDE, describe_model, zoo
from landscale.runtime.documents import write_json
from landscale.runtime.progress import console, progress_bar
from landscale.runtime.signals import Stopped, deferred_signals
from landscale.runtime.workers import interrupts_left_to_parent, start_fork_server
from landscale.studies.results import Results, needs_row, open_results, put_row, rows_with_values
from landscale.studies.zoo.measure import (
    OUT_OF_MEMORY,
    SpeedMeasurement,
    end_first,
    measure_speed_if_memory_suffices,
)
from landscale.studies.zoo.summary import LARGE, SMALL, busy_rows

REPEATS = 2  # how often a measurement on a busy machine is repeated


def measure_zoo(
    names: Sequence[str],
    out: Path,
    job: Results,
    rounds: int,
    seconds_left: float = float("inf"),
) -> Results:
    """Do the measurements that are not in `out` yet, round by round, then repeat those during which the machine was busy.

    Args:
        job: the fields of `SpeedMeasurement` other than `name` and `side`.
        rounds: how often each network is measured.
        seconds_left: after this time no further measurement is begun.

    Returns:
        The content of `out`. `models`: rows of `name`, `family`, `side`, `parameters` and `flops` (see `describe_model`), or
        the reason why the network `failed`. `measurements`: rows of `name`, `side`, `round`, `repeats` and the values of
        `measure_speed`, or `failed`. If both networks of the main claim of Papoutsis et al. 2022 are in `names`, the smaller
        one is also measured at the side of the larger one.

    Raises:
        BadInput: `out` contains results of other settings or of another machine.
        UnknownName: there is no such network.
        Stopped: a signal came; what was being measured is in `out`.
    """
    begun = time.monotonic()
    until = begun + seconds_left
    networks = [zoo(name)[0] for name in dict.fromkeys(names)]
    sizes = [{"name": entry.name, "family": entry.family, "side": entry.side} for entry in networks]
    if {SMALL, LARGE} <= {entry.name for entry in networks}:
        sizes.append({"name": SMALL, "family": zoo(SMALL)[0].family, "side": PATCH_SIDE})
    content = open_results(out, "zoo", job | {"bands": list(job["bands"])}, ("models", "measurements"))
    if _describe(sizes, content):
        write_json(out, content)
    keys = [key for number in range(rounds) for key in _round_of(sizes, number, content)]
    tried: list[Results] = []
    bar = progress_bar("zoo", len(keys), "measurements", visible=console.is_terminal)
    with deferred_signals(alone=True) as caught, bar as advance:
        while time.monotonic() < until and (key := _next_key(keys, content["measurements"], tried)):
            tried.append(key)
            measured = measure_in_process(SpeedMeasurement(key["name"], key["side"], **job))
            _put_measurement(content["measurements"], key, measured)
            write_json(out, content)
            advance(1)
            if not console.is_terminal and len(tried) % len(sizes) == 0:  # about a round
                took = time.monotonic() - begun
                console.print(f"zoo: {len(tried):,} of {len(keys):,} measurements, without repeats, in {took:.0f} s")
            if caught():
                done = len(content["measurements"])
                raise Stopped(f"stopped after {done} measurements; run the same command again to resume", caught())
    return content


def _describe(sizes: list[Results], content: Results) -> int:
    """Count the parameters and FLOPs of networks that are not in `content`; returns the number of these networks."""
    s = content["settings"]
    new = [key for key in sizes if needs_row(content["models"], key)]
    for key in new:
        try:
            counts = describe_model(key["name"], len(s["bands"]), s["classes"], key["side"])
        except Exception as error:  # the other networks are measured nevertheless
            put_row(content["models"], key, {"failed": reason(error)})
        else:
            put_row(content["models"], key, {name: counts[name] for name in ("parameters", "flops")})
    return len(new)


def missing_measurements(content: Results, rounds: int) -> int:
    """How many measurements of `rounds` rounds are not in `content`, for example because time was short."""
    models, rows = rows_with_values(content["models"]), content["measurements"]
    keys = [{"name": m["name"], "side": m["side"], "round": number} for m in models for number in range(rounds)]
    return sum(needs_row(rows, key, final=(OUT_OF_MEMORY,)) for key in keys)


def _round_of(sizes: list[Results], number: int, content: Results) -> list[Results]:
    """The keys of the measurements of a round; every second round has the reverse order."""
    described = [key for key in sizes if not needs_row(content["models"], key)]
    keys = [{"name": key["name"], "side": key["side"], "round": number} for key in described]
    return keys if number % 2 == 0 else keys[::-1]


def _next_key(keys: list[Results], rows: list[Results], tried: list[Results]) -> Results | None:
    """The first measurement that is missing, or else one during which the machine was busy; None if there is neither."""
    for key in keys:
        if key not in tried and needs_row(rows, key, final=(OUT_OF_MEMORY,)):
            return key
    busy = [row for row in busy_rows(rows) if row["repeats"] < REPEATS]
    again = [{name: row[name] for name in keys[0]} for row in sorted(busy, key=lambda row: row["repeats"])]
    return next((key for key in again if key in keys), None)


def _put_measurement(rows: list[Results], key: Results, measured: Results) -> None:
    """Keep a measurement; of one and its repetition the one during which the machine was faster."""
    before = next((row for row in rows_with_values(rows) if key.items() <= row.items()), None)
    if before is None:
        put_row(rows, key, {"repeats": 0} | measured)
    else:
        better = measured if measured.get("reference", 0.0) > before["reference"] else before
        put_row(rows, key, better | {"repeats": before["repeats"] + 1})


def measure_in_process(job: SpeedMeasurement) -> Results:
    """Run `measure_speed` in a new process, which ignores Ctrl-C. Returns its values, or the reason why it `failed`."""
    context = start_fork_server(["landscale.studies.zoo.measure"])
    with ProcessPoolExecutor(1, context, end_first) as pool:
        try:
            with interrupts_left_to_parent():
                measured = pool.submit(measure_speed_if_memory_suffices, job)
            return measured.result()
        except BrokenProcessPool:
            return {"failed": "its process was killed, which the system does when memory runs out"}
        except Exception as error:  # the other networks are measured nevertheless
            return {"failed": reason(error)}
