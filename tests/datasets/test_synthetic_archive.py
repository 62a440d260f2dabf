"""The synthetic archive has the layout of the originals, is cut from its scene, reproducible, and can be learned."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import rasterio
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import f1_score

from landscale.datasets.synthetic.bigearthnet_archive import PRODUCT, write_archive
from landscale.datasets.synthetic.land_use import BANDS
from landscale.errors import BadInput, UnknownName
from landscale.vocabulary.bands import BAND_SETS
from landscale.vocabulary.nomenclatures import BEN19, CLC43


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives") / "v2"
    write_archive(folder, patches=225, seed=3)
    return folder


@pytest.fixture(scope="module")
def v1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives") / "v1"
    write_archive(folder, patches=46, layout="v1")  # the last row of the grid is incomplete
    return folder


def patch_folders(archive: Path) -> list[Path]:
    return sorted([*archive.glob("BigEarthNet-S2/*/*"), *archive.glob("BigEarthNet-v1.0/*")])


def read(path: Path) -> npt.NDArray[np.uint16]:
    with rasterio.open(path) as file:
        pixels: npt.NDArray[np.uint16] = file.read(1)
    return pixels


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_metadata_of_v2_describe_every_patch(v2: Path) -> None:
    table = pd.read_parquet(v2 / "metadata.parquet")
    assert [path.name for path in patch_folders(v2)] == sorted(table["patch_id"])
    assert len(table) == 225
    assert set(table["split"]) == {"train", "validation", "test"}
    assert all(1 <= len(labels) <= 9 and set(labels) <= set(BEN19.names) for labels in table["labels"])
    assert table["labels"].explode().nunique() > 15
    for flag in ("contains_seasonal_snow", "contains_cloud_or_shadow"):
        assert table[flag].dtype == bool
        assert 0 < table[flag].sum() < 25


def test_metadata_of_v1_describe_every_patch(v1: Path) -> None:
    names = [path.name for path in patch_folders(v1)]
    assert len(names) == 46
    contents = [json.loads((v1 / "BigEarthNet-v1.0" / n / f"{n}_labels_metadata.json").read_text()) for n in names]
    for name, content in zip(names, contents, strict=True):
        assert list(content) == ["labels", "coordinates", "projection", "tile_source", "acquisition_date"]
        assert content["labels"] == [c for c in CLC43.names if c in content["labels"]]
        with rasterio.open(v1 / "BigEarthNet-v1.0" / name / f"{name}_B02.tif") as file:
            assert [content["coordinates"][key] for key in ("ulx", "lry", "lrx", "uly")] == list(file.bounds)
            assert rasterio.crs.CRS.from_wkt(content["projection"]) == file.crs
    lists = {path.stem: path.read_text().split() for path in (v1 / "metadata").iterdir()}
    snow_or_cloud = {*lists["patches_with_seasonal_snow"], *lists["patches_with_cloud_and_shadow"]}
    listed = [*lists["train"], *lists["val"], *lists["test"]]
    assert sorted([*listed, *snow_or_cloud]) == names


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_patches_are_cut_from_the_scene(layout: str, request: pytest.FixtureRequest) -> None:
    archive = request.getfixturevalue(layout)
    for band in BANDS:
        with rasterio.open(archive / "scene" / PRODUCT / f"{band.name}.tif") as scene:
            assert (scene.profile["compress"], scene.profile["tiled"], scene.dtypes) == ("lzw", True, ("uint16",))
            assert scene.res == (band.gsd, band.gsd)
            pixels, grid = scene.read(1), scene.transform
        for folder in patch_folders(archive)[::7]:
            with rasterio.open(folder / f"{folder.name}_{band.name}.tif") as patch:
                side = 1200 // band.gsd
                column, row = (int(part) for part in folder.name.split("_")[-2:])
                assert np.array_equal(patch.read(1), pixels[row * side :, column * side :][:side, :side])
                assert (patch.transform.c, patch.transform.f) == (grid.c + 1200 * column, grid.f - 1200 * row)
                assert patch.res == scene.res
                assert patch.crs == scene.crs
                assert patch.tags()["TIFFTAG_IMAGEDESCRIPTION"] == "synthetic"


def test_every_band_has_its_own_mean(v2: Path) -> None:
    scene = [read(v2 / "scene" / PRODUCT / f"{band.name}.tif") for band in BANDS]
    means = [band.mean() for band in scene]
    assert min(band.min() for band in scene) >= 1
    assert len({round(mean) for mean in means}) == len(BANDS)  # so that swapped bands are noticed
    nir, red = scene[7].astype(float), scene[3].astype(float)
    assert ((nir - red) / (nir + red) > 0.3).mean() > 0.5  # most of the land is green


def test_the_same_arguments_give_the_same_bytes_and_another_seed_other_ones(v1: Path, tmp_path: Path) -> None:
    write_archive(tmp_path / "again", patches=46, layout="v1")
    assert digests(tmp_path / "again") == digests(v1)
    write_archive(tmp_path / "other", patches=4, seed=1)
    write_archive(tmp_path / "another", patches=4, seed=2)
    assert digests(tmp_path / "other") != digests(tmp_path / "another")


def test_an_existing_archive_is_not_written_again(tmp_path: Path) -> None:
    write_archive(tmp_path, patches=2)  # the folder exists and is empty
    before = digests(tmp_path)
    file = next(tmp_path.glob("BigEarthNet-S2/*/*/*.tif"))
    time = file.stat().st_mtime_ns
    write_archive(tmp_path, patches=2)
    assert digests(tmp_path) == before
    assert file.stat().st_mtime_ns == time
    with pytest.raises(BadInput, match=r'"seed": 0.*expected.*"seed": 1'):
        write_archive(tmp_path, patches=2, seed=1)


def test_other_folders_and_wrong_arguments_are_refused(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").touch()
    with pytest.raises(BadInput, match="no synthetic archive"):
        write_archive(tmp_path / "foreign")
    with pytest.raises(BadInput, match="found 0"):
        write_archive(tmp_path / "none", patches=0)
    with pytest.raises(UnknownName, match="v3"):
        write_archive(tmp_path / "v3", layout="v3")  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["foreign"]


def test_a_failure_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "landscale.datasets.synthetic.bigearthnet_archive._write_scene", shutil.get_terminal_size
    )  # fails when called
    with pytest.raises(TypeError):
        write_archive(tmp_path / "archive", patches=1)
    assert not list(tmp_path.iterdir())


def test_a_random_forest_scores_higher_with_all_bands_than_with_rgb(v2: Path) -> None:
    table = pd.read_parquet(v2 / "metadata.parquet")
    labels = np.zeros((len(table), len(BEN19.classes)), int)
    for row, names in enumerate(table["labels"]):
        labels[row, BEN19.columns(names)] = 1
    train = (table["split"] == "train").to_numpy()

    def micro_f1(bands: tuple[str, ...]) -> float:
        features = []
        for band in bands:
            scene = read(v2 / "scene" / PRODUCT / f"{band}.tif")
            side = len(scene) // 15  # 15 × 15 patches, in the order of the table
            patches = scene.reshape(15, side, 15, side).swapaxes(1, 2).reshape(225, -1)
            features += [patches.mean(1), patches.std(1), *np.quantile(patches, (0.1, 0.3, 0.5, 0.7, 0.9), axis=1)]
        forest = ExtraTreesClassifier(200, min_samples_leaf=2, max_features=0.3, random_state=0)
        probabilities = forest.fit(np.stack(features, 1)[train], labels[train]).predict_proba(
            np.stack(features, 1)[~train]
        )
        found = np.stack([1 - p[:, 0] for p in probabilities], 1) > 0.35
        return float(f1_score(labels[~train], found, average="micro"))

    rgb, multispectral = micro_f1(BAND_SETS["rgb"].names), micro_f1(BAND_SETS["s2-12"].names)
    assert multispectral > rgb + 0.02, f"micro F1 {multispectral:.3f}, with RGB alone {rgb:.3f}"
    assert 0.45 < multispectral < 0.9
