"""An invented landscape as Sentinel-2 would see it: land parcels, what grows on them, and the light they send back.

A zone (a Voronoi cell of some 700 m) gets a CORINE class by a draw among the classes whose niche fits the height,
wetness, population and warmth of the place. Within a zone smaller parcels get covers: a class is a mixture of covers,
as complex cultivation is of fields, meadows and orchards. A cover has two spectra, lush and dry, and each parcel has
its own place between them. So one mean colour does not tell the class, while red edge, short-wave infrared and the
arrangement in space do help: as in nature, and with numbers as plausible as it takes to try a pipeline, no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from landscale.vocabulary.bands import BAND_SETS

Floats = npt.NDArray[np.floating[Any]]  # float32
Integers = npt.NDArray[np.integer[Any]]
Bytes = npt.NDArray[np.uint8]
Interval = tuple[float, float]

BANDS = BAND_SETS["s2-12"].bands
STRIP = 120  # px: a landscape is drawn in strips as high as a patch

# Surface reflectance × 10,000 of each cover, lush and dry, in the order of BANDS; its roughness, the relative deviation
# of its brightness from pixel to pixel. Sea and lake, the woods, the grasslands, scrub and fen hardly differ in colour.
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
_ROUGHNESS = np.array([row[1] for row in _ROWS], np.float32)
_LUSH = np.array([row[2:14] for row in _ROWS], np.float32).T.copy()  # (bands, covers)
_DRYING = np.array([row[14:] for row in _ROWS], np.float32).T - _LUSH

_HAZE = np.array([170, 130, 80, 50, 35, 25, 20, 15, 12, 10, 5, 3], np.float32)  # scattering favours short waves
_CLOUD = np.array([5200, 5000, 4900, 4900, 5000, 5100, 5200, 5300, 5300, 5000, 3800, 2900], np.float32)
_SNOW = np.array([7600, 7500, 7300, 7200, 7100, 6900, 6800, 6700, 6400, 6000, 900, 700], np.float32)


@dataclass(frozen=True)
class LandUse:
    """A CORINE class and where and how it occurs.

    `share` weighs it among the classes whose niche fits. The niche is an interval for each axis, each axis being a rank
    in 0…1 over the landscape. `season` is the mean and deviation of its parcels between lush (0) and dry (1). A `fine`
    class is made of plots of some 60 m, another of fields of some 180 m.
    """

    code: int
    share: float
    covers: dict[str, float]
    height: Interval = (0.15, 1)
    wet: Interval = (0, 1)
    people: Interval = (0, 1)
    warm: Interval = (0, 1)
    season: tuple[float, float] = (0.4, 0.1)
    fine: bool = False


# A share is only a weight: a class is as rare as its niche is narrow and its rivals are many.
_SEA, _SHORE, _LOW, _LAND, _WOODS, _HILLS = (0, 0.105), (0.105, 0.135), (0.15, 0.5), (0.15, 1), (0.3, 1), (0.82, 1)
_WILD, _RURAL, _CALM, _MOTLEY = (0, 0.5), (0.2, 0.7), (0.4, 0.05), (0.5, 0.3)
USES = (
    LandUse(111, 1.5, {"roof": 0.8, "orchard": 0.1, "grass": 0.1}, people=(0.965, 1), fine=True),
    LandUse(112, 2.5, {"roof": 0.4, "grass": 0.3, "broadleaf": 0.2, "orchard": 0.1}, people=(0.9, 1), fine=True),
    LandUse(121, 0.6, {"hall": 0.6, "grass": 0.2, "crop": 0.2}, people=(0.85, 1), fine=True),
    LandUse(131, 0.03, {"rock": 0.8, "lake": 0.1, "scrub": 0.1}, _WOODS),
    LandUse(141, 0.2, {"grass": 0.6, "broadleaf": 0.4}, people=(0.93, 1), fine=True),
    LandUse(142, 0.1, {"grass": 0.8, "roof": 0.1, "broadleaf": 0.1}, people=(0.8, 1), season=(0.1, 0.1)),
    LandUse(211, 2.0, {"crop": 1}, (0.15, 0.65), people=(0.25, 0.9), season=_MOTLEY),
    LandUse(212, 0.4, {"crop": 1}, _LOW, people=(0.3, 0.9), warm=(0.7, 1), season=(0.1, 0.2)),
    LandUse(213, 1.5, {"paddy": 1}, _LOW, wet=(0.75, 1), warm=(0.7, 1), season=_MOTLEY),
    LandUse(221, 0.5, {"orchard": 1}, people=(0.4, 0.9), warm=(0.6, 1), season=(0.6, 0.2)),
    LandUse(222, 0.2, {"orchard": 0.9, "grass": 0.1}, people=(0.4, 0.9), warm=(0.5, 1), season=(0.2, 0.2)),
    LandUse(223, 0.5, {"orchard": 0.8, "scrub": 0.2}, people=(0.3, 0.8), warm=(0.7, 1), season=(0.8, 0.1)),
    LandUse(231, 1.3, {"grass": 1}, (0.15, 0.75), wet=(0.35, 1), people=(0.1, 0.8), warm=(0, 0.7)),
    LandUse(242, 0.9, {"crop": 0.4, "grass": 0.3, "orchard": 0.3}, people=(0.5, 0.95), season=_MOTLEY, fine=True),
    LandUse(243, 0.8, {"crop": 0.4, "grass": 0.2, "broadleaf": 0.2, "scrub": 0.2}, people=_RURAL, season=_MOTLEY),
    LandUse(244, 1.0, {"grass": 0.6, "broadleaf": 0.4}, people=(0, 0.6), warm=(0.75, 1), season=(0.8, 0.1), fine=True),
    LandUse(311, 1.5, {"broadleaf": 0.95, "grass": 0.05}, _WOODS, people=_WILD, warm=(0.3, 1)),
    LandUse(312, 1.8, {"conifer": 0.95, "heath": 0.05}, _WOODS, people=_WILD, warm=(0, 0.6)),
    LandUse(313, 1.7, {"conifer": 0.5, "broadleaf": 0.5}, _WOODS, people=_WILD, warm=(0.1, 0.8), fine=True),
    LandUse(321, 0.7, {"heath": 1}, _HILLS, people=(0, 0.6)),
    LandUse(322, 0.7, {"scrub": 0.9, "heath": 0.1}, _HILLS, wet=(0.3, 1), warm=(0, 0.6)),
    LandUse(323, 0.6, {"scrub": 0.7, "broadleaf": 0.3}, wet=_WILD, people=_WILD, warm=(0.7, 1), season=(0.8, 0.1)),
    LandUse(324, 1.0, {"scrub": 0.6, "conifer": 0.2, "broadleaf": 0.2}, people=_WILD, fine=True),
    LandUse(331, 1.5, {"sand": 1}, _SHORE, wet=_WILD, season=(0.4, 0.1)),
    LandUse(332, 0.4, {"rock": 1}, (0.95, 1)),
    LandUse(333, 0.8, {"rock": 0.4, "heath": 0.6}, (0.9, 1), wet=(0, 0.6), fine=True),
    LandUse(334, 0.05, {"ash": 0.9, "scrub": 0.1}, people=_WILD, warm=(0.6, 1)),
    LandUse(411, 1.5, {"fen": 0.8, "lake": 0.2}, _LOW, wet=(0.85, 1)),
    LandUse(412, 1.5, {"fen": 0.9, "conifer": 0.1}, (0.3, 0.9), wet=(0.8, 1), warm=(0, 0.4)),
    LandUse(421, 2.0, {"saltmarsh": 0.9, "mud": 0.1}, _SHORE, wet=(0.4, 1)),
    LandUse(423, 1.0, {"mud": 0.9, "sea": 0.1}, _SHORE, wet=(0.2, 0.8)),
    LandUse(511, 0, {"lake": 1}, season=(0.6, 0.05)),  # rivers are lines, drawn over the zones
    LandUse(512, 2.0, {"lake": 1}, (0.15, 0.7), wet=(0.88, 1), season=_CALM),
    LandUse(521, 1.0, {"sea": 0.8, "lake": 0.2}, _SHORE, wet=(0.7, 1), season=_CALM),
    LandUse(523, 9.0, {"sea": 1}, _SEA, season=_CALM),
)
CODES = np.array([use.code for use in USES], np.int32)
_NICHES = np.array([[use.height, use.wet, use.people, use.warm] for use in USES], np.float32)  # (uses, axes, 2)
_SEASONS = np.array([use.season for use in USES], np.float32)
_FINE = np.array([use.fine for use in USES])
_RIVER = int(np.flatnonzero(CODES == 511)[0])


def _deal(parts: dict[str, float]) -> Bytes:
    """64 cards that name covers in proportion to their parts: a parcel's cover is the card it drew."""
    cover = np.array([COVERS.index(name) for name in parts], np.uint8)
    return cover[np.searchsorted(np.cumsum([*parts.values()]), (np.arange(64) + 0.5) / 64)]


