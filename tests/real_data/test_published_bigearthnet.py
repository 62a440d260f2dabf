"""BigEarthNet as published: every pixel, label, split and place in the store is that of the files."""

from __future__ import annotations

import bz2
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio

from archives import GSD
from conftest import Cli
from landscale.datasets.bigearthnet import folders as bigearthnet
from landscale.formats.geotiff import read_band
from landscale.preparation import prepare_survey
from landscale.store import PatchStore, open_store
from landscale.vocabulary.nomenclatures import BEN19, CLC43, Nomenclature
from streamed import S1, S2, place, same
from tarballs import files, pack

pytestmark = pytest.mark.real_data
Published = Callable[[str], Path]


@pytest.fixture(scope="module")
def v1(published: Published) -> Path:
    """Six patches of BigEarthNet v1, both halves, with the official lists."""
    return published("bigearthnet-v1")


@pytest.fixture(scope="module")
def v2(published: Published) -> Path:
    """301 patches of BigEarthNet v2 with their metadata."""
    return published("bigearthnet-v2")


@pytest.fixture(scope="module")
def store(v2: Path, tmp_path_factory: pytest.TempPathFactory) -> PatchStore:
    """The store of all 301 patches."""
    path = tmp_path_factory.mktemp("published") / "v2.h5"
    prepare_survey(bigearthnet.survey([(None, v2)]), path)
    return open_store(path)


def assert_same_pixels_and_place(store: PatchStore, row: int, folder: Path) -> None:
    """Compare every band of a patch, its CRS and its origin with what rasterio reads."""
    for plane in store.layout.planes:
        for b, band in enumerate(plane.bands):
            with rasterio.open(folder / f"{folder.name}_{band}.tif") as file:
                assert np.array_equal(store.pixels(plane.key, [row])[0, b], file.read(1)), band
                assert store.column("crs")[row] == f"EPSG:{file.crs.to_epsg()}"
                assert store.column("origin")[row].tolist() == [file.transform.c, file.transform.f]


def test_v2_pixels_labels_and_splits(v2: Path, store: PatchStore, cli: Cli) -> None:
    meta = pd.read_parquet(v2 / "metadata.parquet").set_index("patch_id")
    names = store.column("name").tolist()
    assert sorted(names) == sorted(meta.index)
    assert store.split_sizes() == {"train": 193, "val": 108}
    for row, name in enumerate(names):
        assert {BEN19.names[c] for c in np.flatnonzero(store.classes[row])} == set(meta.loc[name, "labels"])
    tiles, dates, countries = (store.column(key) for key in ("tile", "date", "country"))
    assert set(countries) == set(meta["country"])
    for row, name in enumerate(names):
        assert f"_{tiles[row]}_" in name
        assert f"_{dates[row].replace('-', '').replace(':', '')}_" in name
    for row in range(0, 301, 60):
        assert_same_pixels_and_place(store, row, next((v2 / "BigEarthNet-S2").glob(f"*/{names[row]}")))
    assert cli("verify", store.path).code == 0


def test_v2_statistics(v2: Path, store: PatchStore) -> None:
    names = store.column("name")[store.patches("train")]
    for band in ("B01", "B08", "B11"):
        pixels = []
        for name in names:
            with rasterio.open(next((v2 / "BigEarthNet-S2").glob(f"*/{name}/{name}_{band}.tif"))) as file:
                pixels.append(file.read(1).astype(np.float64))
        values = np.stack(pixels)
        assert store.statistics[band] == pytest.approx((values.mean(), values.std()), rel=1e-12)


