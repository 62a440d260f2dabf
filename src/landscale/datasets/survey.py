"""What every source answers: which patches there are, before any pixel is read, and how to read one."""

from __future__ import annotations

import bz2
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput, LandscaleError, reason
from landscale.formats.geotiff import Place
from landscale.store import SPLITS, Layout

if TYPE_CHECKING:  # a worker does without
    import pandas as pd

# Of a drawn split; those of the published lists of EuroSAT and UC Merced (Neumann et al. 2019).
DRAWN = {"train": 0.6, "val": 0.2, "test": 0.2}


@dataclass(frozen=True)
class Found:
    """What only reading a patch tells."""

    place: Place = field(default_factory=Place)
    tile: str = ""


class Reader(Protocol):
    """Reads patches into their planes (n, bands, side, side) and, unless the survey knew them, their classes (n, C).

    It yields, patch by patch, what else it found, or the error (BadInput: a file is missing or damaged; UnknownName: a
    label outside the nomenclature) that makes the patch a damaged one. `wheres` are neighbours in the survey's table.
    """

    def __call__(
        self, wheres: Sequence[Any], planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]
    ) -> Iterable[Found | LandscaleError]: ...


class PatchReader(Protocol):
    """Reads one patch into planes (bands, side, side) and classes (C,); raises what `Reader` yields."""

    def __call__(self, where: str, planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]) -> Found: ...


@dataclass(frozen=True)
class OneByOne:
    """The Reader of a source whose patches share no file."""

    read: PatchReader

    def __call__(
        self, wheres: Sequence[str], planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]
    ) -> Iterator[Found | LandscaleError]:
        for i, where in enumerate(wheres):
            try:
                yield self.read(where, {key: plane[i] for key, plane in planes.items()}, classes[i])
            except LandscaleError as error:
                yield error


@dataclass(frozen=True)
class Survey:
    """The patches of a source. Needs to be cheap for 600,000 of them and to cross process borders in slices.

    table: a row a patch with `name` (unique), `where` (for the reader), `split` (code), and where known `tile`, `date`,
    `country`, `snow`, `cloud`, and the `SHARES`. Where patches share a file, they are neighbours and have the same
    number in `job`: one worker reads them all. classes (N, C) uint8, or None where the reader finds them.
    """

    layout: Layout
    table: pd.DataFrame
    classes: NDArray[np.uint8] | None
    read: Reader
    provenance: dict[str, Any]


def split_code(name: str, where: Path | str) -> int:
    """The code of a split by the names people give it (`validation` is `val`)."""
    name = {"validation": "val", "valid": "val", "training": "train"}.get(name.lower(), name.lower())
    if name not in SPLITS:
        raise BadInput(where, f"has the split '{name}', expected {', '.join(SPLITS[1:])}")
    return SPLITS.index(name)


def check_names(table: pd.DataFrame, where: Path) -> None:
    """Refuse an empty survey and patches that stand in it twice."""
    if table.empty:
        raise BadInput(where, "holds no patch")
    twice = table["name"][table["name"].duplicated()]
    if len(twice):
        raise BadInput(where, f"lists the patch {twice.iloc[0]} more than once")


def read_list(path: Path) -> set[str]:
    """The first column of a csv, txt, or csv.bz2 without header: names of patches, freed of folder and suffix."""
    try:
        data = path.read_bytes()
        text = (_unpacked(data) if path.suffix == ".bz2" else data).decode("utf-8-sig")
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(path, f"is no list of patch names ({reason(error)})") from None
    # Ten times faster than pandas, and there are 600,000 of them.
    names = [line.partition(",")[0].strip().strip('"') for line in text.replace("\r", "\n").split("\n")]
    strange = next((name for name in names if not name.isprintable()), None)
    if strange is not None:
        raise BadInput(path, f"is no list of patch names (found {strange!r})")
    return {PurePosixPath(name).stem if "." in name or "/" in name else name for name in names if name}


def _unpacked(data: bytes) -> bytes:
    """The streams of a bz2 file; Python's own reader leaves out, without a word, whatever follows a damaged header."""
    parts: list[bytes] = []
    while data or not parts:
        stream = bz2.BZ2Decompressor()
        parts.append(stream.decompress(data))
        if not stream.eof:
            raise EOFError("it is cut off")
        data = stream.unused_data
    return b"".join(parts)


