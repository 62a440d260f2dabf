"""`landscale superres`: super-resolution of all bands of a scene to 10 m, with DSen2."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from landscale.commands.command import AddCommand, add_offset, command_adder, print_result, seconds_left
from landscale.errors import BadInput
from landscale.scenes import LAYOUTS

EXAMPLES = """examples:
  landscale superres train S2A_MSIL2A_….SAFE dsen2 --max-time 30m
  landscale superres evaluate dsen2 OTHER.SAFE
  landscale superres apply dsen2 OTHER.SAFE other-10m
"""


def add_command(add: AddCommand) -> None:
    parser = add(
        "superres",
        lambda _: 0,  # never runs: argparse requires a subcommand
        "compute all bands of a scene at 10 m by super-resolution (DSen2); train its networks on scenes without labels",
        "landscale superres train SCENE dsen2",
    )
    parser.epilog = EXAMPLES
    add_subcommand = command_adder(parser, metavar="train|apply|evaluate|convert", dest="subcommand")
    _add_train(add_subcommand)
    _add_apply(add_subcommand)
    _add_evaluate(add_subcommand)
    _add_convert(add_subcommand)


def _add_train(add: AddCommand) -> None:
    about, example = "train on scenes; run the same command again to resume", "landscale superres train SCENE dsen2"
    parser = add("train", _train, about, example)
    parser.add_argument("scenes", nargs="+", type=Path, metavar="SCENE", help=LAYOUTS)
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="folder to create")
    parser.add_argument(
        "--max-time", default="30m", metavar="30m", help="finish within this time: 90s, 45m, 2h (default: 30m)"
    )
    add_offset(parser)
    parser.add_argument("--deep", action="store_true", help="train VDSen2: 32 blocks of 256 features, for GPUs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial weights and the batches (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_apply(add: AddCommand) -> None:
    about = "write all bands of a scene at 10 m; run the same command again to resume"
    parser = add("apply", _apply, about, "landscale superres apply dsen2 SCENE scene-10m")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="folder that `superres train` wrote")
    parser.add_argument("scene", type=Path, metavar="SCENE", help=LAYOUTS)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of GeoTIFFs to write")
    add_offset(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_evaluate(add: AddCommand) -> None:
    about = "compare with bicubic interpolation at reduced scale, where the true values are known"
    parser = add("evaluate", _evaluate, about, "landscale superres evaluate dsen2 SCENE")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="folder that `superres train` wrote")
    parser.add_argument("scene", type=Path, metavar="SCENE", help=LAYOUTS)
    add_offset(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_convert(add: AddCommand) -> None:
    about = "convert the authors' published weights (Keras, HDF5)"
    parser = add("convert", _convert, about, "landscale superres convert s2_032_lr_1e-04.hdf5 dsen2")
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="KERAS.h5", help="the network for 20 m, the one for 60 m, or both"
    )
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="folder to create")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _train(options: argparse.Namespace) -> int:
    seconds_left(options.max_time)  # refuse a malformed time before the slow import of torch
    from landscale.distributed import local_device
    from landscale.superres.train import train_superres

    seconds = seconds_left(options.max_time)
    provenance = train_superres(
        options.scenes,
        options.weights,
        local_device(),
        seconds,
        deep=options.deep,
        seed=options.seed,
        offset=options.offset,
    )
    content = {"weights": str(options.weights), **provenance}
    return print_result(
        options, content, lambda: print(f"{options.weights}: trained for {provenance['seconds']:.0f} s")
    )


def _apply(options: argparse.Namespace) -> int:
    from landscale.distributed import local_device
    from landscale.superres.apply import sharpen_scene
    from landscale.superres.superresolver import Superresolver

    superresolver = Superresolver.load(options.weights, local_device())
    content = sharpen_scene(superresolver, options.scene, options.out, options.offset)

    def text() -> None:
        print(f"{options.out}: {content['width']}×{content['height']} px, {', '.join(content['bands'])}")
        if content["left_out"]:
            print(f"left out, because the weights have no network for them: {', '.join(content['left_out'])}")

    return print_result(options, content, text)


def _evaluate(options: argparse.Namespace) -> int:
    from landscale.distributed import local_device
    from landscale.superres.evaluate import evaluate_on_scene
    from landscale.superres.superresolver import Superresolver

    superresolver = Superresolver.load(options.weights, local_device())
    figures = evaluate_on_scene(superresolver, options.scene, options.offset)
    return print_result(options, figures, lambda: _table(figures))


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
            table.add_row(f"{gsd} m", *rmse, f"{figures[f'ratio_{gsd}m']:.3f}", *cells)
    Console(markup=False, emoji=False).print(table)


def _convert(options: argparse.Namespace) -> int:
    from landscale.superres.keras import convert_keras
    from landscale.superres.weights import save_networks

    if options.weights.exists():
        raise BadInput(options.weights, "exists already, expected a new folder")
    networks = convert_keras(options.files)
    provenance = {"converted_from": [str(path) for path in options.files]}
    save_networks(options.weights, networks, provenance, "L1C")  # of all scenes in Lanaras et al. 2018
    content = {"weights": str(options.weights), "networks": [f"{gsd}m" for gsd in networks], **provenance}
    return print_result(
        options, content, lambda: print(f"{options.weights}: networks for {' and '.join(content['networks'])}")
    )
