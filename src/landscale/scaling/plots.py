"""F1 against FLOPs and against parameters as one SVG, a curve an axis (Tan & Le 2019, figures 3 and 8).

The report's line charts share one scale of steps among all lines; here every point has a place of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 420, 280  # of one chart
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 30, 44
# Colours that the colour-blind tell apart (Okabe & Ito).
CURVES = {"depth": "#0072b2", "width": "#009e73", "resolution": "#e69f00", "compound": "#d55e00"}
SCORES = {"micro_f1": "micro F1", "macro_f1": "macro F1"}
COSTS = {"flops": ("GFLOPs", 1e9), "parameters": ("million parameters", 1e6)}


def plots(content: dict[str, Any]) -> str:
    """An SVG of 2×2 charts: micro and macro F1 by row, FLOPs and parameters by column, on logarithmic scales."""
    charts = []
    for row, (score, name) in enumerate(SCORES.items()):
        for column, (cost, (unit, scale)) in enumerate(COSTS.items()):
            curves = {axis: _curve(content, axis, cost, score, scale) for axis in CURVES}
            place = f"translate({column * WIDTH} {row * HEIGHT})"
            charts.append(f'<g transform="{place}">{_chart(name, unit, curves)}</g>')
    key = "".join(_key(k, axis) for k, axis in enumerate(CURVES))
    size = f"{2 * WIDTH} {2 * HEIGHT + 30}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="12">'
        f"<title>{escape(content['base'])}: compound scaling</title>"
        f'<rect width="100%" height="100%" fill="white"/>{"".join(charts)}{key}</svg>\n'
    )


def _curve(content: dict[str, Any], axis: str, cost: str, score: str, scale: float) -> list[Point]:
    """From the unscaled network on; of what could not be trained there is no point."""
    rows = [content["unscaled"], *(row for row in content["sizes"] if row["axis"] == axis)]
    return sorted({(row[cost] / scale, row[score]) for row in rows if score in row})


def _chart(name: str, unit: str, curves: dict[str, list[Point]]) -> str:
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    xs, ys = [math.log(x) for x, _ in points], [y for _, y in points]
    left, right = min(xs) - 0.05, max(xs) + 0.05
    step = _step(max(ys) - min(ys))
    low, high = math.floor(min(ys) / step) * step, math.ceil(max(ys) / step + 1e-9) * step

    def across(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (math.log(x) - left) / (right - left), 1)

    def down(y: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low), 1)

    parts = [f'<text x="{LEFT}" y="{TOP - 10}" font-weight="bold">{name}</text>']
    for k in range(round((high - low) / step) + 1):
        y = down(low + k * step)
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{low + k * step:.4g}</text>')
    for tick in _ticks(math.exp(left), math.exp(right)):
        x = across(tick)
        parts.append(f'<path d="M{x} {HEIGHT - BOTTOM}v5" stroke="#666"/>')
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 10}" text-anchor="end">{unit}</text>')
    for axis, curve in curves.items():
        places = [(across(x), down(y)) for x, y in curve]
        line = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{CURVES[axis]}" stroke-width="{_thick(axis)}"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{CURVES[axis]}"/>' for x, y in places]
    return "".join(parts)


def _key(k: int, axis: str) -> str:
    x, y = LEFT + 130 * k, 2 * HEIGHT + 12
    line = f'<path d="M{x} {y}h22" stroke="{CURVES[axis]}" stroke-width="{_thick(axis)}"/>'
    return f'{line}<text x="{x + 28}" y="{y + 4}">{axis}</text>'


def _thick(axis: str) -> float:
    return 3 if axis == "compound" else 1.5


def _step(span: float) -> float:
    """A round step that gives a chart of this height three to six lines."""
    power = 10.0 ** math.floor(math.log10(max(span, 1e-3) / 4))
    return next(m * power for m in (1, 2, 5, 10) if m * power * 4 >= max(span, 1e-3) * (1 - 1e-9))


def _ticks(low: float, high: float) -> Sequence[float]:
    """1, 2 and 5 times powers of ten within low … high, or where there are too few of them, every round number."""
    powers = [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    coarse = [m * p for p in powers for m in (1, 2, 5) if low <= m * p <= high]
    return coarse if len(coarse) > 1 else [m * p for p in powers for m in range(1, 10) if low <= m * p <= high]
