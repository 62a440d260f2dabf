"""`landscale sample`: points for an interpreter, to estimate the accuracy of a map and the areas of its classes."""

from __future__ import annotations

import argparse
from pathlib import Path

from landscale.commands.command import AddCommand, print_result
from landscale.errors import BadInput


def add_command(add: AddCommand) -> None:
    parser = add(
        "sample",
        _draw_sample,
        "draw reference points in every class of a map; an interpreter fills in their classes",
        "landscale sample map.tif points.gpkg --points 500",
    )
    parser.add_argument("map", type=Path, metavar="MAP.tif", help="class map that `landscale predict` wrote")
    parser.add_argument("out", type=Path, metavar="OUT.gpkg", help="points with the empty column `class`")
    parser.add_argument("--points", type=int, default=500, metavar="N", help="number of points (default: 500)")
    parser.add_argument(
        "--least", type=int, default=20, metavar="N", help="at least so many points in each class (default: 20)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _draw_sample(options: argparse.Namespace) -> int:
    from landscale.map_accuracy.sample import draw_sample

    for flag, least in (("points", 1), ("least", 1), ("seed", 0)):
        if (value := getattr(options, flag)) < least:
            raise BadInput(f"--{flag}", f"found {value}, expected at least {least}")
    found = draw_sample(options.map, options.out, options.points, options.least, options.seed)

    def text() -> None:
        print(f"{options.out}: {sum(found.values())} points")
        for name, points in found.items():
            if points:
                print(f"  {points:5d}  {name}")

    return print_result(options, {"path": str(options.out), "points": found}, text)
