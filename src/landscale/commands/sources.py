"""The sources of `prepare`, and which options each of them takes."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscale.errors import LandscaleError, UnknownName

if TYPE_CHECKING:
    from landscale.datasets.bigearthnet.archive import Stream
    from landscale.datasets.survey import Survey

_MASKS = ("max_cloud", "max_snow", "max_nodata")
MODULES = {
    "bigearthnet": "bigearthnet.folders",
    "tiles": "tiles.survey",
    "lmdb": "bigearthnet.lmdb",
    "synthetic": "synthetic.bigearthnet_archive",
}  # those that are not called like their source
SOURCES: dict[str, tuple[str, ...]] = {
    "bigearthnet": ("labels", "lists"),
    "tiles": ("labels", "lists", "patch_list", "corine", "min_share", *_MASKS),
    "lmdb": ("labels",),
    "eurosat": ("lists", "seed"),
    "folder": ("bands", "lists", "seed"),
    "uc_merced": ("labels", "lists", "seed"),
    "sen12ms": ("labels", "lists", "seed"),
    "so2sat": (),
    "torchgeo": ("bands", "seed"),
    "synthetic": ("labels", "patches", "seed"),
}


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("source", metavar="SOURCE", help=", ".join(SOURCES))
    p.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="folder or archive, or SPLIT=PATH to put all of it into one split; torchgeo: NAME and its folder",
    )
    every = p.add_argument_group("sources")
    every.add_argument(
        "--labels",
        metavar="NOMENCLATURE",
        help="bigearthnet, tiles: clc43 or ben19 (default: ben19, and clc43 for v1); uc_merced: ucmerced21 or ucmerced17; "
        "sen12ms: igbp10 or igbp10-single",
    )
    every.add_argument("--lists", type=Path, metavar="DIR", help="split lists: train.csv, val.csv.bz2, test.txt …")
    every.add_argument(
        "--bands", metavar="SET", help="folder, torchgeo: what the bands of the images are, in their order"
    )
    every.add_argument("--seed", type=int, help="of a drawn split (default: 0); synthetic: of the landscape")
    every.add_argument("--patches", type=int, help="synthetic: how many to make (default: 600)")
    tiles = p.add_argument_group("tiles")
    tiles.add_argument("--corine", type=Path, metavar="MAP", help="labels from CORINE Land Cover, raster or GeoPackage")
    tiles.add_argument(
        "--min-share", type=float, metavar="SHARE", help="of a patch that makes a class its label (default: any)"
    )
    tiles.add_argument(
        "--patch-list", type=Path, metavar="LIST", help="patches to take: names, a table, or a BigEarthNet"
    )
    tiles.add_argument("--max-cloud", type=float, metavar="SHARE", help="of a patch under cloud or its shadow, 0 to 1")
    tiles.add_argument("--max-snow", type=float, metavar="SHARE", help="of a patch under snow")
    tiles.add_argument("--max-nodata", type=float, metavar="SHARE", help="of a patch without data")


def is_stream(options: argparse.Namespace) -> bool:
    """Whether the inputs are an archive to read without unpacking it, or two, with Sentinel-1."""
    if options.source != "bigearthnet":
        return False
    from landscale.formats.tar import is_archive

    return all(is_archive(path) for _, path in map(_split_input, options.inputs))


def stream(options: argparse.Namespace) -> Stream:
    """That archive.

    Raises:
        LandscaleError: see `bigearthnet_archive.stream`; or an option that it does not take.
    """
    from landscale.datasets.bigearthnet import archive as bigearthnet_archive

    for option in ("scheduler", "plan"):
        if getattr(options, option):
            raise LandscaleError(f"prepare bigearthnet: an archive is read by one process, it takes no --{option}")
    return bigearthnet_archive.stream([_split_input(word) for word in options.inputs], **_given(options))


def survey(options: argparse.Namespace, workers: int) -> Survey:
    """Look at the source that a user names.

    Raises:
        LandscaleError: see the source; or an option that it does not take.
    """
    if options.source not in SOURCES:
        raise UnknownName("source", options.source, SOURCES)
    given = _given(options)
    if options.source == "tiles":
        from landscale.datasets.tiles.quality_masks import Limits

        limits = {mask.removeprefix("max_"): given.pop(mask) for mask in _MASKS if mask in given}
        given |= {"limits": Limits(**limits), "workers": workers}
    room = import_module(f"landscale.datasets.{MODULES.get(options.source, options.source)}")
    found: Survey = room.survey([_split_input(word) for word in options.inputs], **given)
    return found


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """What the user said, checked against what the source takes."""
    every = dict.fromkeys(key for takes in SOURCES.values() for key in takes)
    given = {key: value for key in every if (value := getattr(options, key)) is not None}
    if foreign := [key for key in given if key not in SOURCES[options.source]]:
        raise LandscaleError(f"prepare {options.source}: takes no --{foreign[0].replace('_', '-')}")
    return given


def _split_input(word: str) -> tuple[str | None, Path]:
    split, equals, path = word.partition("=")
    return (split, Path(path)) if equals and not Path(word).exists() else (None, Path(word))
