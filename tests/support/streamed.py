"""For the tests of archives: Sentinel-1 and Sentinel-2 folders of v1 and v2, and the stores prepared from these folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from archives import Patch, write_v1, write_v2
from conftest import Answer
from landscale.formats import decompression as decompressed
from landscale.preparation import plan
from landscale.store import PatchStore, open_store
from surveys import dataset
from tarballs import Files, files, pack, patch_of, shuffled, write_radar

S2 = {"v1": "BigEarthNet-v1.0", "v2": "BigEarthNet-S2"}
S1 = {"v1": "BigEarthNet-S1-v1.0", "v2": "BigEarthNet-S1"}
PATCHES = [Patch(k) for k in range(9)]
COLUMNS = ("split", "snow", "cloud", "tile", "date", "country", "crs", "origin", "moments", "checksum", "state")


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of both versions, each with Sentinel-1 and Sentinel-2."""
    found = {}
    for version, write in (("v1", write_v1), ("v2", write_v2)):
        root = tmp_path_factory.mktemp(version)
        found[version] = write_radar(write(root, PATCHES), PATCHES, version)
    return found


@pytest.fixture(scope="session")
def folder_stores(roots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, PatchStore]:
    """Stores prepared from the folders, which the stores of archives must equal. Keys: v1, v2, v1+s1, v2+s1."""
    from landscale.datasets.bigearthnet import folders as bigearthnet
    from landscale.preparation import prepare_survey

    stores = {}
    for version, root in roots.items():
        for key, where in ((version, root / S2[version]), (f"{version}+s1", root)):
            path = tmp_path_factory.mktemp("stores") / "folders.h5"
            prepare_survey(bigearthnet.survey([(None, where)]), path)
            stores[key] = open_store(path)
    return stores


@pytest.fixture(scope="session")
def many(roots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of 400 patches of v2, and one of the Sentinel-1 patches that belong to them."""
    folder = tmp_path_factory.mktemp("many")
    table = pd.read_parquet(roots["v2"] / "metadata.parquet")
    models = {half: files(roots["v2"], half) for half in (S2["v2"], S1["v2"])}
    packed: dict[str, Files] = {half: [] for half in models}
    rows = []
    for k in range(400):
        row = table.iloc[k % 9].to_dict()
        new = {"patch_id": f"{row['patch_id']}{k:03}", "s1_name": f"{row['s1_name']}{k:03}"}
        for half, key in ((S2["v2"], "patch_id"), (S1["v2"], "s1_name")):
            of_one = [f for f in models[half] if patch_of(f[0]) == row[key]]
            packed[half] += [(name.replace(row[key], new[key]), data) for name, data in of_one]
        rows.append(row | new)
    pd.DataFrame(rows).to_parquet(folder / "metadata.parquet")
    pack(folder / "s1.tar.gz", shuffled(packed[S1["v2"]]))
    return pack(folder / "s2.tar.gz", packed[S2["v2"]])


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use small chunks and blocks, so that a few patches fill several, and members of archives cross block boundaries."""
    monkeypatch.setattr(plan, "CHUNK", 4)
    monkeypatch.setattr(decompressed, "BLOCK", 100_000)
    monkeypatch.setattr(decompressed, "_PROBE", 200_000)


def place(root: Path, folder: Path) -> Path:
    """Create a folder for archives, and copy the lists or metadata of `root` to it."""
    folder.mkdir(exist_ok=True)
    for name in ("metadata", "metadata.parquet"):
        path = root / name
        if path.is_dir():
            shutil.copytree(path, folder / name)
        elif path.exists():
            shutil.copy(path, folder / name)
    return folder


def same(found: Path | PatchStore, expected: PatchStore) -> None:
    """Assert that two stores have the same patches, by name, and the same statistics."""
    store = found if isinstance(found, PatchStore) else open_store(found)
    assert {p.key: p for p in store.layout.planes} == {p.key: p for p in expected.layout.planes}
    names, others = store.column("name").tolist(), expected.column("name").tolist()
    assert sorted(names) == sorted(others)
    rows = [others.index(name) for name in names]
    for key in (plane.key for plane in store.layout.planes):
        assert np.array_equal(store.pixels(key), expected.pixels(key, rows)), key
    for key in ("classes", *COLUMNS):
        assert np.array_equal(dataset(store, key), dataset(expected, key)[rows], equal_nan=key == "origin"), key
    for band, figures in expected.statistics.items():
        assert store.statistics[band] == pytest.approx(figures, rel=1e-12)
    assert not any(damaged for _, damaged in store.damaged())


def occupied(path: Path) -> float:
    """Ratio of a store's size on the disk to the size of its data."""
    store = open_store(path)
    return path.stat().st_blocks * 512 / sum(p.nbytes * len(store.states) for p in store.layout.planes)


def refusal(answer: Answer) -> str:
    """Assert that a command refused its input with one line; returns the line."""
    assert answer.code == 2, answer
    assert len(answer.lines) == 1, answer.lines
    assert answer.lines[0].startswith("landscale: ")
    return answer.lines[0]
