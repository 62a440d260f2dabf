"""A scene as an xarray dataset: a variable for each band, or one array with a dimension `band`; from memory, dask or Zarr.

The dataset is written, a few rows at a time, as a raster of named bands (`scenes.stack`), and read as such: names of bands,
coarse pixels that were repeated, units, offset and nodata follow the same rules. The raster is as large as the dataset.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from landscale.errors import BadInput, LandscaleError, reason
from landscale.scenes.names import band_in_name

if TYPE_CHECKING:
    import xarray

ROWS = 512  # that are in memory at once
_UNEVEN = 1e-3  # of the distance between coordinates, by which it may vary


def is_dataset(scene: object) -> TypeGuard[xarray.Dataset | xarray.DataArray]:
    """Whether a scene is a dataset or array of xarray, without importing xarray."""
    return type(scene).__module__.partition(".")[0] == "xarray"


def is_zarr(path: Path) -> bool:
    """Whether a path is a Zarr folder, by its name."""
    return path.suffix.lower() == ".zarr" and path.is_dir()


def open_zarr(path: Path) -> xarray.Dataset:
    """Open a Zarr folder; its pixels are read when they are needed.

    Raises:
        LandscaleError: xarray or zarr is not installed. BadInput: it cannot be read.
    """
    try:
        import xarray
    except ImportError:
        raise LandscaleError("a Zarr folder needs xarray and zarr: pip install 'landscale[xarray]'") from None
    try:
        found: xarray.Dataset = xarray.open_zarr(path, mask_and_scale=False, decode_times=False)
    except ImportError:
        raise LandscaleError("a Zarr folder needs xarray and zarr: pip install 'landscale[xarray]'") from None
    except Exception as error:  # zarr raises many kinds for a damaged folder
        raise BadInput(path, f"cannot be read as Zarr ({reason(error)})") from None
    return found


@contextmanager
def as_stack(dataset: xarray.Dataset | xarray.DataArray, name: str = "dataset") -> Iterator[Path]:
    """A temporary raster with the bands of a dataset.

    Args:
        dataset: its bands have the dimensions y and x, of one grid in metres.
        name: of the raster, which becomes that of the scene.

    Raises:
        BadInput: there is no band, the coordinates are no grid, or there is no coordinate reference system.
    """
    bands = _bands_of(dataset, name)
    first = next(iter(bands.values()))
    crs, transform = _crs_of(dataset, first, name), _transform_of(first, name)
    dtype = np.result_type(*(band.dtype for band in bands.values()))
    if dtype.kind not in "iuf":
        raise BadInput(name, f"has {dtype} pixels, expected numbers")
    nodata = {
        value
        for band in bands.values()
        for key in ("_FillValue", "nodata")
        if (value := band.attrs.get(key)) is not None
    }
    if len(nodata) > 1:
        raise BadInput(name, f"has bands with different nodata values ({', '.join(map(str, sorted(nodata)))})")
    with tempfile.TemporaryDirectory(prefix="landscale-") as folder:
        path = Path(folder) / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.tif"
        height, width = first.shape
        profile: dict[str, Any] = {"driver": "GTiff", "tiled": True, "blockxsize": ROWS, "blockysize": ROWS}
        profile |= {"height": height, "width": width, "count": len(bands), "dtype": dtype.name, "BIGTIFF": "IF_SAFER"}
        profile |= {"crs": crs, "transform": transform, "nodata": next(iter(nodata), None)}
        with rasterio.open(path, "w", **profile) as file:
            file.descriptions = tuple(bands)
            for index, band in enumerate(bands.values(), start=1):
                for top in range(0, height, ROWS):
                    rows = np.asarray(band[top : top + ROWS].values)
                    file.write(rows.astype(dtype, copy=False), index, window=Window(0, top, width, len(rows)))
        yield path


def _bands_of(dataset: Any, name: str) -> dict[str, Any]:
    """Arrays (y, x) by name of a band of Sentinel-2, from north to south."""
    if hasattr(dataset, "data_vars"):
        found = dict(dataset.data_vars.items())
        if len(found) == 1 and "band" in next(iter(found.values())).dims:
            return _bands_of(next(iter(found.values())), name)
    elif "band" in dataset.dims:
        if "band" not in dataset.coords:
            raise BadInput(name, "has a dimension band without coordinates, expected names such as B02 or blue")
        found = {str(label): dataset.sel(band=label) for label in dataset["band"].values.tolist()}
    else:
        raise BadInput(name, f"has the dimensions {', '.join(map(str, dataset.dims))}, expected band, y and x")
    bands: dict[str, Any] = {}
    for label, array in found.items():
        band = band_in_name(str(label))
        if band is None or not {"y", "x"} <= set(array.dims):
            continue
        if band in bands:
            raise BadInput(name, f"has two bands named {band}")
        more = [dim for dim in array.dims if dim not in ("y", "x")]
        if any(array.sizes[dim] != 1 for dim in more):
            sizes = " × ".join(f"{array.sizes[dim]} {dim}" for dim in more)
            raise BadInput(name, f"{label}: has {sizes}; choose one, as by .isel(time=0)")
        bands[band] = array.isel(dict.fromkeys(more, 0)).transpose("y", "x")
    if not bands:
        names = ", ".join(map(str, found))[:200]
        raise BadInput(name, f"has no band of Sentinel-2, expected names such as B02 or blue; found {names}")
    if len({array.shape for array in bands.values()}) > 1:
        raise BadInput(name, "has bands of different sizes, expected one grid; interpolate them to that of 10 m")
    return bands


def _transform_of(array: Any, name: str) -> Affine:
    """The grid of the pixel centres in the coordinates x and y."""
    if "x" not in array.coords or "y" not in array.coords:
        raise BadInput(name, "has no coordinates x and y, expected those of pixel centres in metres")
    steps = []
    for key in ("x", "y"):
        values = np.asarray(array[key].values, np.float64)
        if len(values) < 2:
            raise BadInput(name, f"has {len(values)} {key}, expected at least 2")
        differences = np.diff(values)
        step = float(np.mean(differences))
        if not np.isfinite(step) or step == 0 or np.abs(differences - step).max() > abs(step) * _UNEVEN:
            raise BadInput(name, f"its coordinates {key} are not evenly spaced, expected a grid")
        steps.append((float(values[0]), step))
    (x, dx), (y, dy) = steps
    return Affine(dx, 0, x - dx / 2, 0, dy, y - dy / 2)


def _crs_of(dataset: Any, array: Any, name: str) -> CRS:
    """The coordinate reference system: of the grid mapping (CF conventions, as rioxarray writes it), or the attribute `crs`."""
    places = [array.attrs, getattr(array, "encoding", {}), dataset.attrs]
    mappings = [str(place["grid_mapping"]) for place in places if "grid_mapping" in place] + ["spatial_ref", "crs"]
    texts = []
    for key in mappings:
        if key in dataset.coords or key in getattr(dataset, "variables", {}):
            texts += [dataset[key].attrs.get(attribute) for attribute in ("crs_wkt", "spatial_ref")]
    texts += [place.get(key) for place in places for key in ("crs", "crs_wkt", "proj:epsg", "proj:code")]
    for text in texts:
        if text:
            try:
                return CRS.from_user_input(text if isinstance(text, int) else str(text))
            except CRSError as error:
                raise BadInput(name, f"has a damaged coordinate reference system ({reason(error)})") from None
    raise BadInput(name, "has no coordinate reference system; set it, as by .rio.write_crs('EPSG:32633') of rioxarray")
