"""Epoch time, efficiency and F1 against the number of ranks as one SVG (as Sedona et al. 2019, figures 3 to 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from landscale.report.curves import BLUE, GREY, RED, Curve, Point, chart, figure

COLOURS = {"weak": BLUE, "strong": RED}
SCORES = {"micro_f1": "micro F1 at 0.5, val", "macro_f1": "macro F1 at 0.5, val"}
UNIT = "ranks"

Rows = Sequence[dict[str, Any]]


def plots(content: dict[str, Any]) -> str:
    """An SVG of 2×2 charts, on a logarithmic scale of ranks; bars are standard deviations."""
    rows: Rows = content["rows"]
    ranks = sorted({row["ranks"] for row in rows})
    kinds = list(dict.fromkeys(row["kind"] for row in rows))

    def curves(key: str) -> list[Curve]:
        return [_curve(kind, [row for row in rows if row["kind"] == kind and key in row], key) for kind in kinds]

    ideal_times = [_ideal([(k, rows[0]["seconds"] * rows[0]["ranks"] / k) for k in ranks])] if rows else []
    ideal = _ideal([(k, 1.0) for k in ranks])
    charts = [
        [
            chart("seconds an epoch", UNIT, [*ideal_times, *curves("seconds")], at=ranks, log=True),
            chart("efficiency", UNIT, [ideal, *curves("efficiency")], at=ranks),
        ],
        [chart(name, UNIT, curves(score), at=ranks) for score, name in SCORES.items()],
    ]
    key = {f"{kind} scaling": Curve([], COLOURS[kind]) for kind in kinds} | {"ideal": _ideal([])}
    return figure(f"{content['settings']['model']}: training over ranks", charts, key)


def _ideal(points: Sequence[Point]) -> Curve:
    return Curve(points, GREY, dashed=True)


def _curve(kind: str, rows: Rows, key: str) -> Curve:
    points = [(row["ranks"], row[key]) for row in rows]
    return Curve(points, COLOURS[kind], spread=[row.get(f"{key}_deviation", 0.0) for row in rows])
