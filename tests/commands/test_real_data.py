"""Files as their publishers wrote them. Skipped where they are not; see README of that folder."""

from __future__ import annotations

import bz2
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image

from archives import GSD, MS_ORDER
from conftest import DATA, Cli
from landscale.formats import geotiff
from landscale.formats.geotiff import read_band
from landscale.store import PatchStore, open_store
from landscale.vocabulary.nomenclatures import BEN19, CLC43, EUROSAT10, Nomenclature

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}")


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> PatchStore:
    """All 301 patches."""
    from landscale.datasets.bigearthnet import folders as bigearthnet
    from landscale.preparation import prepare

    path = tmp_path_factory.mktemp("real") / "v2.h5"
    prepare(bigearthnet.survey([(None, DATA / "bigearthnet-v2")]), path)
    return open_store(path)


def compare(store: PatchStore, row: int, folder: Path) -> None:
    """Every band of a patch, and its place, against rasterio."""
    for plane in store.layout.planes:
        for b, band in enumerate(plane.bands):
            with rasterio.open(folder / f"{folder.name}_{band}.tif") as file:
                assert np.array_equal(store.planes[plane.key][row, b], file.read(1)), band
                assert store.column("crs")[row] == f"EPSG:{file.crs.to_epsg()}"
                assert store.column("origin")[row].tolist() == [file.transform.c, file.transform.f]


def test_v2_is_the_archive(v2: PatchStore, cli: Cli) -> None:
    meta = pd.read_parquet(DATA / "bigearthnet-v2/metadata.parquet").set_index("patch_id")
    names = v2.column("name").tolist()
    assert sorted(names) == sorted(meta.index)
    assert v2.split_sizes() == {"train": 193, "val": 108}
    for row, name in enumerate(names):
        assert {BEN19.names[c] for c in np.flatnonzero(v2.classes[row])} == set(meta.loc[name, "labels"])
    tiles, dates, countries = (v2.column(key) for key in ("tile", "date", "country"))
    assert set(countries) == set(meta["country"])
    for row, name in enumerate(names):
        assert f"_{tiles[row]}_" in name
        assert f"_{dates[row].replace('-', '').replace(':', '')}_" in name
    for row in range(0, 301, 60):
        folder = next((DATA / "bigearthnet-v2/BigEarthNet-S2").glob(f"*/{names[row]}"))
        compare(v2, row, folder)
    assert cli("verify", v2.path).code == 0


def test_v2_statistics_are_those_of_its_files(v2: PatchStore) -> None:
    names = v2.column("name")[v2.patches("train")]
    for band in ("B01", "B08", "B11"):
        pixels = []
        for name in names:
            with rasterio.open(
                next((DATA / "bigearthnet-v2/BigEarthNet-S2").glob(f"*/{name}/{name}_{band}.tif"))
            ) as file:
                pixels.append(file.read(1).astype(np.float64))
        values = np.stack(pixels)
        assert v2.statistics[band] == pytest.approx((values.mean(), values.std()), rel=1e-12)


