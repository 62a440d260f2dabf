"""A synthetic landscape as Sentinel-2 would see it: zones of one CORINE class each, parcels within them, and their reflectance.

A zone (a Voronoi cell of about 700 m) gets a class at random among those whose niche fits the height, wetness, population and
warmth of the place. Within a zone, each parcel has one of the covers of the class, and its own season between the lush and the
dry spectrum of that cover.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from landscale.datasets.synthetic.land_use import (
    BANDS,
    CLOUD,
    COVER_CHOICES,
    COVERS,
    DRY_MINUS_LUSH,
    FINE,
    HAZE,
    LAND_FROM,
    LUSH,
    NICHES,
    RIVER,
    ROUGHNESS,
    SEASONS,
    SNOW,
    USES,
)

Floats = npt.NDArray[np.floating[Any]]  # float32
Integers = npt.NDArray[np.integer[Any]]
Bytes = npt.NDArray[np.uint8]

STRIP_HEIGHT = 120  # px: a landscape is drawn in strips as high as a patch
_NODE_STEP = 12  # px between the nodes of the smooth fields
_MARGIN = 3  # cells or nodes beyond each edge, so that neighbours always exist
_TEXTURE_PERIOD = 1024  # px


@dataclass(frozen=True)
class LandscapeStrip:
    """A strip of the landscape, 120 px high.

    uses: (120, W) uint8, indices into USES and CODES; cloud, snow: (120, W) opacity in 0…1;
    bands: uint16 digital numbers (reflectance × 10,000, at least 1) of each band at native resolution.
    """

    uses: Bytes
    cloud: Floats
    snow: Floats
    bands: dict[str, npt.NDArray[np.uint16]]


class Parcels:
    """Voronoi cells, with one random seed point in every square of `size` px."""

    def __init__(self, rng: np.random.Generator, height: int, width: int, size: int) -> None:
        self.size = size
        rows, self.columns = height // size + 2 * _MARGIN + 1, width // size + 2 * _MARGIN + 1
        corner = np.indices((rows, self.columns)).reshape(2, -1) - _MARGIN
        self.y, self.x = ((corner + rng.uniform(0.05, 0.95, corner.shape)) * size).astype(np.float32)
        self.count = self.y.size

    def cells_at(self, y: Floats, x: Floats) -> Integers:
        """The number of the cell that holds each point; y and x in px are broadcast together.

        A point belongs to the cell of the nearest seed point in the nine squares around it.
        """
        row, column = np.floor(y / self.size).astype(np.int32), np.floor(x / self.size).astype(np.int32)
        square = (row + _MARGIN) * self.columns + column + _MARGIN
        nearest, least = square, np.full(square.shape, np.inf, np.float32)
        for step in (0, -1, 1, -self.columns, self.columns, *(s * self.columns + d for s in (-1, 1) for d in (-1, 1))):
            seed = square + np.int32(step)
            distance = (self.y[seed] - y) ** 2 + (self.x[seed] - x) ** 2
            nearest = np.where(distance < least, seed, nearest)
            least = np.minimum(distance, least)
        return nearest


class Landscape:
    """A landscape of (height, width) px of 10 m, both multiples of 120; the same arguments give the same landscape."""

    def __init__(self, height: int, width: int, seed: int) -> None:
        self.height, self.width, self._seed = height, width, seed
        rng = np.random.default_rng(seed)
        self._nodes = (height // _NODE_STEP + 2 * _MARGIN, width // _NODE_STEP + 2 * _MARGIN)
        self._relief = self._smooth_ranks(rng, 25, 3.0)
        self._properties = np.stack([self._relief, *(self._smooth_ranks(rng, s, 3.0) for s in (20, 10, 25))])
        self._slope = np.gradient(self._smooth_ranks(rng, 8, 4.0) + 4 * self._relief, axis=1)
        self._slope = np.clip(self._slope / self._slope.std(), -2.5, 2.5).astype(np.float32)
        self._haze, self._season, self._river = (self._smooth_ranks(rng, s, 4.0) for s in (25, 25, 30))
        self._cloud = self._smooth_ranks(rng, 4, 4.0)
        self._fine_texture, self._coarse_texture, *self._warp = (
            _gaussian_noise(rng, (_TEXTURE_PERIOD, _TEXTURE_PERIOD), scale, 2.5) for scale in (0.4, 2.5, 14, 14)
        )
        self._zones, self._fields, self._plots = (Parcels(rng, height, width, size) for size in (78, 18, 6))
        self._zone_uses = self._choose_zone_uses(rng)
        parcels = self._fields.count + self._plots.count
        self._cover_choice = rng.integers(0, 64, parcels)
        self._lateness, self._tint, self._angle = rng.standard_normal((3, parcels), np.float32)

    def _smooth_ranks(self, rng: np.random.Generator, scale: float, slope: float) -> Floats:
        """The ranks, in 0…1, of a smooth random field at the nodes."""
        rows, columns = self._nodes
        return _ranks(_gaussian_noise(rng, (2 * rows, 2 * columns), scale, slope)[:rows, :columns])

    def _choose_zone_uses(self, rng: np.random.Generator) -> Bytes:
        """A random class for each zone, by the classes' weights; a class is unlikely where the place is outside its niche."""
        row = np.clip((self._zones.y / _NODE_STEP).astype(int) + _MARGIN, 0, self._nodes[0] - 1)
        column = np.clip((self._zones.x / _NODE_STEP).astype(int) + _MARGIN, 0, self._nodes[1] - 1)
        place = self._properties[:, row, column].T[:, None]  # (zones, 1, properties)
        outside = np.maximum(NICHES[..., 0] - place, 0) + np.maximum(place - NICHES[..., 1], 0)
        misfit = ((outside / (0.02, 0.05, 0.03, 0.05)) ** 2).sum(-1)
        with np.errstate(divide="ignore"):  # a class of weight 0 is never chosen
            weight = np.log([use.weight for use in USES])
        chosen: Integers = (weight - misfit + 0.5 * rng.gumbel(size=misfit.shape)).argmax(1)
        return chosen.astype(np.uint8)

    def draw(self, number: int) -> LandscapeStrip:
        """Draw a strip. Strips are numbered from 0 in the north."""
        top = number * STRIP_HEIGHT
        y, x = np.arange(top - 1, top + STRIP_HEIGHT + 1), np.arange(-1, self.width + 1)  # 1 px more, for `_blur`
        uses, cover, season, tint = self._ground(y, x)
        light = 1 + 0.08 * self._interpolate(self._slope, y, x)
        light = light + ROUGHNESS[cover] * _texture_at(self._fine_texture, y, x)
        haze = self._interpolate(self._haze, y, x) ** 2
        cloud = np.clip((self._interpolate(self._cloud, y, x) - 0.985) / 0.015, 0, 1)
        snow = np.clip((self._interpolate(self._relief, y, x) - 0.985) / 0.01, 0, 1)
        rng = np.random.default_rng([self._seed, number])
        bands = {}
        for i, band in enumerate(BANDS):
            value = LUSH[i][cover]
            value += season * DRY_MINUS_LUSH[i][cover]
            value *= light * (1 + (0.15 if i < 4 else 0.04) * tint)
            value += snow * (SNOW[i] - value)
            value += haze * HAZE[i]
            value += cloud * (CLOUD[i] - value)
            value = _average(_blur(value), band.gsd // 10)
            value += 12 * rng.standard_normal(value.shape, np.float32)
            bands[band.name] = np.rint(np.maximum(value, 1)).astype(np.uint16)
        return LandscapeStrip(uses[1:-1, 1:-1], cloud[1:-1, 1:-1], snow[1:-1, 1:-1], bands)

    def _ground(self, y: Integers, x: Integers) -> tuple[Bytes, Bytes, Floats, Floats]:
        """Class, cover, season (0…1) and tint (standard normal, one value per parcel) of each point of the grid."""
        v, u = y[:, None].astype(np.float32), x[None].astype(np.float32)
        bent = [12 * _texture_at(warp, y, x) for warp in self._warp]
        uses = self._zone_uses[self._zones.cells_at(v + bent[0], u + bent[1])]
        river = np.abs(self._interpolate(self._river, y, x) - 0.5) < 0.003
        uses[river & (self._interpolate(self._relief, y, x) > LAND_FROM)] = RIVER
        in_plot, in_field = self._plots.cells_at(v, u) + self._fields.count, self._fields.cells_at(v, u)
        parcel = np.where(FINE[uses], in_plot, in_field)
        cover = COVER_CHOICES[uses, self._cover_choice[parcel]]
        season = SEASONS[uses, 0] + SEASONS[uses, 1] * self._lateness[parcel]
        season += 0.1 * (self._interpolate(self._season, y, x) - 0.5) + 0.08 * _texture_at(self._coarse_texture, y, x)
        rows = np.nonzero(cover == COVERS.index("orchard"))  # trees and the soil between them, in rows 40 m apart
        angle = self._angle[parcel[rows]]
        season[rows] += 0.4 * np.sin(np.pi / 2 * (y[rows[0]] * np.cos(angle) + x[rows[1]] * np.sin(angle)))
        tint = self._tint[parcel]
        tint[cover < 2] = 0  # sea and lake have no parcels
        return uses, cover, np.clip(season, 0, 1), tint

    def _interpolate(self, nodes: Floats, y: Integers, x: Integers) -> Floats:
        """A smooth field at the points of the grid, bilinear between its nodes."""
        row, down = np.divmod(y + _MARGIN * _NODE_STEP, _NODE_STEP)
        column, right = np.divmod(x + _MARGIN * _NODE_STEP, _NODE_STEP)
        down, right = (down / _NODE_STEP).astype(np.float32)[:, None], (right / _NODE_STEP).astype(np.float32)
        across = nodes[row] * (1 - down) + nodes[row + 1] * down
        value: Floats = across[:, column] * (1 - right) + across[:, column + 1] * right
        return value


def _gaussian_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float, slope: float) -> Floats:
    """Periodic Gaussian noise of standard deviation 1, correlated over `scale` samples; a larger `slope` makes it smoother."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * (1 + (2 * np.pi * scale * frequency) ** 2) ** (-slope / 2)
    noise: Floats = np.fft.irfft2(spectrum, shape)
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def _ranks(values: Floats) -> Floats:
    """Each value's rank in 0…1. With ranks, the fraction below a threshold is the same for landscapes of any size."""
    order = values.ravel().argsort().argsort()
    return (order / order.size).reshape(values.shape).astype(np.float32)


def _texture_at(texture: Floats, y: Integers, x: Integers) -> Floats:
    window: Floats = texture[y % _TEXTURE_PERIOD][:, x % _TEXTURE_PERIOD]
    return window


def _blur(value: Floats) -> Floats:
    """The blur of the optics: each pixel becomes a weighted mean of 3×3, a quarter from itself. One pixel less on each side."""
    value = value[:-2] + 2 * value[1:-1] + value[2:]
    return (value[:, :-2] + 2 * value[:, 1:-1] + value[:, 2:]) / 16


def _average(value: Floats, factor: int) -> Floats:
    """The mean of each square of `factor` × `factor` pixels."""
    if factor == 1:
        return value
    rows = sum(value[i::factor] for i in range(1, factor)) + value[::factor]
    return (sum(rows[:, i::factor] for i in range(1, factor)) + rows[:, ::factor]) / factor**2
