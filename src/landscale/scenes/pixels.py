"""Read the bands of a scene by windows, as digital numbers; rasters whose windows would be of another place are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from landscale.errors import BadInput, reason
from landscale.formats.rasters import open_raster_file
from landscale.scenes.band import OpenBand
from landscale.scenes.matlab import open_matlab_band
from landscale.scenes.radiometry import to_digital_numbers
from landscale.scenes.scene import Scene
from landscale.vocabulary.bands import BANDS

_ENOUGH_BANDS, _ENOUGH_PIXELS = 3, 10_000  # fewer may all be bright
_DARKEST, _SHIFTED = 0.001, (950, 1250)  # quantile of the pixels with data; digital numbers of shadow and water


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


def _open_band(file: Any, lock: Lock, band: str, index: int | None) -> OpenBand:
    """A band of an open raster; one of a stack, in which coarse bands were resampled, at its native resolution."""
    if index is None:
        return OpenBand(file, lock=lock)
    step = BANDS[band].gsd / float(file.transform.a)
    return OpenBand(file, index, max(1, round(step)) if abs(step - round(step)) < 1e-3 else 1, lock)


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
        self.files: dict[str, OpenBand] = {}
        rasters: dict[Path, tuple[Any, Lock]] = {}
        try:
            for band in bands:
                path = scene.files[band]
                if path.suffix.lower() == ".mat":
                    self.files[band] = OpenBand(open_matlab_band(path, band))
                    continue
                if path not in rasters:
                    rasters[path] = open_raster_file(path), Lock()
                    _check_grid(path, rasters[path][0])
                self.files[band] = _open_band(*rasters[path], band, scene.indexes.get(band))
        except RasterioError as error:
            self.close()
            raise BadInput(path, f"cannot be read ({reason(error)})") from None
        except BadInput:
            self.close()
            raise
        finest = min(self.files.values(), key=lambda file: file.transform.a)
        self.width, self.height = finest.width, finest.height
        self.transform, self.crs, self.bounds = finest.transform, finest.crs, finest.bounds
        self.gsd = float(finest.transform.a)
        self.ratios = {band: round(file.transform.a / self.gsd) for band, file in self.files.items()}
        for band, file in self.files.items():
            self._check(band, file, self.ratios[band])

    def crop(self, row: int, column: int, height: int, width: int) -> None:
        """Make these pixels of the finest grid the scene, from now on. `row` and `column` are multiples of all `ratios`."""
        self.height, self.width = height, width
        for band, ratio in self.ratios.items():
            self.files[band].crop(row // ratio, column // ratio, -(-height // ratio), -(-width // ratio))
        finest = next(file for band, file in self.files.items() if self.ratios[band] == 1)
        self.transform, self.bounds = finest.transform, finest.bounds

    def _check(self, band: str, file: OpenBand, ratio: int) -> None:
        path = self._scene.files[band]
        if path.suffix.lower() != ".mat":
            if file.file.count != 1 and band not in self._scene.indexes:
                raise BadInput(path, f"has {file.file.count} bands, expected one")
            if file.has_palette:
                raise BadInput(path, "has a palette, expected digital numbers")
        if file.dtype.kind not in "iuf":
            raise BadInput(path, f"holds {file.dtype} numbers, expected digital numbers or reflectance")
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
        return self._decode(band, lambda file: file.read(window))

    def _decode(self, band: str, read: Callable[[OpenBand], NDArray[Any]]) -> NDArray[np.uint16]:
        path, file = self._scene.files[band], self.files[band]
        try:
            values = read(file)
        except RasterioError as error:
            raise BadInput(path, f"cannot be decoded ({reason(error)})") from None
        if (scaling := self._scene.scalings.get(band)) is not None:
            return to_digital_numbers(path, values, file.nodata, scaling)
        return _digital_numbers(path, values, file.nodata)

    def sample(self, band: str) -> NDArray[np.uint16]:
        """Pixels of a band from all over the scene, as `read` returns them, reduced to at most 512×512."""
        return self._decode(band, lambda file: file.reduced((min(file.height, 512), min(file.width, 512))))

    def reduced(self, band: str, shape: tuple[int, int]) -> NDArray[np.uint16]:
        """All pixels of a band, as `read` returns them, averaged to `shape` (rows, columns)."""
        return self._decode(band, lambda file: file.reduced(shape, Resampling.average))

    def harmonise(self, values: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Subtract the product's offset, with 0 as the lower limit; uint16 arrays are changed in place."""
        if self._scene.offset:
            offset = np.uint16(self._scene.offset)
            values = np.maximum(values, offset, out=values if values.dtype == offset.dtype else None)
            values -= offset
        return values

    def check_offset(self) -> None:
        """Refuse a scene whose darkest pixels are near 1000, as if that had been added, unless its metadata are certain.

        Raises:
            BadInput: they do.
        """
        if (
            (self._scene.offset_known and (self._scene.offset or self._scene.offset_certain))
            or len(self.files) < _ENOUGH_BANDS
            or self.width * self.height < _ENOUGH_PIXELS
        ):
            return
        darkest = np.inf
        for band in self.files:
            lit = self.sample(band)
            if (lit > 0).any():
                darkest = min(darkest, float(np.quantile(lit[lit > 0], _DARKEST)))
        if _SHIFTED[0] <= darkest <= _SHIFTED[1]:
            stated = (
                "although its metadata state that none was" if self._scene.offset_known else "and no baseline was found"
            )
            raise BadInput(
                self._scene.folder,
                f"has numbers from {darkest:.0f} on in its darkest band, like products to which an offset of 1000 was added,"
                f" {stated}; give --offset 1000, or --offset 0 if nothing was added",
            )

    def close(self) -> None:
        for file in self.files.values():
            file.file.close()

    def __enter__(self) -> ScenePixels:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def summary(scene: Scene) -> dict[str, Any]:
    """What `landscale info` prints: bands, size, CRS, bounds, offset, unit, level; can be written as JSON.

    Raises:
        BadInput: as `ScenePixels`.
    """
    with ScenePixels(scene, sorted(scene.files, key=list(BANDS).index)) as pixels:
        return {
            "kind": "scene",
            "path": str(scene.folder),
            "bands": list(pixels.files),
            "width": pixels.width,
            "height": pixels.height,
            "pixel": pixels.gsd,
            "crs": str(pixels.crs),
            "bounds": list(pixels.bounds),
            "offset": scene.offset,
            "offset_known": scene.offset_known,
            "unit": scene.unit,
            "level": scene.level,
        }
