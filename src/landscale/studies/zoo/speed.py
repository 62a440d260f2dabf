"""The speed of networks on one machine. Each is measured in its own process, and its results are written at once."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from landscale.models.registry import PATCH_SIDE, zoo
from landscale.runtime.documents import write_json
from landscale.runtime.progress import progress_bar
from landscale.runtime.signals import Stopped, deferred_signals
from landscale.studies.results import Results, needs_row, open_results, put_row, rows_with_values
from landscale.studies.zoo.measure import OUT_OF_MEMORY, SpeedMeasurement

SMALL, LARGE = "wide_resnet_eca_b4", "resnet50"  # the networks of the main claim of Papoutsis et al. 2022
ROUNDS = 3  # in which these two take turns, because the speed of a machine drifts over minutes


def measure_zoo(
    names: Sequence[str], out: Path, device: str, batch: int, seconds: float, bands: tuple[str, ...], classes: int
) -> Results:
    """Measure the networks that are not in `out` yet, one after the other.

    Returns:
        The content of `out`. `models`: rows of `name`, `family`, `side` and the values of `measure_speed`, or the reason why the
        network `failed`. `comparison`: the same for the two networks of the main claim of Papoutsis et al. 2022, each at
        its own side and both at the same side, in rounds; empty unless both are in `names`.

    Raises:
        BadInput: `out` contains results of other settings or of another machine.
        UnknownName: there is no such network.
        Stopped: a signal came; the network that was being measured is in `out`.
    """
    entries = [zoo(name)[0] for name in dict.fromkeys(names)]
    settings = {"device": device, "batch": batch, "seconds": seconds, "bands": list(bands), "classes": classes}
    content = open_results(out, "zoo", settings, ("models", "comparison"))

    def job(name: str, side: int) -> SpeedMeasurement:
        return SpeedMeasurement(name, side, device, batch, seconds, bands, classes)

    jobs: list[tuple[str, Results]]
    jobs = [("models", {"name": e.name, "family": e.family, "side": e.side}) for e in entries]
    if {SMALL, LARGE} <= {entry.name for entry in entries}:
        sides = [(SMALL, zoo(SMALL)[0].side), (SMALL, PATCH_SIDE), (LARGE, PATCH_SIDE)]
        rounds = [(k, name, side) for k in range(ROUNDS) for name, side in sides]
        jobs += [("comparison", {"name": name, "side": side, "round": k}) for k, name, side in rounds]
    with deferred_signals(alone=True) as caught, progress_bar("zoo", len(jobs), "networks") as advance:
        for part, row in jobs:
            rows: list[Results] = content[part]
            if needs_row(rows, row, final=(OUT_OF_MEMORY,)):
                put_row(rows, row, measure_in_process(job(row["name"], row["side"])))
                write_json(out, content)
            advance(1)
            if caught():
                raise Stopped(
                    f"stopped after {len(content['models'])} networks; run the same command again to resume", caught()
                )
    return content


def measure_in_process(job: SpeedMeasurement) -> Results:
    """Run `measure_speed` in a new process. Returns its values, or the reason why it `failed`.

    The process has its own session, so that Ctrl-C does not interrupt the measurement.
    """
    command = [sys.executable, "-m", "landscale.studies.zoo.measure"]
    done = subprocess.run(
        command, input=json.dumps(asdict(job)), capture_output=True, text=True, start_new_session=True, check=False
    )
    if done.returncode == 0:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    if done.returncode == -signal.SIGKILL:
        return {"failed": "killed by SIGKILL, which the system sends when memory runs out"}
    lines = done.stderr.strip().splitlines()
    return {"failed": lines[-1] if lines else f"exit code {done.returncode}"}


def comparison_sentences(content: Results) -> list[str]:
    """The main claim of Papoutsis et al. 2022 compared with the measured ratios; empty if they were not measured."""
    rows = rows_with_values(content["comparison"])
    sides = sorted({row["side"] for row in rows if row["name"] == SMALL})
    small = {side: [row for row in rows if (row["name"], row["side"]) == (SMALL, side)] for side in sides}
    large = [row for row in rows if row["name"] == LARGE]
    if not large or not sides:
        return []
    a, b = small[sides[0]][0], large[0]
    lines = [
        f"{SMALL} against {LARGE}: {a['parameters']:,} parameters to {b['parameters']:,},"
        f" {b['parameters'] / a['parameters']:.1f} times fewer."
        " Papoutsis et al. 2022: an order of magnitude fewer, trained twice as fast."
    ]
    for side, group in small.items():
        sides_text = f"both at {side} px" if side == b["side"] else f"each at its own side ({side} and {b['side']} px)"
        train, infer, memory = (
            _median(group, key) / _median(large, key) for key in ("training", "inference", "peak_memory")
        )
        lines.append(
            f"{sides_text[0].upper()}{sides_text[1:]}: {group[0]['flops'] / b['flops']:.2f} of the FLOPs; trains {train:.2f}"
            f" times as fast, infers {infer:.2f} times as fast, with {memory:.2f} of the memory"
            f" ({len(group)} rounds in turns, batches of {content['settings']['batch']})."
        )
    return lines


def _median(rows: list[Results], key: str) -> float:
    return statistics.median(row[key] or float("nan") for row in rows)
