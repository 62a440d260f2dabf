"""Find the files of a scene: one Sentinel-2 product as a folder of band rasters at native resolution, or as a MATLAB file.

`landscale.scenes.pixels` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from landscale.errors import BadInput
from landscale.formats.walk import files_below
from landscale.runtime.documents import read_json_object
from landscale.scenes.acquisitions import check_one_product
from landscale.scenes.matlab import matlab_bands
from landscale.scenes.offset import NOTE_FILE, checked_offset, find_offset
from landscale.scenes.radiometry import Scaling, find_level, find_unit
from landscale.vocabulary.bands import ALIASES, BANDS
from landscale.vocabulary.units import LEVELS, Level, Unit

_FILE = re.compile(r"(?:^|_)(B\d{1,2}A?)(?:_(\d\dm))?\.(?:tif|tiff|jp2)$", re.IGNORECASE)
_RESOLUTION = re.compile(r"R(\d\dm)", re.IGNORECASE)


@dataclass(frozen=True)
class Scene:
    """The files of a scene by band, and `offset`, which its product has added to the digital numbers.

    offset_known: whether the offset was given, or found in names, metadata or files. Otherwise it is taken to be 0.
    unit: that of the pixels in the files. scalings: the bands that are converted into digital numbers when they are read.
    level: processing level of the product.
    """

    folder: Path
    files: dict[str, Path]
    offset: int
    offset_known: bool = True
    unit: Unit = "unknown"
    level: Level = "unknown"
    scalings: Mapping[str, Scaling] = field(default_factory=dict)

    @property
    def pixel_unit(self) -> Unit:
        """The unit of the pixels that `pixels.ScenePixels` reads: reflectance has become digital numbers."""
        return "digital number" if self.unit == "reflectance" else self.unit

    def identity(self) -> dict[str, Any]:
        """Path, size and time of change of each band's file, which differ from those of other scenes and after a change."""
        files = {band: (str(path.resolve()), path.stat()) for band, path in self.files.items()}
        details = {band: [name, stat.st_size, stat.st_mtime_ns] for band, (name, stat) in files.items()}
        return {"files": details, "offset": self.offset}


def open_scene(folder: str | Path, offset: int | None = None) -> Scene:
    """Open a scene: a folder with files that are named after bands, or a MATLAB file (`landscale.scenes.matlab`).

    Files are called as in products (`T33UUP_…_B02_10m.jp2`), as in the AWS buckets (`R10m/B02.jp2`), or `B02.tif`. If a band
    exists at several resolutions, the native one is used.

    Args:
        folder: the folder or file.
        offset: the offset that was added to the digital numbers (1000 since processing baseline 04.00). By default it is that of
            the product's metadata, of the baseline in a folder's name, or of the scale and offset in the files.

    Raises:
        BadInput: there is no such folder, no band in it, or several scenes; sources of the offset contradict each other;
            bands have different units, or none of reflectance.
    """
    if offset is not None:
        checked_offset(Path(folder), offset)
    folder = Path(folder)
    if folder.is_file() and folder.suffix.lower() == ".mat":
        return Scene(folder, dict.fromkeys(matlab_bands(folder), folder), offset or 0, unit="digital number")
    if not folder.is_dir():
        raise BadInput(folder, "no such scene; expected a folder of band rasters such as B02.tif, or a .mat file")
    found: dict[str, list[Path]] = {}
    for path in files_below(folder):
        match = _FILE.search(path.name)
        if match and match[1].upper() in ALIASES and not path.name.startswith("MSK_"):  # masks of a .SAFE product
            found.setdefault(ALIASES[match[1].upper()], []).append(path)
    if not found:
        raise BadInput(folder, "holds no band raster such as B02.tif or …_B02_10m.jp2")
    check_one_product(folder, [path for paths in found.values() for path in paths])
    files = {band: _native(folder, band, paths) for band, paths in found.items()}
    found_offset = find_offset(folder, files) if offset is None else offset
    level = _noted_level(folder) or find_level(files)
    unit, scalings = find_unit(files, from_product=found_offset is not None or level != "unknown")
    if unit == "reflectance" and offset is None:
        found_offset = None  # the offset in a product's name may have been removed in the conversion
    return Scene(folder, files, found_offset or 0, found_offset is not None, unit, level, scalings)


def _native(folder: Path, band: str, paths: list[Path]) -> Path:
    """The file of a band at its native resolution; products may have others too."""
    named = [path for path in paths if _resolution(path) == f"{BANDS[band].gsd}m"]
    first, *others = named or paths
    if named:  # files of L1C have no resolution in their names, and lie in another folder
        others += [path for path in paths if not _resolution(path) and path.parent != first.parent]
    for other in others:
        if _resolution(other) in ("", _resolution(first)):
            a, b = first.relative_to(folder), other.relative_to(folder)
            raise BadInput(folder, f"holds more than one scene: {band} is {a} and {b}; give the folder of one of them")
    return first


def _resolution(path: Path) -> str:
    """The resolution in a file name, such as `10m`, or in that of its folder, such as `R10m`; empty if there is none."""
    match, folder = _FILE.search(path.name), _RESOLUTION.fullmatch(path.parent.name)
    return ((match and match[2]) or (folder and folder[1]) or "").lower()


def is_resolution_folder(folder: Path) -> bool:
    """Whether a folder has the bands of one resolution of a product, such as `R10m`."""
    return _RESOLUTION.fullmatch(folder.name) is not None


def _noted_level(folder: Path) -> Level | None:
    note = folder / NOTE_FILE
    level = read_json_object(note, "a note on a scene").get("level") if note.exists() else None
    return level if level in LEVELS else None
