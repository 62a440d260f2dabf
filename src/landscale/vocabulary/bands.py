"""Spectral bands of Sentinel-2 MSI and polarisations of Sentinel-1, and named selections of them.

Sampling distances and centre wavelengths (Sentinel-2A): ESA, Sentinel-2 MSI User Guide, spatial and spectral resolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from landscale.errors import LandscaleError, UnknownName


@dataclass(frozen=True)
class Band:
    """One band. `gsd` is the ground sampling distance in metres, `wavelength` the centre in nanometres (0 for radar)."""

    name: str
    gsd: int
    wavelength: float


SENTINEL2 = (
    Band("B01", 60, 442.7),
    Band("B02", 10, 492.4),
    Band("B03", 10, 559.8),
    Band("B04", 10, 664.6),
    Band("B05", 20, 704.1),
    Band("B06", 20, 740.5),
    Band("B07", 20, 782.8),
    Band("B08", 10, 832.8),
    Band("B8A", 20, 864.7),
    Band("B09", 60, 945.1),
    Band("B10", 60, 1373.5),
    Band("B11", 20, 1613.7),
    Band("B12", 20, 2202.4),
)
SENTINEL1 = (Band("VV", 10, 0.0), Band("VH", 10, 0.0))
BANDS = {band.name: band for band in SENTINEL2 + SENTINEL1}

_COLOURS = {  # the common names of STAC, and those of Earth Search
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    "rededge071": "B05",
    "rededge075": "B06",
    "rededge078": "B07",
    "nir": "B08",
    "nir08": "B8A",
    "nir09": "B09",
    "cirrus": "B10",
    "swir16": "B11",
    "swir22": "B12",
}


def _aliases() -> dict[str, str]:
    names = {name.upper(): name for name in BANDS}
    names |= {colour.upper(): name for colour, name in _COLOURS.items()}
    names |= {f"B{int(name[1:])}": name for name in BANDS if name[1:].isdigit()}  # B2 → B02
    names |= {"B08A": "B8A"}
    return names


ALIASES = _aliases()


def band(name: str) -> Band:
    """The band called `name`, any case or alias: `B02`, `b2`, `blue`, `B8a`.

    Raises:
        UnknownName: there is no such band.
    """
    try:
        return BANDS[ALIASES[name.strip().upper()]]
    except KeyError:
        raise UnknownName("band", name, BANDS) from None


@dataclass(frozen=True)
class BandSet:
    """A named, ordered selection of bands; the order is the order of a model's input channels."""

    name: str
    bands: tuple[Band, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(b.name for b in self.bands)


def _named(name: str, *bands: str) -> BandSet:
    return BandSet(name, tuple(BANDS[b] for b in bands))


_L2A = tuple(
    b.name for b in SENTINEL2 if b.name != "B10"
)  # B10 has no signal from the surface, and level 2A products lack it
BAND_SETS = {
    s.name: s
    for s in (
        _named("rgb", "B04", "B03", "B02"),
        _named("s2-10", *(b for b in _L2A if BANDS[b].gsd < 60)),
        _named("s2-12", *_L2A),
        _named("s2-13", *(b.name for b in SENTINEL2)),
        _named("s1", "VV", "VH"),
        _named("s1+s2", "VV", "VH", *_L2A),
    )
}


def band_set(spec: str | Sequence[str]) -> BandSet:
    """A band set by its name (`s2-12`), or from a list of bands (`B04,B03,B02` or a sequence).

    Raises:
        UnknownName: neither the name of a band set nor a list of bands. LandscaleError: a band is listed twice.
    """
    if isinstance(spec, str):
        if spec.lower() in BAND_SETS:
            return BAND_SETS[spec.lower()]
        spec = spec.split(",")
    try:
        bands = tuple(band(name) for name in spec)
    except UnknownName:
        if len(spec) > 1:
            raise
        raise UnknownName("band or band set", spec[0], [*BAND_SETS, *BANDS]) from None
    names = tuple(b.name for b in bands)
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise LandscaleError(f"bands {','.join(names)}: {', '.join(twice)} is listed twice")
    named = next((s for s in BAND_SETS.values() if s.names == names), None)
    return named or BandSet(",".join(names), bands)
