"""The classes of a synthetic landscape: what covers the ground of each CORINE class, where it occurs, and its reflectance.

A class is a mixture of covers, such as fields, meadows and orchards for complex cultivation. A cover has two spectra, lush and
dry. The mean reflectance alone therefore does not identify a class, while red edge, short-wave infrared and the spatial pattern
help, as in nature. The numbers are plausible, but nothing was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from landscale.vocabulary.bands import BAND_SETS

Interval = tuple[float, float]

BANDS = BAND_SETS["s2-12"].bands

# For each cover: roughness (relative deviation of its brightness from pixel to pixel), then surface reflectance × 10,000, lush
# and dry, in the order of BANDS. Sea and lake, the forests, the grasslands, scrub and fen hardly differ in colour.
_SPECTRA = """
sea       .04  330  310  300  190  160  140  130  120  110  100   80   60 |  380  370  380  240  190  160  150  140  130  120   90   70
lake      .05  320  300  310  200  210  190  180  160  140  130   70   50 |  370  360  390  260  300  270  260  230  210  190  110   80
conifer   .14  160  190  350  240  620 1600 1900 2000 2150 2150  980  470 |  190  220  390  300  700 1450 1700 1800 1950 1950 1150  600
broadleaf .12  170  200  380  250  730 2500 3050 3200 3350 3350 1550  700 |  220  260  450  380  900 1950 2300 2450 2600 2600 1850  950
grass     .05  250  300  610  380 1060 2600 3150 3300 3450 3450 2150 1100 |  370  460  790  720 1350 2300 2650 2750 2950 2950 2800 1750
heath     .08  270  310  600  410 1060 2050 2350 2450 2600 2600 2550 1550 |  380  480  790  780 1350 1850 2050 2150 2300 2300 3150 2200
crop      .04  240  280  580  320  950 3200 4200 4400 4600 4550 1750  800 |  560  700  950 1200 1500 1750 1900 2000 2150 2200 2750 2350
paddy     .04  280  320  560  420  900 2500 3100 3200 3300 3300 1100  500 |  380  440  600  560  700  850  900  950  950  900  500  300
orchard   .10  300  370  590  620 1100 1950 2250 2350 2500 2500 2400 1450 |  500  620  890 1120 1500 1850 2050 2150 2300 2350 2900 2300
scrub     .12  200  240  430  370  790 1500 1750 1850 2000 2000 2000 1150 |  270  330  540  520  960 1500 1700 1800 1950 1950 2350 1550
fen       .08  210  250  430  350  780 1450 1650 1750 1850 1800 1150  560 |  280  340  540  520  950 1400 1550 1650 1750 1700 1400  750
saltmarsh .07  280  330  510  460  800 1350 1500 1600 1650 1600  900  480 |  370  440  620  620  950 1350 1450 1500 1550 1500 1150  700
roof      .28  620  720  860  920 1150 1500 1650 1750 1850 1850 1750 1350 |  850  980 1150 1250 1450 1700 1800 1900 2000 2000 2050 1750
hall      .32 1050 1200 1350 1450 1600 1750 1850 1950 2000 2000 2100 1900 | 1500 1700 1900 2050 2200 2350 2400 2500 2500 2500 2500 2300
rock      .18  850 1000 1250 1450 1650 1800 1900 2000 2050 2100 2500 2200 | 1100 1300 1550 1800 2000 2150 2250 2350 2400 2450 2900 2600
sand      .06 1200 1500 1900 2250 2450 2600 2700 2800 2850 2850 3000 2600 | 1600 1900 2400 2800 3000 3150 3250 3350 3400 3400 3600 3200
mud       .06  450  550  700  780  880  950 1000 1050 1050 1000  700  450 |  600  720  900 1000 1100 1200 1250 1300 1300 1250 1000  700
ash       .10  300  340  420  480  600  800  900  950 1050 1100 1700 1800 |  380  430  540  640  780  950 1050 1100 1200 1250 1900 1900
"""  # noqa: E501
_ROWS = [line.replace("|", " ").split() for line in _SPECTRA.strip().splitlines()]
COVERS = tuple(row[0] for row in _ROWS)
ROUGHNESS = np.array([row[1] for row in _ROWS], np.float32)
LUSH = np.array([row[2:14] for row in _ROWS], np.float32).T.copy()  # (bands, covers)
DRY_MINUS_LUSH = np.array([row[14:] for row in _ROWS], np.float32).T - LUSH

# Reflectance × 10,000 in the order of BANDS.
HAZE = np.array(
    [170, 130, 80, 50, 35, 25, 20, 15, 12, 10, 5, 3], np.float32
)  # scattering is strongest at short wavelengths
CLOUD = np.array([5200, 5000, 4900, 4900, 5000, 5100, 5200, 5300, 5300, 5000, 3800, 2900], np.float32)
SNOW = np.array([7600, 7500, 7300, 7200, 7100, 6900, 6800, 6700, 6400, 6000, 900, 700], np.float32)


@dataclass(frozen=True)
class LandUse:
    """A CORINE class, and where and how it occurs.

    code: the CORINE code. weight: relative probability among the classes whose niche fits a place; a class is rare if its
    niche is narrow or many other classes fit. covers: fraction of the area by cover.
    height, wet, people (population), warm: the niche, an interval for each property of a place. Properties are ranks in 0…1
    over the landscape.
    season: mean and standard deviation over its parcels, from lush (0) to dry (1).
    fine: parcels are plots of about 60 m; otherwise fields of about 180 m.
    """

    code: int
    weight: float
    covers: dict[str, float]
    height: Interval = (0.15, 1)
    wet: Interval = (0, 1)
    people: Interval = (0, 1)
    warm: Interval = (0, 1)
    season: tuple[float, float] = (0.4, 0.1)
    fine: bool = False


# Intervals of `height` (first line); of `people` (_HALF, _RURAL); `season` as (mean, standard deviation) (the last two).
_SEA, _SHORE, _LOW, _LAND, _WOODS, _HILLS = (0, 0.105), (0.105, 0.135), (0.15, 0.5), (0.15, 1), (0.3, 1), (0.82, 1)
_HALF, _RURAL, _UNIFORM, _VARIED = (0, 0.5), (0.2, 0.7), (0.4, 0.05), (0.5, 0.3)
USES = (
    LandUse(111, 1.5, {"roof": 0.8, "orchard": 0.1, "grass": 0.1}, people=(0.965, 1), fine=True),
    LandUse(112, 2.5, {"roof": 0.4, "grass": 0.3, "broadleaf": 0.2, "orchard": 0.1}, people=(0.9, 1), fine=True),
    LandUse(121, 0.6, {"hall": 0.6, "grass": 0.2, "crop": 0.2}, people=(0.85, 1), fine=True),
    LandUse(131, 0.03, {"rock": 0.8, "lake": 0.1, "scrub": 0.1}, _WOODS),
    LandUse(141, 0.2, {"grass": 0.6, "broadleaf": 0.4}, people=(0.93, 1), fine=True),
    LandUse(142, 0.1, {"grass": 0.8, "roof": 0.1, "broadleaf": 0.1}, people=(0.8, 1), season=(0.1, 0.1)),
    LandUse(211, 2.0, {"crop": 1}, (0.15, 0.65), people=(0.25, 0.9), season=_VARIED),
    LandUse(212, 0.4, {"crop": 1}, _LOW, people=(0.3, 0.9), warm=(0.7, 1), season=(0.1, 0.2)),
    LandUse(213, 1.5, {"paddy": 1}, _LOW, wet=(0.75, 1), warm=(0.7, 1), season=_VARIED),
    LandUse(221, 0.5, {"orchard": 1}, people=(0.4, 0.9), warm=(0.6, 1), season=(0.6, 0.2)),
    LandUse(222, 0.2, {"orchard": 0.9, "grass": 0.1}, people=(0.4, 0.9), warm=(0.5, 1), season=(0.2, 0.2)),
    LandUse(223, 0.5, {"orchard": 0.8, "scrub": 0.2}, people=(0.3, 0.8), warm=(0.7, 1), season=(0.8, 0.1)),
    LandUse(231, 1.3, {"grass": 1}, (0.15, 0.75), wet=(0.35, 1), people=(0.1, 0.8), warm=(0, 0.7)),
    LandUse(242, 0.9, {"crop": 0.4, "grass": 0.3, "orchard": 0.3}, people=(0.5, 0.95), season=_VARIED, fine=True),
    LandUse(243, 0.8, {"crop": 0.4, "grass": 0.2, "broadleaf": 0.2, "scrub": 0.2}, people=_RURAL, season=_VARIED),
    LandUse(244, 1.0, {"grass": 0.6, "broadleaf": 0.4}, people=(0, 0.6), warm=(0.75, 1), season=(0.8, 0.1), fine=True),
    LandUse(311, 1.5, {"broadleaf": 0.95, "grass": 0.05}, _WOODS, people=_HALF, warm=(0.3, 1)),
    LandUse(312, 1.8, {"conifer": 0.95, "heath": 0.05}, _WOODS, people=_HALF, warm=(0, 0.6)),
    LandUse(313, 1.7, {"conifer": 0.5, "broadleaf": 0.5}, _WOODS, people=_HALF, warm=(0.1, 0.8), fine=True),
    LandUse(321, 0.7, {"heath": 1}, _HILLS, people=(0, 0.6)),
    LandUse(322, 0.7, {"scrub": 0.9, "heath": 0.1}, _HILLS, wet=(0.3, 1), warm=(0, 0.6)),
    LandUse(323, 0.6, {"scrub": 0.7, "broadleaf": 0.3}, wet=_HALF, people=_HALF, warm=(0.7, 1), season=(0.8, 0.1)),
    LandUse(324, 1.0, {"scrub": 0.6, "conifer": 0.2, "broadleaf": 0.2}, people=_HALF, fine=True),
    LandUse(331, 1.5, {"sand": 1}, _SHORE, wet=_HALF, season=(0.4, 0.1)),
    LandUse(332, 0.4, {"rock": 1}, (0.95, 1)),
    LandUse(333, 0.8, {"rock": 0.4, "heath": 0.6}, (0.9, 1), wet=(0, 0.6), fine=True),
    LandUse(334, 0.05, {"ash": 0.9, "scrub": 0.1}, people=_HALF, warm=(0.6, 1)),
    LandUse(411, 1.5, {"fen": 0.8, "lake": 0.2}, _LOW, wet=(0.85, 1)),
    LandUse(412, 1.5, {"fen": 0.9, "conifer": 0.1}, (0.3, 0.9), wet=(0.8, 1), warm=(0, 0.4)),
    LandUse(421, 2.0, {"saltmarsh": 0.9, "mud": 0.1}, _SHORE, wet=(0.4, 1)),
    LandUse(423, 1.0, {"mud": 0.9, "sea": 0.1}, _SHORE, wet=(0.2, 0.8)),
    LandUse(511, 0, {"lake": 1}, season=(0.6, 0.05)),  # rivers are lines, drawn over the zones
    LandUse(512, 2.0, {"lake": 1}, (0.15, 0.7), wet=(0.88, 1), season=_UNIFORM),
    LandUse(521, 1.0, {"sea": 0.8, "lake": 0.2}, _SHORE, wet=(0.7, 1), season=_UNIFORM),
    LandUse(523, 9.0, {"sea": 1}, _SEA, season=_UNIFORM),
)
CODES = np.array([use.code for use in USES], np.int32)
NICHES = np.array([[use.height, use.wet, use.people, use.warm] for use in USES], np.float32)  # (uses, properties, 2)
SEASONS = np.array([use.season for use in USES], np.float32)
FINE = np.array([use.fine for use in USES])
RIVER = int(np.flatnonzero(CODES == 511)[0])
LAND_FROM = _LAND[0]  # height above which rivers flow


def _cover_choices(covers: dict[str, float]) -> npt.NDArray[np.uint8]:
    """Indices of covers (64,), each repeated in proportion to its fraction; a parcel gets one of the 64 at random."""
    numbers = np.array([COVERS.index(name) for name in covers], np.uint8)
    return numbers[np.searchsorted(np.cumsum([*covers.values()]), (np.arange(64) + 0.5) / 64)]


COVER_CHOICES = np.stack([_cover_choices(use.covers) for use in USES])  # (uses, 64)
