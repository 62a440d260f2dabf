"""BigEarthNet's published archives, read in file order without unpacking them: Sentinel-2 alone, or with Sentinel-1."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscale.datasets.bigearthnet.folders import FOLDER_S2, V1, V2, check_lists, describe_v1, is_synthetic, layout
from landscale.datasets.bigearthnet.sentinel1 import FOLDER_V1, FOLDER_V2, RADAR, listed_pairs
from landscale.datasets.bigearthnet.sequence import TarPatches
from landscale.datasets.sequential import SequentialSurvey
from landscale.datasets.splits import split_code, split_lists
from landscale.datasets.survey import check_names
from landscale.errors import BadInput
from landscale.formats.decompression import estimated_size
from landscale.formats.tar import first_member
from landscale.store import Plane
from landscale.store.planes import SENTINEL2
from landscale.store.reben_metadata import read_metadata
from landscale.vocabulary.nomenclatures import Nomenclature, nomenclature

PATCHES_V1 = 590_326  # in the whole of v1
_FOLDER_S2_V1 = "BigEarthNet-v1.0"
_DEPTHS = {_FOLDER_S2_V1: 2, FOLDER_V1: 2, FOLDER_S2: 3, FOLDER_V2: 3}  # folder levels from there down to a file


@dataclass(frozen=True)
class OpticalArchiveV1:
    """The Sentinel-2 archive of v1: labels are in the archive, splits and flags in lists next to it."""

    path: Path
    labels: Nomenclature
    lists: Path

    def open(self) -> TarPatches:
        return TarPatches(self.path, SENTINEL2, self.labels)

    def classes_of(self, name: str) -> None:
        """None, because `TarPatches.read` reads them from the archive."""

    def describe(self, names: list[str]) -> pd.DataFrame:
        return describe_v1(names, self.lists)

    def capacity(self) -> int:
        return _capacity(self.path, PATCHES_V1)

    def metadata_files(self) -> list[Path]:
        return sorted({*split_lists(self.lists).values(), *self.lists.glob("patches_with_*")})


@dataclass(frozen=True)
class OpticalArchiveV2:
    """The Sentinel-2 archive of v2, of which the patches in `metadata.parquet` are read.

    table: the rows of that file. classes: their labels (N, C). rows: row number by name of the patch.
    """

    path: Path
    metadata: Path
    table: pd.DataFrame
    classes: NDArray[np.uint8]
    rows: dict[str, int]

    def open(self) -> TarPatches:
        return TarPatches(self.path, SENTINEL2, names=self.rows)

    def classes_of(self, name: str) -> NDArray[np.uint8]:
        classes: NDArray[np.uint8] = self.classes[self.rows[name]]
        return classes

    def describe(self, names: list[str]) -> pd.DataFrame:
        rows = [self.rows[name] for name in names]
        return self.table.iloc[rows].drop(columns="partner").reset_index(drop=True)

    def capacity(self) -> int:
        return _capacity(self.path, len(self.table))

    def metadata_files(self) -> list[Path]:
        return [self.metadata]


@dataclass(frozen=True)
class RadarArchive:
    """A Sentinel-1 archive, of v1 or v2.

    optical: the Sentinel-2 archive that it belongs to.
    """

    path: Path
    optical: OpticalArchiveV1 | OpticalArchiveV2
    title: str = "Sentinel-1"
    planes: tuple[Plane, ...] = (RADAR,)

    def pairs(self) -> dict[str, str]:
        """Name of the Sentinel-2 patch by name of the Sentinel-1 patch, for those in lists or metadata."""
        if isinstance(self.optical, OpticalArchiveV1):
            return {s1: s2 for s2, s1 in listed_pairs(self.optical.lists).items()}
        table = self.optical.table
        return {s1: s2 for s1, s2 in zip(table["partner"], table["name"], strict=True) if s1}

    def open(self, paired: Container[str]) -> TarPatches:
        return TarPatches(self.path, self.planes, paired=paired)


def _capacity(path: Path, known: int) -> int:
    """An upper estimate of the number of patches, from the number of `known` ones and the archive's uncompressed size."""
    smallest = sum(512 * len(plane.bands) + plane.nbytes for plane in SENTINEL2)
    return min(known, int(1.5 * estimated_size(path)) // smallest + 64)


def survey_archives(
    inputs: list[tuple[str | None, Path]], labels: str | None = None, lists: Path | None = None
) -> SequentialSurvey:
    """Survey the archive of Sentinel-2 patches, alone or with that of their Sentinel-1 patches, in any order.

    Args:
        inputs: split or None, and the archive.
        labels: `clc43` (v1's default) or `ben19` (v2's default and only choice).
        lists: folder with v1's lists, or v2's `metadata.parquet`; by default `metadata`, or that file, next to the archive.

    Raises:
        BadInput: another kind of archive, two that do not belong together, or damaged metadata.
    """
    archives: dict[bool, tuple[Path, str]] = {}  # by whether it is the Sentinel-1 one: path and top folder
    given_split = None
    for split, path in inputs:
        folder = _top_folder(path)
        is_radar = folder in (FOLDER_V1, FOLDER_V2)
        if is_radar in archives:
            raise BadInput(path, f"is an archive of {folder} like {archives[is_radar][0]}, expected one of each kind")
        archives[is_radar] = path, folder
        given_split = given_split if split is None else split_code(split, path)
    if False not in archives:
        raise BadInput(inputs[0][1], "is the Sentinel-1 half only; give the archive of the Sentinel-2 half, too")
    path, folder = archives[False]
    version = V2 if folder == FOLDER_S2 else V1
    optical = _optical_v1(path, labels, lists) if version == V1 else _optical_v2(path, labels, lists)
    radar = None
    if True in archives:
        other, other_folder = archives[True]
        if (other_folder == FOLDER_V2) != (version == V2):
            raise BadInput(other, f"is another version of BigEarthNet than {path}")
        radar = RadarArchive(other, optical)
    target = nomenclature(labels or ("clc43" if version == V1 else "ben19"))
    provenance = version | ({"synthetic": True} if is_synthetic(path) else {})
    listed = len(optical.table) if isinstance(optical, OpticalArchiveV2) else None
    return SequentialSurvey(layout(target, radar is not None), optical, radar, given_split, provenance, listed=listed)


def _optical_v1(path: Path, labels: str | None, lists: Path | None) -> OpticalArchiveV1:
    check_lists(lists)
    return OpticalArchiveV1(path, nomenclature(labels or "clc43"), lists or path.parent / "metadata")


def _optical_v2(path: Path, labels: str | None, lists: Path | None) -> OpticalArchiveV2:
    metadata = (lists or path.parent) / "metadata.parquet"
    table, classes = read_metadata(metadata, nomenclature(labels or "ben19"))
    check_names(table, metadata)
    rows = dict(zip(table["name"].tolist(), range(len(table)), strict=True))
    return OpticalArchiveV2(path, metadata, table, classes, rows)


def _top_folder(path: Path) -> str:
    """The folder that distinguishes BigEarthNet's archives, from the path of the first file.

    Raises:
        BadInput: none of them.
    """
    name = first_member(path)
    parts = name.split("/")
    for folder, depth in _DEPTHS.items():
        if len(parts) > depth and parts[-1 - depth] == folder:
            return folder
    raise BadInput(path, f"is no BigEarthNet archive: holds {name}, expected {' or '.join(_DEPTHS)}")
