"""The planes of BigEarthNet's patches, which are 1.2 km a side."""

from __future__ import annotations

from landscale.bands import BANDS, band_set
from landscale.store.layout import Plane

SIDES = {10: 120, 20: 60, 60: 20}  # pixels by sampling distance in metres
SENTINEL2 = tuple(
    Plane(f"data_{gsd}m", tuple(b for b in band_set("s2-12").names if BANDS[b].gsd == gsd), side)
    for gsd, side in SIDES.items()
)
SENTINEL1 = (Plane("data_s1", ("VV", "VH"), 120, "float32"),)
