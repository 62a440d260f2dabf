"""SEN12MS (Schmitt et al. 2019, doi 10.5194/isprs-annals-IV-2-W7-153-2019): 180,662 triplets of 256×256 px at 10 m.

    ROIs1158_spring/s2_1/ROIs1158_spring_s2_1_p30.tif   13 bands of Sentinel-2 L1C in ESA's order, digital numbers
    ROIs1158_spring/s1_1/ROIs1158_spring_s1_1_p30.tif   VV, VH of Sentinel-1, decibels
    ROIs1158_spring/lc_1/ROIs1158_spring_lc_1_p30.tif   MODIS land cover: IGBP (1 to 17), LCCS cover, use, hydrology

and so on for ROIs1868_summer, ROIs1970_fall and ROIs2017_winter. A scene is a folder, such as number 1 of spring.
Labels are those of Schmitt and Wu 2021 (doi 10.5194/isprs-annals-V-2-2021-101-2021): the IGBP classes simplified to ten;
multi-label: all that cover a tenth of the patch or more; single-label: the one that covers most.
Splits: `train_list.txt`, `test_list.txt` and `val_list.txt` of github.com/schmitt-muc/SEN12MS, where the last names part of
the first. In every other case whole scenes are drawn, season by season, as patches of a scene overlap.
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
S2 = Plane("data_10m", band_set("s2-13").names, SIDE, 10)
S1 = Plane("data_s1", ("VV", "VH"), SIDE, 10, "float32")
SEASONS = ("ROIs1158_spring", "ROIs1868_summer", "ROIs1970_fall", "ROIs2017_winter")
SIMPLIFIED = (0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 5, 7, 8, 9)  # the column in IGBP10 of each IGBP class, from 1 on
SHARE = 0.1  # of the patch, from which on a class is a label
MULTI, SINGLE = IGBP10.name, f"{IGBP10.name}-single"
_DAMAGED = "ROIs1868_summer_s2_146_p202"  # its radar image is; the authors leave it out


@dataclass(frozen=True)
class SEN12MSReader:
    """Reads the triplet of an image of Sentinel-2."""

    multi_label: bool

    def __call__(
        self, where: str, planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]
    ) -> PatchDetails:
        place = read_image_into(where, planes[S2.key])
        planes[S1.key][...] = _beside_it(where, "s1", S1.shape)
        shares = igbp_shares(_beside_it(where, "lc", (4, SIDE, SIDE))[0])
        if not shares.any():
            raise BadInput(_sibling(where, "lc"), "holds no class of IGBP, 1 to 17, in its first band")
        classes[...] = shares >= SHARE if self.multi_label else np.arange(len(shares)) == shares.argmax()
        return PatchDetails(place)


def igbp_shares(cover: NDArray[np.generic]) -> NDArray[np.float64]:
    """The share of a patch that each of the ten classes covers; numbers that are no class of IGBP cover the rest."""
    counts = [np.count_nonzero(cover == igbp) for igbp in range(1, len(SIMPLIFIED) + 1)]
    return np.bincount(SIMPLIFIED, counts, len(IGBP10.classes)) / cover.size


def _beside_it(where: str, kind: str, shape: tuple[int, int, int]) -> NDArray[np.generic]:
    """The radar image or land cover of an image of Sentinel-2."""
    path = _sibling(where, kind)
    image, _ = read_image(path)
    if image.shape != shape:
        found, expected = ("×".join(map(str, s)) for s in (image.shape, shape))
        raise BadInput(path, f"is {found}, expected {expected} (bands, height, width)")
    return image


def _sibling(where: str, kind: str) -> str:
    """…/s2_1/ROIs1158_spring_s2_1_p30.tif → the same of s1 or lc."""
    folder, _, name = where.rpartition("/")
    folder, _, scene = folder.rpartition("/s2_")
    return f"{folder}/{kind}_{scene}/{name.replace('_s2_', f'_{kind}_')}"


OPTIONS = (labels_option("igbp10 (default) or igbp10-single"), LISTS, SEED)


def survey(
    inputs: list[tuple[str | None, Path]], labels: str | None = None, lists: Path | None = None, seed: int = 0
) -> Survey:
    """Survey folders that hold some or all of the four seasons.

    The split of a patch is that of its SPLIT=INPUT; else that of the list which names it, where `val`, unless a list says
    it, is a tenth of the scenes of `train`; else its scene is drawn 60/20/20.

    Args:
        inputs: split or None, and a folder.
        labels: `igbp10` (multi-label, the default) or `igbp10-single`.
        lists: folder of the official lists; by default the input, or `splits` in it, if there are any.
        seed: of the drawn scenes.

    Raises:
        BadInput: no images of Sentinel-2, or a patch that both train and test list.
    """
    if labels not in {None, MULTI, SINGLE}:
        raise UnknownName("nomenclature of SEN12MS", str(labels), (MULTI, SINGLE))
    tables = []
    for split, path in inputs:
        table = pd.DataFrame(_members(path), columns=["name", "location", "season", "scene"])
        if split is not None:
            table["split"] = np.uint8(split_code(split, path))
        else:
            table["split"] = _splits(table, lists or _official(path), seed)
        table["tile"] = table["season"].str[4:8] + "_" + table["scene"]
        tables.append(table[["name", "location", "split", "tile"]])
    table = pd.concat(tables, ignore_index=True)
    check_names(table, inputs[-1][1])
    multi_label = labels != SINGLE
    layout = Layout((S2, S1), IGBP10.names, IGBP10.name, multi_label)
    reader = OneByOne(SEN12MSReader(multi_label))
    return Survey(layout, table, None, reader, {"source": "sen12ms", "version": "2019", "labels": labels or MULTI})


def _members(path: Path) -> list[tuple[str, str, str, str]]:
    """Name, place, season and scene of every image of Sentinel-2, sorted."""
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
        raise BadInput(path, f"holds no .tif in folders such as {SEASONS[0]}/s2_1")
    return found


def _official(path: Path) -> Path | None:
    return next((folder for folder in (path, path / "splits") if any(folder.glob("t*_list.txt"))), None)


def _splits(table: pd.DataFrame, lists: Path | None, seed: int) -> NDArray[np.uint8]:
    scene, scenes = pd.factorize(table["season"] + "/" + table["scene"])
    season = pd.Series(scenes).str.partition("/")[0].map(SEASONS.index).to_numpy()
    if lists is None:
        return draw_splits(season, seed)[scene]
    paths = {split: path for split in SPLITS[1:] if (path := lists / f"{split}_list.txt").is_file()}
    if not paths:
        raise BadInput(lists, "holds no train_list.txt, val_list.txt or test_list.txt")
    # Lists may name the radar image instead.
    listed = {s: is_listed(table["name"], {n.replace("_s1_", "_s2_") for n in read_list(p)}) for s, p in paths.items()}
    if "test" in listed:
        for split in sorted({*listed} - {"test"}):
            if (twice := listed[split] & listed["test"]).any():
                name = table["name"][twice].iloc[0]
                raise BadInput(paths[split], f"lists {name}, which the list of 'test' has already")
    if "train" in listed and "val" not in listed:
        of_train, number = np.unique(scene[listed["train"]], return_inverse=True)
        drawn = draw_splits(np.zeros(len(of_train), np.int64), seed, {"train": 0.9, "val": 0.1})
        listed["val"] = np.zeros(len(table), bool)
        listed["val"][listed["train"]] = drawn[number] == SPLITS.index("val")
    splits = np.zeros(len(table), np.uint8)
    for split, rows in sorted(
        listed.items(), key=lambda item: SPLITS.index(item[0])
    ):  # val after train, which may name it too
        splits[rows] = SPLITS.index(split)
    return splits
