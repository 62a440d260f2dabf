"""BigEarthNet's published archives as they are: the patches of `BigEarthNet-S2-v1.0.tar.gz` and its sisters, never unpacked.

What the folders tell at once, an archive tells bit by bit: which patches it has, and in which order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscale.datasets.bigearthnet.folders import FOLDER_S2, V1, V2, check_lists, describe_v1, is_synthetic, layout
from landscale.datasets.bigearthnet.reader import read_labels, same_place
from landscale.datasets.bigearthnet.sentinel1 import FOLDER_V1, FOLDER_V2, RADAR, listed_pairs, partner
from landscale.datasets.survey import Found, check_names, split_code, split_lists
from landscale.errors import BadInput, LandscaleError, reason
from landscale.formats.decompression import estimated_size
from landscale.formats.geotiff import Place, decode_band
from landscale.formats.tar import Tarball, first_member
from landscale.store import Layout, Plane
from landscale.store.planes import SENTINEL2
from landscale.store.reben_metadata import read_metadata
from landscale.vocabulary.nomenclatures import Nomenclature, nomenclature

# A member of an archive: the patch that it belongs to, its name there, its name, its content.
_File = tuple[str, str, str, memoryview]

PATCHES_V1 = 590_326  # of the whole of it
_FOLDER_S2_V1 = "BigEarthNet-v1.0"
_DEPTHS = {_FOLDER_S2_V1: 2, FOLDER_V1: 2, FOLDER_S2: 3, FOLDER_V2: 3}  # folders from there down to a file
_LABELS = "labels_metadata.json"


@dataclass(frozen=True)
class Patch:
    """What an archive holds of a patch: its name, what was found, or what is wrong with it.

    partner: of a Sentinel-1 patch of v1, the Sentinel-2 patch that its labels' JSON names.
    """

    name: str
    found: Found | LandscaleError
    partner: str = ""


class Patches:
    """The patches of one archive, in its order, read into arrays that the caller brings.

    Args:
        path: the archive.
        planes: what there is to read.
        labels: where the labels stand in JSON, their nomenclature.
        wanted: the names of the patches to read; None for all. The others are passed over.
        paired: Sentinel-1 patches whose partners are known; the JSON of the others is asked.
    """

    def __init__(
        self,
        path: Path,
        planes: tuple[Plane, ...],
        labels: Nomenclature | None = None,
        wanted: Container[str] | None = None,
        paired: Container[str] | None = None,
    ) -> None:
        self._path, self._labels, self._wanted, self._paired = path, labels, wanted, paired
        self._bands = {f"{b}.tif": (p.key, k) for p in planes for k, b in enumerate(p.bands)}
        self._tarball = Tarball(path)
        self._files = self._in_patches()
        self._seen: set[str] = set()
        self._next: _File | None = None
        try:
            self._next = next(self._files, None)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._files.close()
        self._tarball.close()

    def consumed(self) -> int:
        """Bytes of the archive that have been read so far."""
        return self._tarball.consumed()

    def _in_patches(self) -> Generator[_File, None, None]:
        """The files of patches that are wanted, named as `…/PATCH/PATCH_file`."""
        patch = stem = "/"
        for path, data in self._tarball.members():
            if not path.startswith(stem):  # another patch than the last
                folder, _, _ = path.rpartition("/")
                above, _, patch = folder.rpartition("/")
                stem = f"{folder}/{patch}_"
                if not above or not path.startswith(stem) or not (self._wanted is None or patch in self._wanted):
                    stem = "/"
                    continue
            file = path[len(stem) :]
            if "/" not in file:
                yield patch, file, path, data

    def read(self, planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]) -> Patch | None:
        """Read the next patch into planes (bands, side, side) and classes (C,); None at the end of the archive.

        Raises:
            BadInput: the archive itself is damaged, or holds a patch in two places.
        """
        if self._next is None:
            return None
        name = self._next[0]
        if name in self._seen:
            raise BadInput(self._path, f"holds the patch {name} in two places")
        self._seen.add(name)
        problem: LandscaleError | None = None
        with_json = self._labels is not None or (self._paired is not None and name not in self._paired)
        missing = {*self._bands, *([_LABELS] if self._labels else [])}
        place: Place | None = None
        tile = other = ""
        found: set[str] = set()
        while self._next is not None and self._next[0] == name:
            _, file, path, data = self._next
            try:
                if file in found:
                    raise BadInput(path, "stands there twice")
                found.add(file)
                if file in self._bands:
                    key, k = self._bands[file]
                    place = same_place(path, decode_band(path, data, planes[key][k]), place)
                elif file == _LABELS and with_json:
                    content = _json(path, data)
                    if self._labels is None:
                        other = partner(path, content)
                    else:
                        tile = read_labels(path, content, self._labels, classes)
            except BadInput as error:
                problem = problem or BadInput(f"{self._path}: member {error.path}", error.problem)
            self._next = next(self._files, None)
        if problem is None and missing - found:
            problem = BadInput(self._path, f"patch {name}: lacks {', '.join(sorted(missing - found))}")
        if problem is not None and self._labels:
            classes[:] = 0  # as in a folder, where labels are read last
        return Patch(name, problem or Found(place or Place(), tile), other)


def _json(path: str, data: memoryview) -> Any:
    try:
        return json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise BadInput(path, f"is not valid JSON ({reason(error)})") from None


@dataclass(frozen=True)
class Stream:
    """BigEarthNet in one archive or two, ready to be read.

    v2 has a table of what `metadata.parquet` says, its labels (N, C), and in `rows` the row of each name; v1 has none of them.
    split: of all patches, if given. complete: called with all planes of patches by key, fills those that are in no archive.
    """

    optical: Path
    radar: Path | None
    layout: Layout
    table: pd.DataFrame
    classes: NDArray[np.uint8] | None
    rows: dict[str, int]
    lists: Path
    split: int | None
    provenance: dict[str, object]
    complete: Callable[[Mapping[str, NDArray[np.generic]]], None] | None = None

    def optical_patches(self) -> Patches:
        """The Sentinel-2 half; of v2 those that the metadata know."""
        if self.classes is None:
            return Patches(self.optical, SENTINEL2, nomenclature(self.layout.nomenclature))
        return Patches(self.optical, SENTINEL2, wanted=self.rows)

    def radar_patches(self, paired: Container[str]) -> Patches:
        """The Sentinel-1 half, of which the partners of some are known already."""
        assert self.radar is not None
        return Patches(self.radar, (RADAR,), paired=paired)

    def optical_names(self) -> dict[str, str]:
        """The Sentinel-2 patch of each Sentinel-1 patch, as far as metadata or lists tell."""
        if self.classes is None:
            return {s1: s2 for s2, s1 in listed_pairs(self.lists).items()}
        return {s1: s2 for s1, s2 in zip(self.table["partner"], self.table["name"], strict=True) if s1}

    def labels(self, name: str) -> NDArray[np.uint8] | None:
        """The classes (C,) of a patch, where the metadata tell them."""
        return None if self.classes is None else self.classes[self.rows[name]]

    def describe(self, names: list[str]) -> pd.DataFrame:
        """What is known of patches beside their pixels, as a `Survey` has it in its table."""
        if self.classes is None:
            table = describe_v1(names, self.lists)
        else:
            rows = [self.rows[name] for name in names]
            table = self.table.iloc[rows].drop(columns="partner").reset_index(drop=True)
        if self.split is not None:
            table["split"] = np.uint8(self.split)
        return table

    def most(self) -> int:
        """More patches than the archive has, by all that is known and a guess at its size; 1.5 times too many do no harm."""
        smallest = sum(512 * len(plane.bands) + plane.nbytes for plane in SENTINEL2)
        known = PATCHES_V1 if self.classes is None else len(self.table)
        return min(known, int(1.5 * estimated_size(self.optical)) // smallest + 64)

    def digest(self) -> str:
        """What decides the content of the store, in short: the archives' sizes and both ends, and all that lists say."""
        plan = json.dumps([self.layout.identity(), self.provenance, self.split], sort_keys=True, default=str)
        digest = hashlib.sha256(plan.encode())
        for path in (self.optical, self.radar):
            if path is not None:
                size = path.stat().st_size
                with path.open("rb") as file:
                    digest.update(size.to_bytes(8, "big") + file.read(1 << 20))
                    file.seek(max(0, size - (1 << 20)))
                    digest.update(file.read())
        if self.classes is not None:
            told = [self.lists / "metadata.parquet"]
        else:
            told = sorted({*split_lists(self.lists).values(), *self.lists.glob("patches_with_*")})
        for path in told:
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()


