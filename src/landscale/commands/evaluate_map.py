"""`landscale evaluate MAP.tif …`: the accuracy of a class map, from a raster of classes or from reference points."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscale.commands.command import print_result

if TYPE_CHECKING:
    from landscale.map_accuracy.points import MapSample


def is_class_map(model: str) -> bool:
    """Whether the first argument is a GeoTIFF by its name, as class maps are."""
    return Path(model).suffix.lower() in {".tif", ".tiff"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only class maps have."""
    maps = parser.add_argument_group("class maps", "for `landscale evaluate MAP.tif REFERENCE`")
    maps.add_argument(
        "--column", default="class", metavar="NAME", help="column with the class of reference points (default: class)"
    )
    maps.add_argument(
        "--legend",
        type=Path,
        metavar="FILE.csv",
        help="value and name of the classes of a raster that is no CORINE map",
    )


def evaluate_map(options: argparse.Namespace) -> int:
    """Score the map `options.model` against `options.store`, a raster or points."""
    from landscale.formats.rasters import RASTER_DRIVERS
    from landscale.runtime.documents import write_json
    from landscale.runtime.outputs import check_output

    reference = Path(options.store)
    if options.out:
        check_output(options.out, "a file of scores", _read_any, [options.model, reference])
    if reference.suffix.lower() in RASTER_DRIVERS:
        from landscale.inference.scores_table import show_scores
        from landscale.map_accuracy.reference import score_map

        scores = score_map(options.model, reference, options.legend)
        content: dict[str, Any] = scores.to_json()

        def text() -> None:
            show_scores(scores)
    else:
        from landscale.map_accuracy.points import score_points

        sample = score_points(options.model, reference, options.column)
        content = sample.to_json()

        def text() -> None:
            _show_sample(sample)

    if options.out:
        write_json(options.out, content)
    return print_result(options, content, text)


def _read_any(path: Path) -> object:
    from landscale.inference.scores import read_scores
    from landscale.map_accuracy.estimates import read_estimates

    try:
        return read_estimates(path)
    except Exception:
        return read_scores(path)


def _show_sample(sample: MapSample) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 140)
    found = sample.estimates
    points = sum(row.points for row in found.classes)
    console.print(f"{points} reference points: overall accuracy {_range(found.overall.value, found.overall.error, 3)}")
    for why, count in sample.left_out.items():
        if count:
            console.print(f"{count} points {why} do not count")
    table = Table("class", title="with 95 % intervals (Olofsson et al. 2014)", title_justify="left")
    for column in ("points", "user's accuracy", "producer's accuracy", "area in ha", "mapped ha"):
        table.add_column(column, justify="right")
    for row in found.classes:
        if row.points or row.area.value:
            figures = _range(row.users.value, row.users.error, 3), _range(row.producers.value, row.producers.error, 3)
            area = _range(row.area.value, row.area.error, 1)
            table.add_row(row.name, str(row.points), *figures, area, f"{row.mapped:,.1f}")
    console.print(table)


def _range(value: float, error: float, decimals: int) -> str:
    from landscale.map_accuracy.estimates import Z

    if math.isnan(value):
        return ""
    return f"{value:,.{decimals}f}" + ("" if math.isnan(error) else f" ± {Z * error:,.{decimals}f}")
