"""Read `metadata.parquet` of BigEarthNet v2 (reBEN, Clasen et al. 2024): labels, splits and flags of the patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from landscale.errors import BadInput, UnknownName, reason
from landscale.formats.tables import read_parquet
from landscale.store.layout import SPLITS
from landscale.vocabulary.nomenclatures import Nomenclature

_COLUMNS = {
    "patch_id": ("name", pa.string()),
    "split": ("split", pa.string()),
    "country": ("country", pa.string()),
    "contains_seasonal_snow": ("snow", pa.bool_()),
    "contains_cloud_or_shadow": ("cloud", pa.bool_()),
}
_TILE = r"(?s)^.*_([^_]*)_[^_]*_[^_]*$"  # of S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57
_DATE = r"(?s)^.*?_(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)_.*$"


def read_metadata(path: str | Path, target: Nomenclature) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    """A table with one row per patch, and the classes (N, C) uint8 of 0 and 1.

    Columns: `name`, `split` (index in `SPLITS`), `tile`, `date`, `country`, `snow`, `cloud`, and `partner`, the name of the
    Sentinel-1 patch (empty where the file has none).

    Raises:
        BadInput: the file is missing or damaged, has empty fields, or labels that are not in the nomenclature.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(path, "no such file; it has the labels and splits of BigEarthNet v2")
    try:
        stored = read_parquet(path, (*_COLUMNS, "labels", "s1_name"))
        columns = {key: _column(stored[key], kind) for key, (_, kind) in _COLUMNS.items()}
        columns["labels"] = _column(stored["labels"], pa.list_(pa.string()))
        partner = _column(stored["s1_name"], pa.string()) if "s1_name" in stored.column_names else None
    except Exception as error:  # Arrow raises many types of errors for values of other types
        problem = error.problem if isinstance(error, BadInput) else reason(error)
        raise BadInput(path, f"is not the metadata of BigEarthNet v2 ({problem})") from None
    names, labels = columns["patch_id"], columns["labels"]
    for key, column in columns.items():
        if column.null_count:
            row = pc.index(column.is_null(), True).as_py()
            raise BadInput(path, f"patch {names[row]}: the field {key} is empty")
    known = {name: columns[key] for key, (name, _) in _COLUMNS.items()}
    classes = _classes(path, names, labels, target)
    splits = known["split"].dictionary_encode()
    codes = np.array([_split(name, path) for name in splits.dictionary.to_pylist()], np.uint8)
    known["split"] = pa.array(codes[splits.indices.to_numpy()])
    known |= {"tile": _extract(names, _TILE, r"\1"), "date": _extract(names, _DATE, r"\1-\2-\3T\4:\5:\6")}
    known["partner"] = pa.array([""] * len(names)) if partner is None else partner.fill_null("")
    return pa.table(known).to_pandas(), classes


def _column(column: Any, kind: Any) -> Any:
    """A column as one array of the type `kind`; flag columns must have a boolean dtype."""
    if kind == pa.bool_() and column.type not in (kind, pa.null()):
        raise ValueError(f"holds {column.type}, expected {kind}")
    return column.cast(kind).combine_chunks()


def _classes(path: Path, names: Any, labels: Any, target: Nomenclature) -> NDArray[np.uint8]:
    found = labels.flatten().dictionary_encode("encode")
    codes, rows = found.indices.to_numpy(), pc.list_parent_indices(labels).to_numpy()
    columns = np.full(
        len(found.dictionary), -1
    )  # column of each label; -1, which is dropped, for labels without a class
    for code, label in enumerate(found.dictionary.to_pylist()):
        try:
            columns[code] = next(iter(target.columns([str(label)])), -1)
        except UnknownName as error:
            raise BadInput(path, f"patch {names[rows[codes == code][0]]}: {error}") from None
    classes = np.zeros((len(names), len(target.classes) + 1), np.uint8)
    classes[rows, columns[codes]] = 1
    return classes[:, :-1].copy()


def _split(name: str, path: Path) -> int:
    name = {"validation": "val"}.get(name, name)
    if name not in SPLITS:
        raise BadInput(path, f"has the split '{name}', expected {', '.join(SPLITS[1:])}")
    return SPLITS.index(name)


def _extract(names: Any, pattern: str, template: str) -> Any:
    r"""`template` for each name, with \1, \2, … replaced by the groups of the pattern; empty where it does not match."""
    found = pc.replace_substring_regex(names, pattern, template)
    return pc.if_else(pc.equal(found, names), "", found)
