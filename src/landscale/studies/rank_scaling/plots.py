"""Charts of the rank-scaling study: times, efficiency and F1 against ranks (Sedona et al. 2019, figures 3 to 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from landscale.report.charts import BLUE, GREEN, RED, Chart, ChartLine, svg_file
from landscale.vocabulary.published import SEDONA, SEDONA_EPOCH_SECONDS, SEDONA_EPOCHS

COLOURS = {"weak": BLUE, "strong": RED}
SCORES = {"micro_f1": "micro F1 at 0.5", "macro_f1": "macro F1 at 0.5"}


def rank_scaling_svg(content: dict[str, Any]) -> str:
    """An SVG document of the charts."""
    return svg_file(f"{content['settings']['model']} on several ranks", rank_scaling_charts(content))


def rank_scaling_charts(content: dict[str, Any]) -> list[list[Chart]]:
    """3×2 charts over a logarithmic axis of ranks: training time, the paper's beside it, time per epoch, efficiency, F1.

    Error bars are standard deviations over repeats. F1 is that of the test split where there is one, else of val.
    """
    rows: Sequence[dict[str, Any]] = content["rows"]
    ranks = sorted({row["ranks"] for row in rows})
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    tested = any("test_micro_f1" in row for row in rows)

    def measured(key: str) -> list[ChartLine]:
        return [_line(kind, [row for row in rows if row["kind"] == kind and key in row], key) for kind in kinds]

    def chart(title: str, lines: list[ChartLine], log_y: bool = False) -> Chart:
        return Chart(title, "ranks", lines, log_x=bool(ranks), log_y=log_y and bool(ranks), ticks=ranks)

    def times(title: str, key: str) -> Chart:
        ideal = [(k, rows[0][key] * rows[0]["ranks"] / k) for k in ranks]
        return chart(title, [ChartLine("ideal", ideal, reference=True), *measured(key)], True)

    ideal_efficiency = [(k, 1.0) for k in ranks]
    return [
        [times("training time, s", "training_seconds"), _paper_chart()],
        [
            times("seconds per epoch", "seconds"),
            chart("efficiency", [ChartLine("ideal", ideal_efficiency, reference=True), *measured("efficiency")]),
        ],
        [
            chart(f"{title}, {'test' if tested else 'val'}", measured(f"test_{score}" if tested else score))
            for score, title in SCORES.items()
        ],
    ]


def _paper_chart() -> Chart:
    """Figure 5 of the paper: its training times, of 100 epochs as long as the published ones, by number of GPUs."""
    points = [(gpus, SEDONA_EPOCHS * seconds) for gpus, seconds in SEDONA_EPOCH_SECONDS.items()]
    ideal = [(gpus, points[0][1] * points[0][0] / gpus) for gpus, _ in points]
    lines = [ChartLine("ideal", ideal, reference=True), ChartLine(f"{SEDONA}, V100", points, GREEN)]
    ticks = [gpus for gpus, _ in points]
    return Chart(f"training time, s, {SEDONA}", "GPUs", lines, log_x=True, log_y=True, ticks=ticks)


def _line(kind: str, rows: Sequence[dict[str, Any]], key: str) -> ChartLine:
    points = [(row["ranks"], row[key]) for row in rows]
    deviations = [row.get(f"{key}_deviation", 0.0) for row in rows]
    return ChartLine(f"{kind} scaling", points, COLOURS[kind], deviations=deviations)
