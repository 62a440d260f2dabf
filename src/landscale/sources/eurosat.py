"""EuroSAT (Helber et al. 2019): 27,000 patches of 64×64 px in ten classes, one folder a class.

RGB: 8-bit JPEGs, in a folder or the zip as published. MS: 13-band GeoTIFFs, 16-bit, all bands brought to 10 m by its authors.
"""

from __future__ import annotations

import functools
import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from landscale.errors import BadInput, UnknownName, reason
from landscale.geotiff import read_bands
from landscale.labels import EUROSAT10
from landscale.sources.survey import Found, OneByOne, Survey, check_names, split_code, split_lists, splits_by_lists
from landscale.store import Layout, Plane

SIDE = 64
RGB = Plane("data_10m", ("B04", "B03", "B02"), SIDE, "uint8")
# The published files hold B8A last, against the order of wavelengths.
MS = Plane(
    "data_10m",
    ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A"),
    SIDE,
)
_PLANES = {".jpg": RGB, ".tif": MS}
# For inputs without split or lists; the shares of the published lists (Neumann et al. 2019) are 60/20/20.
_RULE = {"train": 0.6, "val": 0.2, "test": 0.2}


@dataclass(frozen=True)
class EuroSATReader:
    """Reads one image, from a folder or, as `archive.zip::member`, from a zip."""

    def __call__(
        self,
        where: str,
        planes: Mapping[str, NDArray[np.generic]],
        classes: NDArray[np.uint8],  # noqa: ARG002  the survey knows them
    ) -> Found:
        out = planes["data_10m"]
        if where.endswith(".tif"):
            return Found(read_bands(where, _content(where), out))
        content = io.BytesIO(_content(where))
        try:
            with Image.open(content) as image:
                if image.mode != "RGB" or image.size != (SIDE, SIDE):
                    raise BadInput(where, f"is {image.size[0]}×{image.size[1]} {image.mode}, expected 64×64 RGB")
                out[...] = np.asarray(image).transpose(2, 0, 1)
        except (OSError, SyntaxError, ValueError) as error:
            raise BadInput(where, f"cannot be decoded ({reason(error)})") from None
        return Found()


def _content(where: str) -> bytes:
    archive, inside, member = where.partition("::")
    try:
        return _zip(archive, os.getpid()).read(member) if inside else Path(where).read_bytes()
    except (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(where, f"cannot be read ({getattr(error, 'strerror', None) or reason(error)})") from None


@functools.cache
def _zip(path: str, _process: int) -> zipfile.ZipFile:
    """One open handle a process: handles do not survive a fork."""
    return zipfile.ZipFile(path)


def survey(inputs: list[tuple[str | None, Path]], lists: Path | None = None, seed: int = 0) -> Survey:
    """Survey folders or zips of EuroSAT.

    The split of a patch is that of its SPLIT=INPUT; else that of the list in `lists` that names it; else it is drawn
    60/20/20, class by class, by `seed`.

    Raises:
        BadInput: no images, images of two kinds, or a folder that is no class of EuroSAT.
    """
    tables = []
    for split, path in inputs:
        table = pd.DataFrame(_members(path), columns=["name", "where", "class", "suffix"])
        if split is not None:
            table["split"] = np.uint8(split_code(split, path))
        elif lists is not None:
            if not split_lists(lists):
                raise BadInput(lists, "holds no list named train, val or test (.csv, .csv.bz2 or .txt)")
            table["split"] = splits_by_lists(table["name"], lists)
        else:
            table["split"] = _by_rule(table, seed)
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    check_names(table, inputs[-1][1])
    if table["suffix"].nunique() > 1:
        raise BadInput(inputs[-1][1], "mixes JPEG and GeoTIFF; prepare them apart")
    classes = np.zeros((len(table), len(EUROSAT10.classes)), np.uint8)
    classes[np.arange(len(table)), table["class"]] = 1
    plane = _PLANES[table["suffix"].iloc[0]]
    layout = Layout((plane,), EUROSAT10.names, EUROSAT10.name, multi_label=False)
    provenance = {"source": "eurosat", "version": "RGB" if plane is RGB else "MS"}
    return Survey(layout, table[["name", "where", "split"]], classes, OneByOne(EuroSATReader()), provenance)


def _members(path: Path) -> list[tuple[str, str, int, str]]:
    """Name, place, class and suffix of every image of a folder or zip, sorted."""
    if path.is_dir():
        files = [(PurePosixPath(p.relative_to(path).as_posix()), str(p)) for p in path.rglob("*")]
    elif path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                files = [(PurePosixPath(n), f"{path}::{n}") for n in archive.namelist()]
        except (OSError, zipfile.BadZipFile) as error:
            raise BadInput(path, f"is not a whole zip file ({error})") from None
    else:
        raise BadInput(path, "no such folder or zip")
    found = []
    for member, where in files:
        if member.suffix not in _PLANES or member.name.startswith("."):  # ._*: macOS's, in zips made there
            continue
        try:
            (column,) = EUROSAT10.columns([member.parent.name or path.name])
        except UnknownName as error:
            raise BadInput(where, str(error)) from None
        found.append((member.stem, where, column, member.suffix))
    if not found:
        raise BadInput(path, "holds no .jpg or .tif in folders named after classes")
    return sorted(found)


def _by_rule(table: pd.DataFrame, seed: int) -> NDArray[np.uint8]:
    """Within each class, patches in seeded order are cut at the shares, so every split has every class."""
    splits = np.zeros(len(table), np.uint8)
    edges = np.cumsum(list(_RULE.values()))
    for column, rows in table.groupby("class").indices.items():
        order = np.random.default_rng([seed, int(str(column))]).permutation(rows)
        position = (np.arange(len(order)) + 0.5) / len(order)
        splits[order] = 1 + np.searchsorted(edges[:-1], position)
    return splits
