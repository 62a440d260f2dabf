"""A heat map as a GeoTIFF."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from landscale.inference.footprints import side_in_units
from landscale.store import PatchStore


def write_heat_map(path: Path, heat: NDArray[np.float32], store: PatchStore, row: int, tags: Mapping[str, Any]) -> None:
    """Write a heat map (side, side), in units of the logit, with the place of the patch if the store has it.

    Args:
        path: the file to write.
        heat: the values.
        store: the store.
        row: of the patch in the store.
        tags: metadata: patch, class, kind, probability.
    """
    name, origin = str(store.column("crs")[row]), store.column("origin")[row]
    place: dict[str, Any] = {}
    ground = side_in_units(name, float(store.layout.ground)) if name else None
    if ground is not None and all(map(math.isfinite, origin)):
        pixel = ground / heat.shape[-1]
        place = {"crs": name, "transform": from_origin(float(origin[0]), float(origin[1]), pixel, pixel)}
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning):
        profile = {"driver": "GTiff", "height": heat.shape[0], "width": heat.shape[1], "count": 1, "dtype": "float32"}
        with rasterio.open(path, "w", **profile, compress="deflate", **place) as file:
            file.write(heat, 1)
            file.set_band_description(1, str(tags["class"]))
            file.update_tags(**{key.upper(): str(value) for key, value in tags.items() if key != "file"}, UNIT="logit")
