"""The table rows of a rank-scaling study, one for each kind and number of ranks: pure functions of its results file."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from landscale.studies.rank_scaling.cost_model import BACKWARD_FRACTION, Cluster, exposed_seconds, measured_cluster

# Bytes per gradient as it is sent, by the recipe's `compress`. Those of PowerSGD depend on the shapes of the layers.
GRADIENT_BYTES = {"none": 4, "bf16": 2}

SCORES = ("micro_f1", "macro_f1", "test_micro_f1", "test_macro_f1")  # of val, and of test where the store has it

Figures = dict[str, Any]


def rank_scaling_rows(content: Figures) -> list[Figures]:
    """The rows of weak and strong scaling, by kind and number of ranks.

    Efficiency is patches/s per rank, divided by that of the smallest number of ranks. Patches that fill no step and are
    left out of an epoch are not counted, so that they do not favour larger batches.

    Returns:
        `kind`, `ranks`, `batch` (per rank), `global_batch`, `steps` (per epoch), `epochs` (number that was timed), `seconds`
        (per epoch), `rate` (patches/s), `speedup`, `efficiency`, `predicted` (seconds per epoch by the cost model),
        `training_seconds` (the steps of all epochs), `micro_f1` and `macro_f1` on val, `test_micro_f1` and `test_macro_f1`.
        Figures of several repeats are the mean over the trainings, as Sedona et al. 2019 report them, and have a
        `…_deviation`, the standard deviation over them (n − 1). Keys without a value are missing.
    """
    rows = []
    trained = [t for t in content["trainings"] if "epochs" in t]
    for kind in dict.fromkeys(t["kind"] for t in trained if t["ranks"] > 1) or ["weak"]:
        of_kind = [t for t in trained if t["kind"] == kind or t["ranks"] == 1]
        group = [
            _row(kind, [t for t in of_kind if t["ranks"] == ranks], content)
            for ranks in sorted({t["ranks"] for t in of_kind})
        ]
        for row in group:
            row["speedup"] = row["rate"] / group[0]["rate"]
            row["efficiency"] = row["speedup"] * group[0]["ranks"] / row["ranks"]
        _add_predictions(group, content)
        rows += group
    return rows


def _row(kind: str, repeats: Sequence[Figures], content: Figures) -> Figures:
    """One row from all repeats of a kind at one number of ranks."""
    first = repeats[0]
    timed = [epoch for training in repeats for epoch in training["epochs"] if epoch["counts"]]
    global_batch = first["batch"] * first["ranks"] * content["settings"]["accumulate"]
    patches = min(global_batch, content["settings"]["patches"])  # fewer patches than a step holds are one step
    row = {"kind": kind, "ranks": first["ranks"], "batch": first["batch"], "global_batch": global_batch}
    row |= {"steps": timed[0]["steps"], "epochs": len(timed)}
    row |= _mean_and_deviation("seconds", [_timed_mean(training) for training in repeats])
    totals = [sum(epoch["seconds"] for epoch in training["epochs"]) for training in repeats]
    row |= _mean_and_deviation("training_seconds", totals)
    row["rate"] = sum(epoch["steps"] for epoch in timed) * patches / sum(epoch["seconds"] for epoch in timed)
    for score in SCORES:
        row |= _mean_and_deviation(score, [training[score] for training in repeats if score in training])
    return row


def _timed_mean(training: Figures) -> float:
    """Seconds per epoch of one training."""
    return statistics.fmean(epoch["seconds"] for epoch in training["epochs"] if epoch["counts"])


def _mean_and_deviation(name: str, values: Sequence[float]) -> Figures:
    if not values:
        return {}
    deviation = {f"{name}_deviation": statistics.stdev(values)} if len(values) > 1 else {}
    return {name: statistics.fmean(values)} | deviation


def _add_predictions(group: Sequence[Figures], content: Figures) -> None:
    """Add `predicted`: computation from the first row, communication from the measured all-reduces."""
    settings = content["settings"]
    if settings["compress"] not in GRADIENT_BYTES or not group:
        return
    size = float(settings["parameters"] * GRADIENT_BYTES[settings["compress"]])
    measured = {all_reduce["ranks"]: all_reduce for all_reduce in content["all_reduce"]}
    first = group[0]
    if not all(row["ranks"] in measured for row in group):
        return
    overlap, step = overlap_fraction(content), first["seconds"] / first["steps"]
    wait = _exposed_seconds(size, measured[first["ranks"]], overlap * step)
    seconds_per_patch = max(0.0, step - wait) / first["batch"]
    for row in group:
        compute = seconds_per_patch * row["batch"]
        row["predicted"] = row["steps"] * (compute + _exposed_seconds(size, measured[row["ranks"]], overlap * compute))


def overlap_fraction(content: Figures) -> float:
    """The fraction of computation that hides communication: 0 on CPUs, as the cores that compute also communicate."""
    on_gpu = all(all_reduce["device"] != "cpu" for all_reduce in content["all_reduce"])
    return BACKWARD_FRACTION / content["settings"]["accumulate"] if on_gpu else 0.0


def cluster_of(all_reduce: Figures) -> Cluster:
    """The links that a measured all-reduce among several ranks implies."""
    return measured_cluster(all_reduce["small"], all_reduce["large"], all_reduce["bytes"], all_reduce["ranks"])


def _exposed_seconds(size: float, all_reduce: Figures, hiding: float) -> float:
    if all_reduce["ranks"] == 1:
        return 0.0
    return exposed_seconds(size, all_reduce["ranks"], cluster_of(all_reduce), hiding)
