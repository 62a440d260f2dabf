"""The user's own images: a folder with one subfolder per class (single-label), or a table of files and their labels.

A table is a csv or parquet file. Its first column has the paths of the images, relative to the folder of the table. Labels are
in a column `labels` (multi-label: lists in parquet, names separated by `;` or `|` in csv) or in a column `label`
(single-label); without both, every further column is a class of 0 and 1 (multi-label). A column `split` may have train, val or
test.

Images are GeoTIFF, PNG or JPEG, of uint8, uint16 or float32; they are square, and all of one shape and dtype. Their unit is 8-bit
for uint8, digital numbers for uint16 with a declared scale of 1/10,000, and otherwise unknown.
Classes are sorted by name. If they are exactly those of a known nomenclature, they get its order and name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from landscale.datasets.images import (
    ASSUMED_GSD,
    GSD_IS_ASSUMED,
    IMAGE_SUFFIXES,
    ImageHeader,
    ImageReader,
    name_bands,
    plane_key,
    read_header,
)
from landscale.datasets.options import BANDS, LISTS, SEED
from landscale.datasets.splits import choose_splits, split_code
from landscale.datasets.survey import OneByOne, Survey, check_names
from landscale.errors import BadInput, reason
from landscale.formats.names import check_text
from landscale.formats.zip_or_folder import list_members
from landscale.store import Layout, Plane
from landscale.vocabulary.nomenclatures import with_classes
from landscale.vocabulary.units import PER_REFLECTANCE, Unit

OPTIONS = (BANDS, LISTS, SEED)
_DTYPES = ("uint8", "uint16", "float32")
_SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_BOOLEANS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


@dataclass(frozen=True)
class _LabelledImages:
    """The images of one input. table: `name`, `location`, and `split` where a table has it. labels: the classes of each image."""

    table: pd.DataFrame
    labels: Sequence[tuple[str, ...]]
    classes: set[str]
    multi_label: bool


def survey(
    inputs: list[tuple[str | None, Path]], bands: str | None = None, lists: Path | None = None, seed: int = 0
) -> Survey:
    """Survey folders, zips of them, and tables.

    The split of a patch is the SPLIT of its input, if that is given as SPLIT=INPUT; otherwise that of the list in `lists` which
    contains its file name; otherwise that in the table; otherwise it is drawn at random, 60/20/20 (single-label: in each class).

    Args:
        inputs: split or None, and a folder, zip, csv or parquet.
        bands: names of the bands in their order, as a band set or a list. By default the descriptions of the bands in a GeoTIFF;
            otherwise red, green and blue if there are three bands.
        lists: a folder of split lists.
        seed: seed of the drawn splits.

    Raises:
        BadInput: no images, images of another shape or dtype, bands without names, or a table that cannot be read.
    """
    parts = []
    for split, path in inputs:
        part = _read_table(path) if path.suffix in {".csv", ".parquet"} else _find_images(path)
        if split is not None:  # folders of several splits may have files of the same name
            part.table["name"] = f"{split}/" + part.table["name"]
        parts.append(part)
    if len({part.multi_label for part in parts}) > 1:
        raise BadInput(
            inputs[-1][1], "is single-label and other inputs are multi-label, or the reverse; prepare a store from each"
        )
    classes = set[str]().union(*(part.classes for part in parts))
    known = with_classes(classes)
    names = known.names if known else tuple(sorted(classes))
    column = {name: k for k, name in enumerate(names)}
    tables, matrices = [], []
    for given, part in zip(inputs, parts, strict=True):
        matrix = np.zeros((len(part.labels), len(names)), np.uint8)
        for row, labels in enumerate(part.labels):
            matrix[row, [column[label] for label in labels]] = 1
        if given[0] is not None or lists is not None or "split" not in part.table:
            groups = np.zeros(len(matrix), np.int64) if part.multi_label else matrix.argmax(1)
            part.table["split"] = choose_splits(_file_names(part.table, lists), groups, given, lists, seed)
        tables.append(part.table)
        matrices.append(matrix)
    table = pd.concat(tables, ignore_index=True)
    check_names(table, inputs[-1][1])
    check_text(names, inputs[-1][1])
    plane, is_gsd_known = _plane(str(table["location"].iloc[0]), bands)
    layout = Layout((plane,), names, known.name if known else "custom", parts[0].multi_label)
    provenance = {"source": "folder"} if is_gsd_known else {"source": "folder", "gsd": GSD_IS_ASSUMED}
    return Survey(layout, table, np.concatenate(matrices), OneByOne(ImageReader(plane.key)), provenance)


def _find_images(path: Path) -> _LabelledImages:
    """The images of a folder or zip with one subfolder per class; these may have further subfolders."""
    found = [(member, location) for member, location in list_members(path, IMAGE_SUFFIXES) if len(member.parts) > 1]
    # Many zips have a single folder at the top.
    while (
        path.suffix == ".zip" and len({m.parts[0] for m, _ in found}) == 1 and all(len(m.parts) > 2 for m, _ in found)
    ):
        found = [(PurePosixPath(*member.parts[1:]), location) for member, location in found]
    if not found:
        raise BadInput(path, f"has no {', '.join(sorted(IMAGE_SUFFIXES))} in folders named after classes")
    check_text((str(member) for member, _ in found), path)
    labels = [(member.parts[0],) for member, _ in found]
    classes = {label for (label,) in labels}
    if {name.lower() for name in classes} <= _SPLIT_FOLDERS:
        inputs = " ".join(f"{name.lower()}={path / name}" for name in sorted(classes))
        raise BadInput(path, f"has folders of splits, not of classes; give each as an input: {inputs}")
    names = [member.with_suffix("").as_posix() for member, _ in found]
    table = pd.DataFrame({"name": names, "location": [location for _, location in found]})
    return _LabelledImages(table, labels, classes, multi_label=False)


def _read_table(path: Path) -> _LabelledImages:
    try:
        csv = path.suffix == ".csv"
        content = pd.read_csv(path, dtype=str, keep_default_na=False) if csv else pd.read_parquet(path)
    except Exception as error:  # pyarrow raises many classes of errors for a damaged file
        raise BadInput(path, f"cannot be read as a table of images ({reason(error)})") from None
    if content.empty or len(content.columns) < 2:
        raise BadInput(path, "has no rows, or only one column; expected paths in the first column, then labels")
    files = content.iloc[:, 0].astype(str)
    if len(wrong := files[~files.map(lambda file: PurePosixPath(file).suffix.lower() in IMAGE_SUFFIXES)]):
        raise BadInput(
            path,
            f"has {wrong.iloc[0]!r} in its first column, expected a path that ends with {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    names = [PurePosixPath(file).with_suffix("").as_posix().lstrip("/") for file in files]
    table = pd.DataFrame({"name": names, "location": [str(path.parent / file) for file in files]})
    if "split" in content:
        codes = {split: split_code(str(split), path) for split in content["split"].unique()}
        table["split"] = content["split"].map(codes).astype(np.uint8)
    rest = content.iloc[:, 1:].drop(columns="split", errors="ignore")
    labels: list[tuple[str, ...]]
    if "label" in rest:
        labels = [(str(label).strip(),) for label in rest["label"].fillna("")]
        if ("",) in labels:
            raise BadInput(path, f"has no label for {files.iloc[labels.index(('',))]}")
    elif "labels" in rest:
        labels = [_names(value) for value in rest["labels"]]
    else:
        return _LabelledImages(table, *_read_class_columns(path, rest), multi_label=True)
    return _LabelledImages(table, labels, {name for row in labels for name in row}, multi_label="label" not in rest)


def _names(value: object) -> tuple[str, ...]:
    """The classes in a cell of a table: a list, or text separated by `;` or `|`."""
    if isinstance(value, str):
        words: list[object] = [*re.split(r"[;|]", value)]
    elif isinstance(value, Iterable):
        words = list(value)
    else:
        words = [] if pd.isna(value) else [value]  # type: ignore[call-overload]
    return tuple(word for word in (str(word).strip() for word in words) if word)


def _read_class_columns(path: Path, columns: pd.DataFrame) -> tuple[list[tuple[str, ...]], set[str]]:
    """The classes of each row, and all classes, of a table whose columns are classes."""
    values = columns.astype(str).apply(lambda column: column.str.strip().str.lower().map(_BOOLEANS))
    for name in columns:
        if len(wrong := columns[name][values[name].isna()]):
            raise BadInput(path, f"has {wrong.iloc[0]!r} in the column {name}, expected 0 or 1 (or a column 'labels')")
    classes = np.array([str(name).strip() for name in columns])
    return [tuple(classes[row]) for row in values.to_numpy().astype(bool)], {*classes.tolist()}


def _file_names(table: pd.DataFrame, lists: Path | None) -> pd.Series[str]:
    """Names without folders, as in split lists."""
    names: pd.Series[str] = table["name"].str.rpartition("/")[2]
    if lists is not None and len(repeated := names[names.duplicated()]):
        raise BadInput(lists, f"has names without folders, and several files have the name {repeated.iloc[0]}")
    return names


def _plane(location: str, bands: str | None) -> tuple[Plane, bool]:
    """The plane of images like the first one, and whether its file gives the ground sampling distance.

    An image of another shape or dtype is refused when it is read.
    """
    header = read_header(location)
    count, height, width = header.shape
    if header.dtype not in _DTYPES:
        raise BadInput(location, f"has {header.dtype} pixels, expected {', '.join(_DTYPES)}")
    if height != width:
        raise BadInput(location, f"is {width}×{height}, expected a square")
    names = name_bands(location, count, header.band_names, bands)
    gsd = header.gsd or ASSUMED_GSD
    return Plane(plane_key(gsd), names, height, gsd, header.dtype, _unit(header)), header.gsd is not None


def _unit(header: ImageHeader) -> Unit:
    """8-bit for pictures; digital numbers if the file declares 1/10,000 as the factor to reflectance; else unknown."""
    if header.dtype == "uint8":
        return "8-bit"
    declared = math.isclose(header.scale * PER_REFLECTANCE, 1, rel_tol=1e-6)
    return "digital number" if header.dtype == "uint16" and declared else "unknown"
