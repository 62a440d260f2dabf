"""Read a scene by windows: one Sentinel-2 product as a folder of band rasters at native resolution, or as a MATLAB file.

Products of processing baseline 04.00 and later add 1000 to every digital number (`BOA_ADD_OFFSET` −1000, in level 1C
`RADIO_ADD_OFFSET`; ESA, Sentinel-2 Products Specification Document). `ScenePixels.harmonise` subtracts it, so that a scene has
the digital numbers that models were trained on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from landscale.errors import BadInput, reason
from landscale.formats.content import read_text
from landscale.formats.rasters import raster_driver
from landscale.formats.walk import files_below
from landscale.runtime.documents import read_json_object
from landscale.scenes.matlab import matlab_bands, open_matlab_band
from landscale.scenes.radiometry import Scaling, find_level, find_unit, has_own_scale, to_digital_numbers
from landscale.scenes.takes import check_one_product
from landscale.vocabulary.bands import ALIASES, BANDS
from landscale.vocabulary.units import LEVELS, Level, Unit

_FILE = re.compile(r"(?:^|_)(B\d{1,2}A?)(?:_(\d\dm))?\.(?:tif|tiff|jp2)$", re.IGNORECASE)
_RESOLUTION = re.compile(r"R(\d\dm)", re.IGNORECASE)
_PRODUCT = re.compile(r"S2[A-D]_MSIL[12][AC]_")
_BASELINE = re.compile(r"_N(\d{4})_")
_OFFSET = re.compile(r"<(?:BOA|RADIO)_ADD_OFFSET[^>]*>\s*(-?\d+)\s*<")
NOTE_FILE = "scene.json"  # written by superres apply: the offset of the digital numbers, {"offset": 1000, …}
_DEPTH = 6  # folders from the bands up to their product: IMG_DATA, R10m, granule, GRANULE …
REPROCESSED = 9999  # baseline in the names of BigEarthNet v2, whose digital numbers have no offset


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
        """The unit of the pixels that `ScenePixels` reads: reflectance has become digital numbers."""
        return "digital number" if self.unit == "reflectance" else self.unit

    def identity(self) -> dict[str, Any]:
        """Path, size and time of change of each band's file, which differ from those of other scenes and after a change."""
        files = {band: (str(path.resolve()), path.stat()) for band, path in self.files.items()}
        details = {band: [name, stat.st_size, stat.st_mtime_ns] for band, (name, stat) in files.items()}
        return {"files": details, "offset": self.offset}

    def summary(self) -> dict[str, Any]:
        """What `landscale info` prints: bands, size, CRS, bounds, offset; can be written as JSON."""
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
                "offset_known": self.offset_known,
                "unit": self.unit,
                "level": self.level,
            }


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
        _checked(Path(folder), offset)
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
    found_offset = _offset(folder, files) if offset is None else offset
    level = _noted_level(folder) or find_level(files)
    unit, scalings = find_unit(files, _open, from_product=found_offset is not None or level != "unknown")
    if (
        unit == "reflectance" and offset is None
    ):  # the offset in a product's name may have been removed in the conversion
        found_offset = None
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


def _offset(folder: Path, files: dict[str, Path]) -> int | None:
    """The offset by the first folder that specifies one; else by the files; None if neither does.

    Folders are searched from the product that contains `folder`, if there is one, down to the common folder of the bands.
    """
    inner = Path(os.path.commonpath([path.parent for path in files.values()])).relative_to(folder)
    place = folder.absolute()
    above = [outer for outer in (place, *place.parents)[:_DEPTH] if _PRODUCT.match(outer.name)]
    product = [outer for outer in (place, *place.parents) if above and outer.is_relative_to(above[-1])]
    declared = _declared_offset(files)
    for outer in (*reversed(product), *(folder / part for part in (*reversed(inner.parents), inner))):
        offset = _offset_of(outer)
        if offset is not None:
            if declared not in (None, offset):
                raise BadInput(
                    next(iter(files.values())), f"declares an offset of {declared}, but that of {outer} is {offset}"
                )
            return offset
    return declared


