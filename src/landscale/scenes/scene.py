"""A scene: one Sentinel-2 product as a folder of band rasters at native resolution, or as a MATLAB file, read by windows.

Products of processing baseline 04.00 and later add 1000 to every digital number (`BOA_ADD_OFFSET` −1000, in level 1C
`RADIO_ADD_OFFSET`; ESA, Sentinel-2 Products Specification Document). It is taken off here, so that a scene has the numbers
that models were trained on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from landscale.errors import BadInput, reason
from landscale.runtime.documents import read_json_object
from landscale.scenes.matlab import matlab_bands, open_matlab_band
from landscale.vocabulary.bands import ALIASES, BANDS

_FILE = re.compile(r"(?:^|_)(B\d{1,2}A?)(?:_(\d\dm))?\.(?:tif|tiff|jp2)$", re.IGNORECASE)
_BASELINE = re.compile(r"_N(\d{4})_")
_OFFSET = re.compile(r"<(?:BOA|RADIO)_ADD_OFFSET[^>]*>\s*(-?\d+)\s*<")
NOTE = "scene.json"  # in a folder that we wrote, what its digital numbers mean: {"offset": 1000, …}
REPROCESSED = 9999  # BigEarthNet v2's own baseline, without the offset


@dataclass(frozen=True)
class Scene:
    """Where the bands of a scene lie and what its digital numbers mean. `offset` is what its product added to them."""

    folder: Path
    files: dict[str, Path]
    offset: int

    def identity(self) -> dict[str, Any]:
        """What tells it from other scenes, and from itself after a change: name, size and time of each band's file."""
        files = {band: (str(path.resolve()), path.stat()) for band, path in self.files.items()}
        told = {band: [name, stat.st_size, stat.st_mtime_ns] for band, (name, stat) in files.items()}
        return {"files": told, "offset": self.offset}

    def summary(self) -> dict[str, Any]:
        with ScenePixels(self, sorted(self.files, key=list(BANDS).index)) as pixels:
            return {
                "kind": "scene",
                "path": str(self.folder),
                "bands": list(pixels.files),
                "width": pixels.width,
                "height": pixels.height,
                "pixel": pixels.gsd,
                "crs": str(pixels.crs),
                "bounds": list(pixels.bounds),
                "offset": self.offset,
            }


def open_scene(folder: str | Path) -> Scene:
    """The scene in a folder: files named after bands (`B02.tif`, `T33UUP_…_B02_10m.jp2`), at their native resolution.

    Or the one in a MATLAB file (see `sources.matlab`).

    Raises:
        BadInput: no folder, no band in it, or several scenes.
    """
    folder = Path(folder)
    if folder.is_file() and folder.suffix.lower() == ".mat":
        return Scene(folder, dict.fromkeys(matlab_bands(folder), folder), 0)
    if not folder.is_dir():
        raise BadInput(folder, "no such scene; expected a folder of band rasters such as B02.tif, or a .mat file")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        match = _FILE.search(path.name)
        if match and match[1].upper() in ALIASES and not path.name.startswith("MSK_"):  # masks of a .SAFE
            found.setdefault(ALIASES[match[1].upper()], []).append(path)
    if not found:
        raise BadInput(folder, "holds no band raster such as B02.tif or …_B02_10m.jp2")
    files = {band: _native(folder, band, paths) for band, paths in found.items()}
    return Scene(folder, files, _offset(folder, files))


def _native(folder: Path, band: str, paths: list[Path]) -> Path:
    """Products hold bands at several resolutions; the file of the band's own is meant."""
    named = [path for path in paths if f"_{BANDS[band].gsd}m" in path.name]
    first, *others = named or paths
    for other in others:
        if _resolution(other) == _resolution(first):
            a, b = first.relative_to(folder), other.relative_to(folder)
            raise BadInput(folder, f"holds more than one scene: {band} is {a} and {b}; name the folder of one")
    return first


def _resolution(path: Path) -> str:
    """As a name says it, `10m`; empty where it does not."""
    match = _FILE.search(path.name)
    return (match[2] or "") if match else ""


def _offset(folder: Path, files: dict[str, Path]) -> int:
    """What the folder says, or else one on the way from there down to the bands, as a product may lie in the one named."""
    inner = Path(os.path.commonpath([path.parent for path in files.values()])).relative_to(folder)
    for place in (*reversed(inner.parents), inner):
        offset = _said_offset(folder / place)
        if offset is not None:
            return offset
    return 0


