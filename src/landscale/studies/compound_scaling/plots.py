"""F1 against FLOPs and against parameters as one SVG, a curve an axis (Tan & Le 2019, figures 3 and 8)."""

from __future__ import annotations

from typing import Any

from landscale.report.curves import BLUE, GREEN, ORANGE, RED, Curve, Point, chart, figure

CURVES = {"depth": BLUE, "width": GREEN, "resolution": ORANGE, "compound": RED}
SCORES = {"micro_f1": "micro F1", "macro_f1": "macro F1"}
COSTS = {"flops": ("GFLOPs", 1e9), "parameters": ("million parameters", 1e6)}


def plots(content: dict[str, Any]) -> str:
    """An SVG of 2×2 charts: micro and macro F1 by row, FLOPs and parameters by column, on logarithmic scales."""
    charts = [
        [
            chart(name, unit, [_curve(axis, _points(content, axis, cost, score, scale)) for axis in CURVES])
            for cost, (unit, scale) in COSTS.items()
        ]
        for score, name in SCORES.items()
    ]
    return figure(f"{content['base']}: compound scaling", charts, {axis: _curve(axis, []) for axis in CURVES})


def _points(content: dict[str, Any], axis: str, cost: str, score: str, scale: float) -> list[Point]:
    """From the unscaled network on; of what could not be trained there is no point."""
    rows = [content["unscaled"], *(row for row in content["sizes"] if row["axis"] == axis)]
    return sorted({(row[cost] / scale, row[score]) for row in rows if score in row})


def _curve(axis: str, points: list[Point]) -> Curve:
    return Curve(points, CURVES[axis], 3 if axis == "compound" else 1.5)
