"""Sharpen a scene: write all its bands at 10 m as a folder of GeoTIFFs, complete or not at all.

Digital numbers keep the scale of the product: the offset that processing baseline 04.00 introduced is subtracted before the
network and added after it, bands at 10 m are copied, and nodata (0) stays nodata. `scene.json` in the folder holds the offset,
so that every command can read the folder as a scene. Rows are computed in strips, with the margin that the network needs, so
that memory does not grow with the height of the scene and no seams appear. Finished strips survive if the process is killed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from landscale.errors import BadInput
from landscale.runtime.documents import write_json
from landscale.runtime.files import atomic_folder
from landscale.runtime.parts import resumable_parts
from landscale.runtime.progress import progress_bar
from landscale.scenes.metadata import NOTE_FILE
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene
from landscale.superres.planes import ESA_ORDER, GROUPS, bands_of_groups, check_grid, groups_of, read_rows
from landscale.superres.superresolver import TILE, Superresolver, count_tiles
from landscale.superres.units import check_units

_PROFILE = {
    "driver": "GTiff",
    "count": 1,
    "dtype": "uint16",
    "tiled": True,
    "blockxsize": TILE,
    "blockysize": TILE,
    "compress": "deflate",
    "predictor": 2,
    "BIGTIFF": "IF_SAFER",
}


def sharpen_scene(
    superresolver: Superresolver, scene_path: Path, out: Path, offset: int | None = None
) -> dict[str, Any]:
    """Write all bands of a scene at 10 m.

    Args:
        superresolver: trained networks; they compute on the device that they are on.
        scene_path: as for `open_scene`, with all bands at 10 and 20 m and both or none at 60 m.
        out: folder to write `B01.tif` … to. It may be missing, empty, or hold an earlier result, which is replaced.
        offset: that was added to the digital numbers; by default that of the scene's metadata or name.

    Returns:
        What was written: bands, size, CRS, offset; `left_out` lists bands for which the weights have no network.

    Raises:
        BadInput: the scene lacks bands or cannot be read, or `out` holds something else.
    """
    if out.exists() and not (out / NOTE_FILE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(out, "exists and was not written by superres apply, expected a new or empty folder")
    scene = open_scene(scene_path, offset)
    groups = tuple(gsd for gsd in groups_of(scene) if gsd == 10 or gsd in superresolver.networks)
    bands = tuple(band for band in ESA_ORDER if band in bands_of_groups(groups))
    note = {
        "offset": scene.offset,
        "source": str(scene_path),
        "bands": list(bands),
        "weights": superresolver.config["digest"],
        "level": scene.level,
    }
    plan = {**note, **scene.identity(), "rows": TILE}
    with (
        rasterio.Env(GDAL_CACHEMAX=1024),
        ScenePixels(scene, bands) as pixels,
        resumable_parts(out, plan) as finished,
        atomic_folder(out) as temporary,
        ExitStack() as open_files,
    ):
        check_grid(scene, pixels)
        check_units(scene, pixels, superresolver.level)
        size = {"width": pixels.width, "height": pixels.height}
        files = {}
        for band in bands:
            nodata = None if pixels.files[band].nodata is None else 0  # what its own value has become
            georeference = {"crs": pixels.crs, "transform": pixels.transform, "nodata": nodata}
            files[band] = open_files.enter_context(
                rasterio.open(temporary / f"{band}.tif", "w", **_PROFILE, **size, **georeference)
            )
            files[band].descriptions = (band,)
        tops = range(0, pixels.height, TILE)
        total = sum(count_tiles(min(TILE, pixels.height - top), pixels.width) for top in tops)
        with progress_bar("superres", total * (len(groups) - 1), "tiles") as advance:
            for top in tops:
                rows = min(TILE, pixels.height - top)
                for band in GROUPS[10]:
                    _write(files[band], pixels.read(band, top, rows), top)
                strip = finished.get(str(top))
                if strip is None:
                    strip = sharpen_strip(superresolver, pixels, groups, scene.offset, top, rows, advance)
                    finished.put(str(top), strip)
                else:
                    advance(count_tiles(rows, pixels.width) * (len(groups) - 1))
                for band, values in zip(bands_of_groups(groups[1:]), strip, strict=True):
                    _write(files[band], values, top)
        write_json(temporary / NOTE_FILE, note)
    left_out = [band for band in scene.files if band in bands_of_groups(groups_of(scene)) and band not in bands]
    return {"out": str(out), **note, **size, "crs": str(pixels.crs), "left_out": left_out}


def sharpen_strip(
    superresolver: Superresolver,
    pixels: ScenePixels,
    groups: tuple[int, ...],
    offset: int,
    top: int,
    rows: int,
    advance: Callable[[int], None],
) -> NDArray[np.uint16]:
    """Compute `rows` rows from row `top` on, in pixels at 10 m, of all bands that are coarser than 10 m, group by group.

    Returns (bands, rows, width): digital numbers with the offset of the product.
    """
    planes = read_rows(pixels, groups, top, -(-rows // 6) * 6, superresolver.margin)
    found = []
    for gsd in groups[1:]:
        values = superresolver.sharpen(planes, gsd, superresolver.margin, advance)[0].numpy()
        for band, sharp in zip(GROUPS[gsd], values[:, :rows, : pixels.width], strict=True):
            numbers = np.clip(np.rint(sharp) + offset, 1, 65535).astype(np.uint16)
            numbers[_nodata(pixels, band, gsd // 10, top, rows)] = 0
            found.append(numbers)
    return np.stack(found)


def _write(file: Any, values: NDArray[np.uint16], top: int) -> None:
    file.write(values, 1, window=Window(0, top, values.shape[1], values.shape[0]))


def _nodata(pixels: ScenePixels, band: str, ratio: int, top: int, rows: int) -> NDArray[np.bool_]:
    """Mask of the pixels at 10 m where the band itself is nodata, (rows, width). GDAL's cache still holds these rows."""
    empty = pixels.read(band, top // ratio, -(-rows // ratio)) == 0
    fine = empty.repeat(ratio, 0).repeat(ratio, 1)
    missing = (max(0, rows - fine.shape[0]), max(0, pixels.width - fine.shape[1]))
    return np.pad(fine, ((0, missing[0]), (0, missing[1])), mode="edge")[:rows, : pixels.width]