def _declared_offset(files: Mapping[str, Path]) -> int | None:
    """The offset in digital numbers by the scale and offset that the rasters declare (reflectance = number · scale + offset).

    None if no file declares an offset.

    Raises:
        BadInput: the files differ, or the offset is not a whole number of 0 to 65535 digital numbers.
    """
    found: dict[int, Path] = {}
    for path in files.values():
        try:
            with _open(path) as file:
                scale, offset = (1, 0) if has_own_scale(file) else (file.scales[0], file.offsets[0])
        except RasterioError as error:
            raise BadInput(path, f"cannot be read ({reason(error)})") from None
        if offset:
            found.setdefault(_checked(path, round(-offset / scale)), path)
    if len(found) > 1:
        raise BadInput(next(iter(found.values())), f"and other bands declare different offsets: {sorted(found)}")
    return next(iter(found), None)


def _offset_of(folder: Path) -> int | None:
    """The offset according to a folder's note, its product metadata, or the baseline in its name; None if it has none of them."""
    if (folder / NOTE_FILE).is_file():
        return _noted_offset(folder / NOTE_FILE)
    for path in folder.glob("MTD_MSIL[12][AC].xml"):
        offsets = {-int(value) for value in _OFFSET.findall(read_text(path))}
        if len(offsets) > 1:
            raise BadInput(path, f"has different offsets for different bands: {sorted(offsets)}")
        if offsets:
            return _checked(path, offsets.pop())
    match = _BASELINE.search(folder.resolve().name + "_")
    return (1000 if 400 <= int(match[1]) < REPROCESSED else 0) if match else None


def _noted_offset(path: Path) -> int:
    return _checked(path, read_json_object(path, "a note on a scene", ("offset",))["offset"])


def _noted_level(folder: Path) -> Level | None:
    note = folder / NOTE_FILE
    level = read_json_object(note, "a note on a scene").get("level") if note.is_file() else None
    return level if level in LEVELS else None


def _checked(path: Path, offset: object) -> int:
    if not isinstance(offset, int) or not 0 <= offset < 1 << 16:
        raise BadInput(path, f"has an offset of {offset}, expected an integer from 0 to 65535")
    return offset


_ENOUGH_BANDS, _ENOUGH_PIXELS = 3, 10_000  # fewer may all be bright
_DARKEST, _SHIFTED = 0.001, (950, 1250)  # quantile of the pixels with data; digital numbers of shadow and water


def _open(path: Path) -> Any:
    return rasterio.open(path, driver=raster_driver(path))


def _digital_numbers(path: Path, values: NDArray[Any], nodata: float | None) -> NDArray[np.uint16]:
    """Pixels as uint16, in which those of the file's own nodata value are 0, as in Sentinel-2 products.

    Raises:
        BadInput: numbers below 0 or above 65535.
    """
    if nodata is not None and nodata != 0:
        values[values == nodata] = 0
    if values.dtype != np.uint16:
        if values.size and not 0 <= values.min() <= values.max() < 1 << 16:
            raise BadInput(path, f"holds numbers from {values.min()} to {values.max()}, expected 0 to 65535")
        values = values.astype(np.uint16)
    return values


def _check_grid(path: Path, file: Any) -> None:
    """Refuse a raster that does not lie north-up in metres, on which windows and patches would be of another place or size.

    Raises:
        BadInput: no CRS, degrees, feet, Web Mercator, or pixels that are rotated, south-up or not square.
    """
    t, crs = file.transform, file.crs
    if not crs:
        raise BadInput(path, "has no coordinate reference system; give it one with gdal_translate -a_srs")
    warp = "; warp it to the UTM zone of the scene (gdalwarp -t_srs EPSG:326xx -tr 10 10)"
    if crs.is_geographic:
        raise BadInput(path, f"is in degrees ({crs}), expected metres{warp}")
    if crs.to_epsg() in (3857, 3785, 900913):
        raise BadInput(path, f"is in Web Mercator, whose metres are longer than those on the ground{warp}")
    unit, metres = crs.linear_units_factor
    if abs(metres - 1) > 1e-9:
        raise BadInput(path, f"is in {unit}, expected metres{warp}")
    if t.b or t.d or t.a <= 0:
        raise BadInput(path, f"is rotated or mirrored, expected columns to the east and rows to the south{warp}")
    if t.e >= 0:
        raise BadInput(path, f"is stored south-up, expected rows to the south{warp}")
    if abs(t.a + t.e) > 1e-6 * t.a:
        raise BadInput(path, f"has pixels of {t.a:g}×{-t.e:g} m, expected square ones{warp}")


