"""SEN12MS (Schmitt et al. 2019, doi 10.5194/isprs-annals-IV-2-W7-153-2019): 180,662 triplets of 256×256 px at 10 m.

    ROIs1158_spring/s2_1/ROIs1158_spring_s2_1_p30.tif   13 bands of Sentinel-2 L1C in ESA's order, digital numbers
    ROIs1158_spring/s1_1/ROIs1158_spring_s1_1_p30.tif   VV, VH of Sentinel-1, decibels
    ROIs1158_spring/lc_1/ROIs1158_spring_lc_1_p30.tif   MODIS land cover: IGBP (1 to 17), LCCS cover, use, hydrology

and the same for ROIs1868_summer, ROIs1970_fall and ROIs2017_winter. A scene is a folder, such as s2_1 of spring.
Labels are those of Schmitt and Wu 2021 (doi 10.5194/isprs-annals-V-2-2021-101-2021): the IGBP classes simplified to ten.
Multi-label: all classes that cover a tenth of the patch or more. Single-label: the class that covers most.
Splits: `train_list.txt`, `test_list.txt` and `val_list.txt` of github.com/schmitt-muc/SEN12MS; patches in the last are in
the first, too. Without lists, whole scenes are drawn at random, because patches of a scene overlap.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscale.datasets.images import read_image, read_image_into
from landscale.datasets.options import LISTS, SEED, labels_option
from landscale.datasets.splits import draw_splits, is_listed, read_list, split_code
from landscale.datasets.survey import OneByOne, PatchDetails, Survey, check_names
from landscale.errors import BadInput, UnknownName
from landscale.store import SPLITS, Layout, Plane
from landscale.vocabulary.bands import band_set
from landscale.vocabulary.nomenclatures import IGBP10

SIDE = 256
S2 = Plane("data_10m", band_set("s2-13").names, SIDE, 10, unit="digital number")
S1 = Plane("data_s1", ("VV", "VH"), SIDE, 10, "float32", "dB")
SEASONS = ("ROIs1158_spring", "ROIs1868_summer", "ROIs1970_fall", "ROIs2017_winter")
_COLUMN_OF_IGBP = (0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 5, 7, 8, 9)  # column in IGBP10 of IGBP class 1, 2, …, 17
LABELLED_FROM = 0.1  # least fraction of a patch that a class must cover to be one of its labels
MULTI, SINGLE = IGBP10.name, f"{IGBP10.name}-single"
_DAMAGED = "ROIs1868_summer_s2_146_p202"  # its radar image is damaged; the authors leave it out


@dataclass(frozen=True)
class SEN12MSReader:
    """Reads a triplet, given by the path of its image of Sentinel-2."""

    multi_label: bool

    def __call__(
        self, location: str, planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]
    ) -> PatchDetails:
        place = read_image_into(location, planes[S2.key])
        planes[S1.key][...] = _read_sibling(location, "s1", S1.shape)
        fractions = igbp_fractions(_read_sibling(location, "lc", (4, SIDE, SIDE))[0])
        if not fractions.any():
            raise BadInput(_sibling(location, "lc"), "has no class of IGBP, 1 to 17, in its first band")
        classes[...] = (
            fractions >= LABELLED_FROM if self.multi_label else np.arange(len(fractions)) == fractions.argmax()
        )
        return PatchDetails(place)


def igbp_fractions(cover: NDArray[np.generic]) -> NDArray[np.float64]:
    """The fraction of a patch that each of the ten classes covers, (10,); pixels without a class of IGBP are in none of them."""
    counts = [np.count_nonzero(cover == igbp) for igbp in range(1, len(_COLUMN_OF_IGBP) + 1)]
    return np.bincount(_COLUMN_OF_IGBP, counts, len(IGBP10.classes)) / cover.size


def _read_sibling(location: str, kind: str, shape: tuple[int, int, int]) -> NDArray[np.generic]:
    """Read the radar image (`kind` s1) or land cover (lc) of the triplet of an image of Sentinel-2."""
    path = _sibling(location, kind)
    image, _ = read_image(path)
    if image.shape != shape:
        found, expected = ("×".join(map(str, s)) for s in (image.shape, shape))
        raise BadInput(path, f"is {found}, expected {expected} (bands, height, width)")
    return image


def _sibling(location: str, kind: str) -> str:
    """…/s2_1/ROIs1158_spring_s2_1_p30.tif → …/lc_1/ROIs1158_spring_lc_1_p30.tif, or the same with s1."""
    folder, _, name = location.rpartition("/")
    folder, _, scene = folder.rpartition("/s2_")
    return f"{folder}/{kind}_{scene}/{name.replace('_s2_', f'_{kind}_')}"


OPTIONS = (labels_option("igbp10 (default) or igbp10-single"), LISTS, SEED)


def survey(
    inputs: list[tuple[str | None, Path]], labels: str | None = None, lists: Path | None = None, seed: int = 0
) -> Survey:
    """Survey folders that hold some or all of the four seasons.

    The split of a patch is the SPLIT of its input, if that is given as SPLIT=INPUT; otherwise that of the list which contains
    its name. With a list of train but none of val, a tenth of the scenes of train are drawn for val. Without lists,
    scenes are drawn 60/20/20 in each season.

    Args:
        inputs: split or None, and a folder.
        labels: `igbp10` (multi-label, the default) or `igbp10-single`.
        lists: folder of the official lists; by default the input folder, or `splits` in it, if they are there.
        seed: seed by which scenes are drawn.

    Raises:
        BadInput: no images of Sentinel-2, or a patch that is in the lists of both test and another split.
    """
    if labels not in {None, MULTI, SINGLE}:
        raise UnknownName("nomenclature of SEN12MS", str(labels), (MULTI, SINGLE))
    tables = []
    for split, path in inputs:
        table = pd.DataFrame(_find_images(path), columns=["name", "location", "season", "scene"])
        if split is not None:
            table["split"] = np.uint8(split_code(split, path))
        else:
            table["split"] = _splits(table, lists or _official_lists(path), seed)
        table["tile"] = table["season"].str[4:8] + "_" + table["scene"]
        tables.append(table[["name", "location", "split", "tile"]])
    table = pd.concat(tables, ignore_index=True)
    check_names(table, inputs[-1][1])
    multi_label = labels != SINGLE
    layout = Layout((S2, S1), IGBP10.names, IGBP10.name, multi_label, "L1C")
    reader = OneByOne(SEN12MSReader(multi_label))
    return Survey(layout, table, None, reader, {"source": "sen12ms", "version": "2019", "labels": labels or MULTI})


def _find_images(path: Path) -> list[tuple[str, str, str, str]]:
    """Name, path, season and scene of every image of Sentinel-2, sorted."""
    if not path.is_dir():
        raise BadInput(path, "no such folder")
    found = []
    for season in SEASONS:
        for folder in path.glob(f"{season}/s2_*"):
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.name.endswith(".tif")]
            found += [(n.removesuffix(".tif"), f"{folder}/{n}", season, folder.name[3:]) for n in names]
    found = sorted(row for row in found if row[0] != _DAMAGED)
    if not found:
        raise BadInput(path, f"has no .tif in folders such as {SEASONS[0]}/s2_1")
    return found


def _official_lists(path: Path) -> Path | None:
    """The folder of the official lists in an input, if there is one."""
    return next((folder for folder in (path, path / "splits") if any(folder.glob("t*_list.txt"))), None)


def _splits(table: pd.DataFrame, lists: Path | None, seed: int) -> NDArray[np.uint8]:
    scene, scenes = pd.factorize(table["season"] + "/" + table["scene"])
    season = pd.Series(scenes).str.partition("/")[0].map(SEASONS.index).to_numpy()
    if lists is None:
        return draw_splits(season, seed)[scene]
    paths = {split: path for split in SPLITS[1:] if (path := lists / f"{split}_list.txt").is_file()}
    if not paths:
        raise BadInput(lists, "has no train_list.txt, val_list.txt or test_list.txt")
    # Lists may have the names of the radar images instead.
    listed = {s: is_listed(table["name"], {n.replace("_s1_", "_s2_") for n in read_list(p)}) for s, p in paths.items()}
    if "test" in listed:
        for split in sorted({*listed} - {"test"}):
            if (twice := listed[split] & listed["test"]).any():
                name = table["name"][twice].iloc[0]
                raise BadInput(paths[split], f"lists {name}, which is in the list of 'test', too")
    if "train" in listed and "val" not in listed:
        train_scenes, number = np.unique(scene[listed["train"]], return_inverse=True)
        drawn = draw_splits(np.zeros(len(train_scenes), np.int64), seed, {"train": 0.9, "val": 0.1})
        listed["val"] = np.zeros(len(table), bool)
        listed["val"][listed["train"]] = drawn[number] == SPLITS.index("val")
    splits = np.zeros(len(table), np.uint8)
    for split, rows in sorted(
        listed.items(), key=lambda item: SPLITS.index(item[0])
    ):  # val after train: patches of val may be in the list of train, too
        splits[rows] = SPLITS.index(split)
    return splits
