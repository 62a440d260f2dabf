"""Class maps as `landscale predict` writes them, from given values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from landscale.maps.files import SOFTWARE
from landscale.maps.frame import Frame
from landscale.maps.legend import legend_tag
from landscale.maps.rasters import CHUNK, growing_raster

CLASSES = ("Urban fabric", "Arable land", "Broad-leaved forest", "Inland waters")
COLOURS = ("#e6004d", "#ffffa8", "#80ff00", "#80f2e6")
LEFT, TOP = 400_000.0, 5_300_000.0


def write_class_map(path, values, classes=CLASSES, colours=COLOURS, left=LEFT, top=TOP, gsd=10.0, epsg=32632) -> Path:
    values = np.asarray(values, np.uint8)
    frame = Frame(CRS.from_epsg(epsg), left, top, gsd, values.shape[1], values.shape[0])
    tags = {"TIFFTAG_SOFTWARE": SOFTWARE, "CLASSES": legend_tag(classes, colours)}
    with growing_raster(path, path, frame, ["class"], tags, numbers="class", colours=colours) as write:
        for row in range(0, len(values), CHUNK):
            write(row, values[None, row : row + CHUNK])
    return Path(path)


def blocks(rows, size=20):
    """Values in squares of `size` pixels."""
    return np.asarray(rows, np.uint8).repeat(size, axis=0).repeat(size, axis=1)
