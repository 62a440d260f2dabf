"""The Sentinel-1 half of BigEarthNet folders: each patch is stored with its partner, and wrong partners are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from archives import Patch, write_lists, write_v1, write_v2
from conftest import Cli
from landscale.store import open_store
from tarballs import decibels, radar_name, write_radar

PATCHES = [Patch(k) for k in range(5)]


@pytest.fixture(scope="module", params=["v1", "v2"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    version = request.param
    root = tmp_path_factory.mktemp(version)
    (write_v1 if version == "v1" else write_v2)(root, PATCHES)
    return version, write_radar(root, PATCHES, version)


def numbers(store: Path, version: str) -> dict[int, np.ndarray]:
    """The radar plane of each patch, by the patch's number."""
    opened = open_store(store)
    names = opened.column("name").tolist()
    of = {p.v1 if version == "v1" else p.v2: p.k for p in PATCHES}
    return {of[name]: opened.pixels("data_s1", [row])[0] for row, name in enumerate(names)}


def test_vv_and_vh_come_from_their_own_files(both: tuple[str, Path], prepared: Callable[..., Path], cli: Cli) -> None:
    version, root = both
    store = prepared("bigearthnet", root)
    found = numbers(store, version)
    assert sorted(found) == [0, 1, 2, 3, 4]
    for k, plane in found.items():
        assert np.array_equal(plane[0], decibels(k, "VV"))
        assert np.array_equal(plane[1], decibels(k, "VH"))
    assert cli("verify", store).code == 0
    info = cli("info", store, "--json").json
    assert info["bands"][-2:] == ["VV", "VH"]
    train = open_store(store).patches("train")
    values = open_store(store).pixels("data_s1", train)[:, 1].astype(np.float64)
    assert info["statistics"]["VH"]["mean"] == pytest.approx(values.mean(), rel=1e-9)
    assert info["statistics"]["VH"]["std"] == pytest.approx(values.std(), rel=1e-9)


def test_the_sentinel2_folder_alone_gives_a_store_without_radar(
    both: tuple[str, Path], prepared: Callable[..., Path]
) -> None:
    version, root = both
    store = open_store(prepared("bigearthnet", root / ("BigEarthNet-v1.0" if version == "v1" else "BigEarthNet-S2")))
    assert [p.key for p in store.layout.planes] == ["data_10m", "data_20m", "data_60m"]


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    return write_radar(write_v1(tmp_path / "v1", PATCHES), PATCHES, "v1")


def test_pairs_from_the_second_column_of_the_lists(v1: Path, tmp_path: Path, prepared: Callable[..., Path]) -> None:
    """The second column takes precedence over the JSON files, which need not exist."""
    for path in v1.glob("BigEarthNet-S1-v1.0/*/*.json"):
        path.unlink()
    lines = [f"{p.v1},{radar_name(p, 'v1')}" for p in PATCHES]
    lists = write_lists(tmp_path / "lists", {"train": lines[:2], "patches_with_seasonal_snow": lines[2:]}, "csv")
    found = numbers(prepared("bigearthnet", v1, "--lists", lists), "v1")
    assert all(np.array_equal(plane[0], decibels(k, "VV")) for k, plane in found.items())


def test_a_wrong_pair_is_refused(v1: Path, tmp_path: Path, cli: Cli) -> None:
    lines = [f"{p.v1},{radar_name(q, 'v1')}" for p, q in zip(PATCHES, PATCHES[2:] + PATCHES[:2], strict=True)]
    lists = write_lists(tmp_path / "lists", {"train": lines}, "csv")
    answer = cli("prepare", "bigearthnet", v1, tmp_path / "s.h5", "--lists", lists, "--workers", 1)
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert "_VV.tif: lies at" in answer.lines[0]


def test_a_patch_without_partner(v1: Path, tmp_path: Path, cli: Cli) -> None:
    lonely = PATCHES[1]
    shutil.rmtree(v1 / "BigEarthNet-S1-v1.0" / radar_name(lonely, "v1"))
    words = ("prepare", "bigearthnet", v1, tmp_path / "s.h5", "--workers", 1)
    answer = cli(*words)
    assert answer.code == 2
    assert f"{lonely.v1}: has no Sentinel-1 partner" in answer.lines[0]
    answer = cli(*words, "--skip-bad", "--json")
    assert answer.code == 0
    assert answer.json["skipped"] == [lonely.v1]


def test_a_missing_band(both: tuple[str, Path], tmp_path: Path, cli: Cli) -> None:
    version, root = both
    copied = tmp_path / "copy"
    shutil.copytree(root, copied)
    path = next(copied.rglob(f"{radar_name(PATCHES[3], version)}_VH.tif"))
    path.unlink()
    answer = cli("prepare", "bigearthnet", copied, tmp_path / "s.h5", "--workers", 1)
    assert answer.code == 2
    assert answer.lines[0].startswith(f"landscale: {path}: cannot be read")


def test_metadata_without_a_partner(tmp_path: Path, cli: Cli) -> None:
    root = write_radar(write_v2(tmp_path / "v2", PATCHES), PATCHES, "v2")
    table = pd.read_parquet(root / "metadata.parquet").drop(columns="s1_name")
    table.to_parquet(root / "metadata.parquet")
    answer = cli("prepare", "bigearthnet", root, tmp_path / "s.h5", "--workers", 1)
    assert answer.code == 2
    assert "has no Sentinel-1 partner" in answer.lines[0]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"corresponding_s2_patch": 3}'])
def test_a_damaged_json(content: str, v1: Path, tmp_path: Path, cli: Cli) -> None:
    path = next(v1.glob("BigEarthNet-S1-v1.0/*/*.json"))
    path.write_text(content)
    answer = cli("prepare", "bigearthnet", v1, tmp_path / "s.h5", "--workers", 1)
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert str(path) in answer.lines[0]
