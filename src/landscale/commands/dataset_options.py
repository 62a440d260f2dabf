"""The options of data sets on the command line of `prepare`: each data set's module declares its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from landscale.datasets import load_dataset
from landscale.errors import LandscaleError

_DEST_PREFIX = "dataset option "  # of the names of these options in the namespace


def add_dataset_options(parser: argparse.ArgumentParser, datasets: Sequence[str]) -> None:
    """Add the options of the data sets that are named on a command line, before it is parsed.

    A word there may be the name of a data set without being meant as one, as in `--weights folder`. The parser then accepts the
    options of that data set, too, and `Dataset.survey` refuses them.
    """
    flags: set[str] = set()
    for name in datasets:
        group = parser.add_argument_group(f"options of {name}")
        try:
            options = load_dataset(name).options
        except LandscaleError as error:
            parser.error(str(error))
        for option in options:
            if option.flag not in flags:
                flags.add(option.flag)
                group.add_argument(
                    option.flag,
                    type=option.parse,
                    metavar=option.metavar or option.name.upper(),
                    help=option.help,
                    dest=_DEST_PREFIX + option.name,
                    default=argparse.SUPPRESS,
                )


def given_dataset_options(options: argparse.Namespace) -> dict[str, Any]:
    """The values of the data set options that were given, by name."""
    return {
        key.removeprefix(_DEST_PREFIX): value for key, value in vars(options).items() if key.startswith(_DEST_PREFIX)
    }


def split_input(word: str) -> tuple[str | None, Path]:
    """Split or None, and path, of an INPUT or SPLIT=INPUT; the path of an existing file may contain a `=`."""
    split, equals, path = word.partition("=")
    return (split, Path(path)) if equals and not Path(word).exists() else (None, Path(word))
