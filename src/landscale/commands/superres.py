"""Super-resolution: superres train, apply, evaluate, convert."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from landscale.commands.command import Add, Parser, seconds_left, tell
from landscale.errors import BadInput

_EXAMPLES = """examples:
  landscale superres train S2A_MSIL2A_….SAFE dsen2 --max-time 30m
  landscale superres evaluate dsen2 OTHER.SAFE
  landscale superres apply dsen2 OTHER.SAFE other-10m
"""


def add_commands(add: Add) -> None:
    about = "DSen2: all bands of a scene at 10 m, learned from your own scenes without labels"
    parser = add("superres", _train, about, "landscale superres train SCENE dsen2")
    parser.epilog = _EXAMPLES
    actions = parser.add_subparsers(
        dest="action", metavar="train|apply|evaluate|convert", required=True, parser_class=Parser
    )

    def action(name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=about, description=about, allow_abbrev=False)
        sub.set_defaults(command=run)
        sub.add_argument("--json", action="store_true")
        return sub

    scene = "folder of band rasters, .SAFE, or .mat file"
    p = action("train", _train, "learn from scenes; the same command again goes on")
    p.add_argument("scenes", nargs="+", type=Path, metavar="SCENE", help=scene)
    p.add_argument("weights", type=Path, metavar="WEIGHTS", help="new folder")
    p.add_argument("--max-time", default="30m", metavar="30m", help="end well within: 90s, 45m, 2h (default: 30m)")
    p.add_argument("--deep", action="store_true", help="VDSen2: 32 blocks of 256 features, for GPUs")
    p.add_argument("--seed", type=int, default=0, help="of first weights and batches (default: 0)")

    p = action("apply", _apply, "write all bands of a scene at 10 m; the same command again goes on")
    p.add_argument("weights", type=Path, metavar="WEIGHTS")
    p.add_argument("scene", type=Path, metavar="SCENE", help=scene)
    p.add_argument("out", type=Path, metavar="OUT", help="folder of GeoTIFFs")

    p = action("evaluate", _evaluate, "compare with bicubic where the truth is known: at the reduced scale")
    p.add_argument("weights", type=Path, metavar="WEIGHTS")
    p.add_argument("scene", type=Path, metavar="SCENE", help=scene)

    p = action("convert", _convert, "the authors' published weights (Keras, HDF5) → weights")
    p.add_argument(
        "files", nargs="+", type=Path, metavar="KERAS.h5", help="the network for 20 m, the one for 60 m, or both"
    )
    p.add_argument("weights", type=Path, metavar="WEIGHTS", help="new folder")


def _train(options: argparse.Namespace) -> int:
    seconds_left(options.max_time)  # refuses a wrong one before torch is there
    from landscale.distributed import device
    from landscale.superres.train import train

    seconds = seconds_left(options.max_time)
    provenance = train(options.scenes, options.weights, device(), seconds, deep=options.deep, seed=options.seed)
    content = {"weights": str(options.weights), **provenance}
    return tell(options, content, lambda: print(f"{options.weights}: trained for {provenance['seconds']:.0f} s"))


def _apply(options: argparse.Namespace) -> int:
    from landscale.distributed import device
    from landscale.superres.apply import apply
    from landscale.superres.superresolver import Superresolver

    content = apply(Superresolver.load(options.weights, device()), options.scene, options.out)

    def text() -> None:
        print(f"{options.out}: {content['width']}×{content['height']} px, {', '.join(content['bands'])}")
        if content["left_out"]:
            print(f"left out, as the weights have no network for them: {', '.join(content['left_out'])}")

    return tell(options, content, text)


def _evaluate(options: argparse.Namespace) -> int:
    from landscale.distributed import device
    from landscale.superres.evaluate import evaluate
    from landscale.superres.superresolver import Superresolver

    figures = evaluate(Superresolver.load(options.weights, device()), options.scene)
    return tell(options, figures, lambda: _table(figures))


def _table(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("band", title=f"{figures['scene']}, reduced scale, digital numbers", title_justify="left")
    for column in ("RMSE", "bicubic", "ratio", "SRE dB", "bicubic", "SAM °", "bicubic", "ERGAS", "bicubic"):
        table.add_column(column, justify="right")
    for row in figures["bands"]:
        ratio = row["rmse"] / max(row["bicubic_rmse"], 1e-9)
        table.add_row(
            row["name"],
            f"{row['rmse']:.1f}",
            f"{row['bicubic_rmse']:.1f}",
            f"{ratio:.3f}",
            f"{row['sre']:.2f}",
            f"{row['bicubic_sre']:.2f}",
        )
    for gsd in (20, 60):
        if f"rmse_{gsd}m" in figures:
            pairs = [(f"{key}_{gsd}m", f"bicubic_{key}_{gsd}m") for key in ("sre", "sam", "ergas")]
            cells = [f"{figures[name]:.2f}" for pair in pairs for name in pair]
            rmse = [f"{figures[f'rmse_{gsd}m']:.1f}", f"{figures[f'bicubic_rmse_{gsd}m']:.1f}"]
            table.add_row(f"[bold]{gsd} m[/]", *rmse, f"[bold]{figures[f'ratio_{gsd}m']:.3f}[/]", *cells)
    Console().print(table)


def _convert(options: argparse.Namespace) -> int:
    from landscale.superres.keras import convert
    from landscale.superres.weights import save_networks

    if options.weights.exists():
        raise BadInput(options.weights, "exists already, expected a new folder")
    networks = convert(options.files)
    provenance = {"converted_from": [str(path) for path in options.files]}
    save_networks(options.weights, networks, provenance)
    content = {"weights": str(options.weights), "networks": [f"{gsd}m" for gsd in networks], **provenance}
    return tell(options, content, lambda: print(f"{options.weights}: networks for {' and '.join(content['networks'])}"))
