"""Charts as SVG that stands alone: curves over a logarithmic axis, on which every point has a place of its own.

The report's line charts (`plots`) share one scale of steps among all lines instead, and take their colours from the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 420, 280  # of one chart
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 30, 44
BLUE, GREEN, ORANGE, RED = "#0072b2", "#009e73", "#e69f00", "#d55e00"  # the colour-blind tell them apart (Okabe & Ito)
GREY = "#888"


class Curve(NamedTuple):
    """Points from left to right, at all x > 0. `spread` is half the length of a bar at each point; a dashed curve has no dots."""

    points: Sequence[Point]
    colour: str
    thickness: float = 1.5
    spread: Sequence[float] = ()
    dashed: bool = False


def figure(title: str, charts: Sequence[Sequence[str]], key: Mapping[str, Curve]) -> str:
    """An SVG of rows of charts, below them a name for each kind of curve."""
    placed = [
        f'<g transform="translate({column * WIDTH} {row * HEIGHT})">{drawn}</g>'
        for row, line in enumerate(charts)
        for column, drawn in enumerate(line)
    ]
    bottom = len(charts) * HEIGHT
    names = "".join(_key(LEFT + 130 * k, bottom + 12, name, curve) for k, (name, curve) in enumerate(key.items()))
    size = f"{max(map(len, charts)) * WIDTH} {bottom + 30}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="12">'
        f"<title>{escape(title)}</title>"
        f'<rect width="100%" height="100%" fill="white"/>{"".join(placed)}{names}</svg>\n'
    )


def chart(name: str, unit: str, curves: Sequence[Curve], *, at: Sequence[float] = (), log: bool = False) -> str:
    """One chart; nothing where no curve has a point.

    Args:
        at: where the x axis has numbers; by default at 1, 2 and 5 times powers of ten.
        log: the y axis is logarithmic, too.
    """
    points = [point for curve in curves for point in curve.points]
    if not points:
        return ""
    left, right = (math.log(f(x for x, _ in points)) + d for f, d in ((min, -0.05), (max, 0.05)))
    ends = [y for curve in curves for k in range(len(curve.points)) for y in _bar(curve, k, log)]
    low, high, lines = _logarithmic(ends) if log else _linear(ends)

    def across(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (math.log(x) - left) / (right - left), 1)

    def down(y: float) -> float:
        share = math.log(y / low) / math.log(high / low) if log else (y - low) / (high - low)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 1)

    parts = [f'<text x="{LEFT}" y="{TOP - 10}" font-weight="bold">{escape(name)}</text>']
    for line in lines:
        y = down(line)
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{line:.4g}</text>')
    for tick in at or _ticks(math.exp(left), math.exp(right)):
        x = across(tick)
        parts.append(f'<path d="M{x} {HEIGHT - BOTTOM}v5" stroke="#666"/>')
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 10}" text-anchor="end">{escape(unit)}</text>')
    for curve in curves:
        places = [(across(x), down(y)) for x, y in curve.points]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" {_stroke(curve)}/>')
        for k, (x, y) in enumerate(places):
            if curve.spread:
                low_end, high_end = (down(end) for end in _bar(curve, k, log))
                parts.append(f'<path d="M{x} {low_end}V{high_end}" stroke="{curve.colour}"/>')
            if not curve.dashed:
                parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{curve.colour}"/>')
    return "".join(parts)


def _bar(curve: Curve, k: int, log: bool) -> tuple[float, float]:
    """Both ends of the bar at a point."""
    y, spread = curve.points[k][1], curve.spread[k] if curve.spread else 0.0
    return max(y - spread, y / 10) if log else y - spread, y + spread


def _stroke(curve: Curve) -> str:
    dashes = ' stroke-dasharray="5 4"' if curve.dashed else ""
    return f'stroke="{curve.colour}" stroke-width="{curve.thickness:g}"{dashes}'


def _key(x: float, y: float, name: str, curve: Curve) -> str:
    return f'<path d="M{x} {y}h22" {_stroke(curve)}/><text x="{x + 28}" y="{y + 4}">{escape(name)}</text>'


def _linear(ys: Sequence[float]) -> tuple[float, float, list[float]]:
    """Lower and upper end, and where the lines are: three to six for a chart of this height."""
    span = max(max(ys) - min(ys), 1e-3)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(m * power for m in (1, 2, 5, 10) if m * power * 4 >= span * (1 - 1e-9))
    low, high = math.floor(min(ys) / step) * step, math.ceil(max(ys) / step + 1e-9) * step
    return low, high, [low + k * step for k in range(round((high - low) / step) + 1)]


def _logarithmic(ys: Sequence[float]) -> tuple[float, float, Sequence[float]]:
    """The same; within a power of ten, lines are at equal steps."""
    low, high = min(ys) / 1.1, max(ys) * 1.1
    near = [line for line in _linear([low, high])[2] if low <= line <= high]
    return low, high, near if high < 10 * low else _ticks(low, high)


def _ticks(low: float, high: float) -> Sequence[float]:
    """1, 2 and 5 times powers of ten within low … high, or where there are too few of them, every round number."""
    powers = [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    coarse = [m * p for p in powers for m in (1, 2, 5) if low <= m * p <= high]
    return coarse if len(coarse) > 1 else [m * p for p in powers for m in range(1, 10) if low <= m * p <= high]
