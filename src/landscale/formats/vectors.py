"""Read vector files: geometries, coordinate reference system and columns. Files that refer to others or to URLs are refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from shapely.errors import ShapelyError

from landscale.errors import BadInput, reason
from landscale.runtime.files import check_regular

_REFERS = b"<OGR"  # the beginning of GDAL's descriptions of virtual and remote layers (VRT, WFS, CSW …)


@dataclass(frozen=True)
class VectorLayer:
    """shapes: (n,) geometries of shapely, or None. crs: their coordinate reference system. columns: (n,) values by name."""

    shapes: NDArray[Any]
    crs: CRS
    columns: dict[str, NDArray[Any]]


def read_vector(path: Path) -> VectorLayer:
    """The first layer of a vector file that GDAL reads, such as GeoJSON, a GeoPackage or a shapefile.

    Raises:
        BadInput: it is missing, no regular file, cannot be read, refers to other files, or has no coordinate reference system.
    """
    from pyogrio.raw import read

    check_regular(path)
    with path.open("rb") as file:
        if file.read(1000).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_REFERS):
            raise BadInput(path, "describes a layer in other files or on the web, expected a file with geometries")
    try:
        information, _, content, fields = read(path, force_2d=True)
        shapes = shapely.from_wkb(content)
        crs = CRS.from_user_input(information["crs"]) if information["crs"] else None
    except (RuntimeError, ValueError, ShapelyError, CRSError) as error:  # pyogrio's errors are the first two
        raise BadInput(path, f"cannot be read as a vector file ({reason(error)})") from None
    if crs is None:
        raise BadInput(
            path, "has no coordinate reference system; give it one, or use GeoJSON in longitude and latitude"
        )
    names = [str(name) for name in information["fields"]]
    return VectorLayer(np.asarray(shapes, object), crs, dict(zip(names, fields, strict=True)))
