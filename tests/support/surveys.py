"""Prepares a store from a survey, and reads its contents by the names of patches and bands."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from landscale.datasets.survey import Survey
from landscale.preparation import prepare_survey
from landscale.store import PatchStore, open_store

Stored = Callable[..., PatchStore]


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    def run(survey: Survey, workers: int = 1, name: str = "store.h5") -> PatchStore:
        assert pickle.loads(pickle.dumps(survey.read)) == survey.read
        outcome = prepare_survey(survey, tmp_path / name, workers)
        assert outcome.written == len(survey.table)
        store = open_store(tmp_path / name)
        assert not any(damaged for _, damaged in store.damaged())
        return store

    return run


def dataset(store: PatchStore, key: str) -> np.ndarray:
    """A dataset of an HDF5 store by name, such as `checksum`; text as str."""
    with h5py.File(store.path) as file:
        values = file[key][...]
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


def row_of(store: PatchStore) -> dict[str, int]:
    return {str(name): k for k, name in enumerate(store.column("name"))}


def labels(store: PatchStore, row: int) -> set[str]:
    return {store.layout.classes[c] for c in np.flatnonzero(store.classes[row])}


def band_of(store: PatchStore, row: int, band: str) -> np.ndarray:
    plane = next(p for p in store.layout.planes if band in p.bands)
    return store.pixels(plane.key, [row])[0, plane.bands.index(band)]


def splits(store: PatchStore) -> dict[str, int]:
    return dict(zip(store.column("name").tolist(), store.splits.tolist(), strict=True))


def refused(survey: Callable[[], object], kind: type[Exception], *parts: str) -> None:
    with pytest.raises(kind) as caught:
        survey()
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line
