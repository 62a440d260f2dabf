"""Find the files of a scene: one Sentinel-2 product in any of the layouts in which people have it.

`landscale.scenes.pixels` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from landscale.errors import BadInput
from landscale.formats.rasters import RASTER_DRIVERS
from landscale.scenes import LAYOUTS
from landscale.scenes.folder import find_rasters, native
from landscale.scenes.matlab import matlab_bands
from landscale.scenes.metadata import Statement, checked_offset, find_statement
from landscale.scenes.offset import find_offset
from landscale.scenes.product_files import is_file, is_folder, root_of, stat_of
from landscale.scenes.radiometry import Scaling, find_unit
from landscale.scenes.stac_item import local_files, read_item
from landscale.scenes.stack import find_stack
from landscale.vocabulary.units import PER_REFLECTANCE, Level, Unit


@dataclass(frozen=True)
class Scene:
    """The files of a scene by band, and `offset`, which its product has added to the digital numbers.

    folder: of the product, in a zip too; the file, if the scene is one file.
    offset_known: whether the offset was given, or found in names, metadata or files. Otherwise it is taken to be 0.
    offset_certain: False if pixels that contradict the offset count more.
    unit: that of the pixels in the files. scalings: the bands that are converted into digital numbers when they are read.
    level: processing level of the product.
    indexes: by band, its index from 1 in a raster of several bands.
    product: name of the product by its metadata; empty if unknown.
    classification: the file of its scene classification. classification_index: of the band in that file, from 1.
    """

    folder: Path
    files: dict[str, Path]
    offset: int
    offset_known: bool = True
    offset_certain: bool = True
    unit: Unit = "unknown"
    level: Level = "unknown"
    scalings: Mapping[str, Scaling] = field(default_factory=dict)
    indexes: Mapping[str, int] = field(default_factory=dict)
    product: str = ""
    classification: Path | None = None
    classification_index: int = 1

    @property
    def pixel_unit(self) -> Unit:
        """The unit of the pixels that `pixels.ScenePixels` reads: reflectance has become digital numbers."""
        return "digital number" if self.unit == "reflectance" else self.unit

    def identity(self) -> dict[str, Any]:
        """Path, size and time of change of each band's file, which differ from those of other scenes and after a change."""
        files = {band: (str(path.resolve()), stat_of(path)) for band, path in self.files.items()}
        details: dict[str, list[Any]] = {
            band: [name, stat.st_size, stat.st_mtime_ns] for band, (name, stat) in files.items()
        }
        for band, index in self.indexes.items():
            details[band].append(index)
        return {"files": details, "offset": self.offset}


@dataclass(frozen=True)
class _Found:
    """What was found where a scene lies; the attributes are those of `Scene`."""

    folder: Path
    files: dict[str, Path]
    statement: Statement
    indexes: Mapping[str, int] = field(default_factory=dict)
    classification: Path | None = None
    classification_index: int = 1


def open_scene(folder: str | Path, offset: int | None = None) -> Scene:
    """Open a scene.

    It is a folder or zip with files that are named after bands, a raster with named bands (`scenes.stack`), a STAC item, or a
    MATLAB file (`scenes.matlab`). Files are called as in products (`T33UUP_…_B02_10m.jp2`), as in the AWS buckets
    (`R10m/B02.jp2`), or `B02.tif`. If a band exists at several resolutions, the native one is used.

    Args:
        folder: the folder or file.
        offset: the offset that was added to the digital numbers (1000 since processing baseline 04.00). By default it is that of
            the product's metadata, of the baseline in a folder's name, or of the scale and offset in the files.

    Raises:
        BadInput: there is no such scene, no band in it, or several scenes; sources of the offset contradict each other;
            bands have different units, or none of reflectance.
    """
    if offset is not None:
        checked_offset(Path(folder), offset)
    folder = Path(folder)
    if folder.is_file() and folder.suffix.lower() == ".mat":
        return Scene(folder, dict.fromkeys(matlab_bands(folder), folder), offset or 0, unit="digital number")
    found = _find(folder)
    statement, files, indexes = found.statement, found.files, found.indexes
    found_offset, certain = find_offset(files, indexes, statement) if offset is None else (offset, True)
    unit, scalings = find_unit(files, indexes, from_product=found_offset is not None or statement.level != "unknown")
    if unit == "reflectance" and offset is None:
        found_offset = None  # the offset in a product's name may have been removed in the conversion
    if unit == "digital number" and statement.per_reflectance not in (0, PER_REFLECTANCE):
        factor = PER_REFLECTANCE / statement.per_reflectance
        scalings = dict.fromkeys(files, (factor, 0.0))
        found_offset = None if found_offset is None else round(found_offset * factor)
    return Scene(
        found.folder,
        files,
        found_offset or 0,
        found_offset is not None,
        certain,
        unit,
        statement.level,
        scalings,
        indexes,
        statement.product,
        found.classification,
        found.classification_index,
    )


def is_scene(path: Path) -> bool:
    """Whether a path may be that of a scene, by its kind and suffix."""
    return is_folder(path) or path.suffix.lower() in {".mat", ".json", *RASTER_DRIVERS}


def _find(path: Path) -> _Found:
    if is_folder(path):
        folder = root_of(path)
        files, classification = find_rasters(folder)
        return _Found(folder, files, find_statement(folder, files.values()), classification=classification)
    if is_file(path) and path.suffix.lower() == ".json":
        return _find_item(path)
    if is_file(path) and path.suffix.lower() in RASTER_DRIVERS:
        indexes, mask, statement = find_stack(path)
        return _Found(path, dict.fromkeys(indexes, path), statement, indexes, path if mask else None, mask or 1)
    raise BadInput(path, f"no such scene; expected a {LAYOUTS}")


def _find_item(path: Path) -> _Found:
    item = read_item(path)
    if not item.bands:
        raise BadInput(path, "lists no raster of a band of Sentinel-2")
    files: dict[str, Path] = {}
    indexes: dict[str, int] = {}
    for band, places in item.bands.items():
        index_of = {file: index for href, index in places for file in local_files(item, [href])}
        if index_of:
            files[band] = native(path, band, list(index_of))
            indexes[band] = index_of[files[band]]
    if not files:
        href = next(iter(item.bands.values()))[0][0]
        raise BadInput(path, f"lists files on the web, such as {href}; download them into the folder of the item")
    classification = local_files(item, [item.classification] if item.classification else [])
    statement = Statement(item.level, item.offset, certain=False, product=item.product, source=path)
    stacks = {band: index for band, index in indexes.items() if list(files.values()).count(files[band]) > 1}
    return _Found(path, files, statement, stacks, next(iter(classification), None))
