"""The planes of BigEarthNet's patches, which cover 1.2 km × 1.2 km, and their processing level."""

from __future__ import annotations

from landscale.store.layout import REFERENCE, Plane
from landscale.vocabulary.bands import BANDS, band_set
from landscale.vocabulary.units import Level

SENTINEL2 = tuple(
    Plane(
        f"data_{gsd}m",
        tuple(b for b in band_set("s2-12").names if BANDS[b].gsd == gsd),
        1200 // gsd,
        gsd,
        unit="digital number",
    )
    for gsd in (10, 20, 60)
)
SENTINEL1 = (Plane("data_s1", ("VV", "VH"), 120, 10, "float32", "dB"),)
REFERENCE_MAP = Plane(REFERENCE, (REFERENCE,), 120, 10, "uint8", "class")
LEVEL: Level = "L2A"
