"""Tables of images and their labels: csv or parquet with header; see `datasets.folder` for the columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from landscale.datasets.images import IMAGE_SUFFIXES
from landscale.datasets.label_cells import classes_of_cells, one_class_of_cells
from landscale.datasets.splits import split_code
from landscale.errors import BadInput
from landscale.formats.tables import read_csv, read_parquet_frame

_LABEL, _LABELS, _SPLIT = ("label", "class", "category"), ("labels", "classes", "categories"), ("split", "subset")
_BOOLEANS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "0,0": 0, "1,0": 1, "false": 0, "true": 1}


@dataclass(frozen=True)
class LabelledImages:
    """The images of one input.

    table: `name`, `location`, and `split` where a table has it. labels: the classes of each image. notes: see `Survey`.
    """

    table: pd.DataFrame
    labels: Sequence[tuple[str, ...]]
    classes: set[str]
    multi_label: bool
    notes: tuple[str, ...] = ()


def read_image_table(path: Path) -> LabelledImages:
    """Read a csv or parquet of images.

    Raises:
        BadInput: it cannot be read, its columns or cells can be read in two ways, or most of its images do not exist.
    """
    found = _read(path)
    _check_existing(path, found.table["location"].tolist())
    return found


def _read(path: Path) -> LabelledImages:
    content = _columns(path)
    files = [_relative_path(file) for file in content.iloc[:, 0].astype(str)]
    if wrong := next((file for file in files if PurePosixPath(file).suffix.lower() not in IMAGE_SUFFIXES), None):
        expected = f"expected a path that ends with {', '.join(sorted(IMAGE_SUFFIXES))}"
        raise BadInput(path, f"has {wrong!r} in its first column, {expected}")
    names = [PurePosixPath(file).with_suffix("").as_posix().lstrip("/") for file in files]
    table = pd.DataFrame({"name": names, "location": [str(path.parent / file) for file in files]})
    split, label, labels = (_column(content, known, path) for known in (_SPLIT, _LABEL, _LABELS))
    if split is not None:
        given = content[split].fillna("").astype(str)
        table["split"] = given.map({one: split_code(one, path) for one in given.unique()}).astype(np.uint8)
    if label and labels:
        raise BadInput(path, f"has the columns {label} and {labels}, expected one of them")
    if labels:
        found = classes_of_cells(content[labels], path, labels)
    elif label:
        words = one_class_of_cells(content[label], path, label)
        if "" in words:
            raise BadInput(path, f"has no label for {files[words.index('')]}")
        found = [(word,) for word in words]
    else:
        rest = content.iloc[:, 1:].drop(columns=split or [])
        return LabelledImages(table, *_class_columns(path, rest), multi_label=True)
    return LabelledImages(table, found, {name for row in found for name in row}, multi_label=labels is not None)


def _columns(path: Path) -> pd.DataFrame:
    """The columns of a table, the first with paths; names without blanks around them, no two alike in lower case."""
    if path.suffix == ".csv":
        header, rows = read_csv(path)
        if PurePosixPath(header[0]).suffix.lower() in IMAGE_SUFFIXES:
            raise BadInput(path, f"has no header: its first row is {','.join(header)}; add one, such as path,label")
        content = pd.DataFrame(rows, columns=header, dtype=str)
    else:
        content = read_parquet_frame(path)
        if content.index.name is not None:
            content = content.reset_index()
        content.columns = content.columns.map(lambda name: str(name).strip())
    if content.empty or len(content.columns) < 2:
        raise BadInput(path, "has no rows, or only one column; expected paths in the first column, then labels")
    lower = content.columns.str.lower()
    if lower.has_duplicates:
        raise BadInput(path, f"has several columns called {lower[lower.duplicated()][0]}")
    return content


def _column(content: pd.DataFrame, names: Sequence[str], path: Path) -> str | None:
    """The column behind the first that has one of `names`, in any case; None if there is none."""
    found = [str(name) for name in content.columns[1:] if str(name).lower() in names]
    if len(found) > 1:
        raise BadInput(path, f"has the columns {' and '.join(found)}, expected one of them")
    return found[0] if found else None


def _relative_path(file: str) -> str:
    """A path as it is called here; tables that were written on Windows have backslashes."""
    return file.replace("\\", "/") if "/" not in file else file


def _check_existing(path: Path, locations: list[str]) -> None:
    """Refuse a table of which most images do not exist; single ones are reported as damaged when they are read."""
    there: dict[str, set[str]] = {}
    missing = []
    for location in locations:
        folder, name = os.path.split(location)
        if folder not in there:
            there[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()  # noqa: PTH112, PTH208
        if name not in there[folder]:
            missing.append(location)
    if len(missing) > len(locations) // 2:
        problem = f"lists {len(locations):,} images, of which {len(missing):,} do not exist, such as {missing[0]}"
        raise BadInput(path, f"{problem}; paths are relative to the folder of the table")


def _class_columns(path: Path, columns: pd.DataFrame) -> tuple[list[tuple[str, ...]], set[str]]:
    """The classes of each row, and all classes, of a table whose columns are classes."""
    values = columns.astype(str).apply(lambda column: column.str.strip().str.lower().map(_BOOLEANS))
    for name in columns:
        if len(wrong := columns[name][values[name].isna()]):
            problem = f"has {wrong.iloc[0]!r} in the column {name}, expected 0 or 1"
            raise BadInput(path, f"{problem}; call a column of class names 'label' or 'labels'")
    if len(columns.columns) == 1:
        problem = (
            f"has one column of labels, {columns.columns[0]!r}, of 0 and 1; call it 'label' if these are two classes"
        )
        raise BadInput(path, problem)
    classes = np.array([str(name).strip() for name in columns])
    return [tuple(classes[row]) for row in values.to_numpy().astype(bool)], {*classes.tolist()}
