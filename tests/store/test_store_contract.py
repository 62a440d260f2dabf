"""HDF5 stores and LMDB environments keep the same contract, and the contract detects stores that break it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landscale.store import SUPER, PatchStore, Plane, open_store
from landscale.store.reader import Hdf5Store
from landscale.testing import StoreContract, check_store, make_store, sentinel_planes
from lmdbs import PATCHES
from lmdbs import write as write_lmdb


def all_planes() -> tuple[Plane, ...]:
    native = sentinel_planes(12)
    every = tuple(band for plane in native for band in plane.bands)
    return (*native, Plane(SUPER, every, 12, 10), Plane("data_s1", ("VV", "VH"), 12, 10, "float32"))


HDF5: dict[str, Callable[[Path], PatchStore]] = {
    "all planes": lambda path: make_store(
        path, planes=all_planes(), splits={"train": 7, "none": 2, "val": 5}, bad=(1, 13)
    ),
    "single-label": lambda path: make_store(path, multi_label=False, splits={"test": 9}),
    "one patch": lambda path: make_store(path, splits={"train": 1}),
}


class TestHdf5(StoreContract):
    @pytest.fixture(scope="class", params=HDF5)
    def store(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PatchStore:
        return HDF5[request.param](tmp_path_factory.mktemp("hdf5") / "s.h5")


class TestLmdb(StoreContract):
    @pytest.fixture(scope="class")
    def store(self, tmp_path_factory: pytest.TempPathFactory) -> PatchStore:
        return open_store(write_lmdb(tmp_path_factory.mktemp("contract") / "both", PATCHES, PATCHES[3:]))


def test_both_kinds_have_the_same_public_attributes(tmp_path: Path) -> None:
    stores = (
        make_store(tmp_path / "s.h5", splits={"train": 2}),
        open_store(write_lmdb(tmp_path / "lmdb", PATCHES[:2])),
    )
    ours, other = ({name for name in dir(store) if not name.startswith("_")} for store in stores)
    assert ours == other


class OtherPixels(Hdf5Store):
    """Batches of several patches come in the order of the file."""

    def gather(self, rows, into):
        super().gather(np.sort(rows), into)


class OneDamaged(Hdf5Store):
    def damaged(self):
        return ((row, row == 3) for row, _ in super().damaged())


class OneUnchecked(Hdf5Store):
    def damaged(self):
        return list(super().damaged())[1:]


class SameNames(Hdf5Store):
    def column(self, key):
        return np.full(len(self.states), "patch") if key == "name" else super().column(key)


class AnyColumn(Hdf5Store):
    def column(self, key):
        return np.zeros(len(self.states)) if key == "no such column" else super().column(key)


def another(kind: type[Hdf5Store]) -> Callable[[PatchStore], PatchStore]:
    return lambda store: kind(**vars(store))


def classes(change: Callable[[np.ndarray], None]) -> Callable[[PatchStore], PatchStore]:
    def work(store: PatchStore) -> PatchStore:
        changed = store.classes.copy()
        change(changed)
        return replace(store, classes=changed)

    return work


@pytest.mark.parametrize(
    "change",
    [
        another(OtherPixels),
        another(OneDamaged),
        another(OneUnchecked),
        another(SameNames),
        another(AnyColumn),
        classes(lambda found: found.__setitem__((4, 0), 2)),
        lambda store: replace(store, classes=store.classes[:-1]),
        lambda store: replace(store, splits=store.splits[::-1]),
        lambda store: replace(store, statistics={**store.statistics, "B02": (1.0, 1.0)}),
        lambda store: replace(store, statistics={**store.statistics, "B99": (1.0, 1.0)}),
        lambda store: replace(store, layout=replace(store.layout, multi_label=False)),
        lambda store: replace(store, attributes={"provenance": {"source": object()}}),
    ],
)
def test_a_store_that_breaks_the_contract_is_found(change: Callable[[PatchStore], PatchStore], tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.h5", splits={"train": 8, "val": 4})
    check_store(store)
    with pytest.raises((AssertionError, TypeError)):
        check_store(change(store))
