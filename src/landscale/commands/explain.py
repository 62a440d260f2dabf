"""`landscale explain`: which pixels and which bands decide, as a folder with a page."""

from __future__ import annotations

import argparse
from pathlib import Path

from landscale.commands.command import AddCommand, add_weights, print_result


def add_command(add: AddCommand) -> None:
    parser = add(
        "explain",
        _explain_model,
        "show which pixels and which bands decide: heat maps, a test of them, and the importance of bands",
        "landscale explain runs/eca ben.h5 explained --patches 3",
    )
    add_weights(parser, "model")
    parser.add_argument("store", type=Path, metavar="STORE.h5", help="the patch store")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write; OUT/index.html is the page")
    parser.add_argument("--split", help="train, val or test (default: test, or val in a store without test)")
    parser.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        metavar="NAME",
        help="show heat maps of this class only; may be repeated (default: all classes)",
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
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--batch", type=int, default=32, help="patches per batch (default: 32)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _explain_model(options: argparse.Namespace) -> int:
    from landscale.explain.explain import Choices, explain

    choices = Choices(
        classes=tuple(options.classes),
        patches=options.patches,
        pick=options.pick,
        band_patches=options.band_patches,
        repeats=options.repeats,
        seed=options.seed,
        batch=options.batch,
    )
    summary = explain(options.model, options.store, options.out, options.split, choices)
    heat_maps = sum(summary["examples"].values())
    return print_result(
        options,
        summary,
        lambda: print(f"{options.out / 'index.html'}: {heat_maps} heat maps of the split {summary['split']}"),
    )
