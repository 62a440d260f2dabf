"""A survey: which patches a data set has, known before any pixel is read, and how to read each of them in any order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput, LandscaleError
from landscale.formats.geotiff import Place
from landscale.formats.names import check_text
from landscale.store import Layout

if TYPE_CHECKING:  # worker processes start without pandas
    import pandas as pd


@dataclass(frozen=True)
class PatchDetails:
    """What is found out only when a patch is read: its place, and its tile if the survey does not have it."""

    place: Place = field(default_factory=Place)
    tile: str = ""


class Reader(Protocol):
    """Reads patches into planes (n, bands, side, side) and, unless the survey has them, their classes (n, C).

    For each patch it yields its details, or an error if the patch is damaged (BadInput: a file is missing or damaged;
    UnknownName: a label outside the nomenclature). `locations` are consecutive in the survey's table.
    """

    def __call__(
        self, locations: Sequence[Any], /, planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]
    ) -> Iterable[PatchDetails | LandscaleError]: ...


class PatchReader(Protocol):
    """Reads one patch into planes (bands, side, side) and classes (C,); raises the errors that `Reader` yields."""

    def __call__(
        self, location: str, /, planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]
    ) -> PatchDetails: ...


@dataclass(frozen=True)
class OneByOne:
    """A `Reader` that calls a `PatchReader` for each patch; for data sets in which every patch has files of its own."""

    read: PatchReader

    def __call__(
        self, locations: Sequence[str], planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]
    ) -> Iterator[PatchDetails | LandscaleError]:
        for i, location in enumerate(locations):
            try:
                yield self.read(location, {key: plane[i] for key, plane in planes.items()}, classes[i])
            except LandscaleError as error:
                yield error


@dataclass(frozen=True)
class Survey:
    """The patches of a data set. A table, because there may be 600,000 patches, and slices of it are sent to processes.

    layout: planes and classes of the store.
    table: one row per patch, with `name` (unique), `location` (for the reader), `split` (code), and where known `tile`, `date`,
        `country`, `snow`, `cloud`, and the `SHARES`. Patches that share a file are consecutive and have the same number in
        `job`: one worker reads them all.
    classes: (N, C) uint8, or None if the reader reads them from the patches.
    read: the reader; it is pickled for worker processes.
    provenance: what the store records about its origin.
    notes: lines for the user about what was found and may not be what is meant, such as patches that are listed but missing.
    """

    layout: Layout
    table: pd.DataFrame
    classes: NDArray[np.uint8] | None
    read: Reader
    provenance: dict[str, Any]
    notes: tuple[str, ...] = ()


def check_names(table: pd.DataFrame, path: Path) -> None:
    """Refuse an empty survey, patches that are listed twice, and names that are not text.

    Raises:
        BadInput: naming `path`.
    """
    if table.empty:
        raise BadInput(path, "holds no patch")
    repeated = table["name"][table["name"].duplicated()]
    if len(repeated):
        raise BadInput(path, f"lists the patch {repeated.iloc[0]} more than once")
    check_text(table["name"], path)


def acquisition_times(names: pd.Series[str]) -> pd.Series[str]:
    """ISO times of acquisition from names of products such as S2A_MSIL2A_20170613T101031_…; empty where there is none.

    BigEarthNet v1 writes hours below ten with one digit.
    """
    stamp = names.str.extract(r"_(\d{8})T(\d{5,6})(?:_|$)", expand=True)
    day, time = stamp[0].fillna(""), stamp[1].fillna("").str.zfill(6)
    date = day.str[:4] + "-" + day.str[4:6] + "-" + day.str[6:]
    iso = date + "T" + time.str[:2] + ":" + time.str[2:4] + ":" + time.str[4:]
    return iso.where(day != "", "")
