"""Which patches to take from tiles: a list of BigEarthNet names, or a table with names or places, and maybe labels.

- A text file, csv or csv.bz2 without header: names in the first column, as in the official lists of BigEarthNet.
- A csv or parquet table: `patch_id` (or `name`, or `patch`), or else `product`, `column`, `row`; or `ulx` and `uly`, the outer
  upper left corner in metres, in the CRS of the tile or of the column `crs` (EPSG:…). Besides, where known: `labels` (a list, or
  text parted by semicolons), `split`, `country`, `contains_seasonal_snow`, `contains_cloud_or_shadow`.
- The folder of an archive of BigEarthNet, v1 or v2.

A name is a product, a column and a row of patches from the tile's upper left corner. Names of v1 lack the tile; where tiles of
one data take are given together, places must tell which. A place without a name is taken from the first tile that holds it.
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
from landscale.datasets.splits import read_list, split_code
from landscale.errors import BadInput, LandscaleError, UnknownName, reason
from landscale.runtime.documents import read_json
from landscale.scenes.tile import GRID, SIDE, Tile, product_name
from landscale.store import SPLITS
from landscale.vocabulary.nomenclatures import Nomenclature

_NAME = re.compile(r"^(S2[A-D])_MSI(L\d[A-C])_(\d{8})T(\d{5,6})(?:_N\d{4}_R\d{3}_(T\w{5}))?(?:_(\d+)_(\d+))?(?:_|\.|$)")
_NAMES = ("patch_id", "name", "patch")
_TRUTH = {True: True, False: False, "True": True, "False": False, "true": True, "false": False}
_FLAGS = {"contains_seasonal_snow": "snow", "contains_cloud_or_shadow": "cloud"}


@dataclass(frozen=True)
class PatchList:
    """table: `name`, `split` (code), `country`, and where known `snow`, `cloud`, `ulx`, `uly`, `crs`. classes (N, C) or None."""

    table: pd.DataFrame
    classes: NDArray[np.uint8] | None


def read_patch_list(path: Path, target: Nomenclature) -> PatchList:
    """Read a list, table or archive (see above).

    Raises:
        BadInput: it cannot be read, has no names, or has labels that `target` does not know.
    """
    if path.is_dir():
        table = _read_archive(path)
    elif path.suffix == ".parquet":
        table = _read_table(path)
    else:
        table = _read_table(path) if _has_header(path) else pd.DataFrame({"patch_id": sorted(read_list(path))})
    try:
        return _tidy(table, path, target)
    except LandscaleError:
        raise
    except Exception as error:  # the fields of a damaged table may be anything
        raise BadInput(path, f"has fields that are not what its columns say ({reason(error)})") from None


def _has_header(path: Path) -> bool:
    if path.suffix != ".csv" or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        words = {word.strip().strip('"') for word in file.readline().split(",")}
    return bool(words & {*_NAMES, "product", "ulx"})


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except Exception as error:  # arrow and pandas raise many kinds for a damaged file
        raise BadInput(path, f"is no table of patches ({reason(error)})") from None


def _read_archive(folder: Path) -> pd.DataFrame:
    """The metadata of v2, or of every patch of v1."""
    for place in (folder, folder.parent):
        if (place / "metadata.parquet").is_file():
            return _read_table(place / "metadata.parquet")
    rows = []
    for path in sorted(folder.rglob("S2*_labels_metadata.json")):
        content = read_json(path)
        try:
            corner, labels = content["coordinates"], content["labels"]
            match = re.findall(r'AUTHORITY\["EPSG","(\d+)"\]', str(content.get("projection", "")))
            crs = f"EPSG:{match[-1]}" if match else ""
            rows.append((path.parent.name, corner["ulx"], corner["uly"], crs, labels))
        except (KeyError, TypeError) as error:
            raise BadInput(path, f"lacks {error}") from None
    if not rows:
        raise BadInput(folder, "holds neither metadata.parquet nor patches of BigEarthNet v1")
    table = pd.DataFrame(rows, columns=["patch_id", "ulx", "uly", "crs", "labels"])
    patches = path.parents[1]
    lists = next((p for p in (folder / "metadata", patches.parent / "metadata") if p.is_dir()), patches)
    described = describe_v1(list(table["patch_id"]), lists)
    flags = {source: described[flag] for source, flag in _FLAGS.items()}
    return table.assign(split=[SPLITS[code] for code in described["split"]], **flags)


def _tidy(table: pd.DataFrame, path: Path, target: Nomenclature) -> PatchList:
    found = pd.DataFrame(index=table.index)
    key = next((key for key in _NAMES if key in table), None)
    placed = {"ulx", "uly"} <= {*table}
    if key is not None:
        found["name"] = _text(_whole(table, key, path))
    elif {"product", "column", "row"} <= {*table}:
        column, row = (_whole(table, k, path).astype(float) for k in ("column", "row"))
        cells = [f"_{int(c):02d}_{int(r):02d}" for c, r in zip(column, row, strict=True)]
        if not ((column % 1 == 0) & (row % 1 == 0) & (column >= 0) & (row >= 0)).all():
            raise BadInput(path, "has columns or rows of patches that are no whole numbers from 0 on")
        found["name"] = _text(_whole(table, "product", path)).map(product_name) + cells
    elif placed:
        found["name"] = ""
    else:
        columns = ", ".join(map(str, table))
        raise BadInput(path, f"has the columns {columns}; expected patch_id, or product, column, row, or ulx, uly")
    if placed:
        found["ulx"], found["uly"] = (_whole(table, k, path).astype(float) for k in ("ulx", "uly"))
        found["crs"] = _text(table["crs"].fillna("")) if "crs" in table else ""
    if "split" in table:
        splits = _text(_whole(table, "split", path))
        found["split"] = splits.map({name: split_code(name, path) for name in splits.unique()}).astype(np.uint8)
    found["country"] = _text(table["country"].fillna("")) if "country" in table else ""
    for source, flag in _FLAGS.items():
        if source in table:
            found[flag] = _whole(table.assign(**{source: table[source].map(_TRUTH)}), source, path).astype(bool)
    return PatchList(found, _classes(table, path, target) if "labels" in table else None)


def _whole(table: pd.DataFrame, key: str, path: Path) -> pd.Series[Any]:
    """A column without gaps."""
    column = table[key]
    if column.isna().any():
        raise BadInput(path, f"row {int(column.isna().to_numpy().argmax()) + 1}: has no '{key}'")
    return column


def _text(column: pd.Series[Any]) -> pd.Series[str]:
    """As text in one line: it may end up in an error's."""
    texts = {value: " ".join(str(value).split()) for value in column.unique()}
    return column.map(texts).astype(str)


