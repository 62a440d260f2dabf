"""Which patch belongs to train, val and test: by lists of names, at random, or by blocks of neighbouring patches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput
from landscale.formats.content import read_text
from landscale.formats.tables import read_rows, separator
from landscale.store import SPLITS

if TYPE_CHECKING:  # worker processes start without pandas
    import pandas as pd

NAME_COLUMNS = ("patch_id", "name", "patch", "path", "file", "filename", "file_name", "image")  # of lists with header
_IMAGES = {".tif", ".tiff", ".jpg", ".jpeg", ".png"}  # other parts after a dot belong to a name, as in Forest_0.5m_1

# Fractions of a drawn split; those of the published lists of EuroSAT and UC Merced (Neumann et al. 2019).
DRAWN_FRACTIONS = {"train": 0.6, "val": 0.2, "test": 0.2}


def split_code(name: str, path: Path | str) -> int:
    """The code of a split; `validation`, `valid` and `training` are accepted, too.

    Raises:
        BadInput: no such split; the message names `path`.
    """
    name = {"validation": "val", "valid": "val", "training": "train"}.get(name.lower(), name.lower())
    if name not in SPLITS:
        raise BadInput(path, f"has the split '{name}', expected {', '.join(SPLITS[1:])}")
    return SPLITS.index(name)


def read_list(path: Path) -> set[str]:
    """Names of patches from a csv, txt or csv.bz2, without folders and suffixes of images.

    They are in the column whose name in the first row is one of `NAME_COLUMNS`, in any case; otherwise in the first column. A
    first row that is a header is in the set, too.

    Raises:
        BadInput: the file cannot be read, see `read_text`, or has names that are not printable.
    """
    try:
        names = first_column(path)
    except BadInput as error:
        raise BadInput(path, f"is no list of patch names ({error.problem})") from None
    unprintable = next((name for name in names if not name.isprintable()), None)
    if unprintable is not None:
        raise BadInput(path, f"is no list of patch names (found {unprintable!r})")
    return {_without_suffix(name) if "." in name or "/" in name or "\\" in name else name for name in names if name}


def first_column(path: Path) -> list[str]:
    """The cells of the column of names of a list, see `read_list`; some may be empty."""
    text = read_text(path).replace("\r", "\n")
    first = text.lstrip("\n").partition("\n")[0]
    mark = separator(first)
    header = [cell.strip().strip('"').lower() for cell in first.split(mark)]
    column = next((k for k, name in enumerate(header) if name in NAME_COLUMNS), 0 if header[0] else 1)
    if column or '"' in text:
        return [row[column] for row in read_rows(path).cells if column < len(row)]
    # Ten times faster than pandas and csv, and there may be 600,000 names.
    return [line.partition(mark)[0].strip() for line in text.split("\n")]


def _without_suffix(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))  # of Windows
    return path.stem if path.suffix.lower() in _IMAGES else path.name


def is_listed(names: pd.Series[str], listed: set[str]) -> NDArray[np.bool_]:
    """Which names are in a list; by Python's sets, because pandas takes seconds for it."""
    return np.fromiter((name in listed for name in names.tolist()), bool, len(names))


def splits_by_lists(names: pd.Series[str], folder: Path) -> NDArray[np.uint8]:
    """The split of each name, by the lists in a folder; code 0 ("none") for a name that is in no list.

    Raises:
        BadInput: a list that cannot be read, or a name in two of them.
    """
    splits = np.zeros(len(names), np.uint8)
    for split, path in split_lists(folder).items():
        listed = is_listed(names, read_list(path))
        if (in_two := listed & (splits > 0)).any():
            other = SPLITS[splits[in_two][0]]
            raise BadInput(path, f"lists {names[in_two].iloc[0]}, which the list of '{other}' has already")
        splits[listed] = SPLITS.index(split)
    return splits


_LISTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def split_lists(folder: Path) -> dict[str, Path]:
    """The lists in a folder by the split that they are named after: `train.csv`, `val.csv.bz2`, `eurosat-test.txt`."""
    lists = {}
    for path in sorted(folder.glob("*")):
        word = path.name.split(".")[0].lower().split("-")[-1]
        if path.suffix in {".csv", ".bz2", ".txt"} and word in _LISTS:
            lists[_LISTS[word]] = path
    return lists


def choose_splits(
    names: pd.Series[str], groups: NDArray[np.int64], given: tuple[str | None, Path], lists: Path | None, seed: int
) -> NDArray[np.uint8]:
    """The splits of an input's patches: the SPLIT of SPLIT=INPUT; else those of the lists, if given; else drawn at random.

    Args:
        names: names of the patches (n,).
        groups: class of each patch (n,); if splits are drawn, each class is divided in the same ratio.
        given: the input: its split or None, and its path.
        lists: folder of split lists.
        seed: seed of the drawn splits.

    Raises:
        BadInput: no such split, no list in the folder `lists`, or none of the listed names is that of a patch.
    """
    split, path = given
    if split is not None:
        return np.full(len(names), split_code(split, path), np.uint8)
    if lists is None:
        return draw_splits(groups, seed)
    if not split_lists(lists):
        raise BadInput(lists, "holds no list named train, val or test (.csv, .csv.bz2 or .txt)")
    splits = splits_by_lists(names, lists)
    if len(names) and not splits.any():
        listed = sorted(name for file in split_lists(lists).values() for name in read_list(file))
        example = f", such as {listed[0]}," if listed else ""
        raise BadInput(
            lists, f"none of the {len(listed)} listed names{example} is among the patches, such as {names.iloc[0]}"
        )
    return splits


def draw_splits(
    groups: NDArray[np.int64], seed: int, fractions: Mapping[str, float] = DRAWN_FRACTIONS
) -> NDArray[np.uint8]:
    """A random split for every row (n,) uint8.

    The rows of each group (a class) are shuffled and cut at the fractions, so that every split has rows of every group.
    """
    splits = np.zeros(len(groups), np.uint8)
    codes = np.array([SPLITS.index(split) for split in fractions], np.uint8)
    edges = np.cumsum(list(fractions.values()))
    for group in np.unique(groups).tolist():
        order = np.random.default_rng([seed, group]).permutation(np.flatnonzero(groups == group))
        position = (np.arange(len(order)) + 0.5) / len(order)
        splits[order] = codes[np.searchsorted(edges[:-1], position)]
    return splits


def block_split(column: int, row: int, side: int) -> str:
    """The split of a patch. Blocks of `side` × `side` patches go to train, val and test in the ratio 3:1:1.

    Neighbouring patches resemble each other, so they are kept in one split. Blocks of val and of test are a knight's move
    apart: each split covers the whole of a tile, and no block of val or test touches another block of the same split.
    """
    return ("train", "val", "train", "test", "train")[(column // side + 2 * (row // side)) % 5]
