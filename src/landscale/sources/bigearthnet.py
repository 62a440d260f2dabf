"""BigEarthNet archives, v1 (Sumbul et al. 2019) and v2 (reBEN, Clasen et al. 2024), told apart by what lies in the folder.

v1: `BigEarthNet-v1.0/<patch>/<patch>_B02.tif …` with `<patch>_labels_metadata.json`; splits, snow and cloud in lists.
v2: `BigEarthNet-S2/<product>/<patch>/<patch>_B02.tif …` with one `metadata.parquet`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscale.bands import BANDS, band_set
from landscale.errors import BadInput, UnknownName, reason
from landscale.files import read_json
from landscale.geotiff import read_band
from landscale.labels import Nomenclature, nomenclature
from landscale.sources.survey import (
    Found,
    OneByOne,
    Survey,
    check_names,
    is_listed,
    read_list,
    split_code,
    split_lists,
    splits_by_lists,
)
from landscale.store import Layout, Plane

SIDES = {10: 120, 20: 60, 60: 20}  # 1.2 km


def _planes() -> tuple[Plane, ...]:
    names = band_set("s2-12").names
    return tuple(
        Plane(f"data_{gsd}m", tuple(b for b in names if BANDS[b].gsd == gsd), side) for gsd, side in SIDES.items()
    )


@dataclass(frozen=True)
class BigEarthNetReader:
    """Reads the twelve files of a patch folder, and in v1 its labels."""

    nomenclature: Nomenclature
    labels_in_json: bool

    def __call__(self, where: str, planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]) -> Found:
        stem = f"{where}/{os.path.basename(where)}"  # noqa: PTH119  twelve Path objects a patch are felt
        first = None
        for plane in _PLANES:
            for band, out in zip(plane.bands, planes[plane.key], strict=True):
                place = read_band(f"{stem}_{band}.tif", out)
                first = first or place
                if place != first:
                    raise BadInput(f"{stem}_{band}.tif", f"lies at {place}, the patch's other bands at {first}")
        assert first is not None
        return Found(first, self._read_labels(stem, classes) if self.labels_in_json else "")

    def _read_labels(self, stem: str, classes: NDArray[np.uint8]) -> str:
        path = Path(f"{stem}_labels_metadata.json")
        content = read_json(path)
        try:
            labels = content["labels"]
            tile = str(content.get("tile_source", "")).split("_")
        except (KeyError, TypeError, AttributeError):
            raise BadInput(path, "has no 'labels'") from None
        try:
            classes[self.nomenclature.columns(labels)] = 1
        except (UnknownName, TypeError) as error:
            raise BadInput(path, str(error)) from None
        return tile[5] if len(tile) > 5 else ""


_PLANES = _planes()


def survey(inputs: list[tuple[str | None, Path]], labels: str | None = None, lists: Path | None = None) -> Survey:
    """Survey one or several archives, each an INPUT or a SPLIT=INPUT that puts all its patches into one split.

    Args:
        inputs: split or None, and the folder of an archive: the one that holds `BigEarthNet-v1.0` or `BigEarthNet-S2`,
            or that folder itself.
        labels: `clc43` (v1's default) or `ben19` (v2's default and only choice).
        lists: folder with v1's split, snow and cloud lists; by default `metadata` beside the patches. v2 has no use for it.

    Raises:
        BadInput: neither kind of archive, or damaged metadata.
    """
    found = [_survey_one(path, labels, lists) for _, path in inputs]
    for (split, path), one in zip(inputs, found, strict=True):
        if split is not None:
            one.table["split"] = np.uint8(split_code(split, path))
    if len({(one.layout, one.classes is None) for one in found}) > 1:
        raise BadInput(inputs[-1][1], f"is another version of BigEarthNet than {inputs[0][1]}; prepare them apart")
    table = pd.concat([one.table for one in found], ignore_index=True)
    check_names(table, inputs[-1][1])
    known = [one.classes for one in found if one.classes is not None]
    first = found[0]
    provenance = first.provenance | ({"synthetic": True} if any(_is_synthetic(path) for _, path in inputs) else {})
    return Survey(first.layout, table, np.concatenate(known) if known else None, first.read, provenance)


def _is_synthetic(folder: Path) -> bool:
    """Whether `sources.synthetic` wrote it: the mark goes wherever the patches go."""
    return (folder / "synthetic.json").exists() or (folder.parent / "synthetic.json").exists()


def _survey_one(path: Path, labels: str | None, lists: Path | None) -> Survey:
    if not path.is_dir():
        raise BadInput(path, "no such folder")
    if lists is not None and not (split_lists(lists) or any(lists.glob("patches_with_*"))):
        raise BadInput(lists, "holds no list named train, val or test (.csv, .csv.bz2 or .txt)")
    if (path / "BigEarthNet-S2").is_dir() or path.name == "BigEarthNet-S2":
        if lists is not None:
            raise BadInput(lists, "lists are for BigEarthNet v1; v2 has its splits in metadata.parquet")
        return _survey_v2(path if path.name != "BigEarthNet-S2" else path.parent, labels)
    if (path / "BigEarthNet-v1.0").is_dir():
        return _survey_v1(path / "BigEarthNet-v1.0", labels, lists or path / "metadata")
    if next(path.glob("*/*_labels_metadata.json"), None):
        return _survey_v1(path, labels, lists or path.parent / "metadata")
    raise BadInput(path, "is no BigEarthNet archive: expected BigEarthNet-v1.0, or BigEarthNet-S2 and metadata.parquet")


def _survey_v1(folder: Path, labels: str | None, lists: Path) -> Survey:
    target = nomenclature(labels or "clc43")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    table = pd.DataFrame({"name": names, "where": [f"{folder}/{name}" for name in names]})
    table["split"] = splits_by_lists(table["name"], lists)
    for flag, stem in (("snow", "patches_with_seasonal_snow"), ("cloud", "patches_with_cloud_and_shadow")):
        listed = {name for path in lists.glob(f"{stem}.*") for name in read_list(path)}
        table[flag] = is_listed(table["name"], listed)
    table["date"] = _dates(table["name"])
    reader = OneByOne(BigEarthNetReader(target, labels_in_json=True))
    return Survey(_layout(target), table, None, reader, {"source": "bigearthnet", "version": "v1"})


def _survey_v2(root: Path, labels: str | None) -> Survey:
    target = nomenclature(labels or "ben19")
    path = root / "metadata.parquet"
    if not path.is_file():
        raise BadInput(path, "no such file; BigEarthNet v2 keeps labels and splits there")
    columns = ["patch_id", "labels", "split", "country", "contains_seasonal_snow", "contains_cloud_or_shadow"]
    try:
        meta = pd.read_parquet(path, columns=columns)
    except Exception as error:  # arrow raises many kinds for a damaged file
        raise BadInput(path, f"is not the metadata of BigEarthNet v2 ({reason(error)})") from None
    classes = np.zeros((len(meta), len(target.classes)), np.uint8)
    for row, (name, names) in enumerate(zip(meta["patch_id"], meta["labels"], strict=True)):
        try:
            classes[row, target.columns(names)] = 1
        except (UnknownName, TypeError) as error:
            raise BadInput(path, f"patch {name}: {error}") from None
    missing = meta.drop(columns="labels").isna().any(axis=1)
    if missing.any():
        raise BadInput(
            path, f"patch {meta['patch_id'][missing].iloc[0]}: has an empty field among {', '.join(columns)}"
        )
    splits = {name: split_code(str(name), path) for name in meta["split"].unique()}
    names = meta["patch_id"].astype(str)
    product = names.str.rsplit("_", n=2).str[0]
    table = pd.DataFrame(
        {
            "name": names,
            "where": f"{root / 'BigEarthNet-S2'}/" + product + "/" + names,
            "split": meta["split"].map(splits).astype(np.uint8),
            "tile": product.str.rsplit("_", n=1).str[-1],
            "date": _dates(names),
            "country": meta["country"].astype(str),
            "snow": meta["contains_seasonal_snow"],
            "cloud": meta["contains_cloud_or_shadow"],
        }
    )
    reader = OneByOne(BigEarthNetReader(target, labels_in_json=False))
    return Survey(_layout(target), table, classes, reader, {"source": "bigearthnet", "version": "v2"})


def _layout(target: Nomenclature) -> Layout:
    return Layout(_PLANES, target.names, target.name, multi_label=True)


def _dates(names: pd.Series[str]) -> pd.Series[str]:
    """ISO times of acquisition, from product names such as S2A_MSIL2A_20170613T101031_…; v1 writes hours without a zero."""
    stamp = names.str.extract(r"_(\d{8})T(\d{5,6})_", expand=True)
    day, time = stamp[0].fillna(""), stamp[1].fillna("").str.zfill(6)
    iso = (
        day.str[:4]
        + "-"
        + day.str[4:6]
        + "-"
        + day.str[6:]
        + "T"
        + time.str[:2]
        + ":"
        + time.str[2:4]
        + ":"
        + time.str[4:]
    )
    return iso.where(day != "", "")
