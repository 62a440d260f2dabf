"""Write cloud-optimised GeoTIFFs (COGs) row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.windows import Window

from landscale.errors import BadInput, reason
from landscale.maps.encoding import NODATA, STEPS
from landscale.maps.frame import Frame

WriteRows = Callable[[int, NDArray[np.generic]], None]
CHUNK = 64  # rows of a map that are computed and written at once; those of 19 classes of a whole tile have 53 MB
_PROFILE = {
    "driver": "GTiff",
    "tiled": True,
    "blockxsize": 512,
    "blockysize": CHUNK,  # so that no block waits in GDAL's cache for its other rows
    "compress": "deflate",
    "BIGTIFF": "IF_SAFER",
}


@contextmanager
def growing_raster(
    path: Path,
    final: Path,
    frame: Frame,
    names: Sequence[str],
    tags: Mapping[str, str],
    *,
    numbers: Literal["class", "uint8", "float32"],
    colours: Sequence[str] = (),
) -> Iterator[WriteRows]:
    """A function that writes rows (bands, rows, width) from a first row on; when the block ends, they are a COG.

    Args:
        path: the file to write.
        final: the name that it gets later, for the error message.
        frame: its grid.
        names: of the bands.
        tags: metadata.
        numbers: "class" (bytes, overviews take the most frequent one), "uint8" (bytes of `encoding.to_bytes`, by whose scale GDAL
            converts them into 0…1) or "float32".
        colours: of the classes.

    Raises:
        BadInput: the file cannot be written.
    """
    plain = path.with_name(f"{path.name}.plain")
    profile = _PROFILE | {
        "width": frame.width,
        "height": frame.height,
        "count": len(names),
        "dtype": "float32" if numbers == "float32" else "uint8",
        "nodata": float("nan") if numbers == "float32" else NODATA,
        "crs": frame.crs,
        "transform": frame.transform,
    }
    try:
        with rasterio.open(plain, "w", **profile) as file:
            if colours:
                table = {k: (*bytes.fromhex(colour[1:]), 255) for k, colour in enumerate(colours)}
                file.write_colormap(1, {**table, NODATA: (0, 0, 0, 0)})
            file.descriptions = tuple(names)
            if numbers == "uint8":
                file.scales, file.offsets = (1 / STEPS,) * len(names), (0.0,) * len(names)
            file.update_tags(**tags)
            yield lambda top, rows: file.write(rows, window=Window(0, top, rows.shape[2], rows.shape[1]))
        rasterio.shutil.copy(
            plain,
            path,
            driver="COG",
            compress="DEFLATE",
            bigtiff="IF_SAFER",
            overview_resampling="mode" if numbers == "class" else "average",
            statistics="YES",
        )
    except Exception as error:
        if type(error).__module__.startswith("rasterio"):  # GDAL's errors of writing have classes of their own
            raise BadInput(final, f"cannot be written ({reason(error)})") from None
        raise
    finally:
        plain.unlink(missing_ok=True)
