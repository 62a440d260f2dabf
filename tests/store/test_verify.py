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


BY_PATCH = (
    "data_10m data_60m classes name split tile crs date country origin snow cloud moments checksum seal".split()  # noqa: SIM905
)


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


@settings(max_examples=200)
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
    assert [i for i, damaged in open_store(path).damaged() if damaged] == [patch]


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("patch", [2, 4])
def test_verify_detects_a_flipped_state(
    flipped: Callable[[int, int], Path], tmp_path: Path, patch: int, bit: int
) -> None:
    """No patch may disappear; patch 4 is bad and must not become whole."""
    path = flipped(ranges(tmp_path / "good.h5")["state"][0] + patch, bit)
    try:
        store = open_store(path)
    except BadStore as error:
        assert "pending" in str(error)  # noqa: PT017
        return
    assert [i for i, damaged in store.damaged() if damaged] == [patch]


PIXELS = ("data_10m", "data_60m", "classes")


def everything(path: Path) -> object:
    store = open_store(path)
    with h5py.File(path, "r") as file:
        # The pixels of a patch that was left out (here 4) do not matter.
        kept = {key: np.delete(file[key][...], 4, axis=0) if key in PIXELS else file[key][...] for key in file}
    columns = {key: values.tobytes() for key, values in kept.items() if key != "seal"}
    return store.layout, store.statistics, store.attributes, columns


@settings(max_examples=300)
@given(at=st.integers(0, 2**20), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused_or_found_or_without_effect(
    flipped: Callable[[int, int], Path], tmp_path: Path, at: int, bit: int
) -> None:
    """In any part of the file, including the structures and attributes of HDF5."""
    path = flipped(at % (tmp_path / "good.h5").stat().st_size, bit)
    try:
        noticed = any(damaged for _, damaged in open_store(path).damaged())
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
    assert (bad.code, bad.json["damaged"]) == (1, ["pätch_1", "pätch_3"])
    text = cli("verify", path)
    assert text.code == 1
    assert "damaged: pätch_3" in text.out.splitlines()


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
