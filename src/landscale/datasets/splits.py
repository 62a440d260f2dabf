"""Which patch belongs to train, val and test: by lists of names, at random, or by blocks of neighbouring patches."""

from __future__ import annotations

import bz2
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput, reason
from landscale.store import SPLITS

if TYPE_CHECKING:  # worker processes start without pandas
    import pandas as pd

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
    """Names of patches from the first column of a csv, txt or csv.bz2 without header, without folders and suffixes of images.

    Raises:
        BadInput: it cannot be read, or is no text.
    """
    try:
        data = path.read_bytes()
        text = (_decompress_bz2(data) if path.suffix == ".bz2" else data).decode("utf-8-sig")
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(path, f"is no list of patch names ({reason(error)})") from None
    # Ten times faster than pandas, and there may be 600,000 names.
    names = [line.partition(",")[0].strip().strip('"') for line in text.replace("\r", "\n").split("\n")]
    unprintable = next((name for name in names if not name.isprintable()), None)
    if unprintable is not None:
        raise BadInput(path, f"is no list of patch names (found {unprintable!r})")
    return {_without_suffix(name) if "." in name or "/" in name else name for name in names if name}


def _without_suffix(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in _IMAGES else path.name


def _decompress_bz2(data: bytes) -> bytes:
    """All streams of a bz2 file. Python's `bz2.decompress` silently ignores everything after a damaged header."""
    parts: list[bytes] = []
    while data or not parts:
        stream = bz2.BZ2Decompressor()
        parts.append(stream.decompress(data))
        if not stream.eof:
            raise EOFError("it is cut off")
        data = stream.unused_data
    return b"".join(parts)


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