def _said_offset(folder: Path) -> int | None:
    """From the product's metadata, or else from the baseline in its name; None if there is neither."""
    if (folder / NOTE).is_file():
        return _noted_offset(folder / NOTE)
    for path in folder.glob("MTD_MSIL[12][AC].xml"):
        try:
            offsets = {-int(value) for value in _OFFSET.findall(path.read_text(encoding="utf-8"))}
        except UnicodeDecodeError as error:
            raise BadInput(path, f"is no text ({error.reason})") from None
        if len(offsets) > 1:
            raise BadInput(path, f"has different offsets for different bands: {sorted(offsets)}")
        if offsets:
            return _checked(path, offsets.pop())
    match = _BASELINE.search(folder.resolve().name + "_")
    return (1000 if 400 <= int(match[1]) < REPROCESSED else 0) if match else None


def _noted_offset(path: Path) -> int:
    return _checked(path, read_json_object(path, "a note on a scene", ("offset",))["offset"])


def _checked(path: Path, offset: object) -> int:
    if not isinstance(offset, int) or not 0 <= offset < 1 << 16:
        raise BadInput(path, f"says that {offset} was added to its digital numbers, expected 0 to 65535")
    return offset


class ScenePixels:
    """Open rasters of some bands of a scene. The grid is that of the finest of them: `width`, `height`, `gsd`, `transform`."""

    def __init__(self, scene: Scene, bands: Sequence[str]) -> None:
        missing = [band for band in bands if band not in scene.files]
        if missing:
            raise BadInput(scene.folder, f"lacks {', '.join(missing)}; it has {', '.join(scene.files)}")
        self._scene = scene
        self.files: dict[str, Any] = {}
        try:
            for band in bands:
                path = scene.files[band]
                matlab = path.suffix.lower() == ".mat"
                self.files[band] = open_matlab_band(path, band) if matlab else rasterio.open(path)
        except RasterioError as error:
            self.close()
            raise BadInput(path, f"cannot be read ({reason(error)})") from None
        except BadInput:
            self.close()
            raise
        finest = min(self.files.values(), key=lambda file: file.transform.a)
        self.width, self.height = int(finest.width), int(finest.height)
        self.transform, self.crs, self.bounds = finest.transform, finest.crs, finest.bounds
        self.gsd = float(finest.transform.a)
        self.ratios = {band: round(file.transform.a / self.gsd) for band, file in self.files.items()}
        for band, file in self.files.items():
            self._check(scene.files[band], file, self.ratios[band])

    def _check(self, path: Path, file: Any, ratio: int) -> None:
        if np.dtype(file.dtypes[0]).kind not in "iu":
            raise BadInput(path, f"holds {file.dtypes[0]} numbers, expected digital numbers (whole ones)")
        corner = (file.transform.c, file.transform.f)
        if np.hypot(corner[0] - self.transform.c, corner[1] - self.transform.f) > self.gsd / 2 or file.crs != self.crs:
            raise BadInput(path, f"lies at {corner} in {file.crs}, the other bands at another place")
        for size, fine in ((file.width, self.width), (file.height, self.height)):
            if abs(size * ratio - fine) >= ratio:
                raise BadInput(
                    path,
                    f"is {file.width}×{file.height} px, which does not fit {self.width}×{self.height} px at {self.gsd:g} m",
                )

    def read(self, band: str, row: int, rows: int, column: int = 0, columns: int | None = None) -> NDArray[np.uint16]:
        """Rows of one band as the product has them, in its own pixels, by default full-width; (rows', columns') uint16.

        Raises:
            BadInput: the file is damaged there.
        """
        file = self.files[band]
        first = min(row, file.height - 1)
        window = Window(column, first, columns or file.width, max(1, min(rows, file.height - first)))
        try:
            values: NDArray[np.uint16] = file.read(1, window=window)
        except RasterioError as error:
            raise BadInput(self._scene.files[band], f"cannot be decoded ({reason(error)})") from None
        return values

    def harmonise(self, values: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Digital numbers without the product's offset, at least 0; in the same memory where they are unsigned 16-bit ones."""
        if self._scene.offset:
            offset = np.uint16(self._scene.offset)
            values = np.maximum(values, offset, out=values if values.dtype == offset.dtype else None)
            values -= offset
        return values

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def __enter__(self) -> ScenePixels:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()
