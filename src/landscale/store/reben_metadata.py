"""`metadata.parquet` of BigEarthNet v2 (reBEN, Clasen et al. 2024): what is known of a patch besides its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscale.errors import BadInput, UnknownName, reason
from landscale.labels import Nomenclature
from landscale.store.layout import SPLITS

_COLUMNS = {
    "patch_id": "name",
    "split": "split",
    "country": "country",
    "contains_seasonal_snow": "snow",
    "contains_cloud_or_shadow": "cloud",
}


def read_metadata(path: Path, target: Nomenclature) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    """A row a patch with `name`, `split` (code), `tile`, `date`, `country`, `snow`, `cloud`; and the classes (N, C).

    In `partner` is the name of the Sentinel-1 patch, empty where it is not told.

    Raises:
        BadInput: missing, damaged, with empty fields, or with labels that the nomenclature lacks.
    """
    if not path.is_file():
        raise BadInput(path, "no such file; BigEarthNet v2 keeps labels and splits there")
    try:
        stored = pd.read_parquet(path, page_checksum_verification=True)  # where it was written with checksums
        meta = stored[["labels", *_COLUMNS]]
        for key, column in _COLUMNS.items():
            if column in ("name", "split", "country"):
                meta[key].map(lambda text: str(text).encode())  # arrow lets damaged text through
            elif not meta[key].dropna().isin([True, False]).all():
                raise ValueError(f"{key} is neither true nor false")
    except Exception as error:  # arrow raises many kinds for a damaged file
        raise BadInput(path, f"is not the metadata of BigEarthNet v2 ({reason(error)})") from None
    classes = np.zeros((len(meta), len(target.classes)), np.uint8)
    for row, (name, names) in enumerate(zip(meta["patch_id"], meta["labels"], strict=True)):
        try:
            classes[row, target.columns(names)] = 1
        except (UnknownName, TypeError) as error:
            raise BadInput(path, f"patch {name}: {error}") from None
    table = meta[list(_COLUMNS)].rename(columns=_COLUMNS)
    missing = table.isna().any(axis=1)
    if missing.any():
        raise BadInput(path, f"patch {table['name'][missing].iloc[0]}: has an empty field among {', '.join(_COLUMNS)}")
    table = table.astype({"name": str, "country": str})
    table["split"] = table["split"].map({name: _split(str(name), path) for name in table["split"].unique()})
    table["split"] = table["split"].astype(np.uint8)
    table["tile"] = table["name"].str.rsplit("_", n=3).str[1]
    table["date"] = _dates(table["name"])
    table["partner"] = stored["s1_name"].fillna("").astype(str) if "s1_name" in stored else ""
    return table, classes


def _split(name: str, path: Path) -> int:
    name = {"validation": "val"}.get(name, name)
    if name not in SPLITS:
        raise BadInput(path, f"has the split '{name}', expected {', '.join(SPLITS[1:])}")
    return SPLITS.index(name)


def _dates(names: pd.Series[str]) -> pd.Series[str]:
    """ISO times of acquisition, from names such as S2A_MSIL2A_20170613T101031_…; empty where there is none."""
    s = names.str.extract(r"_(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)_", expand=True)
    return (s[0] + "-" + s[1] + "-" + s[2] + "T" + s[3] + ":" + s[4] + ":" + s[5]).fillna("")