def _classes(table: pd.DataFrame, path: Path, target: Nomenclature) -> NDArray[np.uint8]:
    classes = np.zeros((len(table), len(target.classes)), np.uint8)
    for i, labels in enumerate(table["labels"]):
        names = [part.strip() for part in labels.split(";") if part.strip()] if isinstance(labels, str) else labels
        try:
            classes[i, target.columns(names)] = 1
        except (UnknownName, TypeError) as error:
            raise BadInput(path, f"row {i + 1}: {' '.join(str(error).split())}") from None
    return classes


def find(listed: PatchList, tiles: Sequence[Tile], path: Path | None) -> list[pd.DataFrame]:
    """For each tile its patches, north to south: rows of the list with `y`, `x` (px of 10 m) and `listed`.

    Patches of tiles that are not given are left out.

    Raises:
        BadInput: a patch that may lie on several tiles, beyond the edge of its own, or off the grid of its pixels.
    """
    where = path or Path("patch list")
    by_take: dict[tuple[str, ...], list[int]] = {}
    for number, tile in enumerate(tiles):
        by_take.setdefault(_take(f"{tile.product}_0_0")[0], []).append(number)
    rows = []
    for i, entry in enumerate(listed.table.to_dict("records")):
        name = str(entry["name"])
        take, mgrs, cell = _take(name) if name else ((), "", None)
        candidates = by_take.get(take, []) if name else list(range(len(tiles)))
        candidates = [k for k in candidates if not mgrs or tiles[k].mgrs in ("", mgrs)]
        places = {}
        for k in candidates:
            if "ulx" in entry:
                if entry["crs"] not in ("", "nan", tiles[k].crs):
                    continue
                x, y = (entry["ulx"] - tiles[k].left) / 10, (tiles[k].top - entry["uly"]) / 10
                here = 0 <= x <= tiles[k].width - SIDE and 0 <= y <= tiles[k].height - SIDE
                if here and (cell is None or (y, x) == (cell[1] * SIDE, cell[0] * SIDE)):  # tiles overlap
                    places[k] = (y, x)
            elif cell is not None:
                places[k] = (cell[1] * SIDE, cell[0] * SIDE)
        if len(places) > 1 and name:
            both = " and ".join(tiles[k].product for k in places)
            raise BadInput(where, f"patch {name} may lie on {both}; give coordinates (ulx, uly, crs)")
        for k, (y, x) in list(places.items())[:1]:
            tile = tiles[k]
            if y % GRID or x % GRID:
                raise BadInput(where, f"patch {name or i + 1} does not begin where pixels of 60 m begin")
            if y + SIDE > tile.height or x + SIDE > tile.width:
                raise BadInput(where, f"patch {name} reaches beyond the edge of {tile.product}")
            rows.append((k, int(y), int(x), i, name or f"{tile.product}_{int(x)}px_{int(y)}px"))
    if not rows:
        raise BadInput(where, "has no patch of these tiles")
    found = pd.DataFrame(rows, columns=["tile", "y", "x", "listed", "name"]).sort_values(["tile", "y", "x"])
    known = listed.table.drop(columns=["name", "ulx", "uly", "crs"], errors="ignore").iloc[found["listed"]]
    found = found.join(known.set_index(found.index))
    return [found[found["tile"] == number].reset_index(drop=True) for number in range(len(tiles))]


def _take(name: str) -> tuple[tuple[str, ...], str, tuple[int, int] | None]:
    """Of a name: what tells its data take, its tile, and its column and row; v1 writes hours without a zero."""
    match = _NAME.match(name)
    if match is None:  # of a product that is no Sentinel-2 product's name
        product, column, row = [*name.rsplit("_", 2), "", ""][:3]
        return (
            ((product,), "", (int(column), int(row))) if column.isdecimal() and row.isdecimal() else ((name,), "", None)
        )
    platform, level, day, time, mgrs, column, row = match.groups()
    cell = (int(column), int(row)) if column is not None else None
    return (platform, level, day, time.zfill(6)), mgrs or "", cell
