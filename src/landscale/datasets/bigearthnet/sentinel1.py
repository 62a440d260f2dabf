"""BigEarthNet's Sentinel-1 half (Sumbul et al. 2021): VV and VH in dB, one patch for every patch of Sentinel-2.

v1: `BigEarthNet-S1-v1.0/<s1 patch>/<s1 patch>_VV.tif …` with `<s1 patch>_labels_metadata.json`; the Sentinel-2 patch
that it belongs to is in the second column of the lists, or in that JSON file.
v2: `BigEarthNet-S1/<s1 product>/<s1 patch>/<s1 patch>_VV.tif …`; the Sentinel-2 patch is in `metadata.parquet`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from landscale.datasets.splits import split_lists
from landscale.errors import BadInput
from landscale.formats.content import read_text
from landscale.runtime.documents import read_json
from landscale.store.planes import SENTINEL1

(RADAR,) = SENTINEL1
FOLDER_V1, FOLDER_V2 = "BigEarthNet-S1-v1.0", "BigEarthNet-S1"


def product(name: str) -> str:
    """The folder of v2 that contains a Sentinel-1 patch: the patch's name without tile, column and row."""
    return name.rsplit("_", 3)[0]


def listed_pairs(lists: Path) -> dict[str, str]:
    """Name of the Sentinel-1 patch by name of the Sentinel-2 patch, from the lists in a folder that have a second column.

    Raises:
        BadInput: a list that cannot be read.
    """
    pairs = {}
    for path in (*split_lists(lists).values(), *sorted(lists.glob("patches_with_*"))):
        for line in read_text(path).replace("\r", "\n").split("\n"):
            name, comma, rest = line.partition(",")
            if comma:
                pairs[_stripped(name)] = _stripped(rest.partition(",")[0])
    return pairs


def _stripped(name: str) -> str:
    return name.strip().strip('"')


def primary_name(path: Path | str, content: Any) -> str:
    """The name of the Sentinel-2 patch that a Sentinel-1 patch of v1 belongs to, from the content of its JSON file.

    Raises:
        BadInput: the content has no such name; the message names `path`.
    """
    name = content.get("corresponding_s2_patch") if isinstance(content, dict) else None
    if not isinstance(name, str):
        raise BadInput(path, "has no 'corresponding_s2_patch'")
    return name


def pair_v1(names: list[str], folder: Path, lists: Path) -> list[str]:
    """For each Sentinel-2 patch the folder of its Sentinel-1 patch, or "" if it has none.

    Raises:
        BadInput: a list or a JSON file cannot be read.
    """
    pairs = listed_pairs(lists)
    if not pairs.keys() >= set(names):
        paired = set(pairs.values())
        for patch in sorted(folder.iterdir()):
            if patch.name not in paired and patch.is_dir():
                path = patch / f"{patch.name}_labels_metadata.json"
                pairs.setdefault(primary_name(path, read_json(path)), patch.name)
    return [f"{folder}/{pairs[name]}" if name in pairs else "" for name in names]
