"""`landscale predict`: a map of a scene, or of several."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from landscale.commands.command import AddCommand, add_offset, add_weights, print_result
from landscale.commands.runtimes import add_runtime, opened_in_runtime
from landscale.errors import BadInput, LandscaleError
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
    many = parser.add_argument_group("a map for each scene")
    many.add_argument(
        "--each",
        action="store_true",
        help="OUT is a folder, in which each scene gets its own map; finished maps are kept, and a scene that fails does not"
        " stop the others. A SCENE may be a text file (.txt) with one path a line",
    )
    many.add_argument("--workers", type=int, default=1, help="processes, which share the cores (default: 1)")
    many.add_argument("--scheduler", metavar="ADDRESS", help="address of a dask scheduler whose workers do the work")
    many.add_argument(
        "--part",
        type=_part,
        default=(1, 1),
        metavar="K/N",
        help="only every N-th scene, from the K-th on; in a SLURM array $SLURM_ARRAY_TASK_ID/N",
    )


def _part(word: str) -> tuple[int, int]:
    k, slash, n = word.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise argparse.ArgumentTypeError(f"found {word}, expected K/N with K from 1 to N")
    return int(k), int(n)


def _predict_scene(options: argparse.Namespace) -> int:
    from landscale.maps.predict import predict

    if options.stride is not None and options.stride < 1:
        raise BadInput("--stride", f"found {options.stride}, expected at least 1")
    if options.each:
        return _predict_each(options)
    if (options.workers, options.scheduler, options.part) != (1, None, (1, 1)):
        raise LandscaleError("--workers, --scheduler and --part belong to --each, a map for each scene")
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


def _predict_each(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from landscale.maps.many import predict_each

    refused = {"--polygons": options.polygons, "--mask": options.mask, "--runtime": options.runtime}
    for flag, value in refused.items():
        if value is not None:
            raise LandscaleError(f"{flag} is for one map; leave it out with --each")
    if options.workers < 1:
        raise BadInput("--workers", f"found {options.workers}, expected at least 1")
    found = predict_each(
        options.model,
        options.scenes,
        options.out,
        workers=options.workers,
        scheduler=options.scheduler,
        part=options.part,
        stride=options.stride,
        offset=options.offset,
        probabilities=options.probabilities,
        show_entropy=options.entropy,
        mask=not options.no_mask,
        aoi=options.aoi,
        viewer=options.viewer,
    )
    failed = [one for one in found if one.state == "failed"]
    counts = ", ".join(f"{sum(one.state == state for one in found)} {state}" for state in ("written", "kept", "failed"))
    print_result(options, {"maps": [asdict(one) for one in found]}, lambda: print(f"{options.out}: {counts}"))
    if failed:
        raise LandscaleError(f"{len(failed)} of {len(found)} scenes failed, the first: {failed[0].problem}")
    return 0


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
