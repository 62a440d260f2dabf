"""A scene as one raster of several bands, which are found by their descriptions, in any order.

Exports name them `B02`, `B2` (Google Earth Engine), `blue` (STAC), or "B2, central wavelength 490 nm" (GDAL's driver SENTINEL2).
"""

from __future__ import annotations

import re
from pathlib import Path

from rasterio.errors import RasterioError

from landscale.errors import BadInput, reason
from landscale.formats.rasters import open_raster_file
from landscale.scenes.metadata import Statement
from landscale.scenes.names import (
    band_in_name,
    is_classification,
    level_in_name,
    offset_in_name,
    offset_of_baseline,
    plain_name,
)

_BASELINE = re.compile(r"(\d\d)\.(\d\d)")


def find_stack(path: Path) -> tuple[dict[str, int], int | None, Statement]:
    """The bands of a raster by their indexes from 1, that of its scene classification, and what its name and tags state.

    GDAL copies the product's metadata into the tags. The scene classification is a band called SCL; None if there is none.

    Raises:
        BadInput: it cannot be read, no band is named after a band of Sentinel-2, or two after the same.
    """
    try:
        with open_raster_file(path) as file:
            descriptions, tags = [text or "" for text in file.descriptions], file.tags()
    except RasterioError as error:
        raise BadInput(path, f"cannot be read ({reason(error)})") from None
    if len(descriptions) == 1 and not descriptions[0]:
        descriptions = [path.stem]
    indexes: dict[str, int] = {}
    classification = None
    for index, text in enumerate(descriptions, start=1):
        band = band_in_name(text)
        if band in indexes:
            raise BadInput(path, f"has two bands named {band}: {indexes[band]} and {index}")
        if band is not None:
            indexes[band] = index
        elif is_classification(text):
            if classification is not None:
                raise BadInput(path, f"has two bands named SCL: {classification} and {index}")
            classification = index
    if not indexes:
        found = f"named {', '.join(descriptions)[:200]}" if any(descriptions) else "without names"
        raise BadInput(
            path,
            f"has {len(descriptions)} bands {found}, expected names of bands such as B02 or blue; name each of them:"
            f" rio edit-info --bidx 1 --description B02 {path.name}",
        )
    name, baseline = plain_name(path), _BASELINE.fullmatch(tags.get("PROCESSING_BASELINE", ""))
    level = level_in_name(tags.get("PRODUCT_URI", name))
    offset = offset_of_baseline(int(baseline[1] + baseline[2])) if baseline else offset_in_name(name)
    return indexes, classification, Statement(level, offset, certain=False, product=name, source=path)
