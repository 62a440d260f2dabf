"""The areas of a class map as polygons in a GeoPackage."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
import shapely
from pyogrio.raw import write
from rasterio.features import shapes, sieve
from shapely.geometry import shape

from landscale.errors import BadInput, reason
from landscale.maps.encoding import NODATA
from landscale.maps.files import LAYER, SOFTWARE


def write_polygons(
    path: Path, final: Path, class_map: Path, names: Sequence[str], smallest_area: float, tags: dict[str, str]
) -> int:
    """Write a polygon for each connected area of one class, with the columns class, name, and area in square metres.

    Pixels are connected by their sides. Areas smaller than `smallest_area` get the class of the largest area beside them; those
    that lie between pixels without a class are left out.

    Args:
        path: the file to write; it must not exist.
        final: the name that it gets later, for the error message.
        class_map: the class map.
        names: of the classes.
        smallest_area: in square metres; 0 keeps all.
        tags: metadata of the layer.

    Returns:
        The number of polygons.

    Raises:
        BadInput: the file cannot be written.
    """
    with rasterio.open(class_map) as file:
        classes, transform, crs = file.read(1), file.transform, file.crs
    pixel = transform.a * -transform.e
    pixels = int(np.ceil(smallest_area / pixel - 1e-9))
    if pixels > 1:
        classes = sieve(classes, min(pixels, classes.size), mask=classes != NODATA, connectivity=4)
    found = shapes(classes, mask=classes != NODATA, connectivity=4, transform=transform)
    geometries, values, areas = [], [], []
    for geometry, value in found:
        polygon = shape(geometry)
        if polygon.area / pixel > pixels - 0.5:
            geometries.append(polygon)
            values.append(int(value))
            areas.append(polygon.area)
    unfinished = path.with_name(f"{path.name}.gpkg")  # GDAL expects this suffix
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write(
                unfinished,
                geometry=shapely.to_wkb(np.array(geometries, object)),
                field_data=[
                    np.array(values, np.int32),
                    np.array([names[value] for value in values], object),
                    np.round(np.array(areas, np.float64), 1),
                ],
                fields=["class", "name", "area"],
                layer=LAYER,
                driver="GPKG",
                geometry_type="Polygon",
                crs=crs.to_wkt(),
                layer_metadata={"SOFTWARE": SOFTWARE, **tags},
            )
        unfinished.replace(path)
    except (RuntimeError, OSError) as error:  # pyogrio's errors are RuntimeErrors
        raise BadInput(final, f"cannot be written ({reason(error)})") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return len(geometries)
