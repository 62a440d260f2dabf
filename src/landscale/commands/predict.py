"""`landscale predict`: a map of a scene, or of several."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from landscale.commands.command import AddCommand, add_offset, add_weights, print_result
from landscale.commands.runtimes import add_runtime, opened_in_runtime
from landscale.errors import BadInput
from landscale.scenes import LAYOUTS

if TYPE_CHECKING:
    from landscale.maps.summary import MapSummary


def add_command(add: AddCommand) -> None:
    parser = add(
        "predict",
        _predict_scene,
        "map the classes of a scene, or of several; run the same command again to resume",
        "landscale predict runs/eca SCENE map.tif",
    )
    add_weights(parser, "model", exported=True)
    parser.add_argument(
        "scenes",
        nargs="+",
        type=Path,
        metavar="SCENE",
        help=f"{LAYOUTS}; several must be of one UTM zone",
    )
    parser.add_argument(
        "out", type=Path, metavar="OUT.tif", help="the class map; legend, style and quick look are written beside it"
    )
    parser.add_argument(
        "--stride",
        type=int,
        help="distance between windows in pixels of 10 m (default: that of the network's features, 8 for wide ResNets and"
        " 30 for ResNets, or half a patch for networks that take window by window)",
    )
    add_offset(parser)
    add_runtime(parser)
    parser.add_argument(
        "--probabilities",
        nargs="?",
        const="uint8",
        choices=("uint8", "float32"),
        help="also write OUT-probabilities.tif with a band for each class, 0…250 for 0…1, or float32",
    )
    parser.add_argument(
        "--entropy", action="store_true", help="also write OUT-entropy.tif: how undecided the network is"
    )
    masks = parser.add_mutually_exclusive_group()
    masks.add_argument(
        "--mask", type=Path, metavar="FILE", help="raster of what is not mapped (not 0), instead of the product's SCL"
    )
    masks.add_argument("--no-mask", action="store_true", help="map clouds, shadows and snow too")
    parser.add_argument(
        "--aoi", type=Path, metavar="AREA", help="map these polygons only, of GeoJSON or another vector file"
    )
    parser.add_argument(
        "--overlap",
        choices=("mean", "least-cloud"),
        default="mean",
        help="where scenes overlap: the mean of their probabilities (default), or the scene with least cloud",
    )
    parser.add_argument("--polygons", type=Path, metavar="OUT.gpkg", help="also write the areas of the map as polygons")
    parser.add_argument(
        "--smallest-area",
        type=float,
        default=0.0,
        metavar="M2",
        help="polygons of fewer square metres are joined with a neighbour (default: 0)",
    )
    parser.add_argument(
        "--viewer", action="store_true", help="also write OUT.html, which shows the map over the scene in a browser"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _predict_scene(options: argparse.Namespace) -> int:
    from landscale.maps.predict import predict

    if options.stride is not None and options.stride < 1:
        raise BadInput("--stride", f"found {options.stride}, expected at least 1")
    with opened_in_runtime(options.model, options.runtime) as model:
        written = predict(
            model,
            options.scenes,
            options.out,
            options.stride,
            offset=options.offset,
            probabilities=options.probabilities,
            show_entropy=options.entropy,
            mask=options.mask if options.mask is not None else not options.no_mask,
            aoi=options.aoi,
            overlap=options.overlap,
            polygons=options.polygons,
            smallest_area=options.smallest_area,
            viewer=options.viewer,
        )
    return print_result(options, written.to_json(), lambda: _print_summary(written))


def _print_summary(written: MapSummary) -> None:
    print(f"{written.map}: {written.width}×{written.height} px, {len(written.classes)} classes")
    for area in sorted(written.areas, key=lambda area: -area.pixels):
        if area.pixels:
            print(f"  {area.percent:5.1f} %  {area.square_metres / 1e6:10.2f} km²  {area.name}")
    hidden = ", ".join(f"{count:,} {why}" for why, count in written.not_mapped.items() if count)
    if hidden:
        print(f"not mapped, in pixels: {hidden}")
    others = [path for kind, path in written.files.items() if kind != "map"]
    print(f"also written: {', '.join(others)}")