_CARDS = np.stack([_deal(use.covers) for use in USES])

_NODE = 12  # px between the nodes of the smooth fields
_RIM = 3  # cells or nodes beyond each edge, so that neighbours always exist
_TEXTURE = 1024  # px, the period of the textures


def _gaussian(rng: np.random.Generator, shape: tuple[int, int], scale: float, slope: float) -> Floats:
    """Periodic Gaussian noise of unit deviation, correlated over `scale` samples, smoother for a larger `slope`."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * (1 + (2 * np.pi * scale * frequency) ** 2) ** (-slope / 2)
    noise: Floats = np.fft.irfft2(spectrum, shape)
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def _ranks(values: Floats) -> Floats:
    """Each value's rank in 0…1: shares of a landscape below a threshold are then known, however small it is."""
    order = values.ravel().argsort().argsort()
    return (order / order.size).reshape(values.shape).astype(np.float32)


class Parcels:
    """Voronoi cells about one random seed in every square of `size` px."""

    def __init__(self, rng: np.random.Generator, height: int, width: int, size: int) -> None:
        self.size = size
        rows, self.columns = height // size + 2 * _RIM + 1, width // size + 2 * _RIM + 1
        corner = np.indices((rows, self.columns)).reshape(2, -1) - _RIM
        self.y, self.x = ((corner + rng.uniform(0.05, 0.95, corner.shape)) * size).astype(np.float32)
        self.count = self.y.size

    def at(self, y: Floats, x: Floats) -> Integers:
        """The cell of each point, y and x in px, broadcast together; the seeds of the nine squares around compete."""
        row, column = np.floor(y / self.size).astype(np.int32), np.floor(x / self.size).astype(np.int32)
        square = (row + _RIM) * self.columns + column + _RIM
        owner, nearest = square, np.full(square.shape, np.inf, np.float32)
        for step in (0, -1, 1, -self.columns, self.columns, *(s * self.columns + d for s in (-1, 1) for d in (-1, 1))):
            seed = square + np.int32(step)
            distance = (self.y[seed] - y) ** 2 + (self.x[seed] - x) ** 2
            owner = np.where(distance < nearest, seed, owner)
            nearest = np.minimum(distance, nearest)
        return owner


