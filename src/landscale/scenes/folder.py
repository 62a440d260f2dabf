"""The rasters of a product in a folder or zip, by band: as in ESA's products, in the AWS buckets, or `B02.tif …`."""

from __future__ import annotations

import re
from pathlib import Path

from landscale.errors import BadInput
from landscale.scenes.acquisitions import check_one_product
from landscale.scenes.product_files import files_of
from landscale.vocabulary.bands import ALIASES, BANDS

_BAND = re.compile(r"(?:^|_)(B\d{1,2}A?)(?:_(\d\dm))?\.(?:tif|tiff|jp2)$", re.IGNORECASE)
_CLASSIFICATION = re.compile(r"(?:^|_)SCL(?:_\d\dm)?\.(?:tif|tiff|jp2)$", re.IGNORECASE)
_RESOLUTION = re.compile(r"R(\d\dm)", re.IGNORECASE)
_NO_BANDS = {"qi_data", "qi", "preview"}  # folders of masks and pictures, named after bands too


def find_rasters(folder: Path) -> tuple[dict[str, Path], Path | None]:
    """The rasters of a folder by band, each at its native resolution, and the finest scene classification.

    Raises:
        BadInput: there is no raster named after a band, or there are several scenes.
    """
    found: dict[str, list[Path]] = {}
    classification = None
    for path in files_of(folder):
        if _NO_BANDS.intersection(part.lower() for part in path.relative_to(folder).parts[:-1]):
            continue
        match = _BAND.search(path.name)
        if match and match[1].upper() in ALIASES and not path.name.startswith("MSK_"):  # masks of a .SAFE product
            found.setdefault(ALIASES[match[1].upper()], []).append(path)
        elif classification is None and _CLASSIFICATION.search(path.name):
            classification = path
    if not found:
        raise BadInput(
            folder,
            "holds no band raster such as B02.tif or …_B02_10m.jp2; of a zip, a STAC item or a raster of several bands give the"
            " path itself",
        )
    check_one_product(folder, [path for paths in found.values() for path in paths])
    return {band: native(folder, band, paths) for band, paths in found.items()}, classification


def native(folder: Path, band: str, paths: list[Path]) -> Path:
    """The file of a band at its native resolution; products may have others too.

    Raises:
        BadInput: there are several.
    """
    named = [path for path in paths if _resolution(path) == f"{BANDS[band].gsd}m"]
    first, *others = named or paths
    if named:  # files of L1C have no resolution in their names, and lie in another folder
        others += [path for path in paths if not _resolution(path) and path.parent != first.parent]
    for other in others:
        if _resolution(other) in ("", _resolution(first)):
            a, b = (p.relative_to(folder) if p.is_relative_to(folder) else p for p in (first, other))
            raise BadInput(folder, f"holds more than one scene: {band} is {a} and {b}; give the folder of one of them")
    return first


def _resolution(path: Path) -> str:
    """The resolution in a file name, such as `10m`, or in that of its folder, such as `R10m`; empty if there is none."""
    match, folder = _BAND.search(path.name), _RESOLUTION.fullmatch(path.parent.name)
    return ((match and match[2]) or (folder and folder[1]) or "").lower()


def is_part_of_product(folder: Path) -> bool:
    """Whether a folder has the bands of one resolution of a product, such as `R10m`, or its masks."""
    return _RESOLUTION.fullmatch(folder.name) is not None or folder.name.lower() in _NO_BANDS
