"""Line charts as inline SVG: no script and no library in the page; its CSS gives the colours and what pointing shows."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise

from markupsafe import Markup, escape

Values = Sequence[float | None]

WIDTH, PLOT, ROW = 340, 150, 16  # of the chart; heights of the plotted area and of a line of the legend
LEFT, RIGHT, TOP = 46, 8, 8
BOTTOM = TOP + PLOT
COLOURS = 8  # in the page's CSS; lines beyond them are dashed


def line_chart(label: str, xs: Sequence[int], series: Mapping[str, Values], x_name: str = "epoch") -> Markup:
    """A line a series over the ascending `xs`, across its gaps (None), and below them the last values.

    Pointing at an x shows the values there instead.
    """
    known = [value for values in series.values() for value in values if value is not None]
    ticks = _ticks(min(known, default=0.0), max(known, default=1.0))
    span = (xs[-1] - xs[0]) or 1 if xs else 1

    def across(x: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (x - xs[0]) / span, 1)

    def down(y: float) -> float:
        return round(TOP + PLOT * (ticks[-1] - y) / (ticks[-1] - ticks[0]), 1)

    parts = [f'<svg class="plot" viewBox="0 0 {WIDTH} {BOTTOM + 26 + ROW * len(series)}" role="img">']
    parts.append(f"<title>{escape(label)}</title>")
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {down(tick)}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{down(tick) + 4}">{tick:.10g}</text>')
    for k, (name, values) in enumerate(series.items()):
        points = [(across(x), down(y)) for x, y in zip(xs, values, strict=True) if y is not None]
        parts.append(f'<path class="line {_style(k)}" d="{"".join(_move(points))}"/>')
        if len(points) <= 20:
            parts += [_dot(k, x, y) for x, y in points]
        parts.append(f'<path class="line {_style(k)}" d="M{LEFT} {_row(k) - 4}h14"/>')
        parts.append(f'<text x="{LEFT + 20}" y="{_row(k)}">{escape(_cut(name, 36))}</text>')

    if xs:
        parts.append(f'<text x="{LEFT}" y="{BOTTOM + 15}">{x_name} {xs[0]}</text>')
    middles = [(across(a) + across(b)) / 2 for a, b in pairwise(xs)]
    edges = [LEFT, *middles, WIDTH - RIGHT]
    parts.append('<g class="hits">')
    for x, left, right, *values in zip(xs, edges, edges[1:], *series.values(), strict=False):
        parts.append(f'<g><rect x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{PLOT}"/><g class="tip">')
        parts.append(f'<path class="cursor" d="M{across(x)} {TOP}V{BOTTOM}"/>')
        parts += [_dot(k, across(x), down(y)) for k, y in enumerate(values) if y is not None]
        parts += [*_readings(f"{x_name} {x}", values), "</g></g>"]
    final = [next((y for y in reversed(values) if y is not None), None) for values in series.values()]
    parts += ["</g>", '<g class="now">', *_readings(f"{x_name} {xs[-1]}" if xs else "", final), "</g></svg>"]
    return Markup("".join(parts))  # names are escaped above, all else is ours


def _row(k: int) -> int:
    return BOTTOM + 34 + ROW * k


def _style(k: int) -> str:
    return f"s{k % COLOURS}" + (" dashed" if k >= COLOURS else "")


def _move(points: Sequence[tuple[float, float]]) -> list[str]:
    return [f"{'L' if k else 'M'}{x} {y}" for k, (x, y) in enumerate(points)]


def _dot(k: int, x: float, y: float) -> str:
    return f'<circle class="{_style(k)}" cx="{x}" cy="{y}" r="2.5"/>'


def _readings(where: str, values: Values) -> list[str]:
    """Where, at the right below the plot, and a value for each line of the legend."""
    texts = [f'<text class="reading" x="{WIDTH - RIGHT}" y="{BOTTOM + 15}">{where}</text>']
    for k, value in enumerate(values):
        text = "–" if value is None else f"{value:.4g}"
        texts.append(f'<text class="reading" x="{WIDTH - RIGHT}" y="{_row(k)}">{text}</text>')
    return texts


def _ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers at equal steps that enclose low … high."""
    most = max(abs(low), abs(high))
    span = high - low if high - low > 1e-6 * most else most
    span = span if span > sys.float_info.min * wanted else 1.0  # what is smaller cannot be divided
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power * wanted >= span * (1 - 1e-9))
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(start, max(stop, start + 1) + 1)]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
