"""The patches of one of BigEarthNet's archives, such as `BigEarthNet-S2-v1.0.tar.gz`, in file order."""

from __future__ import annotations

import json
from collections.abc import Container, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.bigearthnet.reader import read_labels, same_place
from landscale.datasets.bigearthnet.sentinel1 import primary_name
from landscale.datasets.sequential import SequentialPatch
from landscale.datasets.survey import PatchDetails
from landscale.errors import BadInput, LandscaleError, reason
from landscale.formats.geotiff import Place, decode_band
from landscale.formats.tar import Tarball
from landscale.store import Plane
from landscale.vocabulary.nomenclatures import Nomenclature

# A member of an archive: the name of its patch, the rest of its file name, its path, its content.
_Member = tuple[str, str, str, memoryview]

_LABELS = "labels_metadata.json"


class TarPatches:
    """The patches of one archive, in file order, read into arrays that the caller provides.

    Args:
        path: the archive.
        planes: the planes to read.
        labels: nomenclature of the labels, if each patch has them in a JSON file; else None.
        names: the patches to read; None for all. The others are skipped.
        paired: Sentinel-1 patches whose Sentinel-2 patch is known; for the others it is read from their JSON file. None
            for Sentinel-2 patches.
    """

    def __init__(
        self,
        path: Path,
        planes: tuple[Plane, ...],
        labels: Nomenclature | None = None,
        names: Container[str] | None = None,
        paired: Container[str] | None = None,
    ) -> None:
        self._path, self._labels, self._names, self._paired = path, labels, names, paired
        self._bands = {f"{b}.tif": (p.key, k) for p in planes for k, b in enumerate(p.bands)}
        self._tarball = Tarball(path)
        self._members = self._patch_members()
        self._seen: set[str] = set()
        self._next: _Member | None = None
        try:
            self._next = next(self._members, None)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._members.close()
        self._tarball.close()

    def consumed(self) -> int:
        """Bytes of the archive that have been read so far."""
        return self._tarball.consumed()

    def _patch_members(self) -> Generator[_Member, None, None]:
        """The members of the patches to read, which are called `…/PATCH/PATCH_file`."""
        patch = stem = "/"
        for path, data in self._tarball.members():
            if not path.startswith(stem):  # another patch than the last
                folder, _, _ = path.rpartition("/")
                above, _, patch = folder.rpartition("/")
                stem = f"{folder}/{patch}_"
                if not above or not path.startswith(stem) or not (self._names is None or patch in self._names):
                    stem = "/"
                    continue
            file = path[len(stem) :]
            if "/" not in file:
                yield patch, file, path, data

    def read(self, planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]) -> SequentialPatch | None:
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
        tile = primary = ""
        read: set[str] = set()
        while self._next is not None and self._next[0] == name:
            _, file, path, data = self._next
            try:
                if file in read:
                    raise BadInput(path, "is in the archive twice")
                read.add(file)
                if file in self._bands:
                    key, k = self._bands[file]
                    place = same_place(path, decode_band(path, data, planes[key][k]), place)
                elif file == _LABELS and with_json:
                    content = _parse_json(path, data)
                    if self._labels is None:
                        primary = primary_name(path, content)
                    else:
                        tile = read_labels(path, content, self._labels, classes)
            except BadInput as error:
                problem = problem or BadInput(f"{self._path}: member {error.path}", error.problem)
            self._next = next(self._members, None)
        if problem is None and missing - read:
            problem = BadInput(self._path, f"patch {name}: lacks {', '.join(sorted(missing - read))}")
        if problem is not None and self._labels:
            classes[:] = 0  # as for folders, where the labels of a damaged patch are not read
        return SequentialPatch(name, problem or PatchDetails(place or Place(), tile), primary)


def _parse_json(path: str, data: memoryview) -> Any:
    try:
        return json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise BadInput(path, f"is not valid JSON ({reason(error)})") from None
