"""BigEarthNet v2 (reBEN) as it is published in LMDB environments; `landscale.store.reben` describes the format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscale.datasets.options import labels_option
from landscale.datasets.splits import split_code
from landscale.datasets.survey import PatchDetails, Survey, check_names
from landscale.errors import BadInput, LandscaleError
from landscale.store.lmdb import is_environment
from landscale.store.reben import Instrument, RebenStore, open_reben, patch_values

OPTIONS = (labels_option("ben19, the default and only choice"),)


@dataclass(frozen=True)
class LmdbReader:
    """Reads patches; a location is the number of an environment and, for each of its instruments, the patch's key there."""

    environments: tuple[tuple[Instrument, ...], ...]

    def __call__(
        self, locations: Sequence[Any], planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]
    ) -> list[PatchDetails | LandscaleError]:
        del classes  # the survey has them
        return [
            self._read(environment, keys, {key: plane[i : i + 1] for key, plane in planes.items()})
            for i, (environment, keys) in enumerate(locations)
        ]

    def _read(
        self, environment: int, keys: tuple[bytes, ...], planes: Mapping[str, NDArray[np.generic]]
    ) -> PatchDetails | LandscaleError:
        try:
            for instrument, key in zip(self.environments[environment], keys, strict=True):
                instrument.gather([key], planes)
        except LandscaleError as error:
            return error
        return PatchDetails()


def survey(inputs: list[tuple[str | None, Path]], labels: str | None = None) -> Survey:
    """Survey one or several environments; one that is given as SPLIT=INPUT puts all its patches into that split.

    Args:
        inputs: split or None, and an environment: a folder with `data.mdb`, or a file.
        labels: `ben19`, v2's default and only choice.

    Raises:
        BadInput: no LMDB environment, environments with different instruments, or see `open_reben`.
    """
    stores = []
    for _, path in inputs:
        if not is_environment(path):
            raise BadInput(path, "is no LMDB environment: expected a folder that contains data.mdb, or that file")
        stores.append(open_reben(path, labels))
    if len({store.layout for store in stores}) > 1:
        raise BadInput(inputs[-1][1], f"has other instruments than {inputs[0][1]}; prepare each into its own store")
    tables = [_table(k, store) for k, store in enumerate(stores)]
    for (split, path), table in zip(inputs, tables, strict=True):
        if split is not None:
            table["split"] = np.uint8(split_code(split, path))
    table = pd.concat(tables, ignore_index=True)
    check_names(table, inputs[-1][1])
    provenance: dict[str, Any] = {}
    for store in stores:
        provenance |= store.attributes["provenance"]  # keeps the mark of synthetic data
    reader = LmdbReader(tuple(patch_values(store).instruments for store in stores))
    return Survey(stores[0].layout, table, np.concatenate([store.classes for store in stores]), reader, provenance)


def _table(number: int, store: RebenStore) -> pd.DataFrame:
    keys = zip(*(k.tolist() for k in patch_values(store).keys), strict=True)
    known = ("name", "split", "tile", "date", "country", "snow", "cloud")
    return pd.DataFrame({**{key: store.column(key) for key in known}, "location": [(number, k) for k in keys]})
