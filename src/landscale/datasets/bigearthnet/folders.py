"""BigEarthNet in folders: v1 (Sumbul et al. 2019) or v2 (reBEN, Clasen et al. 2024), distinguished by the folders' names.

v1: `BigEarthNet-v1.0/<patch>/<patch>_B02.tif …` with `<patch>_labels_metadata.json`; splits, snow and cloud in lists.
v2: `BigEarthNet-S2/<product>/<patch>/<patch>_B02.tif …` with one `metadata.parquet`.
If the Sentinel-1 half is there, too, the store gets it as plane `data_s1` (`bigearthnet.sentinel1`).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscale.datasets.bigearthnet.reader import SEPARATOR, BigEarthNetReader
from landscale.datasets.bigearthnet.sentinel1 import FOLDER_V1, FOLDER_V2, RADAR, pair_v1, product
from landscale.datasets.splits import (
    is_listed,
    read_list,
    split_code,
    split_lists,
    splits_by_lists,
)
from landscale.datasets.survey import OneByOne, Survey, acquisition_times, check_names
from landscale.errors import BadInput
from landscale.store import Layout
from landscale.store.planes import LEVEL, REFERENCE_MAP, SENTINEL2
from landscale.store.reben_metadata import read_metadata
from landscale.vocabulary.nomenclatures import Nomenclature, nomenclature

FOLDER_S2 = "BigEarthNet-S2"
V1, V2 = ({"source": "bigearthnet", "version": version} for version in ("v1", "v2"))


def survey(
    inputs: list[tuple[str | None, Path]],
    labels: str | None = None,
    lists: Path | None = None,
    maps: Path | None = None,
) -> Survey:
    """Survey one or several folders; one that is given as SPLIT=INPUT puts all its patches into that split.

    Args:
        inputs: split or None, and a folder: the one that contains `BigEarthNet-v1.0` or `BigEarthNet-S2`, or that folder
            itself, in which case a Sentinel-1 folder next to it is not read.
        labels: `clc43` (v1's default) or `ben19` (v2's default and only choice).
        lists: folder with v1's split, snow and cloud lists; by default `metadata` next to the patches. Refused for v2.
        maps: the folder `Reference_Maps` of v2, with the class of every pixel: `<product>/<patch>/<patch>_reference_map.tif`.
            Refused for v1.

    Raises:
        BadInput: neither version, or damaged metadata.
    """
    surveys = [_survey_one(path, labels, lists, maps) for _, path in inputs]
    for (split, path), one in zip(inputs, surveys, strict=True):
        if split is not None:
            one.table["split"] = np.uint8(split_code(split, path))
    if len({(one.layout, one.classes is None) for one in surveys}) > 1:
        raise BadInput(
            inputs[-1][1],
            f"is another version of BigEarthNet than {inputs[0][1]}, or has other bands; prepare each into its own store",
        )
    table = pd.concat([one.table for one in surveys], ignore_index=True)
    check_names(table, inputs[-1][1])
    classes = [one.classes for one in surveys if one.classes is not None]
    first = surveys[0]
    provenance = first.provenance | ({"synthetic": True} if any(is_synthetic(path) for _, path in inputs) else {})
    notes = tuple(note for one in surveys for note in one.notes)
    return Survey(first.layout, table, np.concatenate(classes) if classes else None, first.read, provenance, notes)


def is_synthetic(folder: Path) -> bool:
    """Whether `datasets.synthetic` wrote these patches: it marks them by a file next to them. Stores and models keep the mark."""
    return (folder / "synthetic.json").exists() or (folder.parent / "synthetic.json").exists()


def _survey_one(path: Path, labels: str | None, lists: Path | None, maps: Path | None) -> Survey:
    if not path.is_dir():
        raise BadInput(path, "no such folder")
    if maps is not None and not maps.is_dir():
        raise BadInput(maps, "no such folder")
    check_lists(lists)
    if (path / FOLDER_S2).is_dir() or path.name == FOLDER_S2:
        if lists is not None:
            raise BadInput(lists, "lists are for BigEarthNet v1; v2 has its splits in metadata.parquet")
        inside = path.name == FOLDER_S2
        return _survey_v2(path.parent if inside else path, labels, maps, with_radar=not inside)
    if maps is not None:
        raise BadInput(maps, "reference maps are those of BigEarthNet v2; v1 has none")
    if (path / "BigEarthNet-v1.0").is_dir():
        radar = path / FOLDER_V1
        return _survey_v1(
            path / "BigEarthNet-v1.0", labels, lists or path / "metadata", radar if radar.is_dir() else None
        )
    if next(path.glob("*/*_labels_metadata.json"), None):
        return _survey_v1(path, labels, lists or path.parent / "metadata", None)
    raise BadInput(path, "is no BigEarthNet archive: expected BigEarthNet-v1.0, or BigEarthNet-S2 and metadata.parquet")


def check_lists(lists: Path | None) -> None:
    """Check that a folder of lists contains a list.

    Raises:
        BadInput: `lists` is given and contains none.
    """
    if lists is not None and not (split_lists(lists) or any(lists.glob("patches_with_*"))):
        raise BadInput(lists, "holds no list named train, val or test (.csv, .csv.bz2 or .txt)")


def _survey_v1(folder: Path, labels: str | None, lists: Path, radar: Path | None) -> Survey:
    target = nomenclature(labels or "clc43")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    table = describe_v1(names, lists)
    locations = [f"{folder}/{name}" for name in names]
    if radar:
        partners = pair_v1(names, radar, lists)
        locations = [where + SEPARATOR + partner for where, partner in zip(locations, partners, strict=True)]
    table["location"] = locations
    reader = OneByOne(BigEarthNetReader(target, labels_in_json=True))
    return Survey(layout(target, radar is not None), table, None, reader, V1)


def describe_v1(names: list[str], lists: Path) -> pd.DataFrame:
    """The columns of v1's table that are derived from lists and names: `name`, `split`, `snow`, `cloud`, `date`.

    Raises:
        BadInput: a list that cannot be read, or a patch in two splits.
    """
    table = pd.DataFrame({"name": names}, dtype=str)
    table["split"] = splits_by_lists(table["name"], lists)
    for flag, stem in (("snow", "patches_with_seasonal_snow"), ("cloud", "patches_with_cloud_and_shadow")):
        listed = {name for path in lists.glob(f"{stem}.*") for name in read_list(path)}
        table[flag] = is_listed(table["name"], listed)
    table["date"] = acquisition_times(table["name"])
    return table


def _survey_v2(root: Path, labels: str | None, maps: Path | None, *, with_radar: bool) -> Survey:
    target = nomenclature(labels or "ben19")
    radar = root / FOLDER_V2 if with_radar and (root / FOLDER_V2).is_dir() else None
    table, classes = read_metadata(root / "metadata.parquet", target)
    products = table["name"].str.rsplit("_", n=2).str[0]
    there = _are_there(root / FOLDER_S2, products, table["name"])
    notes: tuple[str, ...] = ()
    if not there.all():  # as after a partial download
        problem = f"of the {len(there):,} patches that metadata.parquet lists"
        if not there.any():
            raise BadInput(root / FOLDER_S2, f"has none {problem}")
        notes = (f"{root / FOLDER_S2}: has {there.sum():,} {problem}; the others are left out",)
        table, classes, products = (
            table[there].reset_index(drop=True),
            classes[there],
            products[there].reset_index(drop=True),
        )
    table["location"] = f"{root / FOLDER_S2}/" + products + "/" + table["name"]
    if radar:
        table["location"] += [
            f"{SEPARATOR}{radar}/{product(name)}/{name}" if name else SEPARATOR for name in table["partner"]
        ]
    if maps is not None:
        table["location"] += ("" if radar else SEPARATOR) + f"{SEPARATOR}{maps}/" + products + "/" + table["name"]
    reader = OneByOne(BigEarthNetReader(target, labels_in_json=False))
    return Survey(
        layout(target, radar is not None, maps is not None), table.drop(columns="partner"), classes, reader, V2, notes
    )


def _are_there(folder: Path, products: pd.Series[str], names: pd.Series[str]) -> NDArray[np.bool_]:
    """Which patches have a folder in that of their product. The folders are listed, which is faster than one look for each."""
    patches = {}
    for product_folder in products.unique():
        try:
            patches[product_folder] = set(os.listdir(folder / product_folder))  # noqa: PTH208
        except OSError:
            patches[product_folder] = set()
    pairs = zip(products.tolist(), names.tolist(), strict=True)
    return np.fromiter((name in patches[one] for one, name in pairs), bool, len(names))


def layout(target: Nomenclature, with_radar: bool, with_maps: bool = False) -> Layout:
    """The store's layout: the classes of `target`, and the planes of Sentinel-2, Sentinel-1 and reference maps, if wanted."""
    planes = SENTINEL2 + ((RADAR,) if with_radar else ()) + ((REFERENCE_MAP,) if with_maps else ())
    return Layout(planes, target.names, target.name, multi_label=True, level=LEVEL)
