"""Reference maps in a store: read like a plane, covered by checksums, kept by subsets, and no band of an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import Cli
from landscale.errors import BadStore
from landscale.loading import PatchDataset
from landscale.loading.reference import class_table, pixels_of_classes
from landscale.store import NO_CLASS, REFERENCE, PatchStore, Plane, subset
from landscale.store.planes import REFERENCE_MAP
from landscale.testing import check_store, make_store, sentinel_planes
from landscale.vocabulary.nomenclatures import BEN19, CLC43
from tiny import refused

SIZES = {"train": 6, "val": 2}


@pytest.fixture
def store(tmp_path: Path) -> PatchStore:
    return make_store(tmp_path / "maps.h5", planes=sentinel_planes(12), splits=SIZES, reference_maps=True)


def test_maps_are_read_like_a_plane(store: PatchStore) -> None:
    check_store(store)
    maps = store.pixels(REFERENCE)
    assert (maps.shape, maps.dtype) == ((8, 1, 12, 12), np.uint8)
    with h5py.File(store.path) as file:
        assert file.attrs["format"] == 5  # which earlier programs refuse by its number
    for row, classes in zip(maps, store.classes, strict=True):
        assert {*np.unique(row)} == {*np.flatnonzero(classes), NO_CLASS}
    assert [plane.key for plane in store.planes_for(["B02", REFERENCE])] == ["data_10m", REFERENCE]


def test_maps_are_no_image(store: PatchStore, cli: Cli) -> None:
    assert REFERENCE not in PatchDataset(store.path, "train").bands
    assert REFERENCE not in store.statistics
    summary = cli("info", store.path, "--json").json
    assert REFERENCE not in summary["bands"]
    assert summary["units"][REFERENCE] == "class"
    assert REFERENCE not in str(refused_bands(store))


def refused_bands(store: PatchStore) -> BadStore:
    with pytest.raises(BadStore) as caught:
        store.planes_for(["B99"])
    return caught.value


def test_every_bit_of_a_map_is_checked(store: PatchStore, cli: Cli) -> None:
    assert cli("verify", store.path).code == 0
    with h5py.File(store.path) as file:
        at = file[REFERENCE].id.get_offset() + 3 * 144 + 77
    content = bytearray(store.path.read_bytes())
    content[at] ^= 4
    store.path.write_bytes(content)
    answer = cli("verify", store.path, "--json")
    assert (answer.code, answer.json["damaged"]) == (1, ["patch_0003"])


@pytest.mark.parametrize(
    "dtype, shape", [("uint16", (8, 1, 12, 12)), ("uint8", (8, 1, 12, 11)), ("uint8", (7, 1, 12, 12))]
)
def test_a_map_of_another_kind_or_size_is_refused(store: PatchStore, dtype: str, shape: tuple[int, ...]) -> None:
    with h5py.File(store.path, "r+") as file:
        del file[REFERENCE]
        file.create_dataset(REFERENCE, data=np.zeros(shape, dtype))
    assert REFERENCE in refused(store.path)


@pytest.mark.parametrize("changes", [{"key": "data_map"}, {"bands": ("B02",)}, {"unit": "8-bit"}, {"dtype": "uint16"}])
def test_a_plane_is_a_reference_map_in_all_or_in_nothing(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a reference map"):
        replace(REFERENCE_MAP, **changes)  # type: ignore[arg-type]


def test_stores_without_maps_are_as_before(tmp_path: Path) -> None:
    plain = make_store(tmp_path / "plain.h5", splits=SIZES)
    with h5py.File(plain.path) as file:
        assert file.attrs["format"] == 4
    with pytest.raises(BadStore, match="has no reference maps"):
        plain.planes_for(["B02", REFERENCE])


def test_subsets_keep_maps(store: PatchStore) -> None:
    part = subset(store, np.array([2, 4]))
    assert np.array_equal(part.pixels(REFERENCE, [4]), store.pixels(REFERENCE, [4]))


def test_classes_are_matched_by_name(tmp_path: Path, store: PatchStore) -> None:
    classes = store.layout.classes
    table = class_table(store, classes[::-1])
    assert table[: len(classes)].tolist() == [*range(len(classes))][::-1]
    assert set(table[len(classes) :]) == {NO_CLASS}
    counts = pixels_of_classes(store, store.patches("train"), classes[::-1])
    maps = store.pixels(REFERENCE, store.patches("train"))
    assert counts.tolist() == [(maps == k).sum() for k in range(len(classes))][::-1]
    fine = make_store(
        tmp_path / "fine.h5",
        planes=[Plane("data_10m", ("B02",), 12, 10)],
        classes=CLC43.names,
        splits={"train": 1},
        reference_maps=True,
    )
    merged = class_table(fine, BEN19.names)
    for k, name in enumerate(CLC43.names):
        assert [merged[k]] == (BEN19.columns([name]) or [NO_CLASS])
