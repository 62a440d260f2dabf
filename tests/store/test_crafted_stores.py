"""A store is refused if its HDF5 headers are not those of a store, before HDF5 reads any value."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import Cli
from landscale.errors import BadInput
from landscale.store import StoreWriter, open_store
from landscale.store.checksums import digests
from landscale.store.file import StoreFile
from landscale.store.structure import _place, read_structure
from tiny import LAYOUT, refused, write

DATASETS = ("data_10m", "classes", "name", "split", "state", "crs", "statistics", "seal", "digests")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "s.h5")
    return tmp_path / "s.h5"


def replaced(path: Path, key: str, make: Callable[[h5py.File, str, h5py.Dataset], object]) -> Path:
    """The store with another dataset under `key`."""
    with h5py.File(path, "r+") as file:
        old = file[key]
        bands = old.attrs.get("bands")
        del file[key]
        make(file, key, old)
        if bands is not None and isinstance(file.get(key), h5py.Dataset):
            file[key].attrs["bands"] = bands
    return path


def variable_length(file: h5py.File, key: str, old: h5py.Dataset) -> None:
    file.create_dataset(key, old.shape, h5py.vlen_dtype("u1"))


def text_of_variable_length(file: h5py.File, key: str, old: h5py.Dataset) -> None:
    file.create_dataset(key, old.shape, h5py.string_dtype())


def references(file: h5py.File, key: str, old: h5py.Dataset) -> None:
    file.create_dataset(key, old.shape, h5py.ref_dtype)


def compound(file: h5py.File, key: str, old: h5py.Dataset) -> None:
    file.create_dataset(key, old.shape, np.dtype([("a", old.dtype)]))


def big_endian(file: h5py.File, key: str, old: h5py.Dataset) -> None:
    file.create_dataset(key, old.shape, ">f4")


def compressed(file: h5py.File, key: str, old: h5py.Dataset) -> None:
    file.create_dataset(key, data=old[...], compression="gzip")


def in_chunks(file: h5py.File, key: str, old: h5py.Dataset) -> None:
    file.create_dataset(key, data=old[...], dtype=old.dtype, chunks=old.shape)


def never_written(file: h5py.File, key: str, old: h5py.Dataset) -> None:
    file.create_dataset(key, old.shape, old.dtype)


def another_shape(file: h5py.File, key: str, old: h5py.Dataset) -> None:
    file.create_dataset(key, (old.shape[0] + 1, *old.shape[1:]), old.dtype)


def in_another_file(file: h5py.File, key: str, old: h5py.Dataset) -> None:
    file.create_dataset(key, old.shape, old.dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File, key: str, old: h5py.Dataset) -> None:
    layout = h5py.VirtualLayout(old.shape, old.dtype)
    layout[...] = h5py.VirtualSource("other.h5", "x", old.shape)
    file.create_virtual_dataset(key, layout)


def link_to_another_file(file: h5py.File, key: str, old: h5py.Dataset) -> None:
    file[key] = h5py.ExternalLink("other.h5", "x")


def soft_link(file: h5py.File, key: str, old: h5py.Dataset) -> None:
    file["elsewhere"] = old[...]
    file[key] = h5py.SoftLink("/elsewhere")


def group(file: h5py.File, key: str, old: h5py.Dataset) -> None:
    file.create_group(key)


KINDS = (
    variable_length,
    text_of_variable_length,
    references,
    compound,
    big_endian,
    compressed,
    in_chunks,
    never_written,
    another_shape,
    in_another_file,
    virtual,
    link_to_another_file,
    soft_link,
    group,
)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_dataset_of_another_kind_is_refused(make: Callable[..., object], path: Path) -> None:
    good = path.read_bytes()
    for key in DATASETS:
        path.write_bytes(good)
        replaced(path, key, make)
        assert refused(path).startswith("is not a complete HDF5 patch store ("), key
        assert refused(path, check=False) == refused(path, unfinished=True) == refused(path)
        with pytest.raises(BadInput):
            StoreWriter(path)


def test_ten_billion_patches_are_refused_at_once(path: Path) -> None:
    for key in ("classes", "split", "state"):
        replaced(
            path,
            key,
            lambda file, key, old: file.create_dataset(key, (10**10, *old.shape[1:]), old.dtype, chunks=True),
        )
    begun = time.monotonic()
    assert "state has the shape (10000000000,), expected (N,) of at most 100,000,000" in refused(path)
    assert time.monotonic() - begun < 1


def test_more_labels_than_fit_into_memory_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("landscale.store.structure._MAX_LABELS", 6 * 3 - 1)
    assert "6 patches of 3 classes, too many labels" in refused(path)


def test_a_missing_dataset_or_attribute_is_named(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file.attrs["plan"]
    assert refused(path).startswith("is not a complete HDF5 patch store (Unable to ")
    with h5py.File(path, "r+") as file:
        file.attrs["plan"] = np.bytes_(b"a plan")
        del file["crs"]
    assert refused(path) == "is not a complete HDF5 patch store (it has no dataset crs)"


def test_datasets_that_extend_beyond_the_file_are_refused(path: Path) -> None:
    """HDF5 compares the file only with the size in its headers."""
    with h5py.File(path, "r") as file:
        dataset = file["statistics"]
        end = dataset.id.get_offset() + dataset.nbytes
        expected = ("statistics", dataset.shape, dataset.dtype)
        assert _place(dataset.id, *expected, size=end).nbytes == dataset.nbytes
        with pytest.raises(ValueError, match="statistics extends beyond the end of the file"):
            _place(dataset.id, *expected, size=end - 1)


@pytest.mark.parametrize("key", ["format", "layout", "plan", "provenance", "classes"])
@pytest.mark.parametrize(
    "value",
    ["of variable length", 3.5, [1, 2], b"\xff\xfe", b"[" * 100_000, b"7", h5py.Empty("S3"), np.bytes_(b"{}")],
    ids=["text", "float", "list", "no utf-8", "deep", "number", "empty", "object"],
)
def test_attributes_of_another_kind_are_refused(key: str, value: object, path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file.attrs[key]
        file.attrs[key] = value
    if key == "plan" and isinstance(value, bytes):
        return  # any text
    answer = refused(path)
    assert "is not a complete HDF5 patch store" in answer or "attributes" in answer


@pytest.mark.parametrize(
    "change",
    [
        {"planes": []},
        {"planes": [{"key": "classes", "bands": ["B01"], "side": 4}]},
        {"planes": [{"key": "data_10m", "bands": ["B01", "B01", "B03"], "side": 4, "gsd": 10}]},
        {"planes": [{"key": "data_10m", "bands": [["B01"]], "side": 4, "gsd": 10}]},
        {"planes": [{"key": "data_10m", "bands": ["B01", "B02", "B03"], "side": -4, "gsd": 10}]},
        {"planes": [{"key": "data_10m", "bands": ["B01", "B02", "B03"], "side": 4, "gsd": 10, "dtype": "object"}]},
        {"classes": ["town", "lake", "forest"]},
        {"classes": ["town", "lake", "lake"]},
        {"classes": "abc"},
        {"multi_label": "yes"},
        {"nomenclature": None},
    ],
)
def test_layouts_that_no_store_has_are_refused(change: dict[str, object], path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file.attrs["layout"]
        file.attrs["layout"] = np.bytes_(json.dumps(LAYOUT.to_json() | change).encode())
    refused(path)


def test_values_that_no_store_has_are_refused(path: Path) -> None:
    """Also if all checksums match, as in a store of another program."""
    good = path.read_bytes()
    for key, row, value, found in (
        ("classes", (2, 1), 2, "classes holds 2, expected at most 1"),
        ("split", 3, 4, "split holds 4, expected at most 3"),
        ("state", 1, 3, "state holds 3, expected at most 2"),
        ("statistics", (1, 1), -1.0, "B02 has the mean"),
        ("statistics", (1, 1), np.nan, "and the deviation nan"),
        ("statistics", (0, 0), 1e9, "B01 has the mean 1e+09"),
    ):
        path.write_bytes(good)
        with h5py.File(path, "r+") as file:
            file[key][row] = value
        sealed(path)
        assert refused(path).startswith("is not a patch store: "), key
        assert found in refused(path)


def sealed(path: Path) -> None:
    """Write the digests of the columns as they are now."""
    found = [*digests(StoreFile(path), read_structure(path)).values()]
    with h5py.File(path, "r+") as file:
        file["digests"][...] = found


def test_a_pipe_and_a_device_are_refused(tmp_path: Path, cli: Cli) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    for path in (tmp_path / "pipe.h5", Path("/dev/zero")):
        answer = cli("verify", path)
        assert (answer.code, answer.lines) == (2, [f"landscale: {path}: is not a file, expected a patch store"])


def test_opening_takes_microseconds_a_patch(tmp_path: Path) -> None:
    n = 50_000
    layout = type(LAYOUT)(LAYOUT.planes[1:], LAYOUT.classes, "custom", multi_label=True)
    write(tmp_path / "s.h5", layout, n)
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        open_store(tmp_path / "s.h5")
        times.append(time.perf_counter() - begun)
    assert min(times) < 2e-6 * n
