"""`landscale explain`: which pixels and which bands of patches decide, or which pixels of a scene, as a folder with a page."""

from __future__ import annotations

import argparse
from pathlib import Path

from landscale.commands.command import AddCommand, add_offset, add_weights, print_result
from landscale.errors import LandscaleError
from landscale.scenes import LAYOUTS


def add_command(add: AddCommand) -> None:
    parser = add(
        "explain",
        _explain_model,
        "show which pixels and which bands decide: heat maps, a test of them, and the importance of bands",
        "landscale explain runs/eca ben.h5 explained --patches 3",
    )
    add_weights(parser, "model")
    parser.add_argument(
        "data", type=Path, metavar="STORE.h5|SCENE", help=f"the patch store; or a scene, {LAYOUTS}, for heat maps only"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write; OUT/index.html is the page")
    parser.add_argument("--split", help="train, val or test (default: test, or val in a store without test)")
    parser.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        metavar="NAME",
        help="show heat maps of this class only; may be repeated (default: all classes; of a scene the three most frequent)",
    )
    parser.add_argument(
        "--patches",
        type=int,
        default=2,
        help="patches of each class that were found rightly, found wrongly, and missed (default: 2 each)",
    )
    parser.add_argument(
        "--pick", default="confident", help="confident: patches of which the model is most certain (default), or random"
    )
    parser.add_argument(
        "--band-patches",
        type=int,
        default=256,
        metavar="N",
        help="patches from which the importance of bands is computed, 0 for none (default: 256)",
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="times that a band is exchanged among patches, 1 to 10 (default: 5)"
    )
    parser.add_argument("--aoi", type=Path, metavar="AREA", help="of a scene, explain these polygons only")
    add_offset(parser)
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--batch", type=int, default=32, help="patches per batch (default: 32)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _explain_model(options: argparse.Namespace) -> int:
    from landscale.explain.explain import Choices, explain
    from landscale.explain.scene import explain_scene
    from landscale.scenes.scene import is_scene
    from landscale.store import is_environment

    page = options.out / "index.html"
    if options.batch < 1:
        raise LandscaleError(f"--batch: found {options.batch}, expected at least 1")
    if is_scene(options.data) and not (options.data.is_dir() and is_environment(options.data)):
        if options.split is not None:
            raise LandscaleError("--split is that of a store, but a scene was given")
        found = explain_scene(
            options.model,
            options.data,
            options.out,
            options.classes,
            aoi=options.aoi,
            offset=options.offset,
            batch=options.batch,
        )
        return print_result(options, found, lambda: print(f"{page}: heat maps of {', '.join(found['classes'])}"))
    if options.aoi is not None or options.offset is not None:
        raise LandscaleError("--aoi and --offset are those of a scene, but a store was given")
    choices = Choices(
        classes=tuple(options.classes),
        patches=options.patches,
        pick=options.pick,
        band_patches=options.band_patches,
        repeats=options.repeats,
        seed=options.seed,
        batch=options.batch,
    )
    summary = explain(options.model, options.data, options.out, options.split, choices)
    heat_maps = sum(summary["examples"].values())
    return print_result(
        options, summary, lambda: print(f"{page}: {heat_maps} heat maps of the split {summary['split']}")
    )
