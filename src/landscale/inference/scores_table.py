"""Scores as tables on the terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from landscale.inference.scores import Scores
from landscale.vocabulary.headline import shortened, support_note

_console = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 140)


def show_scores(scores: Scores) -> None:
    """Print the accuracy (single-label), a row per average, added figures, and a row per class."""
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
