"""Every change of a store is detected, and `verify` names the changed patch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Cli
from landscale.errors import BadStore
from landscale.store import (
    open_store,
)
from tiny import refused, write


def ranges(path: Path) -> dict[str, tuple[int, int]]:
    """Offset, and number of bytes of one patch, by dataset."""
    with h5py.File(path, "r") as file:
        return {k: (file[k].id.get_offset(), file[k].id.get_storage_size() // file[k].shape[0]) for k in file}


def flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


PIXELS = ("data_10m", "data_60m")
READ_BY_VERIFY = ("moments", "checksum", "seal")
CHECKED = ("classes", "name", "split", "tile", "crs", "date", "country", "origin", "snow", "cloud")
BY_PATCH = (*PIXELS, *CHECKED, *READ_BY_VERIFY)


@pytest.fixture
def flipped(tmp_path: Path) -> Callable[[int, int], Path]:
    """A store with one bit flipped."""
    write(tmp_path / "good.h5", bad=[4])
    good = (tmp_path / "good.h5").read_bytes()

    def make(at: int, bit: int) -> Path:
        path = tmp_path / "flipped.h5"
        path.write_bytes(good)
        flip(path, at, bit)
        return path

    return make


@settings(max_examples=120)
@given(
    key=st.sampled_from(BY_PATCH),
    patch=st.sampled_from([0, 1, 2, 3, 5]),
    where=st.integers(0, 2**20),
    bit=st.integers(0, 7),
)
def test_verify_names_the_patch_of_any_flipped_bit(
    flipped: Callable[[int, int], Path], tmp_path: Path, key: str, patch: int, where: int, bit: int
) -> None:
    begin, each = ranges(tmp_path / "good.h5")[key]
    path = flipped(begin + patch * each + where % each, bit)
    store = open_store(path, check=False)
    assert [i for i, damaged in store.damaged() if damaged] == [patch]
    assert store.damaged_columns() == (() if key in PIXELS else (key,))
    if key in CHECKED:
        assert refused(path).startswith(f"is damaged (checksums differ): {key}; `landscale verify` shows where")
    else:
        open_store(path)


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("patch", [2, 4])
def test_verify_detects_a_flipped_state(
    flipped: Callable[[int, int], Path], tmp_path: Path, patch: int, bit: int
) -> None:
    """No patch may disappear; patch 4 is bad and must not become whole."""
    path = flipped(ranges(tmp_path / "good.h5")["state"][0] + patch, bit)
    assert "is damaged (checksums differ): state" in refused(path)
    assert [i for i, damaged in open_store(path, check=False).damaged() if damaged] == [patch]


def everything(path: Path) -> object:
    store = open_store(path)
    with h5py.File(path, "r") as file:
        # The pixels of a patch that was left out (here 4) do not matter.
        kept = {key: np.delete(file[key][...], 4, axis=0) if key in PIXELS else file[key][...] for key in file}
    columns = {key: values.tobytes() for key, values in kept.items() if key != "seal"}
    return store.layout, store.statistics, store.attributes, columns


@settings(max_examples=200)
@given(at=st.integers(0, 2**20), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused_or_found_or_without_effect(
    flipped: Callable[[int, int], Path], tmp_path: Path, at: int, bit: int
) -> None:
    """In any part of the file, including the structures and attributes of HDF5."""
    path = flipped(at % (tmp_path / "good.h5").stat().st_size, bit)
    try:
        store = open_store(path)
        noticed = store.damaged_columns() or any(damaged for _, damaged in store.damaged())
    except BadStore:
        return
    if not noticed:
        assert everything(path) == everything(tmp_path / "good.h5")


def test_the_command_names_the_patches_and_ends_with_1(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "s.h5"
    write(path)
    good = cli("verify", path, "--json")
    assert (good.code, good.json["patches"], good.json["damaged"]) == (0, 6, [])
    assert good.lines == []
    places = ranges(path)
    flip(path, places["data_10m"][0] + 3 * places["data_10m"][1] + 5, 3)
    flip(path, places["classes"][0] + 1 * places["classes"][1], 0)
    bad = cli("verify", path, "--json")
    assert (bad.code, bad.json["damaged"], bad.json["columns"]) == (1, ["pätch_1", "pätch_3"], ["classes"])
    text = cli("verify", path)
    assert text.code == 1
    assert {"damaged: pätch_3", "damaged columns: classes"} < set(text.out.splitlines())


def test_a_damaged_name_is_reported_and_refused(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "s.h5"
    write(path)
    begin, each = ranges(path)["name"]
    flip(path, begin + 2 * each, 7)  # no UTF-8 any more
    answer = cli("verify", path, "--json")
    assert (answer.code, answer.json["damaged"], answer.json["columns"]) == (1, [r"\xf0ätch_2"], ["name"])
    for words in (("info", path), ("train", "--store", path, "--recipe", "demo", "--run", tmp_path / "run")):
        answer = cli(*words)
        assert answer.code == 2
        assert answer.lines == [
            f"landscale: {path}: is damaged (checksums differ): name; `landscale verify` shows where;"
            " copy or prepare it again"
        ]
    assert not (tmp_path / "run").exists()


def test_a_damaged_digest_is_reported(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "s.h5"
    write(path)
    begin, each = ranges(path)["digests"]
    flip(path, begin + 1 * each, 0)
    answer = cli("verify", path, "--json")
    assert (answer.code, answer.json["damaged"], answer.json["columns"]) == (1, [], ["name"])
    flip(path, begin + 1 * each, 0)
    assert cli("verify", path).code == 0
    with h5py.File(path, "r+") as file:
        last = len(file["digests"]) - 1
    flip(path, begin + last * each, 0)
    assert "is damaged (checksums differ): attributes" in refused(path)
    assert cli("verify", path).lines == [
        f"landscale: {path}: its attributes are damaged (their digest differs); prepare it again"
    ]


@pytest.mark.parametrize("key", ["name", "split", "statistics", "checksum", "classes"])
def test_stores_of_earlier_formats_are_checked_by_their_seals(key: str, tmp_path: Path, cli: Cli) -> None:
    """Labels have no checksum of their own there; this is reported once."""
    path = tmp_path / "s.h5"
    write(path)
    with h5py.File(path, "r+") as file:
        del file["digests"], file.attrs["format"]
        file.attrs["format"] = 3
    assert "has format 3, whose labels only `landscale verify` can check" in cli("info", path).lines[0]
    assert cli("info", path).lines == []
    assert open_store(path).damaged_columns() == ()
    begin, each = ranges(path)[key]
    flip(path, begin + (0 if key == "statistics" else 2 * each), 3)
    if key == "classes":
        open_store(path, check=False)
    else:
        what = "statistics" if key == "statistics" else "the columns of 1 of 6 patches"
        assert f"is damaged (checksums differ): {what};" in refused(path)
    assert cli("verify", path).code == (2 if key == "statistics" else 1)


def test_damaged_statistics_are_refused_by_verify(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "s.h5"
    write(path)
    flip(path, ranges(path)["statistics"][0], 0)
    answer = cli("verify", path)
    assert answer.code == 2
    assert answer.lines == [f"landscale: {path}: its statistics are damaged (the seal differs); prepare it again"]


@pytest.mark.parametrize("text", [b"forest", b"a plan", b"tests"])
def test_damaged_texts_are_refused_on_opening(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write(path)
    at = path.read_bytes().index(b'"' + text if text == b"forest" else text) + 2
    flip(path, at, 0)
    assert "checksum" in refused(path)
