"""`prepare bigearthnet --reference-maps`: CORINE codes by pixel become classes of the store, and bad maps are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from archives import Patch, write_band
from conftest import Cli
from landscale.datasets.corine_codes import CODES, reference_map
from landscale.store import BAD, NO_CLASS, REFERENCE, open_store
from landscale.vocabulary.nomenclatures import BEN19, CLC43
from surveys import row_of

Prepared = Callable[..., Path]
VALUES = np.array([0, *CODES, 990, 995, 999], np.uint16)


def codes_of(patch: Patch) -> NDArray[np.uint16]:
    return np.random.default_rng(patch.k).choice(VALUES, (120, 120)).astype(np.uint16)


def map_path(root: Path, patch: Patch) -> Path:
    return root / "Reference_Maps" / patch.product / patch.v2 / f"{patch.v2}_reference_map.tif"


@pytest.fixture
def maps(tmp_path: Path, patches: list[Patch]) -> Path:
    for patch in patches:
        path = map_path(tmp_path, patch)
        path.parent.mkdir(parents=True)
        write_band(path, codes_of(patch), patch.corner, 10, patch.epsg)
    return tmp_path / "Reference_Maps"


def test_codes_become_classes_of_the_store(v2: Path, maps: Path, patches: list[Patch], prepared: Prepared) -> None:
    store = open_store(prepared("bigearthnet", v2, options=("--reference-maps", str(maps))))
    rows = row_of(store)
    for patch in patches:
        found = store.pixels(REFERENCE, [rows[patch.v2]])[0, 0]
        names = np.array([*BEN19.names, *[""] * (NO_CLASS - 19 + 1)])[found]
        by_code = {c.code: BEN19.columns([c.name]) for c in CLC43.classes}
        for code in VALUES:
            expected = by_code.get(int(code), [])
            assert {*names[codes_of(patch) == code]} <= {BEN19.names[expected[0]] if expected else ""}, code
    assert np.array_equal(store.classes, open_store(prepared("bigearthnet", v2, name="without.h5")).classes)


def spoil_code(path: Path, patch: Patch) -> None:
    codes = codes_of(patch)
    codes[5, 7] = 44  # a grid code
    write_band(path, codes, patch.corner, 10, patch.epsg)


def spoil_place(path: Path, patch: Patch) -> None:
    write_band(path, codes_of(patch), (patch.corner[0] + 10, patch.corner[1]), 10, patch.epsg)


SPOILT = {
    "code": (spoil_code, "44 is no code of CORINE"),
    "large": (
        lambda p, k: write_band(p, np.full((120, 120), 65535, np.uint16), k.corner, 10, k.epsg),
        "65535 is no code",
    ),
    "place": (spoil_place, "lies at"),
    "side": (lambda p, k: write_band(p, codes_of(k)[:60, :60], k.corner, 10, k.epsg), "is 60×60 uint16"),
    "dtype": (lambda p, k: write_band(p, codes_of(k).astype("int32"), k.corner, 10, k.epsg), "is 120×120 int32"),
    "bands": (lambda p, k: write_band(p, np.stack([codes_of(k)] * 2), k.corner, 10, k.epsg), "2 bands"),
    "missing": (lambda p, k: p.unlink(), "No such file"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_bad_map_is_refused_by_its_name_or_skipped(
    what: str, v2: Path, maps: Path, patches: list[Patch], cli: Cli, tmp_path: Path
) -> None:
    spoil, problem = SPOILT[what]
    path = map_path(tmp_path, patches[4])
    spoil(path, patches[4])
    command = ("prepare", "bigearthnet", v2, tmp_path / "s.h5", "--reference-maps", maps, "--workers", 1)
    answer = cli(*command)
    assert answer.code == 2
    assert path.name in answer.lines[-1]
    assert problem in answer.lines[-1]
    assert cli(*command, "--skip-bad").code == 0
    store = open_store(tmp_path / "s.h5")
    bad = row_of(store)[patches[4].v2]
    assert np.flatnonzero(store.states == BAD).tolist() == [bad]
    assert (store.pixels(REFERENCE, [bad]) == NO_CLASS).all()


def test_where_there_are_no_maps(v1: Path, v2: Path, maps: Path, cli: Cli, tmp_path: Path) -> None:
    store = tmp_path / "s.h5"
    assert "v1 has none" in cli("prepare", "bigearthnet", v1, store, "--reference-maps", maps).lines[-1]
    assert "no such folder" in cli("prepare", "bigearthnet", v2, store, "--reference-maps", tmp_path / "no").lines[-1]
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "tar", v2))
    assert "unpack BigEarthNet-S2" in cli("prepare", "bigearthnet", packed, store, "--reference-maps", maps).lines[-1]


def test_every_code_has_one_place() -> None:
    codes = np.array([[c.code for c in CLC43.classes]])
    assert reference_map(codes, CLC43).tolist() == [[*range(43)]]
    assert set(reference_map(np.array([0, 335, 990, 995, 999]), CLC43)) == {NO_CLASS}
    for wrong in (1, 44, 48, 110, 128, 255, 1000, -1):
        with pytest.raises(ValueError, match=f"^{wrong} is no code"):
            reference_map(np.array([111, wrong]), BEN19)
