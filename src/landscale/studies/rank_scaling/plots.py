"""Charts of the rank-scaling study: epoch time, efficiency and F1 against ranks (Sedona et al. 2019, figures 3 to 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from landscale.report.charts import BLUE, RED, Chart, ChartLine, svg_file

COLOURS = {"weak": BLUE, "strong": RED}
SCORES = {"micro_f1": "micro F1 at 0.5, val", "macro_f1": "macro F1 at 0.5, val"}


def rank_scaling_svg(content: dict[str, Any]) -> str:
    """An SVG document of the charts."""
    return svg_file(f"{content['settings']['model']} on several ranks", rank_scaling_charts(content))


def rank_scaling_charts(content: dict[str, Any]) -> list[list[Chart]]:
    """2×2 charts over a logarithmic axis of ranks; error bars are standard deviations over epochs or repeats."""
    rows: Sequence[dict[str, Any]] = content["rows"]
    ranks = sorted({row["ranks"] for row in rows})
    kinds = list(dict.fromkeys(row["kind"] for row in rows))

    def measured(key: str) -> list[ChartLine]:
        return [_line(kind, [row for row in rows if row["kind"] == kind and key in row], key) for kind in kinds]

    def chart(title: str, lines: list[ChartLine], log_y: bool = False) -> Chart:
        return Chart(title, "ranks", lines, log_x=bool(ranks), log_y=log_y and bool(ranks), ticks=ranks)

    ideal_times = [(k, rows[0]["seconds"] * rows[0]["ranks"] / k) for k in ranks]
    ideal_efficiency = [(k, 1.0) for k in ranks]
    return [
        [
            chart("seconds per epoch", [ChartLine("ideal", ideal_times, reference=True), *measured("seconds")], True),
            chart("efficiency", [ChartLine("ideal", ideal_efficiency, reference=True), *measured("efficiency")]),
        ],
        [chart(title, measured(score)) for score, title in SCORES.items()],
    ]


def _line(kind: str, rows: Sequence[dict[str, Any]], key: str) -> ChartLine:
    points = [(row["ranks"], row[key]) for row in rows]
    deviations = [row.get(f"{key}_deviation", 0.0) for row in rows]
    return ChartLine(f"{kind} scaling", points, COLOURS[kind], deviations=deviations)
