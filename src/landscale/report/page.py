"""The HTML report: one file with tables, charts and images that loads nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

from landscale.errors import BadInput
from landscale.report.charts import COLOURS, Chart, ChartLine, svg_element
from landscale.report.finished_run import FinishedRun, read_finished_runs
from landscale.report.map_view import render_map_view
from landscale.report.published import authors_parameters, data_set_note, published_classes, published_scores
from landscale.runtime.files import write_text
from landscale.vocabulary.headline import HEADLINE_NAMES, shortened
from landscale.vocabulary.nomenclatures import colours


def write_report(runs: Sequence[Path], out: Path, scene: Path | None = None, map_file: Path | None = None) -> Path:
    """Write `out/report.html`.

    Args:
        runs: folders of finished runs. Several runs are also compared with each other.
        out: folder of the page.
        scene: folder of a scene to show in true colour next to its map.
        map_file: the GeoTIFF that `predict` made of `scene`.

    Returns:
        The path of the page.

    Raises:
        BadInput: a run is missing, unfinished or damaged, or the map is not of the scene. Nothing is written then.
    """
    finished = read_finished_runs(list(runs))
    templates = _templates()
    sections = [_section(templates, run, number) for number, run in enumerate(finished)]
    text = templates.get_template("page.html.j2").render(
        title=finished[0].name if len(finished) == 1 else f"{len(finished)} runs",
        runs=finished,
        sections=sections,
        comparison=_comparison(finished) if len(finished) > 1 else None,
        view=render_map_view(scene, map_file) if scene and map_file else None,
    )
    page = out / "report.html"
    write_text(page, text)
    return page


def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of classes, recipes and folders may contain markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "shortened": shortened,
        "duration": _duration,
        "colour": lambda name: colours([name])[0],
    }
    environment.globals |= {"names": HEADLINE_NAMES, "line_colours": COLOURS}
    return environment


def _section(templates: Environment, run: FinishedRun, number: int) -> Markup:
    """The section of the page about one run."""
    try:
        text = templates.get_template("run.html.j2").render(
            run=run,
            number=number,
            charts=_training_charts(run.history),
            papers={split: published_classes(run, scores) for split, scores in run.scores.items()},
            published=published_scores(run),
            authors_parameters=authors_parameters(run),
            data_set_note=data_set_note(run, next(iter(run.scores), "test")),
        )
    except (UndefinedError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(run.folder, f"contains files that `landscale train` did not write ({error})") from None
    return Markup(text)  # rendered with autoescape


def _training_charts(history: pd.DataFrame) -> dict[str, Markup]:
    """Charts over the epochs of a run, by title."""
    validation = {name: f"val_{key}" for key, name in HEADLINE_NAMES.items() if f"val_{key}" in history}
    charts = {"Training loss": {"loss": "loss"}, "Validation": validation, "Learning rate": {"rate": "rate"}}
    by_epoch = history.set_index("epoch")
    return {
        title: _chart(title, {name: by_epoch[column] for name, column in columns.items()})
        for title, columns in charts.items()
        if columns
    }


def _chart(title: str, lines: dict[str, pd.Series[float]]) -> Markup:
    """A line for each series, over its epochs. Epochs without a value are left out."""
    drawn = []
    for k, (name, values) in enumerate(lines.items()):
        known = values.dropna()
        points = [(int(epoch), float(value)) for epoch, value in zip(known.index, known, strict=True)]
        drawn.append(ChartLine(name, points, COLOURS[k % len(COLOURS)], dashed=k >= len(COLOURS)))
    return svg_element(Chart(title, "epoch", drawn, whole_x=True, last_values=True))


def _comparison(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """The split that all runs have scores on, the kinds of score they all have, and charts with one line per run."""
    split = next((s for s in ("test", "val") if all(s in run.scores for run in runs)), None)
    figures = [run.scores[split].headline() for run in runs] if split else []
    keys = [key for key in figures[0] if all(key in others for others in figures)] if figures else []
    titles = {"loss": "Training loss"}
    titles |= {f"val_{key}": f"Validation {HEADLINE_NAMES[key]}" for key in ("accuracy", "micro_f1", "macro_f1")}
    charts = {}
    for column, title in titles.items():
        lines = {run.name: run.history.set_index("epoch")[column] for run in runs if column in run.history}
        if lines:
            charts[title] = _chart(title, lines)
    return {"split": split, "keys": keys, "charts": charts, "stores": len({run.data.get("plan") for run in runs})}


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds) // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {round(seconds) % 60:02d} s"
