"""Options of data sets: each data set declares in `OPTIONS` those that its `survey` takes. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Option:
    """One keyword argument of a data set's `survey`, and one option of `landscale prepare`.

    name: the keyword; the command line writes it with hyphens (`min_share` → `--min-share`).
    help: one line for `landscale prepare DATASET --help`.
    parse: converts the word on the command line to the value; raises ValueError if that is impossible.
    metavar: placeholder of the value in the help.
    """

    name: str
    help: str
    parse: Callable[[str], Any] = str
    metavar: str | None = None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def labels_option(help_text: str) -> Option:
    """`--labels NOMENCLATURE`; `help_text` lists the nomenclatures that the data set has."""
    return Option("labels", help_text, metavar="NOMENCLATURE")


LISTS = Option("lists", "folder of split lists: train.csv, val.csv.bz2, test.txt …", Path, "DIR")
BANDS = Option("bands", "what the bands of the images are, in their order: a band set or a list", metavar="SET")


def seed(word: str) -> int:
    value = int(word)
    if value < 0:
        raise ValueError("expected at least 0")
    return value


SEED = Option("seed", "seed of the drawn split (default: 0)", seed)
