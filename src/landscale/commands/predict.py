"""`landscale predict`: a map of class probabilities of a scene."""

from __future__ import annotations

import argparse
from pathlib import Path

from landscale.commands.command import AddCommand, add_offset, add_weights, print_result
from landscale.errors import BadInput
from landscale.scenes import LAYOUTS


def add_command(add: AddCommand) -> None:
    parser = add(
        "predict",
        _predict_scene,
        "map the class probabilities of a scene; run the same command again to resume",
        "landscale predict runs/eca SCENE map.tif",
    )
    add_weights(parser, "model")
    parser.add_argument("scene", type=Path, metavar="SCENE", help=LAYOUTS)
    parser.add_argument("out", type=Path, metavar="OUT.tif", help="the GeoTIFF to write, one band per class")
    parser.add_argument(
        "--stride",
        type=int,
        help="distance between windows in pixels of 10 m (default: that of the network's features, 8 for wide ResNets and"
        " 30 for ResNets, or half a patch for networks that take window by window)",
    )
    add_offset(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _predict_scene(options: argparse.Namespace) -> int:
    from landscale.distributed import local_device
    from landscale.maps.predict import predict
    from landscale.models.encoders import load_encoder

    if options.stride is not None and options.stride < 1:
        raise BadInput("--stride", f"found {options.stride}, expected at least 1")
    model = load_encoder(options.model).to(local_device())
    written = predict(model, options.scene, options.out, options.stride, offset=options.offset)
    return print_result(
        options,
        written.to_json(),
        lambda: print(f"{options.out}: {written.width}×{written.height} px, {len(written.classes)} classes"),
    )
