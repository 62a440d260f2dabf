"""Every network of the zoo on one machine: a process each, its figures written as soon as they are there."""

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
from landscale.studies.results import Figures, begin, missing, put
from landscale.studies.zoo.measure import OUT_OF_MEMORY, Job

SMALL, LARGE = "wide_resnet_eca_b4", "resnet50"  # whose comparison is paper 2's main claim
ROUNDS = 3  # in which these take turns, as a machine's speed drifts over minutes


def measure_zoo(
    names: Sequence[str], out: Path, device: str, batch: int, seconds: float, bands: tuple[str, ...], classes: int
) -> Figures:
    """Measure what is not in `out` yet, one network after the other. Returns all that `out` holds then.

    `models` are rows of `name`, `family`, `side` and what `measure` says, or why it `failed`; `comparison` the same for
    the networks of paper 2's main claim, at their own sides and at one, in rounds; it is there when both are in `names`.

    Raises:
        BadInput: `out` holds figures of other settings or of another machine. UnknownName: no such network.
        Stopped: by a signal, after the network that was being measured.
    """
    entries = [zoo(name)[0] for name in dict.fromkeys(names)]
    settings = {"device": device, "batch": batch, "seconds": seconds, "bands": list(bands), "classes": classes}
    content = begin(out, "zoo", settings, ("models", "comparison"))

    def job(name: str, side: int) -> Job:
        return Job(name, side, device, batch, seconds, bands, classes)

    jobs: list[tuple[str, Figures]]
    jobs = [("models", {"name": e.name, "family": e.family, "side": e.side}) for e in entries]
    if {SMALL, LARGE} <= {entry.name for entry in entries}:
        sides = [(SMALL, zoo(SMALL)[0].side), (SMALL, PATCH_SIDE), (LARGE, PATCH_SIDE)]
        rounds = [(k, name, side) for k in range(ROUNDS) for name, side in sides]
        jobs += [("comparison", {"name": name, "side": side, "round": k}) for k, name, side in rounds]
    with deferred_signals(alone=True) as caught, progress_bar("zoo", len(jobs), "networks") as advance:
        for part, row in jobs:
            rows: list[Figures] = content[part]
            if missing(rows, row, final=(OUT_OF_MEMORY,)):
                put(rows, row, in_a_process(job(row["name"], row["side"])))
                write_json(out, content)
            advance(1)
            if caught():
                raise Stopped(f"stopped after {len(content['models'])} networks; the same command goes on", caught())
    return content


def in_a_process(job: Job) -> Figures:
    """What `measure` says of a job, or why it `failed`. In a session of its own: Ctrl-C waits for it."""
    command = [sys.executable, "-m", "landscale.studies.zoo.measure"]
    done = subprocess.run(
        command, input=json.dumps(asdict(job)), capture_output=True, text=True, start_new_session=True, check=False
    )
    if done.returncode == 0:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    if done.returncode == -signal.SIGKILL:
        return {"failed": "killed, as the system does when memory runs out"}
    lines = done.stderr.strip().splitlines()
    return {"failed": lines[-1] if lines else f"exit code {done.returncode}"}


def measured(content: Figures) -> list[Figures]:
    """The rows with figures."""
    return [row for row in content["models"] if "failed" not in row]


def verdict(content: Figures) -> list[str]:
    """Paper 2's claim beside our ratios, a sentence a line; nothing where it was not measured."""
    rows = [row for row in content["comparison"] if "failed" not in row]
    sides = sorted({row["side"] for row in rows if row["name"] == SMALL})
    ours = {side: [row for row in rows if (row["name"], row["side"]) == (SMALL, side)] for side in sides}
    theirs = [row for row in rows if row["name"] == LARGE]
    if not theirs or not sides:
        return []
    a, b = ours[sides[0]][0], theirs[0]
    lines = [
        f"{SMALL} against {LARGE}: {a['parameters']:,} parameters to {b['parameters']:,},"
        f" {b['parameters'] / a['parameters']:.1f} times fewer."
        " Papoutsis et al. 2022: an order of magnitude fewer, trained twice as fast."
    ]
    for side, group in ours.items():
        where = f"both at {side} px" if side == b["side"] else f"each at its own side ({side} and {b['side']} px)"
        train, infer, memory = (
            _median(group, key) / _median(theirs, key) for key in ("training", "inference", "peak_memory")
        )
        lines.append(
            f"{where[0].upper()}{where[1:]}: {group[0]['flops'] / b['flops']:.2f} of the FLOPs; trains {train:.2f}"
            f" times as fast, infers {infer:.2f} times as fast, with {memory:.2f} of the memory"
            f" ({len(group)} rounds in turns, batches of {content['settings']['batch']})."
        )
    return lines


def _median(rows: list[Figures], key: str) -> float:
    return statistics.median(row[key] or float("nan") for row in rows)