def stream(inputs: list[tuple[str | None, Path]], labels: str | None = None, lists: Path | None = None) -> Stream:
    """The archive of Sentinel-2 patches, alone or with that of their Sentinel-1 patches, in any order.

    Args:
        inputs: split or None, and the archive.
        labels: `clc43` (v1's default) or `ben19` (v2's default and only choice).
        lists: folder with v1's lists, or v2's `metadata.parquet`; by default `metadata`, or that file, beside the archive.

    Raises:
        BadInput: another kind of archive, two that do not belong together, or damaged metadata.
    """
    halves: dict[bool, tuple[Path, str]] = {}
    given = None
    for split, path in inputs:
        folder = _kind(path)
        with_radar = folder in (FOLDER_V1, FOLDER_V2)
        if with_radar in halves:
            raise BadInput(path, f"is an archive of {folder} like {halves[with_radar][0]}, expected one of each kind")
        halves[with_radar] = path, folder
        given = given if split is None else split_code(split, path)
    if False not in halves:
        raise BadInput(inputs[0][1], "holds the Sentinel-1 half only, expected the archive of Sentinel-2 beside it")
    optical, folder = halves[False]
    version = V2 if folder == FOLDER_S2 else V1
    radar = None
    if True in halves:
        radar, other = halves[True]
        if (other == FOLDER_V2) != (version == V2):
            raise BadInput(radar, f"is another version of BigEarthNet than {optical}")
    provenance: dict[str, object] = version | ({"synthetic": True} if is_synthetic(optical) else {})
    if version == V1:
        check_lists(lists)
        target = nomenclature(labels or "clc43")
        where = lists or optical.parent / "metadata"
        planned = layout(target, radar is not None)
        return Stream(optical, radar, planned, pd.DataFrame(), None, {}, where, given, provenance)
    target = nomenclature(labels or "ben19")
    where = lists or optical.parent
    table, classes = read_metadata(where / "metadata.parquet", target)
    check_names(table, where / "metadata.parquet")
    rows = dict(zip(table["name"].tolist(), range(len(table)), strict=True))
    return Stream(optical, radar, layout(target, radar is not None), table, classes, rows, where, given, provenance)


def _kind(path: Path) -> str:
    """The folder that tells BigEarthNet's archives apart, from the name of the first file.

    Raises:
        BadInput: none of them.
    """
    name = first_member(path)
    parts = name.split("/")
    for folder, depth in _DEPTHS.items():
        if len(parts) > depth and parts[-1 - depth] == folder:
            return folder
    raise BadInput(path, f"is no BigEarthNet archive: holds {name}, expected {' or '.join(_DEPTHS)}")
