"""The user's own images: a folder with one subfolder per class (single-label), or a table of files and their labels.

A folder of images without subfolders gives a store without labels, with all patches in train.

A table is a csv (separated by commas, semicolons or tabs) or parquet file with header; capitals and blanks around names do not
matter. Its first column has the paths of the images, relative to the folder of the table. Labels are in a column `labels` or
`classes` (multi-label: lists, or names separated by `;` or `|`, see `label_cells`) or in a column `label`, `class` or
`category` (single-label); without both, every further column is a class of 0 and 1 (multi-label). A column `split` may have
train, val or test.

Images are GeoTIFF, PNG or JPEG, of uint8, uint16 or float32; they are square, and all of one shape and dtype: that of most.
Their unit is 8-bit for uint8, digital numbers for uint16 with a declared scale of 1/10,000, and otherwise unknown.
Classes are sorted by name. If they are exactly those of a known nomenclature, they get its order and name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from landscale.datasets.class_folders import find_class_folders
from landscale.datasets.image_tables import read_image_table
from landscale.datasets.images import (
    ASSUMED_GSD,
    GSD_IS_ASSUMED,
    ImageHeader,
    ImageReader,
    name_bands,
    plane_key,
    read_header,
)
from landscale.datasets.options import BANDS, LISTS, SEED
from landscale.datasets.splits import choose_splits
from landscale.datasets.survey import OneByOne, Survey, check_names
from landscale.errors import BadInput
from landscale.formats.names import check_text
from landscale.store import Layout, Plane
from landscale.vocabulary.nomenclatures import UNLABELLED, with_classes
from landscale.vocabulary.units import PER_REFLECTANCE, Unit

OPTIONS = (BANDS, LISTS, SEED)
_DTYPES = ("uint8", "uint16", "float32")
_SAMPLE = 16  # images by which the layout is chosen


def survey(
    inputs: list[tuple[str | None, Path]], bands: str | None = None, lists: Path | None = None, seed: int = 0
) -> Survey:
    """Survey folders, zips of them, and tables.

    The split of a patch is the SPLIT of its input, if that is given as SPLIT=INPUT; otherwise that of the list in `lists` which
    contains its file name; otherwise that in the table, or train without labels; otherwise it is drawn at random, 60/20/20
    (single-label: in each class).

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
        part = read_image_table(path) if path.suffix in {".csv", ".parquet"} else find_class_folders(path)
        if split is not None:  # folders of several splits may have files of the same name
            part.table["name"] = f"{split}/" + part.table["name"]
        parts.append(part)
    if len({bool(part.classes) for part in parts}) > 1:
        raise BadInput(inputs[-1][1], "some inputs have labels and others have none; prepare a store from each")
    if len({part.multi_label for part in parts}) > 1:
        raise BadInput(
            inputs[-1][1], "is single-label and other inputs are multi-label, or the reverse; prepare a store from each"
        )
    classes = set[str]().union(*(part.classes for part in parts))
    _check_spelling(classes, inputs[-1][1])
    known = with_classes(classes) if classes else UNLABELLED
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
    plane, is_gsd_known = _plane(table["location"].tolist(), bands)
    if len(names) == 1 and not parts[0].multi_label:
        problem = f"has images of one class only, {names[0]!r}; expected a folder for each class"
        raise BadInput(inputs[-1][1], f"{problem}, or images without folders, which then have no labels")
    layout = Layout((plane,), names, known.name if known else "custom", parts[0].multi_label)
    notes = tuple(note for part in parts for note in part.notes)
    provenance = {"source": "folder"} if is_gsd_known else {"source": "folder", "gsd": GSD_IS_ASSUMED}
    return Survey(layout, table, np.concatenate(matrices), OneByOne(ImageReader(plane.key)), provenance, notes)


def _file_names(table: pd.DataFrame, lists: Path | None) -> pd.Series[str]:
    """Names without folders, as in split lists."""
    names: pd.Series[str] = table["name"].str.rpartition("/")[2]
    if lists is not None and len(repeated := names[names.duplicated()]):
        raise BadInput(lists, f"has names without folders, and several files have the name {repeated.iloc[0]}")
    return names


def _plane(locations: Sequence[str], bands: str | None) -> tuple[Plane, bool]:
    """The plane of images like most of a sample, and whether their files give the ground sampling distance.

    An image of another shape or dtype is refused when it is read.

    Raises:
        BadInput: no image of the sample can be read, no shape is that of most, or the shape or dtype cannot be stored.
    """
    location, header = _most_common(locations)
    count, height, width = header.shape
    if header.dtype not in _DTYPES:
        raise BadInput(location, f"has {header.dtype} pixels, expected {', '.join(_DTYPES)}")
    if height != width:
        raise BadInput(location, f"is {width}×{height}, expected a square")
    names = name_bands(location, count, header.band_names, bands)
    gsd = header.gsd or ASSUMED_GSD
    return Plane(plane_key(gsd), names, height, gsd, header.dtype, _unit(header)), header.gsd is not None


def _most_common(locations: Sequence[str]) -> tuple[str, ImageHeader]:
    """The first image of the shape and dtype that most images of a sample have; damaged ones do not count."""
    chosen = sorted({*np.linspace(0, len(locations) - 1, _SAMPLE).astype(int).tolist()})
    found: dict[tuple[tuple[int, int, int], str], list[tuple[str, ImageHeader]]] = {}
    problem: BadInput | None = None
    for location in (locations[k] for k in chosen):
        try:
            header = read_header(location)
        except BadInput as error:
            problem = problem or error
        else:
            found.setdefault((header.shape, header.dtype), []).append((location, header))
    if not found:
        assert problem is not None
        raise problem
    kinds = sorted(found.values(), key=len, reverse=True)
    if 2 * len(kinds[0]) <= sum(map(len, kinds)):
        (first, a), (other, b) = kinds[0][0], kinds[1][0]
        raise BadInput(other, f"is {_described(b)}, but {first} is {_described(a)}; prepare a store from each kind")
    return kinds[0][0]


def _described(header: ImageHeader) -> str:
    bands, height, width = header.shape
    return f"{width}×{height}×{bands} {header.dtype}"


def _check_spelling(classes: set[str], path: Path) -> None:
    """Refuse classes whose names differ in capitals or blanks only: they are one class, written in two ways."""
    found: dict[str, str] = {}
    for name in sorted(classes):
        other = found.setdefault(" ".join(name.split()).casefold(), name)
        if other != name:
            raise BadInput(path, f"has the classes {other!r} and {name!r}, which differ in capitals or blanks only")


def _unit(header: ImageHeader) -> Unit:
    """8-bit for pictures; digital numbers if the file declares 1/10,000 as the factor to reflectance; else unknown."""
    if header.dtype == "uint8":
        return "8-bit"
    declared = math.isclose(header.scale * PER_REFLECTANCE, 1, rel_tol=1e-6)
    return "digital number" if header.dtype == "uint16" and declared else "unknown"
