"""The measurements of each network over all rounds: medians with their spread, without those on a busy machine."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from landscale.models.registry import PATCH_SIDE
from landscale.studies.results import Results, rows_with_values

SMALL, LARGE = "wide_resnet_eca_b4", "resnet50"  # the networks of the main claim of Papoutsis et al. 2022
QUIET_SHARE = 0.85  # of the highest reference rate; below it, other programs were computing during a measurement


@dataclass(frozen=True)
class Spread:
    """The median of a figure, and the lowest and highest of its values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def show(self, form: str) -> str:
        """The median with the range in parentheses; every number is written in the format `form`."""
        if self.low == self.high:
            return format(self.median, form)
        return f"{self.median:{form}} ({self.low:{form}}–{self.high:{form}})"


@dataclass(frozen=True)
class Speed:
    """A network's speed over all rounds.

    Args:
        training, inference: images/s.
        memory: peak in bytes, or None if the system does not provide it.
        share: FLOPs/s of training, as three forward passes, over those of large matrix products.
        rounds: number of measurements that count.
        busy: the machine was busy during all measurements. Otherwise those on a busy machine do not count.
    """

    training: Spread
    inference: Spread
    memory: int | None
    share: float
    rounds: int
    busy: bool


def machine_rate(rows: list[Results]) -> float:
    """The highest reference rate, in FLOPs/s; 0 if nothing was measured."""
    return max((row["reference"] for row in rows_with_values(rows)), default=0.0)


def busy_rows(rows: list[Results]) -> list[Results]:
    """The measurements during which the reference rate was below `QUIET_SHARE` of the highest one."""
    least = QUIET_SHARE * machine_rate(rows)
    return [row for row in rows_with_values(rows) if row["reference"] < least]


def speed_of(content: Results, model: Results) -> Speed | str | None:
    """The speed of the network and side in the row `model`, the reason why it failed, or None if it was not measured."""
    if "failed" in model:
        return str(model["failed"])
    rows = [row for row in content["measurements"] if (row["name"], row["side"]) == (model["name"], model["side"])]
    measured = rows_with_values(rows)
    if not measured:
        return str(rows[0]["failed"]) if rows else None
    busy = busy_rows(content["measurements"])
    counting = [row for row in measured if row not in busy] or measured
    training = Spread.of([row["training"] for row in counting])
    memories = [row["peak_memory"] for row in counting if row["peak_memory"] is not None]
    return Speed(
        training=training,
        inference=Spread.of([row["inference"] for row in counting]),
        memory=max(memories, default=None),
        share=3 * model["flops"] * training.median / machine_rate(content["measurements"]),
        rounds=len(counting),
        busy=counting[0] in busy,
    )


def comparison_sentences(content: Results) -> list[str]:
    """The main claim of Papoutsis et al. 2022 compared with the measured ratios; empty if they were not measured."""
    large, models = _model(content, LARGE, PATCH_SIDE), rows_with_values(content["models"])
    small = sorted((model for model in models if model["name"] == SMALL), key=lambda model: int(model["side"]))
    if large is None or not small:
        return []
    b = small[0]["parameters"], large["parameters"]
    claim = (
        f"{SMALL} against {LARGE}: {b[0]:,} parameters to {b[1]:,}, {b[1] / b[0]:.1f} times fewer."
        " Papoutsis et al. 2022: an order of magnitude fewer, trained twice as fast."
    )
    lines = [line for model in small if (line := _comparison(content, model, large))]
    return [claim, *lines] if lines else []


def _comparison(content: Results, small: Results, large: Results) -> str:
    """The ratios of the rounds in which the machine was busy in neither measurement, or of all rounds; '' without any."""
    measured, busy = rows_with_values(content["measurements"]), busy_rows(content["measurements"])
    rounds = {
        key: {row["round"]: row for row in measured if (row["name"], row["side"]) == (key, side)}
        for key, side in ((SMALL, small["side"]), (LARGE, large["side"]))
    }
    pairs = [(row, rounds[LARGE][number]) for number, row in rounds[SMALL].items() if number in rounds[LARGE]]
    pairs = [pair for pair in pairs if pair[0] not in busy and pair[1] not in busy] or pairs
    if not pairs:
        return ""
    same = small["side"] == large["side"]
    where = f"Both at {large['side']} px" if same else f"Each at its own side ({small['side']} and {large['side']} px)"
    train, infer = (Spread.of([a[key] / b[key] for a, b in pairs]).show(".2f") for key in ("training", "inference"))
    memories = [a["peak_memory"] / b["peak_memory"] for a, b in pairs if a["peak_memory"] and b["peak_memory"]]
    memory = f", with {statistics.median(memories):.2f} of the memory" if memories else ""
    return (
        f"{where}: {small['flops'] / large['flops']:.2f} of the FLOPs; trains {train} times as fast, infers {infer}"
        f" times as fast{memory} (medians and ranges of {len(pairs)} rounds, batches of {content['settings']['batch']})."
    )


def _model(content: Results, name: str, side: int) -> Results | None:
    models = rows_with_values(content["models"])
    return next((model for model in models if (model["name"], model["side"]) == (name, side)), None)
