"""A synthetic scene and a BigEarthNet archive cut from it, for demonstrations and tests without a download.

No pixel was measured: the product is dated 2099 and lies on a tile that does not exist, and the description of every GeoTIFF is
"synthetic". Names, folders, files and metadata are as in the originals (v1: Sumbul et al. 2019; v2: Clasen et al. 2024), so
that programs which read one can read the other.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from landscale.datasets.bigearthnet import folders as bigearthnet
from landscale.datasets.options import Option, labels_option
from landscale.datasets.survey import Survey
from landscale.datasets.synthetic.land_use import BANDS, CODES
from landscale.datasets.synthetic.landscape import STRIP_HEIGHT, Landscape, LandscapeStrip
from landscale.errors import BadInput, UnknownName
from landscale.runtime.documents import read_json
from landscale.vocabulary.nomenclatures import BEN19, CLC43

Numbers = npt.NDArray[np.uint16]

PRODUCT = "S2A_MSIL2A_20990101T000000_N9999_R000_T33XXX"
PRODUCT_V1 = "S2A_MSIL2A_20990101T000000"
RADAR_PRODUCT = "S1A_IW_GRDH_1SDV_20990101T000000_33XXX"
_CRS = CRS.from_epsg(32633)
_LEFT, _TOP = 300_000, 8_400_000  # m: upper left corner of the tile, where columns and rows of patches start
_PATCH_SIDE = 1_200  # m
_PATCHES_A_SIDE = 91  # patches along one side of a tile
_LABELLED_FROM = 0.02  # least fraction of a patch that a class must cover to be one of its labels
_FLAGGED_FROM = 0.05  # least fraction of a patch under cloud or snow for which the patch is flagged
_VERSION = 1  # increase it when the same parameters give another landscape


def write_archive(folder: Path, patches: int = 600, seed: int = 0, layout: Literal["v1", "v2"] = "v2") -> None:
    """Write a scene and a BigEarthNet archive cut from it.

    `folder/scene/<product>/B01.tif …` is the scene: 12 bands at native resolution, uint16, reflectance × 10,000. The archive is,
    for v2, `BigEarthNet-S2` and `metadata.parquet` (labels of ben19); for v1, `BigEarthNet-v1.0` and lists in `metadata` (labels
    of clc43; the lists of splits leave out patches with snow or cloud, as the official ones do; empty lists are not written).
    Splits are blocks of neighbouring patches, 3:1:1 for train, validation and test.
    The same arguments give the same bytes. The folder appears only when it is complete; if it exists already, nothing is done.

    Args:
        folder: absent, empty, or the result of an earlier call with the same arguments.
        patches: 1 to 8,281; they are laid out in a grid that is as square as possible.
        seed: seed of the random landscape.
        layout: the version of BigEarthNet.

    Raises:
        BadInput: the folder holds something else, or there are more patches than a tile has.
        UnknownName: the layout is neither v1 nor v2.
    """
    if layout not in ("v1", "v2"):
        raise UnknownName("layout of BigEarthNet", layout, ("v1", "v2"))
    if not 1 <= patches <= _PATCHES_A_SIDE**2:
        raise BadInput(folder, f"a synthetic archive has 1 to {_PATCHES_A_SIDE**2} patches, found {patches}")
    parameters = {"version": _VERSION, "patches": patches, "seed": seed, "layout": layout}
    write_once(folder, "archive", parameters, lambda partial: _write(partial, patches, seed, layout))


def write_once(folder: Path, content: str, parameters: Mapping[str, object], write: Callable[[Path], None]) -> None:
    """Fill a temporary folder by `write` and rename it to `folder`; do nothing where `folder` exists already.

    Args:
        folder: absent, empty, or the result of an earlier call with the same parameters, which are in its `synthetic.json`.
        content: describes the content of the folder in error messages.
        parameters: everything that the result depends on.
        write: takes an empty folder and fills it.

    Raises:
        BadInput: the folder holds something else.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        if not (folder / "synthetic.json").is_file():
            raise BadInput(folder, f"exists and is no synthetic {content}; expected a new or empty folder")
        found = read_json(folder / "synthetic.json")
        if found != parameters:
            raise BadInput(
                folder, f"holds the synthetic {content} {json.dumps(found)}, expected {json.dumps(parameters)}"
            )
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Files are not synced: that would take five times as long as drawing, and is not needed to survive a kill of the process.
    with TemporaryDirectory(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent) as place:
        partial = Path(place) / folder.name
        partial.mkdir()
        write(partial)
        (partial / "synthetic.json").write_text(json.dumps(parameters) + "\n")
        partial.rename(folder)


