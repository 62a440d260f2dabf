"""Patch lists: which patches to cut from tiles, by BigEarthNet names or by coordinates, with labels where known.

A list is one of these:

- A txt, csv or csv.bz2 without header: names in the first column, as in the official lists of BigEarthNet.
- A csv (with commas, semicolons or tabs) or parquet table with header: `patch_id` (or `name`, or `patch`); or `product`,
  `column`, `row`; or `ulx` and `uly`, the outer upper left corner in metres, in the CRS of the tile or of the column `crs`
  (EPSG:…). Optional columns: `labels` (a list, or text as in `label_cells`), `split`, `country`, `contains_seasonal_snow`,
  `contains_cloud_or_shadow`.
- The folder of a BigEarthNet archive, v1 or v2.

A name consists of a product, and a column and a row of patches, counted from the upper left corner of the tile. Names of v1
lack the tile; where several tiles of one data take are given, coordinates are needed as well. A patch with coordinates and
without a name is cut from the first tile that covers it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscale.datasets.bigearthnet.folders import describe_v1
from landscale.datasets.label_cells import classes_of_cells
from landscale.datasets.splits import read_list, split_code
from landscale.errors import BadInput, LandscaleError, UnknownName, reason
from landscale.formats.content import read_text
from landscale.formats.tables import read_csv, read_parquet_frame, separator
from landscale.runtime.documents import read_json
from landscale.scenes.tile import GRID, SIDE, Tile, product_name
from landscale.store import SPLITS
from landscale.vocabulary.nomenclatures import Nomenclature

_NAME = re.compile(r"^(S2[A-D])_MSI(L\d[A-C])_(\d{8})T(\d{5,6})(?:_N\d{4}_R\d{3}_(T\w{5}))?(?:_(\d+)_(\d+))?(?:_|\.|$)")
_NAME_COLUMNS = ("patch_id", "name", "patch")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_FLAG_BY_COLUMN = {"contains_seasonal_snow": "snow", "contains_cloud_or_shadow": "cloud"}


@dataclass(frozen=True)
class PatchList:
    """A patch list that has been read.

    table: `name`, `country`, and where known `split` (code), `snow`, `cloud`, `ulx`, `uly`, `crs`. classes: (N, C) or None.
    """

    table: pd.DataFrame
    classes: NDArray[np.uint8] | None


def read_patch_list(path: Path, target: Nomenclature) -> PatchList:
    """Read a patch list (see the formats above), with labels in the nomenclature `target`.

    Raises:
        BadInput: it cannot be read, has neither names nor coordinates, or has labels without a class in `target`.
    """
    if path.is_dir():
        table = _read_archive(path)
    elif path.suffix == ".parquet":
        table = _read_table(path)
    else:
        table = _read_table(path) if _has_header(path) else pd.DataFrame({"patch_id": sorted(read_list(path))})
    try:
        return _parse_columns(table, path, target)
    except LandscaleError:
        raise
    except Exception as error:  # the values of a damaged table may have any type
        raise BadInput(path, f"has values of the wrong type ({reason(error)})") from None


def _has_header(path: Path) -> bool:
    """Whether the first line of a csv has the name of a known column."""
    if path.suffix != ".csv":
        return False
    first = read_text(path).lstrip().partition("\n")[0]
    words = {word.strip().strip('"').lower() for word in first.split(separator(first))}
    return bool(words & {*_NAME_COLUMNS, "product", "ulx"})


def _read_table(path: Path) -> pd.DataFrame:
    """The columns of a table, with names in lower case, and None in empty cells."""
    if path.suffix == ".parquet":
        table: pd.DataFrame = read_parquet_frame(path)
    else:
        header, rows = read_csv(path)
        table = pd.DataFrame(rows, columns=header, dtype=object).replace("", None)
    table.columns = table.columns.map(lambda name: str(name).strip().lower())
    if not table.columns.is_unique:
        raise BadInput(path, f"has several columns called {table.columns[table.columns.duplicated()][0]}")
    return table


def _read_archive(folder: Path) -> pd.DataFrame:
    """The metadata of an archive of BigEarthNet: the table of v2, or the files of all patches of v1."""
    for candidate in (folder, folder.parent):
        if (candidate / "metadata.parquet").is_file():
            return _read_table(candidate / "metadata.parquet")
    rows = []
    for path in sorted(folder.rglob("S2*_labels_metadata.json")):
        content = read_json(path)
        try:
            corner, labels = content["coordinates"], content["labels"]
            match = re.findall(r'AUTHORITY\["EPSG","(\d+)"\]', str(content.get("projection", "")))
            crs = f"EPSG:{match[-1]}" if match else ""
            rows.append((path.parent.name, corner["ulx"], corner["uly"], crs, labels))
        except (KeyError, TypeError) as error:
            raise BadInput(path, f"has no field {error}") from None
    if not rows:
        raise BadInput(folder, "holds neither metadata.parquet nor patches of BigEarthNet v1")
    table = pd.DataFrame(rows, columns=["patch_id", "ulx", "uly", "crs", "labels"])
    patches = path.parents[1]
    lists = next((p for p in (folder / "metadata", patches.parent / "metadata") if p.is_dir()), patches)
    described = describe_v1(list(table["patch_id"]), lists)
    flags = {source: described[flag] for source, flag in _FLAG_BY_COLUMN.items()}
    return table.assign(split=[SPLITS[code] for code in described["split"]], **flags)


def _parse_columns(table: pd.DataFrame, path: Path, target: Nomenclature) -> PatchList:
    parsed = pd.DataFrame(index=table.index)
    key = next((key for key in _NAME_COLUMNS if key in table), None)
    has_coordinates = {"ulx", "uly"} <= {*table}
    if key is not None:
        parsed["name"] = _text(_complete_column(table, key, path))
    elif {"product", "column", "row"} <= {*table}:
        column, row = (_complete_column(table, k, path).astype(float) for k in ("column", "row"))
        cells = [f"_{int(c):02d}_{int(r):02d}" for c, r in zip(column, row, strict=True)]
        if not ((column % 1 == 0) & (row % 1 == 0) & (column >= 0) & (row >= 0)).all():
            raise BadInput(path, "has a column or row of a patch that is not a whole number from 0 on")
        parsed["name"] = _text(_complete_column(table, "product", path)).map(product_name) + cells
    elif has_coordinates:
        parsed["name"] = ""
    else:
        columns = ", ".join(map(str, table))
        raise BadInput(path, f"has the columns {columns}; expected patch_id, or product, column, row, or ulx, uly")
    if has_coordinates:
        parsed["ulx"], parsed["uly"] = (_complete_column(table, k, path).astype(float) for k in ("ulx", "uly"))
        parsed["crs"] = _text(table["crs"].fillna("")) if "crs" in table else ""
    if "split" in table:
        splits = _text(_complete_column(table, "split", path))
        parsed["split"] = splits.map({name: split_code(name, path) for name in splits.unique()}).astype(np.uint8)
    parsed["country"] = _text(table["country"].fillna("")) if "country" in table else ""
    for source, flag in _FLAG_BY_COLUMN.items():
        if source in table:
            parsed[flag] = _complete_column(
                table.assign(**{source: table[source].astype(str).str.lower().map(_BOOLEANS)}), source, path
            ).astype(bool)
    return PatchList(parsed, _classes(table, path, target) if "labels" in table and target.classes else None)


def _complete_column(table: pd.DataFrame, key: str, path: Path) -> pd.Series[Any]:
    """A column in which every row has a value; raises BadInput if one is missing."""
    column = table[key]
    if column.isna().any():
        raise BadInput(path, f"row {int(column.isna().to_numpy().argmax()) + 1} has no '{key}'")
    return column


def _text(column: pd.Series[Any]) -> pd.Series[str]:
    """Values as text without line breaks, because they may become part of an error message."""
    texts = {value: " ".join(str(value).split()) for value in column.unique()}
    return column.map(texts).astype(str)


def _classes(table: pd.DataFrame, path: Path, target: Nomenclature) -> NDArray[np.uint8]:
    classes = np.zeros((len(table), len(target.classes)), np.uint8)
    for i, names in enumerate(classes_of_cells(table["labels"], path, "labels")):
        try:
            classes[i, target.columns(names)] = 1
        except UnknownName as error:
            raise BadInput(path, f"row {i + 1}: {' '.join(str(error).split())}") from None
    return classes


def find_patches(listed: PatchList, tiles: Sequence[Tile], path: Path | None) -> list[pd.DataFrame]:
    """For each tile, its patches from north to south: rows of the list with `y`, `x` (px of 10 m) and their row number, `listed`.

    Patches of other tiles are left out.

    Raises:
        BadInput: a patch may belong to several tiles, extends beyond its tile, or does not start where pixels of 60 m start.
    """
    list_path = path or Path("patch list")
    tiles_by_take: dict[tuple[str, ...], list[int]] = {}
    for number, tile in enumerate(tiles):
        tiles_by_take.setdefault(_parse_name(f"{tile.product}_0_0")[0], []).append(number)
    rows = []
    for i, entry in enumerate(listed.table.to_dict("records")):
        name = str(entry["name"])
        take, mgrs, cell = _parse_name(name) if name else ((), "", None)
        candidates = tiles_by_take.get(take, []) if name else list(range(len(tiles)))
        candidates = [k for k in candidates if not mgrs or tiles[k].mgrs in ("", mgrs)]
        corners = {}
        for k in candidates:
            if "ulx" in entry:
                if entry["crs"] not in ("", "nan", tiles[k].crs):
                    continue
                x, y = (entry["ulx"] - tiles[k].left) / 10, (tiles[k].top - entry["uly"]) / 10
                is_inside = 0 <= x <= tiles[k].width - SIDE and 0 <= y <= tiles[k].height - SIDE
                # Tiles overlap: a patch with a name belongs to the tile where its coordinates agree with its column and row.
                if is_inside and (cell is None or (y, x) == (cell[1] * SIDE, cell[0] * SIDE)):
                    corners[k] = (y, x)
            elif cell is not None:
                corners[k] = (cell[1] * SIDE, cell[0] * SIDE)
        if len(corners) > 1 and name:
            both = " and ".join(tiles[k].product for k in corners)
            raise BadInput(list_path, f"patch {name} may belong to {both}; add its coordinates (columns ulx, uly, crs)")
        for k, (y, x) in list(corners.items())[:1]:
            tile = tiles[k]
            if y % GRID or x % GRID:
                raise BadInput(list_path, f"patch {name or i + 1} does not start where a pixel of 60 m starts")
            if y + SIDE > tile.height or x + SIDE > tile.width:
                raise BadInput(list_path, f"patch {name} extends beyond the edge of {tile.product}")
            rows.append((k, int(y), int(x), i, name or f"{tile.product}_{int(x)}px_{int(y)}px"))
    if not rows:
        raise BadInput(list_path, "has no patch of the given tiles")
    found = pd.DataFrame(rows, columns=["tile", "y", "x", "listed", "name"]).sort_values(["tile", "y", "x"])
    known = listed.table.drop(columns=["name", "ulx", "uly", "crs"], errors="ignore").iloc[found["listed"]]
    found = found.join(known.set_index(found.index))
    return [found[found["tile"] == number].reset_index(drop=True) for number in range(len(tiles))]


def _parse_name(name: str) -> tuple[tuple[str, ...], str, tuple[int, int] | None]:
    """The data take, the tile ("" if the name has none), and the column and row of a patch (None if the name has none)."""
    match = _NAME.match(name)
    if match is None:  # the product's name is not one of Sentinel-2
        product, column, row = [*name.rsplit("_", 2), "", ""][:3]
        return (
            ((product,), "", (int(column), int(row))) if column.isdecimal() and row.isdecimal() else ((name,), "", None)
        )
    platform, level, day, time, mgrs, column, row = match.groups()
    cell = (int(column), int(row)) if column is not None else None
    return (platform, level, day, time.zfill(6)), mgrs or "", cell  # names of v1 have hours without a leading zero
