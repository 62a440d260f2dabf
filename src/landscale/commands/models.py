"""`landscale models`: the catalogue of networks, and trained ones by name."""

from __future__ import annotations

import argparse

from landscale.commands.command import AddCommand, print_result
from landscale.errors import LandscaleError


def add_command(add: AddCommand) -> None:
    parser = add(
        "models",
        _list_networks,
        "list the networks: parameters, FLOPs, input, source, published scores",
        "landscale models resnet50",
    )
    parser.add_argument(
        "model", nargs="?", metavar="NAME", help="a network of landscale or timm (default: all of landscale's)"
    )
    parser.add_argument("--bands", default="s2-12", metavar="SET|NUMBER", help="input bands (default: s2-12)")
    parser.add_argument("--classes", type=int, default=19, metavar="N", help="number of classes (default: 19)")
    parser.add_argument("--family", metavar="F", help="only networks of this family")
    parser.add_argument(
        "--recount", action="store_true", help="count all networks again and rewrite the table this command reads"
    )
    parser.add_argument(
        "--encoders", action="store_true", help="list trained networks by name: bundled ones and those of other people"
    )
    parser.add_argument(
        "--bundled", action="store_true", help="list only the trained networks that come with landscale"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with citation and source of each")


def _list_networks(options: argparse.Namespace) -> int:
    if options.encoders or options.bundled:
        return _list_encoders(options)
    from landscale.models.catalogue import recount_zoo, zoo_rows
    from landscale.runtime.tables import show_models
    from landscale.vocabulary.bands import band_set

    bands = int(options.bands) if options.bands.isdecimal() else len(band_set(options.bands).names)
    if bands < 1:
        raise LandscaleError(f"--bands: found {bands}, expected at least 1")
    if options.classes < 0:
        raise LandscaleError(f"--classes: found {options.classes}, expected at least 0")
    rows = recount_zoo() if options.recount else zoo_rows(options.model, options.family, bands, options.classes)
    return print_result(options, rows, lambda: show_models(rows, bands, options.classes))


def _list_encoders(options: argparse.Namespace) -> int:
    from landscale.models.encoders.listing import bundled_rows, published_rows
    from landscale.runtime.tables import show_encoders

    rows = bundled_rows() + ([] if options.bundled else published_rows())
    if options.model:
        rows = [row for row in rows if options.model in row["name"]]
    return print_result(options, rows, lambda: show_encoders(rows, others=not options.bundled))
