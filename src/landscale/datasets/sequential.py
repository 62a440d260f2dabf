"""Data sets that are read in file order: archives that are read once, from front to back, and never unpacked.

A `Survey` lists all patches before any pixel is read. A `SequentialSurvey` cannot: which patches an archive contains, and how
many, is known only at its end. A second archive may hold more planes of the same patches, in another order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.survey import PatchDetails
from landscale.errors import LandscaleError
from landscale.store import Layout, Plane

if TYPE_CHECKING:  # worker processes start without pandas
    import pandas as pd

_DIGESTED = 1 << 20  # bytes at the beginning and at the end of an archive that its digest covers


@dataclass(frozen=True)
class SequentialPatch:
    """One patch of an archive: its name, and its details, or an error if it is damaged. Its pixels are in the caller's arrays.

    primary: in a partner archive, the name of the same patch in the primary archive, if the partner's files contain it.
    """

    name: str
    found: PatchDetails | LandscaleError
    primary: str = ""


class PatchSequence(Protocol):
    """The patches of one open archive, in file order."""

    def read(self, planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]) -> SequentialPatch | None:
        """Read the next patch into planes (bands, side, side) and classes (C,); None at the end.

        Raises:
            BadInput: the archive itself is damaged, or holds a patch twice.
        """
        ...

    def consumed(self) -> int:
        """Bytes of the archive that have been read so far."""
        ...

    def close(self) -> None: ...


class PrimaryArchive(Protocol):
    """The archive that decides which patches there are and their order."""

    @property
    def path(self) -> Path: ...

    def open(self) -> PatchSequence: ...

    def classes_of(self, name: str) -> NDArray[np.uint8] | None:
        """Classes (C,) of a patch from the data set's metadata; None if `PatchSequence.read` reads them from the archive."""
        ...

    def describe(self, names: list[str]) -> pd.DataFrame:
        """The columns of a `Survey`'s table for these patches, without `location` and `job`."""
        ...

    def capacity(self) -> int:
        """An upper estimate of the number of patches. Up to 1.5 times too many does no harm."""
        ...

    def metadata_files(self) -> list[Path]:
        """The files outside the archive from which columns or classes come; their content is part of the digest."""
        ...


class PartnerArchive(Protocol):
    """A second archive with more planes of the patches of the primary one, in any order.

    title: name of its patches in messages ("Sentinel-1").
    planes: the planes that it contains, which are the last ones of the store's layout.
    """

    @property
    def path(self) -> Path: ...

    @property
    def title(self) -> str: ...

    @property
    def planes(self) -> tuple[Plane, ...]: ...

    def pairs(self) -> dict[str, str]:
        """Name of the primary patch by name of the partner patch, for those in lists or metadata."""
        ...

    def open(self, paired: Container[str]) -> PatchSequence:
        """Open the archive. Only for patches that are not in `paired`, `SequentialPatch.primary` must be set."""
        ...


@dataclass(frozen=True)
class SequentialSurvey:
    """What is known of archives before they are read.

    layout: planes and classes of the store.
    split: code of the split that all patches belong to; None if each patch has its own.
    derive: computes the planes that are in no archive; called with all planes, by key, of n patches (n, bands, side, side).
    derived: keys of the planes that `derive` computes.
    listed: number of patches that the metadata list; None if there are no metadata.
    """

    layout: Layout
    primary: PrimaryArchive
    partner: PartnerArchive | None
    split: int | None
    provenance: dict[str, Any]
    derive: Callable[[Mapping[str, NDArray[np.generic]]], None] | None = None
    derived: tuple[str, ...] = ()
    listed: int | None = None

    def describe(self, names: list[str]) -> pd.DataFrame:
        """The columns of a `Survey`'s table for these patches, without `location` and `job`."""
        table = self.primary.describe(names)
        if self.split is not None:
            table["split"] = np.uint8(self.split)
        return table

    def digest(self) -> str:
        """64 hexadecimal digits that change whenever the content of the store would change.

        Of an archive, which may have 100 GB, only its size, its first MB and its last MB are included.
        """
        plan = json.dumps([self.layout.identity(), self.provenance, self.split], sort_keys=True, default=str)
        digest = hashlib.sha256(plan.encode())
        for archive in (self.primary, self.partner):
            if archive is not None:
                size = archive.path.stat().st_size
                with archive.path.open("rb") as file:
                    digest.update(size.to_bytes(8, "big") + file.read(_DIGESTED))
                    file.seek(max(0, size - _DIGESTED))
                    digest.update(file.read())
        for path in self.primary.metadata_files():
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()
