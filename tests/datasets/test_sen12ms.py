"""A small SEN12MS in its published layout: every pixel, label and split is stored under the name of its patch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from archives import CODES, pixels, write_band, write_lists
from landscale.datasets import sen12ms
from landscale.errors import BadInput, LandscaleError, UnknownName
from landscale.preparation import prepare_survey
from landscale.vocabulary.nomenclatures import IGBP10
from surveys import Stored, band_of, labels, refused, row_of

SCENES = [(season, scene) for season in sen12ms.SEASONS for scene in (1, 17, 146, 20, 33)]
# Simplified classes and their number of IGBP classes, in the order of IGBP (Schmitt and Wu 2021); "mosaic" is croplands.
RUNS = {
    "Forests": 5,
    "Shrubland": 2,
    "Savanna": 2,
    "Grassland": 1,
    "Wetlands": 1,
    "Croplands": 1,
    "Urban/Built-up": 1,
    "mosaic": 1,
    "Snow/Ice": 1,
    "Barren": 1,
    "Water": 1,
}
SIMPLE = [name.replace("mosaic", "Croplands") for name, run in RUNS.items() for _ in range(run)]


def write_triplet(root: Path, season: str, scene: int, patch: int, k: int) -> str:
    corner = (390_000 + 100 * k, 8_000_000)
    s2 = np.stack([pixels(k, band, (256, 256)) for band in sen12ms.S2.bands])
    s1 = np.stack([-pixels(k, band, (256, 256)).astype(np.float32) / 500 for band in ("VV", "VH")])
    for kind, values in (("s2", s2), ("s1", s1), ("lc", cover(k))):
        path = root / season / f"{kind}_{scene}" / f"{season}_{kind}_{scene}_p{patch}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_band(path, values, corner, 10, 32737)
    return f"{season}_s2_{scene}_p{patch}"


def cover(k: int) -> np.ndarray:
    """40 %, 30 %, 15 % and 9 % of four classes, the rest unclassified; the other bands have other classes."""
    igbp = np.full(256 * 256, 255, np.uint16)
    edges = (np.cumsum([0.4, 0.3, 0.15, 0.09]) * igbp.size).astype(int)
    for begin, end, number in zip([0, *edges], edges, igbp_classes(k), strict=False):
        igbp[begin:end] = number
    return np.stack([igbp, igbp * 0 + 11, igbp * 0 + 12, igbp * 0 + 13]).reshape(4, 256, 256)


def igbp_classes(k: int) -> list[int]:
    return [1 + (k + step) % 17 for step in (0, 9, 4, 13)]


@pytest.fixture(scope="module")
def triplets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sen12ms")
    for k, (season, scene) in enumerate(SCENES[:7]):
        for patch in (30, 31):
            write_triplet(root, season, scene, patch, 2 * k + patch - 30)
    return root


@pytest.mark.parametrize("kind", ["igbp10", "igbp10-single"])
def test_pixels_of_both_sensors_and_labels(kind: str, triplets: Path, stored: Stored) -> None:
    store = stored(sen12ms.survey([(None, triplets)], kind))
    assert store.layout.classes == IGBP10.names
    assert store.layout.multi_label == (kind == "igbp10")
    assert {plane.key: plane.unit for plane in store.layout.planes} == {"data_10m": "digital number", "data_s1": "dB"}
    assert store.layout.level == "L1C"
    names = row_of(store)
    for k, (season, scene) in enumerate(SCENES[:7]):
        for patch in (30, 31):
            seed, row = 2 * k + patch - 30, names[f"{season}_s2_{scene}_p{patch}"]
            for band in sen12ms.S2.bands:
                assert np.array_equal(band_of(store, row, band), pixels(seed, band, (256, 256)))
            for band in ("VV", "VH"):
                assert np.array_equal(
                    band_of(store, row, band), -pixels(seed, band, (256, 256)).astype(np.float32) / 500
                )
            fractions: dict[str, float] = {}
            for number, fraction in zip(igbp_classes(seed), (0.4, 0.3, 0.15, 0.09), strict=True):
                fractions[SIMPLE[number - 1]] = fractions.get(SIMPLE[number - 1], 0) + fraction
            several = {name for name, fraction in fractions.items() if fraction >= 0.1}
            largest = max(fractions, key=lambda name: fractions[name])
            assert labels(store, row) == (several if kind == "igbp10" else {largest})
            assert store.column("crs")[row] == "EPSG:32737"
            assert store.column("origin")[row].tolist() == [390_000 + 100 * seed, 8_000_000]
            assert store.column("tile")[row] == f"{season[4:8]}_{scene}"


def write_empty_files(root: Path) -> Path:
    """Folders and empty files: a survey does not read the images."""
    for season, scene in SCENES:
        folder_path = root / season / f"s2_{scene}"
        folder_path.mkdir(parents=True)
        for patch in range(20):
            (folder_path / f"{season}_s2_{scene}_p{patch}.tif").touch()
    (
        root / "ROIs1868_summer/s2_146/ROIs1868_summer_s2_146_p202.tif"
    ).touch()  # damaged in the published data, and left out
    return root


def test_whole_scenes_are_drawn_in_each_season(tmp_path: Path) -> None:
    table = sen12ms.survey([(None, write_empty_files(tmp_path))]).table
    assert len(table) == 400
    scenes = table.groupby("tile")["split"]
    assert (scenes.nunique() == 1).all()
    for season in ("1158", "1868", "1970", "2017"):
        assert sorted(split for tile, split in scenes.first().items() if tile.startswith(season)) == [1, 1, 1, 2, 3]
    other = sen12ms.survey([(None, tmp_path)], seed=1).table
    assert not table["split"].equals(other["split"])


@pytest.mark.parametrize("inner", ["", "splits", "elsewhere"])
def test_splits_by_the_official_lists(inner: str, tmp_path: Path) -> None:
    """`val` lists part of `train`; some lists have names of radar images; without `val`, whole scenes of `train` are drawn."""
    root = write_empty_files(tmp_path / "data")
    table = sen12ms.survey([(None, root)]).table
    test, val = table["tile"].isin(["1158_1", "2017_33"]), table["tile"].isin(["1868_17"])
    where = root / inner if inner != "elsewhere" else tmp_path / inner
    listed = {"train_list": table["name"][~test], "test_list": table["name"][test].str.replace("_s2_", "_s1_")}
    write_lists(where, {key: [f"{n}.tif" for n in names] for key, names in listed.items()}, "txt")

    def found() -> pd.Series:
        return sen12ms.survey([(None, root)], lists=where if inner == "elsewhere" else None).table["split"]

    drawn = found()
    assert (drawn[test] == CODES["test"]).all()
    assert (drawn[~test] != CODES["test"]).all()
    tiles = table["tile"][drawn == CODES["val"]].value_counts()
    assert (tiles == 20).all()
    assert len(tiles) == 2  # of 18
    write_lists(where, {"val_list": [f"{n}.tif" for n in table["name"][val]]}, "txt")
    assert found().tolist() == np.select([test, val], [3, 2], 1).tolist()
    write_lists(where, {"train_list": list(table["name"])}, "txt")
    refused(found, BadInput, "train_list.txt: lists", "in the list of 'test', too")


def test_unusable_folders_lists_and_triplets_are_refused(tmp_path: Path, triplets: Path) -> None:
    def run(change: Callable[[Path], object]) -> Callable[[], object]:
        shutil.rmtree(tmp_path / "x", ignore_errors=True)
        shutil.copytree(triplets / "ROIs1158_spring", tmp_path / "x/ROIs1158_spring")
        change(tmp_path / "x/ROIs1158_spring")
        (tmp_path / "s.h5.partial").unlink(missing_ok=True)
        return lambda: prepare_survey(sen12ms.survey([(None, tmp_path / "x")]), tmp_path / "s.h5")

    refused(lambda: sen12ms.survey([(None, tmp_path / "nowhere")]), BadInput, "no such folder")
    refused(lambda: sen12ms.survey([(None, tmp_path)]), BadInput, "ROIs1158_spring/s2_1")
    refused(lambda: sen12ms.survey([(None, triplets)], "clc43"), UnknownName, "igbp10")
    refused(lambda: sen12ms.survey([(None, triplets)], lists=tmp_path), BadInput, "has no train_list.txt")
    radar = "s1_17/ROIs1158_spring_s1_17_p30.tif"
    refused(run(lambda root: (root / radar).unlink()), LandscaleError, f"{radar}: cannot be read")
    nothing = np.zeros((4, 256, 256), np.uint16)
    land = "lc_1/ROIs1158_spring_lc_1_p31.tif"
    refused(
        run(lambda root: write_band(root / land, nothing, (0, 0), 10, 32737)),
        LandscaleError,
        f"{land}: has no class of IGBP",
    )
    refused(
        run(lambda root: write_band(root / land, nothing[:1], (0, 0), 10, 32737)),
        LandscaleError,
        "is 1×256×256, expected 4×256×256",
    )
    optical = "s2_1/ROIs1158_spring_s2_1_p30.tif"
    refused(
        run(lambda root: write_band(root / optical, np.zeros((12, 256, 256), np.uint16), (0, 0), 10, 32737)),
        LandscaleError,
        f"{optical}: has 12 bands, expected 13",
    )
