"""The results of a probe as tables and as a chart of label efficiency."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from landscale.probing.cells import Cell, CellResult
from landscale.probing.intervals import interval, interval_over_seeds
from landscale.runtime.files import atomic_file, write_text
from landscale.vocabulary.headline import HEADLINE_NAMES

Row = dict[str, Any]


def seed_rows(results: Mapping[Cell, CellResult]) -> list[Row]:
    """A row for each cell: its figures, and for each of them `low` and `high`, the interval over patches."""
    rows = []
    for cell, found in results.items():
        row = _key(cell) | {
            "seed": cell.seed,
            "drawn": found.drawn,
            "fitted": found.fitted,
            "c": found.c,
            "test": found.test,
        }
        for name, value in found.figures.items():
            low, high = interval(found.sampled(name))
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return rows


def summary_rows(results: Mapping[Cell, CellResult]) -> list[Row]:
    """A row for each protocol and amount of labels.

    Of each figure the mean over seeds, `low` and `high`, the interval over patches and seeds, and `deviation`, the standard
    deviation over seeds (None for one seed). `drawn` and `fitted` are means over seeds.
    """
    groups: dict[tuple[str, str], dict[Cell, CellResult]] = {}
    for cell, found in results.items():
        groups.setdefault((cell.protocol, cell.amount.name), {})[cell] = found
    rows = []
    for group in groups.values():
        cells, founds = list(group), list(group.values())
        row = _key(cells[0]) | {"seeds": len(cells), "test": founds[0].test}
        row |= {key: float(np.mean([getattr(found, key) for found in founds])) for key in ("drawn", "fitted")}
        for name in founds[0].figures:
            values = [found.figures[name] for found in founds]
            low, high = interval_over_seeds([found.sampled(name) for found in founds])
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
            row |= {
                name: float(np.mean(values)),
                f"{name}_low": low,
                f"{name}_high": high,
                f"{name}_deviation": deviation,
            }
        rows.append(row)
    return rows


def _key(cell: Cell) -> Row:
    return {"protocol": cell.protocol, "fraction": cell.amount.fraction, "shots": cell.amount.shots}


def write_tables(out: Path, summary: Sequence[Row], seeds: Sequence[Row]) -> None:
    """Write `probe.parquet` and `probe.csv`, the summary, and `seeds.csv`, a row for each cell."""
    table = pd.DataFrame(summary).astype({"shots": "Int64"})
    with atomic_file(out / "probe.parquet") as temporary:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), temporary)
    write_text(out / "probe.csv", table.to_csv(index=False))
    write_text(out / "seeds.csv", pd.DataFrame(seeds).astype({"shots": "Int64"}).to_csv(index=False))


def write_chart(file: Path, summary: Sequence[Row], figure: str, title: str) -> None:
    """Draw a figure over the number of labelled patches, a line for each protocol, bars for the intervals."""
    from landscale.report.charts import COLOURS, Chart, ChartLine, png_file

    lines = []
    for k, protocol in enumerate(dict.fromkeys(row["protocol"] for row in summary)):
        rows = sorted((row for row in summary if row["protocol"] == protocol), key=lambda row: row["fitted"])
        points = [(row["fitted"], row[figure]) for row in rows]
        intervals = [(row[f"{figure}_low"], row[f"{figure}_high"]) for row in rows]
        lines.append(ChartLine(protocol, points, COLOURS[k], intervals=intervals))
    chart = Chart(f"{title}: {HEADLINE_NAMES[figure]} by labels", "labelled patches", lines, log_x=True)
    drawn = png_file([[chart]])
    with atomic_file(file) as temporary:
        temporary.write_bytes(drawn)


def show_summary(summary: Sequence[Row], figures: Sequence[str]) -> None:
    """Print the summary as a table."""
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 140)
    table = Table("protocol", "labels", "patches", "seeds")
    for name in figures:
        table.add_column(f"{HEADLINE_NAMES[name]} [95%]", justify="right", no_wrap=True)
    for row in summary:
        labels = f"{100 * row['fraction']:.4g}%" if row["fraction"] is not None else f"{row['shots']} a class"
        cells = [f"{row[name]:.4f} [{row[f'{name}_low']:.3f} … {row[f'{name}_high']:.3f}]" for name in figures]
        table.add_row(row["protocol"], labels, f"{row['fitted']:,.0f}", str(row["seeds"]), *cells)
    console.print(table)
