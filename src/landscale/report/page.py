"""One HTML page about runs that needs nothing but itself: figures, curves and maps are in it, and it loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

from landscale.errors import BadInput
from landscale.report.charts import COLOURS, Chart, ChartLine, svg_element
from landscale.report.facts import Facts, read_runs
from landscale.report.maps import view
from landscale.runtime.files import write_text
from landscale.vocabulary.headline import HEADLINE_NAMES
from landscale.vocabulary.nomenclatures import colours


def report(runs: Sequence[Path], out: Path, scene: Path | None = None, map_file: Path | None = None) -> Path:
    """Write `out/report.html`.

    Args:
        runs: folders of finished runs; several are compared.
        out: folder of the page.
        scene: folder of a scene that is shown in true colour beside its map.
        map_file: the GeoTIFF that `predict` made of `scene`.

    Returns:
        The page.

    Raises:
        BadInput: a run is missing, unfinished or damaged, or the map is not of the scene; nothing is written.
    """
    facts = read_runs(list(runs))
    templates = _templates()
    sections = [_section(templates, one, k) for k, one in enumerate(facts)]
    text = templates.get_template("page.html.j2").render(
        title=facts[0].name if len(facts) == 1 else f"{len(facts)} runs",
        runs=facts,
        sections=sections,
        comparison=_comparison(facts) if len(facts) > 1 else None,
        view=view(scene, map_file) if scene and map_file else None,
    )
    page = out / "report.html"
    write_text(page, text)
    return page


def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of classes, recipes and folders are other people's
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "duration": _duration, "colour": lambda name: colours([name])[0]}
    environment.globals |= {"names": HEADLINE_NAMES, "line_colours": COLOURS}
    return environment


def _section(templates: Environment, facts: Facts, number: int) -> Markup:
    """What the page says of one run."""
    try:
        text = templates.get_template("run.html.j2").render(
            run=facts, number=number, charts=_training_charts(facts.history)
        )
    except (UndefinedError, AttributeError, TypeError, ValueError) as error:
        raise BadInput(facts.folder, f"has files that `landscale train` does not write ({error})") from None
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


def _comparison(runs: Sequence[Facts]) -> dict[str, Any]:
    """The split that all runs have scores of, the figures they share on it, and charts with a line a run."""
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


def _figure(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds) // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {round(seconds) % 60:02d} s"