@dataclass(frozen=True)
class _Patch:
    """The metadata of a patch; labels are names of CORINE classes, in the order of CORINE."""

    column: int
    row: int
    labels: list[str]
    split: str
    snow: bool
    cloud: bool

    @property
    def name_v1(self) -> str:
        return f"{PRODUCT_V1}_{self.column}_{self.row}"

    @property
    def name_v2(self) -> str:
        return f"{PRODUCT}_{self.column:02d}_{self.row:02d}"

    @property
    def labels_v2(self) -> list[str]:
        return sorted(BEN19.names[column] for column in BEN19.columns(self.labels))


def _write(folder: Path, patches: int, seed: int, layout: Literal["v1", "v2"]) -> None:
    columns = math.ceil(math.sqrt(patches))
    rows = math.ceil(patches / columns)
    landscape = Landscape(rows * STRIP_HEIGHT, columns * STRIP_HEIGHT, seed)
    block = max(1, min(3, columns // 4))  # smaller in a small archive, so that it has all three splits
    scene = {b.name: np.empty((rows * _PATCH_SIDE // b.gsd, columns * _PATCH_SIDE // b.gsd), np.uint16) for b in BANDS}
    headers = {gsd: _PatchHeader(gsd, nodata=None if layout == "v1" else 0) for gsd in (10, 20, 60)}
    written = []
    for row in range(rows):
        strip = landscape.draw(row)
        for band in BANDS:
            side = _PATCH_SIDE // band.gsd
            scene[band.name][row * side : (row + 1) * side] = strip.bands[band.name]
        for column in range(min(columns, patches - row * columns)):
            patch = _describe(strip, column, row, _split(column, row, block))
            if layout == "v1":
                place = folder / "BigEarthNet-v1.0" / patch.name_v1
            else:
                place = folder / "BigEarthNet-S2" / PRODUCT / patch.name_v2
            place.mkdir(parents=True)
            for band in BANDS:
                side = _PATCH_SIDE // band.gsd
                pixels = strip.bands[band.name][:, column * side : (column + 1) * side]
                content = headers[band.gsd].encode(pixels, _LEFT + column * _PATCH_SIDE, _TOP - row * _PATCH_SIDE)
                (place / f"{place.name}_{band.name}.tif").write_bytes(content)
            written.append(patch)
    _write_scene(folder / "scene" / PRODUCT, scene)
    if layout == "v1":
        _write_metadata_v1(folder, written)
    else:
        _write_metadata_v2(folder, written)


def _split(column: int, row: int, side: int) -> str:
    """The split of a patch: all patches of a block of `side` × `side` have the same one.

    Along a row, splits repeat after five blocks; each row is shifted by two blocks, so that each split covers the whole landscape
    and no two blocks of validation or of test touch.
    """
    return ("train", "validation", "train", "test", "train")[(column // side + 2 * (row // side)) % 5]


def _describe(strip: LandscapeStrip, column: int, row: int, split: str) -> _Patch:
    inside = np.s_[:, column * STRIP_HEIGHT : (column + 1) * STRIP_HEIGHT]
    fraction = np.bincount(strip.uses[inside].ravel(), minlength=len(CODES)) / STRIP_HEIGHT**2
    snow, cloud = (bool((opacity[inside] > 0.2).mean() >= _FLAGGED_FROM) for opacity in (strip.snow, strip.cloud))
    codes = CODES[fraction >= _LABELLED_FROM]
    return _Patch(column, row, [c.name for c in CLC43.classes if c.code in codes], split, snow, cloud)


class _PatchHeader:
    """The header of a patch's GeoTIFF as GDAL writes it; headers of patches differ only in the tie point.

    Copying one header is about twenty times faster than writing thousands of small files by GDAL.
    """

    def __init__(self, gsd: int, nodata: int | None) -> None:
        side = _PATCH_SIDE // gsd
        place = from_origin(_LEFT, _TOP, gsd, gsd)
        with MemoryFile() as memory:
            with memory.open(
                driver="GTiff",
                width=side,
                height=side,
                count=1,
                dtype="uint16",
                crs=_CRS,
                transform=place,
                nodata=nodata,
            ) as file:
                file.update_tags(
                    TIFFTAG_IMAGEDESCRIPTION="synthetic"
                )  # before the pixels, so that the header comes first in the file
                file.write(np.ones((1, side, side), np.uint16))  # GDAL leaves out blocks of zeros
            content = memory.read()
        self._header = bytearray(content[: len(content) - 2 * side**2])
        self._tie = self._header.index(struct.pack("<2d", _LEFT, _TOP))

    def encode(self, pixels: Numbers, left: int, top: int) -> bytes:
        """The content of the file of a patch whose upper left corner is at (left, top), in metres."""
        struct.pack_into("<2d", self._header, self._tie, left, top)
        return bytes(self._header) + pixels.astype("<u2").tobytes()


def _write_scene(folder: Path, scene: Mapping[str, Numbers]) -> None:
    folder.mkdir(parents=True)
    for band in BANDS:
        pixels = scene[band.name]
        with rasterio.open(
            folder / f"{band.name}.tif",
            "w",
            driver="GTiff",
            height=pixels.shape[0],
            width=pixels.shape[1],
            count=1,
            dtype="uint16",
            crs=_CRS,
            transform=from_origin(_LEFT, _TOP, band.gsd, band.gsd),
            tiled=True,
            blockxsize=512,
            blockysize=512,
            compress="lzw",
        ) as file:
            file.update_tags(TIFFTAG_IMAGEDESCRIPTION="synthetic")
            file.write(pixels, 1)


def _write_metadata_v2(folder: Path, patches: list[_Patch]) -> None:
    table = pd.DataFrame(
        {
            "patch_id": [p.name_v2 for p in patches],
            "labels": [p.labels_v2 for p in patches],
            "split": [p.split for p in patches],
            "country": "Synthetic",
            "s1_name": [f"{RADAR_PRODUCT}_{p.column}_{p.row}" for p in patches],
            "s2v1_name": [p.name_v1 for p in patches],
            "contains_seasonal_snow": [p.snow for p in patches],
            "contains_cloud_or_shadow": [p.cloud for p in patches],
        }
    )
    table.to_parquet(folder / "metadata.parquet", index=False)


def _write_metadata_v1(folder: Path, patches: list[_Patch]) -> None:
    for p in patches:
        left, top = _LEFT + p.column * _PATCH_SIDE, _TOP - p.row * _PATCH_SIDE
        content = {
            "labels": p.labels,
            "coordinates": {"ulx": left, "uly": top, "lrx": left + _PATCH_SIDE, "lry": top - _PATCH_SIDE},
            "projection": _CRS.to_wkt(),
            "tile_source": "S2A_MSIL1C_20990101T000000_N9999_R000_T33XXX_20990101T000000.SAFE",
            "acquisition_date": "2099-01-01 00:00:00",
        }
        path = folder / "BigEarthNet-v1.0" / p.name_v1 / f"{p.name_v1}_labels_metadata.json"
        path.write_text(json.dumps(content))
    clear = [p for p in patches if p.labels_v2 and not (p.snow or p.cloud)]
    lists = {
        "train": [p for p in clear if p.split == "train"],
        "val": [p for p in clear if p.split == "validation"],
        "test": [p for p in clear if p.split == "test"],
        "patches_with_seasonal_snow": [p for p in patches if p.snow],
        "patches_with_cloud_and_shadow": [p for p in patches if p.cloud],
    }
    (folder / "metadata").mkdir()
    for name, members in lists.items():
        if members:
            (folder / "metadata" / f"{name}.csv").write_text("".join(f"{p.name_v1}\n" for p in members))


OPTIONS = (
    labels_option("clc43, which makes the folders of v1, or ben19 (default), those of v2"),
    Option("patches", "how many patches to make (default: 600)", int),
    Option("seed", "seed of the landscape (default: 0)", int),
)


def survey(
    inputs: list[tuple[str | None, Path]], patches: int = 600, seed: int = 0, labels: str | None = None
) -> Survey:
    """Write the archives that do not exist yet, and survey them as BigEarthNet.

    Args:
        inputs: split or None, and a folder, for each archive; their landscapes differ.
        patches: number of patches of each archive.
        seed: seed of the first landscape; each further landscape has the next seed.
        labels: `clc43` for the layout and labels of v1, otherwise those of v2.
    """
    for number, (_, folder) in enumerate(inputs):
        write_archive(folder, patches, seed + number, "v1" if labels == "clc43" else "v2")
    return bigearthnet.survey(inputs, labels)
