"""`landscale report`: an HTML page about finished runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from landscale.commands.command import AddCommand
from landscale.errors import LandscaleError


def add_command(add: AddCommand) -> None:
    parser = add(
        "report",
        _write_report,
        "write an HTML page about one or several runs",
        "landscale report runs/eca --out report",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder in which report.html is written")
    parser.add_argument("--scene", type=Path, help="a scene to show in true colour next to its --map")
    parser.add_argument("--map", type=Path, metavar="MAP.tif", help="the map that `landscale predict` made of --scene")


def _write_report(options: argparse.Namespace) -> int:
    from landscale.report.page import write_report

    if (options.scene is None) != (options.map is None):
        raise LandscaleError("report: --scene and --map belong together: give both, or none of them")
    print(write_report(options.runs, options.out, options.scene, options.map))
    return 0
