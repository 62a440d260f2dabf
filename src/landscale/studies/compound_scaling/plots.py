"""Charts of the compound-scaling study: F1 against FLOPs and parameters (Tan & Le 2019, figures 3 and 8)."""

from __future__ import annotations

from typing import Any

from landscale.report.charts import BLUE, GREEN, ORANGE, RED, Chart, ChartLine, svg_file

COLOURS = {"depth": BLUE, "width": GREEN, "resolution": ORANGE, "compound": RED}
SCORES = {"micro_f1": "micro F1", "macro_f1": "macro F1"}
COSTS = {"flops": ("GFLOPs", 1e9), "parameters": ("million parameters", 1e6)}


def compound_scaling_svg(content: dict[str, Any]) -> str:
    """An SVG document of the charts."""
    return svg_file(f"{content['base']}: compound scaling", compound_scaling_charts(content))


def compound_scaling_charts(content: dict[str, Any]) -> list[list[Chart]]:
    """2×2 charts, a line for each scaled axis: micro and macro F1 by row, FLOPs and parameters by column, logarithmic."""
    return [
        [
            Chart(
                title,
                unit,
                [
                    ChartLine(axis, _points(content, axis, cost, score, scale), COLOURS[axis], _width(axis))
                    for axis in COLOURS
                ],
                log_x=True,
            )
            for cost, (unit, scale) in COSTS.items()
        ]
        for score, title in SCORES.items()
    ]


def _points(content: dict[str, Any], axis: str, cost: str, score: str, scale: float) -> list[tuple[float, float]]:
    """From the unscaled network on. Networks whose training failed have no point."""
    rows = [content["unscaled"], *(row for row in content["sizes"] if row["axis"] == axis)]
    return sorted({(row[cost] / scale, row[score]) for row in rows if score in row})


def _width(axis: str) -> float:
    return 3.0 if axis == "compound" else 1.5