@dataclass(frozen=True)
class Strip:
    """A strip of the landscape, 120 px high.

    uses: (120, W) uint8, indices into USES and CODES; cloud, snow: (120, W) opacity in 0…1;
    bands: uint16 digital numbers (reflectance × 10,000, at least 1) of each band at native resolution.
    """

    uses: Bytes
    cloud: Floats
    snow: Floats
    bands: dict[str, npt.NDArray[np.uint16]]


class Landscape:
    """A landscape of (height, width) px of 10 m, both multiples of 120; the same arguments give the same landscape."""

    def __init__(self, height: int, width: int, seed: int) -> None:
        self.height, self.width, self._seed = height, width, seed
        rng = np.random.default_rng(seed)
        self._nodes = (height // _NODE + 2 * _RIM, width // _NODE + 2 * _RIM)
        self._relief = self._smooth(rng, 25, 3.0)
        self._axes = np.stack([self._relief, *(self._smooth(rng, s, 3.0) for s in (20, 10, 25))])
        self._slope = np.gradient(self._smooth(rng, 8, 4.0) + 4 * self._relief, axis=1)
        self._slope = np.clip(self._slope / self._slope.std(), -2.5, 2.5).astype(np.float32)
        self._haze, self._season, self._river = (self._smooth(rng, s, 4.0) for s in (25, 25, 30))
        self._cloud = self._smooth(rng, 4, 4.0)
        self._fine, self._middle, *self._warp = (
            _gaussian(rng, (_TEXTURE, _TEXTURE), scale, 2.5) for scale in (0.4, 2.5, 14, 14)
        )
        self._zones, self._fields, self._plots = (Parcels(rng, height, width, size) for size in (78, 18, 6))
        self._zone_uses = self._settle(rng)
        parcels = self._fields.count + self._plots.count
        self._card = rng.integers(0, 64, parcels)
        self._lateness, self._tint, self._angle = rng.standard_normal((3, parcels), np.float32)

    def _smooth(self, rng: np.random.Generator, scale: float, slope: float) -> Floats:
        """The ranks of a smooth field at the nodes."""
        rows, columns = self._nodes
        return _ranks(_gaussian(rng, (2 * rows, 2 * columns), scale, slope)[:rows, :columns])

    def _settle(self, rng: np.random.Generator) -> Bytes:
        """The class of each zone: of those whose niche it lies in (or almost), one at random by their shares."""
        row = np.clip((self._zones.y / _NODE).astype(int) + _RIM, 0, self._nodes[0] - 1)
        column = np.clip((self._zones.x / _NODE).astype(int) + _RIM, 0, self._nodes[1] - 1)
        place = self._axes[:, row, column].T[:, None]  # (zones, 1, axes)
        outside = np.maximum(_NICHES[..., 0] - place, 0) + np.maximum(place - _NICHES[..., 1], 0)
        misfit = ((outside / (0.02, 0.05, 0.03, 0.05)) ** 2).sum(-1)
        with np.errstate(divide="ignore"):  # a share of 0 never wins
            share = np.log([use.share for use in USES])
        chosen: Integers = (share - misfit + 0.5 * rng.gumbel(size=misfit.shape)).argmax(1)
        return chosen.astype(np.uint8)

    def draw(self, number: int) -> Strip:
        """The strip `number` from the north."""
        top = number * STRIP
        y, x = np.arange(top - 1, top + STRIP + 1), np.arange(-1, self.width + 1)  # one px more: light spills over
        uses, cover, season, tint = self._ground(y, x)
        light = 1 + 0.08 * self._between(self._slope, y, x) + _ROUGHNESS[cover] * _window(self._fine, y, x)
        haze = self._between(self._haze, y, x) ** 2
        cloud = np.clip((self._between(self._cloud, y, x) - 0.985) / 0.015, 0, 1)
        snow = np.clip((self._between(self._relief, y, x) - 0.985) / 0.01, 0, 1)
        rng = np.random.default_rng([self._seed, number])
        bands = {}
        for i, band in enumerate(BANDS):
            value = _LUSH[i][cover]
            value += season * _DRYING[i][cover]
            value *= light * (1 + (0.15 if i < 4 else 0.04) * tint)
            value += snow * (_SNOW[i] - value)
            value += haze * _HAZE[i]
            value += cloud * (_CLOUD[i] - value)
            value = _average(_spill(value), band.gsd // 10)
            value += 12 * rng.standard_normal(value.shape, np.float32)
            bands[band.name] = np.rint(np.maximum(value, 1)).astype(np.uint16)
        return Strip(uses[1:-1, 1:-1], cloud[1:-1, 1:-1], snow[1:-1, 1:-1], bands)

    def _ground(self, y: Integers, x: Integers) -> tuple[Bytes, Bytes, Floats, Floats]:
        """Of each point of the grid: class, cover, season in 0…1, and tint, about a standard normal, one a parcel."""
        v, u = y[:, None].astype(np.float32), x[None].astype(np.float32)
        bent = [12 * _window(warp, y, x) for warp in self._warp]
        uses = self._zone_uses[self._zones.at(v + bent[0], u + bent[1])]
        river = np.abs(self._between(self._river, y, x) - 0.5) < 0.003
        uses[river & (self._between(self._relief, y, x) > _LAND[0])] = _RIVER
        parcel = np.where(_FINE[uses], self._plots.at(v, u) + self._fields.count, self._fields.at(v, u))
        cover = _CARDS[uses, self._card[parcel]]
        season = _SEASONS[uses, 0] + _SEASONS[uses, 1] * self._lateness[parcel]
        season += 0.1 * (self._between(self._season, y, x) - 0.5) + 0.08 * _window(self._middle, y, x)
        rows = np.nonzero(cover == COVERS.index("orchard"))  # trees and the soil between them, in rows of 40 m
        angle = self._angle[parcel[rows]]
        season[rows] += 0.4 * np.sin(np.pi / 2 * (y[rows[0]] * np.cos(angle) + x[rows[1]] * np.sin(angle)))
        tint = self._tint[parcel]
        tint[cover < 2] = 0  # water has no parcels
        return uses, cover, np.clip(season, 0, 1), tint

    def _between(self, nodes: Floats, y: Integers, x: Integers) -> Floats:
        """A smooth field at the points of the grid, bilinear between its nodes."""
        row, down = np.divmod(y + _RIM * _NODE, _NODE)
        column, right = np.divmod(x + _RIM * _NODE, _NODE)
        down, right = (down / _NODE).astype(np.float32)[:, None], (right / _NODE).astype(np.float32)
        across = nodes[row] * (1 - down) + nodes[row + 1] * down
        value: Floats = across[:, column] * (1 - right) + across[:, column + 1] * right
        return value


def _window(texture: Floats, y: Integers, x: Integers) -> Floats:
    window: Floats = texture[y % _TEXTURE][:, x % _TEXTURE]
    return window


def _spill(value: Floats) -> Floats:
    """What the optics blur: a pixel keeps a quarter of its light, the rest is its neighbours'. One px less on each side."""
    value = value[:-2] + 2 * value[1:-1] + value[2:]
    return (value[:, :-2] + 2 * value[:, 1:-1] + value[:, 2:]) / 16


def _average(value: Floats, factor: int) -> Floats:
    """The mean of each square of `factor` × `factor` pixels."""
    if factor == 1:
        return value
    rows = sum(value[i::factor] for i in range(1, factor)) + value[::factor]
    return (sum(rows[:, i::factor] for i in range(1, factor)) + rows[:, ::factor]) / factor**2
