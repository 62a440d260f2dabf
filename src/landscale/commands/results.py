"""What comes out at the end: demo, predict, report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from landscale.commands.command import Add, tell
from landscale.errors import BadInput

if TYPE_CHECKING:
    pass


def add_commands(add: Add) -> None:
    p = add(
        "demo", _demo, "the whole road on a synthetic landscape, ends with an HTML report", "landscale demo --out demo"
    )
    p.add_argument("--out", type=Path, default=Path("demo"), help="folder of everything it makes (default: demo)")

    p = add(
        "predict",
        _predict,
        "a scene → a map of class probabilities; the same command again goes on",
        "landscale predict runs/eca SCENE map.tif",
    )
    p.add_argument("model", type=Path, metavar="RUN|WEIGHTS")
    p.add_argument("scene", type=Path, metavar="SCENE", help="folder of band rasters at native resolution")
    p.add_argument("out", type=Path, metavar="OUT.tif")
    p.add_argument("--stride", type=int, help="pixels at 10 m between windows (default: half a patch)")
    p.add_argument("--json", action="store_true")

    p = add("report", _report, "an HTML page about one or several runs", "landscale report runs/eca --out report")
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    p.add_argument("--out", type=Path, required=True, metavar="DIR")
    p.add_argument("--scene", type=Path, help="a scene to show in true colour, beside its --map")
    p.add_argument("--map", type=Path, metavar="MAP.tif", help="what predict made of --scene")


def _demo(options: argparse.Namespace) -> int:
    from landscale.demo import demo

    demo(options.out)
    return 0


def _predict(options: argparse.Namespace) -> int:
    from landscale.distributed import device
    from landscale.inference.predict import predict
    from landscale.models.weights import load_model

    if options.stride is not None and options.stride < 1:
        raise BadInput("--stride", f"found {options.stride}, expected at least 1")
    model = load_model(options.model).to(device())
    content = predict(model, options.scene, options.out, options.stride)
    return tell(
        options,
        content,
        lambda: print(f"{options.out}: {content['width']}×{content['height']} px, {len(content['classes'])} classes"),
    )


def _report(options: argparse.Namespace) -> int:
    from landscale.report.page import report

    page = report(options.runs, options.out, options.scene, options.map)
    print(page)
    return 0
