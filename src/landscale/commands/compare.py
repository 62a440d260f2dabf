"""`landscale compare`: what changed between two class maps."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from landscale.commands.command import AddCommand, print_result

if TYPE_CHECKING:
    from landscale.map_accuracy.change import Change

_ROWS = 12  # changes that are printed


def add_command(add: AddCommand) -> None:
    parser = add(
        "compare",
        _compare_maps,
        "compare two class maps: which areas changed from one class to another, where, and by region",
        "landscale compare map-2018.tif map-2024.tif change.tif --regions districts.gpkg",
    )
    parser.add_argument("before", type=Path, metavar="OLD.tif", help="class map that `landscale predict` wrote")
    parser.add_argument("after", type=Path, metavar="NEW.tif", help="class map of the same classes")
    parser.add_argument(
        "out",
        type=Path,
        metavar="OUT.tif",
        help="map of the changes; legend, style, quick look and the table OUT.csv are written beside it",
    )
    parser.add_argument("--regions", type=Path, metavar="FILE", help="polygons of a vector file, for areas by region")
    parser.add_argument(
        "--region-column", default="name", metavar="NAME", help="column with their names (default: name)"
    )
    parser.add_argument(
        "--accuracy",
        nargs=2,
        type=Path,
        metavar=("OLD.json", "NEW.json"),
        help="what `landscale evaluate MAP POINTS --json` printed for both maps: areas are adjusted for the errors of the maps",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _compare_maps(options: argparse.Namespace) -> int:
    from landscale.map_accuracy.change import compare_maps
    from landscale.map_accuracy.estimates import read_estimates

    accuracy = tuple(map(read_estimates, options.accuracy)) if options.accuracy else None
    found = compare_maps(
        options.before,
        options.after,
        options.out,
        regions=options.regions,
        region_column=options.region_column,
        accuracy=accuracy,  # type: ignore[arg-type]
    )
    return print_result(options, asdict(found), lambda: _print_change(found))


def _print_change(found: Change) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 140)
    share = 100 * found.changed / found.compared
    console.print(f"{found.compared:,.1f} ha compared, {found.changed:,.1f} ha ({share:.1f} %) changed")
    if found.resampled:
        console.print("the later map has another grid: its nearest pixels are compared")
    moves = [
        (area, found.classes[i], found.classes[j])
        for i, row in enumerate(found.matrix)
        for j, area in enumerate(row)
        if i != j and area
    ]
    table = Table("from", "to", title="largest changes", title_justify="left")
    table.add_column("hectares", justify="right")
    for area, one, other in sorted(moves, reverse=True)[:_ROWS]:
        table.add_row(one, other, f"{area:,.1f}")
    console.print(table)
    table = Table("region", "class", title="areas in hectares", title_justify="left")
    for column in ("before", "after", "change", "before, adjusted", "after, adjusted"):
        table.add_column(column, justify="right")
    for row in found.regions:
        if not (row.before or row.after):
            continue
        adjusted = [
            "" if pair is None else f"{pair[0]:,.1f}" + ("" if pair[1] is None else f" ± {pair[1]:,.1f}")
            for pair in (row.before_adjusted, row.after_adjusted)
        ]
        table.add_row(
            row.region,
            row.name,
            f"{row.before:,.1f}",
            f"{row.after:,.1f}",
            f"{row.after - row.before:+,.1f}",
            *adjusted,
        )
    console.print(table)
    console.print(f"written: {', '.join(found.files.values())}")
