"""What the names of products, their folders, files and bands say: level, processing baseline, band."""

from __future__ import annotations

import re
from pathlib import Path

from landscale.vocabulary.bands import ALIASES
from landscale.vocabulary.units import Level

PRODUCT = re.compile(r"S2[A-D]_MSI(L1C|L2A)_\d{8}T\d{6}_N\d{4}_R\d{3}_T\d\d[A-Z]{3}_\d{8}T\d{6}")
_REPROCESSED = 9999  # baseline in the names of BigEarthNet v2, whose digital numbers have no offset
_BASELINE = re.compile(r"_N(\d\d)\.?(\d\d)_")
_LEVELS = (  # of products and granules, today's and those before 2016; of folders in buckets and catalogues
    re.compile(r"S2[A-D]_(?:[A-Z]{4}_(?:PRD_)?)?MSI_?(L1C|L2A)(?:[_.]|$)"),
    re.compile(r"(L1C|L2A)_T\d\d[A-Z]{3}(?:_|$)"),
    re.compile(r"S2[A-D]_T?\d{1,2}[A-Z]{3}_\d{8}\w*_(L1C|L2A)(?:\.|$)"),
)
_BAND = re.compile(r"(?:^|_)(B\d{1,2}A?)(?:_\d\dm)?$", re.IGNORECASE)
_CLASSIFICATION = re.compile(r"(?:^|_)SCL(?:_\d\dm)?$", re.IGNORECASE)
_END_OF_NAME = re.compile(r"[\s,;:(]")  # GDAL describes bands as "B4, central wavelength 665 nm"


def level_in_name(name: str) -> Level:
    """The processing level in the name of a product, a granule, or a folder of a catalogue."""
    for pattern in _LEVELS:
        if match := pattern.match(name):
            return "L1C" if match[1] == "L1C" else "L2A"
    return "unknown"


def offset_in_name(name: str) -> int | None:
    """The offset by the processing baseline in a name, `_N0400_` or `_N04.00`; None without a baseline."""
    match = _BASELINE.search(f"{name.removesuffix('.SAFE')}_")
    return offset_of_baseline(int(match[1] + match[2])) if match else None


def offset_of_baseline(baseline: int) -> int:
    """The offset of products of a processing baseline, which is 400 for 04.00."""
    return 1000 if 400 <= baseline < _REPROCESSED else 0


def band_in_name(name: str) -> str | None:
    """The band by the description of a band, or the key of an asset: `B02`, `B2`, `blue`, `B02_10m`, `T33UUP_20170613_B02`."""
    first = _END_OF_NAME.split(name.strip(), maxsplit=1)[0].upper()
    match = _BAND.search(first)
    return ALIASES.get(first) or (ALIASES.get(match[1]) if match else None)


def is_classification(name: str) -> bool:
    """Whether the description of a band is that of the scene classification: `SCL`, `SCL_20m`, `T33UUP_20170613_SCL`."""
    return _CLASSIFICATION.search(_END_OF_NAME.split(name.strip(), maxsplit=1)[0]) is not None


def plain_name(path: Path) -> str:
    """The name of a product by that of its folder, zip or file."""
    name = path.resolve().name
    for suffix in (".zip", ".json", ".tif", ".tiff", ".jp2", ".SAFE"):
        name = name.removesuffix(suffix)
    return name