def is_listed(names: pd.Series[str], listed: set[str]) -> NDArray[np.bool_]:
    """Which names are in a list; by Python's sets, as pandas takes seconds for it."""
    return np.fromiter((name in listed for name in names.tolist()), bool, len(names))


def splits_by_lists(names: pd.Series[str], folder: Path) -> NDArray[np.uint8]:
    """The split of each name, by the lists in a folder; the first of `SPLITS`, "none", where no list has it.

    Raises:
        BadInput: a list that cannot be read, or a name in two of them.
    """
    splits = np.zeros(len(names), np.uint8)
    for split, path in split_lists(folder).items():
        listed = is_listed(names, read_list(path))
        if (twice := listed & (splits > 0)).any():
            other = SPLITS[splits[twice][0]]
            raise BadInput(path, f"lists {names[twice].iloc[0]}, which the list of '{other}' has already")
        splits[listed] = SPLITS.index(split)
    return splits


def split_lists(folder: Path) -> dict[str, Path]:
    """The lists in a folder by the split they are named after: `train.csv`, `val.csv.bz2`, `eurosat-test.txt`."""
    found = {}
    for path in sorted(folder.glob("*")):
        word = path.name.split(".")[0].lower().split("-")[-1]
        if path.suffix in {".csv", ".bz2", ".txt"} and word in {"train", "val", "validation", "test"}:
            found["val" if word == "validation" else word] = path
    return found


def choose_splits(
    names: pd.Series[str], groups: NDArray[np.int64], given: tuple[str | None, Path], lists: Path | None, seed: int
) -> NDArray[np.uint8]:
    """The splits of an input's patches: that of its SPLIT=INPUT; else that of the list which names one; else drawn by group.

    Raises:
        BadInput: no such split, or no list in the folder `lists`.
    """
    split, path = given
    if split is not None:
        return np.full(len(names), split_code(split, path), np.uint8)
    if lists is None:
        return draw_splits(groups, seed)
    if not split_lists(lists):
        raise BadInput(lists, "holds no list named train, val or test (.csv, .csv.bz2 or .txt)")
    return splits_by_lists(names, lists)


def draw_splits(groups: NDArray[np.int64], seed: int, shares: Mapping[str, float] = DRAWN) -> NDArray[np.uint8]:
    """A split for every row, where neither an input nor a list says it.

    Within each group (a class), rows in seeded order are cut at the shares, so that every split has every group.
    """
    splits = np.zeros(len(groups), np.uint8)
    codes = np.array([SPLITS.index(split) for split in shares], np.uint8)
    edges = np.cumsum(list(shares.values()))
    for group in np.unique(groups).tolist():
        order = np.random.default_rng([seed, group]).permutation(np.flatnonzero(groups == group))
        position = (np.arange(len(order)) + 0.5) / len(order)
        splits[order] = codes[np.searchsorted(edges[:-1], position)]
    return splits


def block_split(column: int, row: int, side: int) -> str:
    """The split of a patch: the one of its block of `side` × `side` patches, 3:1:1 for train, val and test.

    Neighbours resemble each other, so they are kept in one split. Blocks of val and of test lie a knight's move from each
    other: each split sees the whole of a tile, and no block of one touches another of its own.
    """
    return ("train", "val", "train", "test", "train")[(column // side + 2 * (row // side)) % 5]


def acquired(names: pd.Series[str]) -> pd.Series[str]:
    """ISO times of acquisition, from product names such as S2A_MSIL2A_20170613T101031_…; v1 writes hours without a zero."""
    stamp = names.str.extract(r"_(\d{8})T(\d{5,6})(?:_|$)", expand=True)
    day, time = stamp[0].fillna(""), stamp[1].fillna("").str.zfill(6)
    date = day.str[:4] + "-" + day.str[4:6] + "-" + day.str[6:]
    iso = date + "T" + time.str[:2] + ":" + time.str[2:4] + ":" + time.str[4:]
    return iso.where(day != "", "")
