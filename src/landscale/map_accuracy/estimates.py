"""Accuracy of a map and areas of its classes from a stratified sample of reference points.

Olofsson et al. 2014, Good practices for estimating area and assessing accuracy of land change, Remote Sensing of Environment 148,
42–57. The strata are the classes of the map. Equations: (1)–(3) accuracies, (4) estimated proportions of area, (5)–(7) variances
of the accuracies, (9)–(11) areas and their standard errors. Intervals are ± 1.96 standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from landscale.errors import BadInput, LandscaleError
from landscale.runtime.documents import read_json, typed

Z = 1.96  # half width of a 95 % interval, in standard errors


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error, which is NaN if a stratum has a single point; `low` and `high` bound the 95 % interval."""

    value: float
    error: float

    @property
    def low(self) -> float:
        return self.value - Z * self.error

    @property
    def high(self) -> float:
        return self.value + Z * self.error


@dataclass(frozen=True)
class ClassEstimates:
    """One class. users, producers: accuracy in 0…1. area: in hectares; mapped: hectares of the map. points: in its stratum."""

    name: str
    users: Estimate
    producers: Estimate
    area: Estimate
    mapped: float
    points: int


@dataclass(frozen=True)
class SampleEstimates:
    """overall: accuracy in 0…1. counts: points by class of the map (rows) and of the reference (columns)."""

    overall: Estimate
    classes: tuple[ClassEstimates, ...]
    counts: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; each estimate has `value`, `error`, `low` and `high`, None in place of NaN."""
        content = asdict(self)
        content["overall"] = _plain(self.overall)
        for row, one in zip(content["classes"], self.classes, strict=True):
            row |= {key: _plain(getattr(one, key)) for key in ("users", "producers", "area")}
        return content


def _plain(estimate: Estimate) -> dict[str, float | None]:
    values = {"value": estimate.value, "error": estimate.error, "low": estimate.low, "high": estimate.high}
    return {key: None if math.isnan(value) else value for key, value in values.items()}


def estimate(counts: NDArray[np.integer], areas: NDArray[np.floating], names: Sequence[str]) -> SampleEstimates:
    """Estimates from an error matrix.

    Args:
        counts: (C, C) points by class of the map (rows, the strata) and of the reference (columns).
        areas: (C,) mapped area of each class, in hectares.
        names: of the classes.

    Raises:
        LandscaleError: a class that has an area in the map has no point.
    """
    n, points = np.asarray(counts, np.float64), np.asarray(counts).sum(1)
    for name, area, found in zip(names, areas.tolist(), points.tolist(), strict=True):
        if area > 0 and not found:
            raise LandscaleError(
                f"no reference point lies in the class '{name}', which has {area:,.1f} ha of the map; add points there"
                " (`landscale sample` draws some in every class)"
            )
    total = float(areas.sum())
    weights = areas / total
    shares = np.divide(n, points[:, None], out=np.zeros_like(n), where=points[:, None] > 0)  # n_ij / n_i
    proportions = weights[:, None] * shares  # (4)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(points[:, None] > 1, shares * (1 - shares) / (points[:, None] - 1), np.nan)
    spread[(areas == 0) & (points < 2)] = 0  # a class that is not mapped has no weight
    right, reference = np.diag(proportions), proportions.sum(0)
    users = np.diag(shares)
    overall = Estimate(float(right.sum()), math.sqrt(float(np.sum(weights**2 * np.diag(spread)))))  # (1), (5)
    area_errors = np.sqrt(np.sum(weights[:, None] ** 2 * spread, axis=0)) * total  # (10), (11)
    found = []
    for j, name in enumerate(names):
        others = np.arange(len(names)) != j
        producers, error = math.nan, math.nan
        if reference[j] > 0:
            producers = right[j] / reference[j]
            own = weights[j] ** 2 * (1 - producers) ** 2 * spread[j, j]
            rest = producers**2 * np.sum(weights[others] ** 2 * spread[others, j])
            error = math.sqrt(float(own + rest)) / reference[j]  # (7)
        found.append(
            ClassEstimates(
                name=name,
                users=Estimate(float(users[j]), math.sqrt(float(spread[j, j])))
                if points[j]
                else Estimate(math.nan, math.nan),
                producers=Estimate(float(producers), error),
                area=Estimate(float(reference[j]) * total, float(area_errors[j])),
                mapped=float(areas[j]),
                points=int(points[j]),
            )
        )
    return SampleEstimates(overall, tuple(found), tuple(tuple(row) for row in np.asarray(counts, int).tolist()))


class _Stored(msgspec.Struct):
    """The part of `SampleEstimates.to_json` from which the rest is computed again."""

    class Row(msgspec.Struct):
        name: Annotated[str, Meta(min_length=1, max_length=20_000)]
        mapped: Annotated[float, Meta(ge=0, le=1e12)]

    counts: list[list[Annotated[int, Meta(ge=0, le=10**9)]]]
    classes: Annotated[list[Row], Meta(min_length=1, max_length=255)]


def read_estimates(path: Path) -> SampleEstimates:
    """Read what `to_json` returned, from a file.

    Raises:
        BadInput: the file is missing, damaged, or holds something else.
    """
    stored = typed(
        path, read_json(path), _Stored, "the accuracy of a map, which `landscale evaluate MAP POINTS --out FILE` writes"
    )
    counts, names = stored.counts, [row.name for row in stored.classes]
    if len(counts) != len(names) or any(len(row) != len(names) for row in counts):
        raise BadInput(path, f"counts: expected {len(names)} × {len(names)} numbers")
    if not any(row.mapped for row in stored.classes):
        raise BadInput(path, "no class has an area, expected the accuracy of a map")
    return estimate(np.array(counts), np.array([row.mapped for row in stored.classes]), names)