def test_no_published_file_needs_rasterio(v1: Path, v2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are plain GeoTIFFs, which the package reads by itself."""
    monkeypatch.setattr(rasterio, "open", lambda path, *_, **__: pytest.fail(f"read by rasterio: {path}"))
    folders = [*v1.glob("BigEarthNet-v1.0/*"), *v2.glob("BigEarthNet-S2/*/*")]
    assert len(folders) == 307
    for folder in folders[:40]:
        for band, gsd in GSD.items():
            read_band(str(folder / f"{folder.name}_{band}.tif"), np.empty((1200 // gsd, 1200 // gsd), np.uint16))


@pytest.fixture(scope="module")
def official(v1: Path) -> dict[str, set[str]]:
    """The names in the official lists, decompressed without the package."""
    return {
        path.name.split(".")[0]: set(bz2.decompress(path.read_bytes()).decode().split())
        for path in (v1 / "metadata").glob("*.bz2")
    }


@pytest.mark.parametrize("nomenclature", [CLC43, BEN19])
def test_v1(v1: Path, nomenclature: Nomenclature, official: dict[str, set[str]], tmp_path: Path, cli: Cli) -> None:
    optical = v1 / "BigEarthNet-v1.0"
    words = ("prepare", "bigearthnet", optical, tmp_path / "s.h5", "--labels", nomenclature.name, "--workers", 1)
    assert cli(*words).code == 0
    store = open_store(tmp_path / "s.h5")
    names = store.column("name").tolist()
    assert len(names) == 6
    for row, name in enumerate(names):
        assert_same_pixels_and_place(store, row, optical / name)
        content = json.loads((optical / name / f"{name}_labels_metadata.json").read_text())
        expected = set(content["labels"])
        if nomenclature is BEN19:
            expected = {BEN19.sources[label] for label in expected} - {None}
        assert {store.layout.classes[c] for c in np.flatnonzero(store.classes[row])} == expected
        corner = content["coordinates"]
        assert store.column("origin")[row].tolist() == [corner["ulx"], corner["uly"]]
        assert store.column("tile")[row] == content["tile_source"].split("_")[5]
        split = {1: "train", 2: "val", 3: "test"}.get(int(store.splits[row]))
        assert [other for other in ("train", "val", "test") if name in official[other]] == ([split] if split else [])
    for flag, stem in (("snow", "patches_with_seasonal_snow"), ("cloud", "patches_with_cloud_and_shadow")):
        assert store.column(flag).tolist() == [int(name in official[stem]) for name in names]


def test_sentinel1_pairs(v1: Path, tmp_path: Path, cli: Cli) -> None:
    assert cli("prepare", "bigearthnet", v1, tmp_path / "s.h5", "--workers", 1).code == 0
    store = open_store(tmp_path / "s.h5")
    names = store.column("name").tolist()
    assert len(names) == 6
    radar = {"_".join(f.name.split("_")[-2:]): f for f in (v1 / "BigEarthNet-S1-v1.0").iterdir()}
    for row, name in enumerate(names):
        folder = radar["_".join(name.split("_")[-2:])]
        for k, band in enumerate(("VV", "VH")):
            with rasterio.open(folder / f"{folder.name}_{band}.tif") as file:
                assert np.array_equal(store.pixels("data_s1", [row])[0, k], file.read(1))
    assert -25 < store.pixels("data_s1")[:, 1].mean() < store.pixels("data_s1")[:, 0].mean() < -5  # VH, VV in dB


def test_archives_give_the_store_of_the_folders(v1: Path, tmp_path: Path, prepared: Callable[..., Path]) -> None:
    folder = place(v1, tmp_path / "archives")
    archives = [pack(folder / f"{half}.tar.gz", files(v1, half)) for half in (S2["v1"], S1["v1"])]
    same(prepared("bigearthnet", *archives), open_store(prepared("bigearthnet", v1, name="folders.h5")))


def test_names_are_places_in_the_tile(v2: Path) -> None:
    """Column and row count from one corner for each tile, which is the corner of its grid of 60 m."""
    corners: dict[str, set[tuple[float, float]]] = {}
    for folder in (v2 / "BigEarthNet-S2").glob("*/*"):
        corner = read_band(str(folder / f"{folder.name}_B01.tif"), np.empty((20, 20), np.uint16))
        *_, tile, column, row = folder.name.split("_")
        corners.setdefault(tile, set()).add((corner.x - 1200 * int(column), corner.y + 1200 * int(row)))
    assert len(corners) > 10
    assert all(len(found) == 1 for found in corners.values())
    assert corners["T33UUP"] == {(300_000, 5_400_000)}


def test_the_official_nomenclature(v1: Path) -> None:
    content = json.loads((v1 / "metadata/nomenclature_43_to_19.json").read_text())
    assert content["OLD2NEW_LABELS_DICT"] == BEN19.sources
    assert list(content["OLD2NEW_LABELS_DICT"]) == list(CLC43.names)


def test_labels_of_all_v2_patches(published: Published) -> None:
    meta = pd.read_parquet(published("bigearthnet-v2-metadata") / "metadata.parquet", columns=["labels", "split"])
    assert set(meta["labels"].explode().unique()) == set(BEN19.names)
    assert len(meta) == 480_038


def test_a_truncated_file(v2: Path, tmp_path: Path, cli: Cli) -> None:
    folder = sorted(v2.glob("BigEarthNet-S2/*/*"))[0]
    root = tmp_path / "archive"
    copy = root / "BigEarthNet-S2" / folder.parent.name / folder.name
    shutil.copytree(folder, copy)
    meta = pd.read_parquet(v2 / "metadata.parquet")
    meta[meta["patch_id"] == folder.name].to_parquet(root / "metadata.parquet")
    damaged = copy / f"{folder.name}_B12.tif"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    answer = cli("prepare", "bigearthnet", root, tmp_path / "s.h5", "--workers", 1)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert str(damaged) in answer.lines[0]
    assert "7571 bytes" in answer.lines[0]
    assert "7572" in answer.lines[0]