class ScenePixels:
    """Open rasters of some bands of a scene.

    width, height (pixels), gsd (metres per pixel), transform and crs are those of the finest band. ratios: by band, its gsd
    divided by the finest.

    Raises:
        BadInput: the scene lacks a band, or bands do not fit each other.
    """

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
                self.files[band] = open_matlab_band(path, band) if matlab else _open(path)
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
        if path.suffix.lower() != ".mat":
            _check_grid(path, file)
            if file.count != 1:
                raise BadInput(path, f"has {file.count} bands, expected one")
            if file.colorinterp[0].name == "palette":
                raise BadInput(path, "has a palette, expected digital numbers")
        if np.dtype(file.dtypes[0]).kind not in "iuf":
            raise BadInput(path, f"holds {file.dtypes[0]} numbers, expected digital numbers or reflectance")
        corner = (file.transform.c, file.transform.f)
        if np.hypot(corner[0] - self.transform.c, corner[1] - self.transform.f) > self.gsd / 2 or file.crs != self.crs:
            raise BadInput(path, f"lies at {corner} in {file.crs}, not where the other bands lie")
        for size, fine in ((file.width, self.width), (file.height, self.height)):
            if abs(size * ratio - fine) >= ratio:
                raise BadInput(
                    path,
                    f"is {file.width}×{file.height} px, which does not fit {self.width}×{self.height} px at {self.gsd:g} m",
                )

    def read(self, band: str, row: int, rows: int, column: int = 0, columns: int | None = None) -> NDArray[np.uint16]:
        """A window of one band as stored, in the band's own pixels, by default of the full width: (rows, columns) uint16.

        Fewer rows are returned at the lower edge.

        Raises:
            BadInput: the file is damaged in this window.
        """
        file = self.files[band]
        first = min(row, file.height - 1)
        window = Window(column, first, columns or file.width, max(1, min(rows, file.height - first)))
        return self._decode(band, window=window)

    def _decode(self, band: str, **part: Any) -> NDArray[np.uint16]:
        path, file = self._scene.files[band], self.files[band]
        try:
            values = file.read(1, **part)
        except RasterioError as error:
            raise BadInput(path, f"cannot be decoded ({reason(error)})") from None
        if (scaling := self._scene.scalings.get(band)) is not None:
            return to_digital_numbers(path, values, file.nodata, scaling)
        return _digital_numbers(path, values, file.nodata)

    def sample(self, band: str) -> NDArray[np.uint16]:
        """Pixels of a band from all over the scene, as `read` returns them, reduced to at most 512×512."""
        file = self.files[band]
        return self._decode(band, out_shape=(min(file.height, 512), min(file.width, 512)))

    def harmonise(self, values: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Subtract the product's offset, with 0 as the lower limit; uint16 arrays are changed in place."""
        if self._scene.offset:
            offset = np.uint16(self._scene.offset)
            values = np.maximum(values, offset, out=values if values.dtype == offset.dtype else None)
            values -= offset
        return values

    def check_offset(self) -> None:
        """Refuse a scene of unknown offset whose numbers look as if 1000 had been added: its darkest pixels are near 1000.

        Raises:
            BadInput: they do.
        """
        if self._scene.offset_known or len(self.files) < _ENOUGH_BANDS or self.width * self.height < _ENOUGH_PIXELS:
            return
        darkest = np.inf
        for band in self.files:
            lit = self.sample(band)
            if (lit > 0).any():
                darkest = min(darkest, float(np.quantile(lit[lit > 0], _DARKEST)))
        if _SHIFTED[0] <= darkest <= _SHIFTED[1]:
            raise BadInput(
                self._scene.folder,
                f"has numbers from {darkest:.0f} on in its darkest band, like products to which an offset of 1000 was added,"
                " and neither its name nor its metadata has a processing baseline; give --offset 1000, or --offset 0 if"
                " nothing was added",
            )

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def __enter__(self) -> ScenePixels:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()