def test_the_published_files_take_the_fast_road(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all of them: none needs rasterio."""
    monkeypatch.setattr(geotiff, "_read_by_rasterio", lambda path, *_: pytest.fail(f"took the long way: {path}"))
    folders = [*DATA.glob("bigearthnet-v1/BigEarthNet-v1.0/*"), *DATA.glob("bigearthnet-v2/BigEarthNet-S2/*/*")]
    assert len(folders) == 307
    for folder in folders[:40]:
        for band, gsd in GSD.items():
            read_band(str(folder / f"{folder.name}_{band}.tif"), np.empty((1200 // gsd, 1200 // gsd), np.uint16))


@pytest.fixture(scope="module")
def official() -> dict[str, set[str]]:
    """The official lists, unpacked by other means than ours."""
    folder = DATA / "bigearthnet-v1/metadata"
    return {p.name.split(".")[0]: set(bz2.decompress(p.read_bytes()).decode().split()) for p in folder.glob("*.bz2")}


@pytest.mark.parametrize("nomenclature", [CLC43, BEN19])
def test_v1(nomenclature: Nomenclature, official: dict[str, set[str]], tmp_path: Path, cli: Cli) -> None:
    root = DATA / "bigearthnet-v1"
    optical = root / "BigEarthNet-v1.0"
    words = ("prepare", "bigearthnet", optical, tmp_path / "s.h5", "--labels", nomenclature.name, "--workers", 1)
    assert cli(*words).code == 0
    store = open_store(tmp_path / "s.h5")
    names = store.column("name").tolist()
    assert len(names) == 6
    for row, name in enumerate(names):
        folder = root / "BigEarthNet-v1.0" / name
        compare(store, row, folder)
        content = json.loads((folder / f"{name}_labels_metadata.json").read_text())
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


def test_the_official_nomenclature_is_ours() -> None:
    content = json.loads((DATA / "bigearthnet-v1/metadata/nomenclature_43_to_19.json").read_text())
    assert content["OLD2NEW_LABELS_DICT"] == BEN19.sources
    assert list(content["OLD2NEW_LABELS_DICT"]) == list(CLC43.names)


def test_all_of_v2s_labels_and_splits_are_known() -> None:
    meta = pd.read_parquet(DATA / "bigearthnet-v2-metadata/metadata.parquet", columns=["labels", "split"])
    assert set(meta["labels"].explode().unique()) == set(BEN19.names)
    assert len(meta) == 480_038


def test_eurosat_ms(tmp_path: Path, cli: Cli) -> None:
    root = DATA / "EuroSAT_MS"
    assert cli("prepare", "eurosat", root, tmp_path / "s.h5", "--workers", 1).code == 0
    store = open_store(tmp_path / "s.h5")
    assert len(store) == 216
    names = store.column("name").tolist()
    for row in range(0, 216, 27):
        name = names[row]
        assert [EUROSAT10.names[c] for c in np.flatnonzero(store.classes[row])] == [name.split("_")[0]]
        with rasterio.open(root / name.split("_")[0] / f"{name}.tif") as file:
            published = dict(zip(MS_ORDER, file.read(), strict=True))
            assert store.column("origin")[row].tolist() == [file.transform.c, file.transform.f]
        (plane,) = store.layout.planes
        for b, band in enumerate(plane.bands):
            assert np.array_equal(store.planes["data_10m"][row, b], published[band])
    # B8A, published last, lies beside B08 in the spectrum: their pixels go together as no other pair of its does.
    values = store.planes["data_10m"].astype(np.float64).transpose(1, 0, 2, 3).reshape(13, -1)
    nir = plane.bands.index("B8A")
    likeness = np.corrcoef(values)[nir]
    likeness[nir] = 0
    assert plane.bands[int(likeness.argmax())] in {"B07", "B08"}


def test_eurosat_rgb_from_its_zip(tmp_path: Path, cli: Cli) -> None:
    import zipfile

    source = DATA / "EuroSAT_RGB_validation.zip"
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(tmp_path / "few.zip", "w") as few:
        members = [m for m in archive.namelist() if m.endswith(".jpg")]
        assert len(members) == 5400
        for member in members[::50]:
            few.writestr(member, archive.read(member))
    assert cli("prepare", "eurosat", f"val={tmp_path / 'few.zip'}", tmp_path / "s.h5", "--workers", 1).code == 0
    store = open_store(tmp_path / "s.h5")
    assert store.split_sizes() == {"val": 108}
    rows = {name: k for k, name in enumerate(store.column("name").tolist())}
    with zipfile.ZipFile(source) as archive:
        for member in members[::500]:
            with Image.open(archive.open(member)) as image:
                expected = np.asarray(image).transpose(2, 0, 1)
            assert np.array_equal(store.planes["data_10m"][rows[Path(member).stem]], expected)


def test_a_real_file_that_is_damaged(tmp_path: Path, cli: Cli) -> None:
    folder = sorted(DATA.glob("bigearthnet-v2/BigEarthNet-S2/*/*"))[0]
    root = tmp_path / "archive"
    copy = root / "BigEarthNet-S2" / folder.parent.name / folder.name
    shutil.copytree(folder, copy)
    meta = pd.read_parquet(DATA / "bigearthnet-v2/metadata.parquet")
    meta[meta["patch_id"] == folder.name].to_parquet(root / "metadata.parquet")
    victim = copy / f"{folder.name}_B12.tif"
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:-1])
    answer = cli("prepare", "bigearthnet", root, tmp_path / "s.h5", "--workers", 1)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert f"{victim}: has 7571 bytes, its header announces 7572" in answer.lines[0]
