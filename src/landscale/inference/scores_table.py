"""Scores as tables on the terminal."""

from __future__ import annotations

import math
import sys

from rich.console import Console
from rich.table import Table

from landscale.inference.pixel_scores import PixelScores
from landscale.inference.scores import Scores
from landscale.vocabulary.headline import HEADLINE_NAMES, shortened, support_note

_console = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 140)


def show_scores(scores: Scores | PixelScores) -> None:
    """Print the accuracy (single-label), a row per average, added figures, and a row per class."""
    if isinstance(scores, PixelScores):
        show_pixel_scores(scores)
        return
    if scores.accuracy is not None:
        _console.print(f"{scores.split}, {scores.patches:,} patches: accuracy {scores.accuracy:.4f}")
    table = Table(title=f"{scores.split}: {scores.patches:,} patches", title_justify="left")
    for column in ("average", "precision", "recall", "F1", "F2", "Jaccard", "AP"):
        table.add_column(column, justify="left" if column == "average" else "right")
    average_precision = {"micro": scores.micro_ap, "macro": scores.macro_ap}
    for name, row in scores.averages.items():
        cells = [f"{row[key]:.4f}" for key in ("precision", "recall", "f1", "f2", "jaccard")]
        table.add_row(name, *cells, f"{average_precision[name]:.4f}" if name in average_precision else "")
    _console.print(table)
    _console.print(support_note(scores.to_json()))
    if scores.steps:
        _console.print(shortened(scores.steps))
    for name, value in scores.extra.items():
        _console.print(f"{name}: {value:.4f}", markup=False)
    table = Table()
    for column in ("class", "support", "precision", "recall", "F1", "F2", "AP", "threshold"):
        table.add_column(column, justify="left" if column == "class" else "right", no_wrap=True, max_width=56)
    for counts in scores.counts:
        figures = (counts[key] for key in ("precision", "recall", "f1", "f2", "ap", "threshold"))
        cells = ["" if figure is None else f"{figure:.3f}" for figure in figures]
        table.add_row(counts["name"], f"{counts['support']:,}", *cells)
    _console.print(table)


def show_pixel_scores(scores: PixelScores) -> None:
    """Print the figures over all pixels, and a row per class that occurs in the reference or in the map."""
    where = f"{scores.split}, {scores.patches:,} patches: " if scores.split else ""
    figures = ", ".join(f"{HEADLINE_NAMES[key]} {value:.4f}" for key, value in scores.headline().items())
    present = [one for one in scores.classes if one.support or one.mapped]
    _console.print(f"{where}{scores.pixels:,} pixels: {figures}")
    _console.print(
        f"means: over the {len(present)} of {len(scores.classes)} classes that occur in the reference or the map"
    )
    if scores.steps:
        _console.print(shortened(scores.steps))
    table = Table()
    for column in ("class", "reference", "map", "IoU", "F1", "precision", "recall"):
        table.add_column(column, justify="left" if column == "class" else "right", no_wrap=True, max_width=56)
    for one in present:
        cells = ["" if math.isnan(value) else f"{value:.3f}" for value in (one.iou, one.f1, one.precision, one.recall)]
        table.add_row(one.name, f"{one.support:,}", f"{one.mapped:,}", *cells)
    _console.print(table)
