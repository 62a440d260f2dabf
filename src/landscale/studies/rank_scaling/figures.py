"""What follows from a scaling study's trainings: a row for each kind and number of ranks. Pure functions of `scaling.json`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from landscale.studies.rank_scaling.cost_model import BACKWARD, Machine, exposed, measured_machine

BYTES = {"none": 4, "bf16": 2}  # of a gradient as it travels; PowerSGD's depend on the shapes of the layers

Figures = dict[str, Any]


def rows(content: Figures) -> list[Figures]:
    """The figures of weak and strong scaling, by kind and number of ranks.

    Efficiency is patches/s and rank, over that of the smallest number of ranks; so patches that fill no step, and are left
    out of an epoch, do not flatter larger batches.

    Returns:
        `kind`, `ranks`, `batch` (a rank), `global_batch`, `steps` of an epoch, `epochs` (how many were timed), `seconds` of
        one with `seconds_deviation`, `rate` (patches/s), `speedup`, `efficiency`, `predicted` (seconds, by the cost model),
        `micro_f1` and `macro_f1` with deviations. Deviations are there from two values on, figures where they are known.
    """
    found = []
    for kind in dict.fromkeys(t["kind"] for t in content["trainings"] if "epochs" in t and t["ranks"] > 1) or ["weak"]:
        ended = [t for t in content["trainings"] if "epochs" in t and (t["kind"] == kind or t["ranks"] == 1)]
        group = [
            _row(kind, [t for t in ended if t["ranks"] == k], content) for k in sorted({t["ranks"] for t in ended})
        ]
        for row in group:
            row["speedup"] = row["rate"] / group[0]["rate"]
            row["efficiency"] = row["speedup"] * group[0]["ranks"] / row["ranks"]
        _predict(group, content)
        found += group
    return found


def _row(kind: str, repeats: Sequence[Figures], content: Figures) -> Figures:
    """All repeats at one number of ranks."""
    first = repeats[0]
    timed = [epoch for training in repeats for epoch in training["epochs"] if epoch["counts"]]
    size = first["batch"] * first["ranks"] * content["settings"]["accumulate"]
    patches = min(size, content["settings"]["patches"])  # fewer than a step holds are a step of their own
    row = {"kind": kind, "ranks": first["ranks"], "batch": first["batch"], "global_batch": size}
    row |= {"steps": timed[0]["steps"], "epochs": len(timed)}
    row |= _spread("seconds", [epoch["seconds"] for epoch in timed])
    row["rate"] = sum(epoch["steps"] for epoch in timed) * patches / sum(epoch["seconds"] for epoch in timed)
    for score in ("micro_f1", "macro_f1"):
        row |= _spread(score, [training[score] for training in repeats if score in training])
    return row


def _spread(name: str, values: Sequence[float]) -> Figures:
    if not values:
        return {}
    deviation = {f"{name}_deviation": statistics.stdev(values)} if len(values) > 1 else {}
    return {name: statistics.fmean(values)} | deviation


def _predict(group: Sequence[Figures], content: Figures) -> None:
    """Add the cost model's epochs: it is told the first row's, and the all-reduce as it was measured."""
    settings = content["settings"]
    if settings["compress"] not in BYTES or not group:
        return
    size = float(settings["parameters"] * BYTES[settings["compress"]])
    machines = {known["ranks"]: known for known in content["all_reduce"]}
    first = group[0]
    if not all(row["ranks"] in machines for row in group):
        return
    overlap, step = overlap_of(content), first["seconds"] / first["steps"]
    a_patch = max(0.0, step - _exposed(size, machines[first["ranks"]], overlap * step)) / first["batch"]
    for row in group:
        compute = a_patch * row["batch"]
        row["predicted"] = row["steps"] * (compute + _exposed(size, machines[row["ranks"]], overlap * compute))


def overlap_of(content: Figures) -> float:
    """The share of computing that hides communication: on CPUs none, as the cores that compute also communicate."""
    on_gpu = all(known["device"] != "cpu" for known in content["all_reduce"])
    return BACKWARD / content["settings"]["accumulate"] if on_gpu else 0.0


def machine_of(known: Figures) -> Machine:
    """The links of a measured all-reduce among several ranks."""
    return measured_machine(known["small"], known["large"], known["bytes"], known["ranks"])


def _exposed(size: float, known: Figures, hiding: float) -> float:
    return exposed(size, known["ranks"], machine_of(known), hiding) if known["ranks"] > 1 else 0.0
