"""Tiles: Sentinel-2 products, as `.SAFE` folders or folders of band rasters, cut into patches of 1.2 km.

The bands of a tile are decoded once, from north to south, and all patches of a strip are cut from the decoded rows: decoding JPEG
2000 takes about a hundred times as long as cutting, statistics and writing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscale.datasets.bigearthnet.folders import is_synthetic
from landscale.datasets.options import LISTS, Option, labels_option
from landscale.datasets.splits import block_split, split_code, split_lists, splits_by_lists
from landscale.datasets.survey import Survey, acquisition_times, check_names
from landscale.datasets.tiles.corine import corine_labels, open_corine
from landscale.datasets.tiles.patch_list import find_patches, read_patch_list
from landscale.datasets.tiles.quality_masks import FLAGGED_FROM, Limits, mask_fractions
from landscale.datasets.tiles.reader import TileReader
from landscale.errors import BadInput, LandscaleError
from landscale.runtime.progress import print_notes
from landscale.scenes.acquisitions import check_tiles
from landscale.scenes.tile import SIDE, Tile, open_tiles
from landscale.store import SHARES, SPLITS, Layout, Plane
from landscale.vocabulary.bands import BANDS, band_set
from landscale.vocabulary.nomenclatures import UNLABELLED, Nomenclature, nomenclature
from landscale.vocabulary.units import Level, Unit, common_level, unit_name

OPTIONS = (
    labels_option("ben19 (default), clc43, or none for a store without labels"),
    LISTS,
    Option(
        "patch_list", "patches to use: a list of names, a table, or a BigEarthNet folder (default: all)", Path, "LIST"
    ),
    Option(
        "corine",
        "labels from CORINE Land Cover: raster, GeoPackage, or FILE.gpkg:LAYER if that has several maps",
        Path,
        "MAP",
    ),
    Option(
        "min_share",
        "least fraction of a patch that a class must cover to be one of its labels (default: any)",
        float,
        "FRACTION",
    ),
    Option("max_cloud", "largest fraction of a patch under cloud or its shadow, 0 to 1", float, "FRACTION"),
    Option("max_snow", "largest fraction of a patch under snow", float, "FRACTION"),
    Option("max_nodata", "largest fraction of a patch without data", float, "FRACTION"),
    Option("offset", "offset of the digital numbers, if neither name nor metadata has the baseline", int, "NUMBER"),
)
BLOCK = 6  # side, in patches, of the blocks; all patches of a block belong to one split
# Least height, in px of 10 m, of a part of a tile that one worker reads. A row of blocks across two parts is decoded twice.
_PART = 2048


def survey(
    inputs: list[tuple[str | None, Path]],
    labels: str | None = None,
    lists: Path | None = None,
    patch_list: Path | None = None,
    corine: Path | None = None,
    min_share: float = 0.0,
    max_cloud: float | None = None,
    max_snow: float | None = None,
    max_nodata: float | None = None,
    offset: int | None = None,
    workers: int = 1,
) -> Survey:
    """Survey tiles.

    Args:
        inputs: split or None, and a folder: a tile, or a folder of several.
        labels: `ben19` (default), `clc43`, or `none`: no classes, and patches without another split are in train.
        lists: folder of split lists, which have names of patches. Without lists, the split of a patch is that of its input, or
            that in the patch list; otherwise blocks of 6×6 neighbouring patches go to train, val and test 3:1:1.
        patch_list: names or coordinates of the patches to use (see `patch_list.py`); by default all patches of a regular grid.
        corine: CORINE Land Cover, raster or GeoPackage, from which labels are made; by default those in the patch list.
        min_share: least fraction of a patch that a class must cover to be one of its labels; 0: any.
        max_cloud, max_snow, max_nodata: largest fraction, 0 to 1, of a patch under cloud or its shadow, under snow, and without
            data. By default only patches without any data are left out.
        offset: the offset that was added to the digital numbers of all tiles; by default that of each product's metadata or name.
        workers: number of threads of the survey, and of processes that will read the tiles; several may read parts of one tile.

    Raises:
        BadInput: no tile, tiles of different bands or levels, an acquisition twice, no patch, or neither a CORINE map nor
            labels in the patch list.
        LandscaleError: `min_share` or a limit is not in 0…1, or a CORINE map is given for a store without labels.
    """
    if not 0 <= min_share <= 1:
        raise LandscaleError(f"--min-share: found {min_share:g}, expected a fraction of the patch, 0 to 1")
    limits = Limits(max_cloud, max_snow, max_nodata)
    target = UNLABELLED if labels == UNLABELLED.name else nomenclature(labels or "ben19")
    if corine is not None and not target.classes:
        raise LandscaleError("--labels none: takes no --corine, because the store will have no labels")
    found = [(split, tile) for split, path in inputs for tile in open_tiles(path, offset)]
    tiles = [tile for _, tile in found]
    check_tiles(tiles)
    layout = _layout(tiles, target)
    listed = read_patch_list(patch_list, target) if patch_list else None
    if target.classes and corine is None and (listed is None or listed.classes is None):
        raise BadInput(
            inputs[0][1],
            "has tiles but no labels; add --corine MAP, or a --patch-list with a column 'labels', or --labels none",
        )
    parts = [_regular_grid(tile) for tile in tiles] if listed is None else find_patches(listed, tiles, patch_list)
    if not target.classes:
        parts = [part if "split" in part else part.assign(split=np.uint8(SPLITS.index("train"))) for part in parts]
    notes: tuple[str, ...] = ()
    if listed is not None and (others := len(listed.table) - sum(map(len, parts))):
        notes = (
            f"{patch_list}: {others:,} of the {len(listed.table):,} listed patches are of other tiles and are left out",
        )
    complete = partial(_complete, limits=limits, workers=-(-workers // len(tiles)))
    with ThreadPoolExecutor(workers) as pool:  # GDAL releases Python's lock
        parts = list(pool.map(complete, range(len(tiles)), tiles, parts))
    for (split, tile), part in zip(found, parts, strict=True):
        if split is not None:
            part["split"] = np.uint8(split_code(split, tile.scene.folder))
    table = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    left_out = {"by limits": int((~table["kept"]).sum())}
    table = table[table["kept"]].drop(columns="kept")
    if corine is not None:
        classes, covered = _from_corine(corine, tiles, table, target, min_share, workers)
        left_out["not on the map"] = int((~covered).sum())
        table, classes = table[covered], classes[covered]
    elif target.classes:
        assert listed is not None
        assert listed.classes is not None
        classes = listed.classes[table["listed"]]
    else:
        classes = np.zeros((len(table), 0), np.uint8)
    table = table.drop(columns="listed", errors="ignore").reset_index(drop=True)
    if lists is not None:
        if not split_lists(lists):
            raise BadInput(lists, "holds no list named train, val or test (.csv, .csv.bz2 or .txt)")
        table["split"] = splits_by_lists(table["name"], lists)
    if table.empty:
        raise BadInput(inputs[0][1], f"has no patch to use; left out: {left_out}")
    check_names(table, inputs[0][1])
    table["date"] = acquisition_times(table["name"])
    provenance: dict[str, Any] = {"source": "tiles", "tiles": [tile.product for tile in tiles], "left_out": left_out}
    if any(is_synthetic(tile.scene.folder.resolve().parent) for tile in tiles):
        provenance["synthetic"] = True
    if corine is not None:
        provenance |= {"corine": corine.name, "min_share": min_share}
    if given := {name: limit for name, limit in asdict(limits).items() if limit is not None}:
        provenance["limits"] = given
    reader = TileReader(tuple(tiles), _column_ranges(table, len(tiles)), layout)
    return Survey(layout, table, classes, reader, provenance, notes)


def _layout(tiles: list[Tile], target: Nomenclature) -> Layout:
    """Planes of the bands that all tiles have, at most the twelve of L2A, grouped by resolution."""
    bands = [{b for b in band_set("s2-12").names if b in tile.scene.files} for tile in tiles]
    for tile, have in zip(tiles, bands, strict=True):
        if have != bands[0]:
            problem = (
                f"has the bands {', '.join(sorted(have))}, but {tiles[0].product} has {', '.join(sorted(bands[0]))}"
            )
            raise BadInput(tile.scene.folder, problem)
    by_gsd = {
        gsd: tuple(b for b in band_set("s2-12").names if b in bands[0] and BANDS[b].gsd == gsd) for gsd in (10, 20, 60)
    }
    unit, level = _unit_and_level(tiles)
    planes = tuple(
        Plane(f"data_{gsd}m", names, SIDE * 10 // gsd, gsd, unit=unit) for gsd, names in by_gsd.items() if names
    )
    return Layout(planes, target.names, target.name, multi_label=True, level=level)


def _unit_and_level(tiles: list[Tile]) -> tuple[Unit, Level]:
    """The unit of the pixels as they are read, and the processing level; unknown if that of a tile is not recorded."""
    print_notes(
        f"{tile.scene.folder}: {unit_name(tile.scene.unit)} converted into digital numbers"
        for tile in tiles
        if tile.scene.unit == "reflectance"
    )
    is_known = all(tile.scene.pixel_unit == "digital number" for tile in tiles)
    return "digital number" if is_known else "unknown", common_level(tile.scene.level for tile in tiles)


def _regular_grid(tile: Tile) -> pd.DataFrame:
    """All whole patches of BigEarthNet's grid, whose columns and rows are counted from the upper left corner of the tile."""
    rows, columns = np.divmod(np.arange((tile.height // SIDE) * (tile.width // SIDE)), max(1, tile.width // SIDE))
    names = [f"{tile.product}_{c:02d}_{r:02d}" for r, c in zip(rows, columns, strict=True)]
    return pd.DataFrame({"name": pd.Series(names, dtype=str), "country": "", "y": rows * SIDE, "x": columns * SIDE})


def _complete(number: int, tile: Tile, part: pd.DataFrame, limits: Limits, workers: int) -> pd.DataFrame:
    """Add the columns `location`, `job`, `split`, the mask fractions and flags, and `kept` (within the limits).

    workers: largest number of jobs of a tile.
    """
    y, x = part["y"].to_numpy(), part["x"].to_numpy()
    masks = mask_fractions(tile, np.stack([y, x], axis=1), SIDE)
    flags = {
        "snow": masks[:, 3] >= FLAGGED_FROM,
        "cloud": masks[:, 1] + masks[:, 2] >= FLAGGED_FROM,
    }  # False where unknown (NaN)
    part = part.assign(tile=tile.mgrs, **dict(zip(SHARES, masks.T, strict=True)))
    part = part.assign(**{flag: values for flag, values in flags.items() if flag not in part})
    if "split" not in part:
        part["split"] = _block_splits(tile, y, x)
    part["kept"] = limits.keep(masks, tile.scene.folder)
    part["location"] = list(zip([number] * len(part), y.tolist(), x.tolist(), strict=True))
    jobs = max(1, min(workers, tile.height // _PART))
    part["job"] = number * jobs + y * jobs // tile.height
    return part.drop(columns=["y", "x"])


def _block_splits(tile: Tile, y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Splits by blocks that are counted in map coordinates, not within the tile, because neighbouring tiles overlap."""
    south, east = ((corner * 10 + SIDE * 5) // (SIDE * 10) for corner in (y - tile.top / 10, x + tile.left / 10))
    codes = [SPLITS.index(block_split(int(c), int(r), BLOCK)) for r, c in zip(south, east, strict=True)]
    return np.array(codes, np.uint8)


def _from_corine(
    path: Path, tiles: list[Tile], table: pd.DataFrame, target: Nomenclature, min_share: float, workers: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Classes of the patches (n, C), and which patches the map covers (n,)."""
    corine = open_corine(path)
    locations = np.array(list(table["location"]), np.int64).reshape(-1, 3)  # tile, y, x
    classes, covered = np.zeros((len(table), len(target.classes)), np.uint8), np.zeros(len(table), bool)

    def look_up(number: int) -> None:
        tile, rows = tiles[number], np.flatnonzero(locations[:, 0] == number)
        if not tile.crs:
            raise BadInput(tile.scene.folder, "has no CRS with an EPSG code, which is needed to find it on a map")
        corners = np.array([tile.left, tile.top]) + locations[rows, :0:-1] * (10.0, -10.0)
        fractions = corine.class_fractions(tile.crs, corners, SIDE * 10.0)
        covered[rows] = fractions.sum(1) > 0
        classes[rows] = corine_labels(fractions, target, min_share)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(look_up, np.unique(locations[:, 0]).tolist()))
    return classes, covered


def _column_ranges(table: pd.DataFrame, tiles: int) -> tuple[tuple[int, int], ...]:
    """For each tile, the first and one past the last column that its patches cover, in px of 10 m."""
    lefts: list[list[int]] = [[] for _ in range(tiles)]
    for number, _, x in table["location"]:
        lefts[number].append(x)
    return tuple((min(left), max(left) + SIDE) if left else (0, SIDE) for left in lefts)
