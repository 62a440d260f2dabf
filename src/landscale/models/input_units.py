"""Compare unit and processing level of the pixels that weights were trained on with those of a store or scene.

Digital numbers, reflectance, and 8-bit pictures with a known stretch are converted into each other. Other units are refused,
because the same band names would otherwise be taken for the same numbers: most pictures, for example, have an unknown stretch.
Where a unit is not recorded, the pixels themselves are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from landscale.errors import BadInput
from landscale.loading import Native
from landscale.models.classifier import Description
from landscale.models.input_stage import LOG_FLOOR
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import Scene
from landscale.store import PatchStore
from landscale.vocabulary.units import Level, Unit, contradicts, conversion, differ, unit_name

_PATCHES = 64  # patches of a store that are sampled
_UNLIKELY = 5.0  # ratio of the medians of sampled bands to the means in training, above which units probably differ


@dataclass(frozen=True)
class Source:
    """Pixels that a classifier is to be applied to.

    path: the store or scene. units: by band, of the pixels as they are read. in_files: by band, of the pixels in the files.
    level: processing level. sample: reads some pixels (n,) of a band. stretches: of bands in 8-bit, where it is known, the
    digital number that 255 stands for.
    """

    path: Path
    units: Mapping[str, Unit]
    in_files: Mapping[str, Unit]
    level: Level
    sample: Callable[[str], NDArray[np.generic]]
    stretches: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """factors: of the bands whose pixels must be converted (see `convert`). notes: lines for the user."""

    factors: Mapping[str, float]
    notes: tuple[str, ...]


def store_source(store: PatchStore, bands: Sequence[str], patches: NDArray[np.int64], *, stored: bool) -> Source:
    """Some patches of a store, at native resolution, or with `stored` those of `data_super`."""
    planes = {band: plane for plane in store.planes_for(bands, stored) for band in plane.bands}
    rows = patches[np.linspace(0, len(patches) - 1, min(_PATCHES, len(patches))).astype(np.int64)]

    def sample(band: str) -> NDArray[np.generic]:
        plane = planes[band]
        return store.pixels(plane.key, rows)[:, plane.bands.index(band)].ravel()

    units = {band: planes[band].unit for band in bands}
    stretches = {band: stretch for band in bands if (stretch := planes[band].stretch) is not None}
    return Source(store.path, units, units, store.layout.level, sample, stretches)


def scene_source(scene: Scene, pixels: ScenePixels) -> Source:
    """The open bands of a scene, as `ScenePixels` reads them."""
    units, in_files = (dict.fromkeys(pixels.files, unit) for unit in (scene.pixel_unit, scene.unit))
    return Source(
        scene.folder, units, in_files, scene.level, lambda band: pixels.harmonise(pixels.sample(band)).ravel()
    )


def compare_units(d: Description, source: Source) -> Comparison:
    """The conversion from the units of a store or scene to those of a classifier.

    Raises:
        BadInput: there is none, or pixels of unknown unit cannot be in that of the classifier.
    """
    factors: dict[str, float] = {}
    converted: set[tuple[str, str]] = set()
    for band in d.bands:
        expected, found, in_file = d.units.get(band, "unknown"), source.units[band], source.in_files[band]
        stretch, of_weights = source.stretches.get(band), d.stretches.get(band)
        factor = conversion(found, expected, stretch, of_weights)
        if factor is None:
            raise BadInput(source.path, _mismatch(unit_name(found), band, expected))
        if factor != 1:
            factors[band] = factor
        target = found if expected == "unknown" else expected
        if conversion(in_file, target, stretch, of_weights) != 1:
            converted.add((unit_name(in_file, stretch), unit_name(target, of_weights)))
    notes = [f"{source.path}: {in_file} converted into {target}" for in_file, target in sorted(converted)]
    if any("unknown" in (d.units.get(band, "unknown"), source.units[band]) for band in d.bands):
        notes += _compare_pixels(d, source)
    if differ(source.level, d.level):
        notes.append(
            f"{source.path}: warning: is of level {source.level}, but the weights were trained on {d.level}; expect lower"
            " scores"
        )
    return Comparison(factors, tuple(notes))


def convert(planes: Native, factors: Mapping[str, float]) -> Native:
    """Multiply bands by their factors; without any, the planes are returned as they are."""
    if not factors:
        return planes
    return {
        bands: tensor.float()
        * torch.tensor([factors.get(band, 1.0) for band in bands]).to(tensor.device)[:, None, None]
        for bands, tensor in planes.items()
    }


def _mismatch(found: str, band: str, expected: Unit) -> str:
    return (
        f"holds {found} in {band}, but the weights were trained on {unit_name(expected)}; use weights that were trained on"
        " the same unit"
    )


def _compare_pixels(d: Description, source: Source) -> list[str]:
    """Lines about pixels whose unit is not recorded by the weights, the source, or both.

    Raises:
        BadInput: they cannot be in the unit of the weights.
    """
    ratios = []
    for band in d.bands:
        values = source.sample(band).astype(np.float64)
        values = values[np.isfinite(values) & (values != 0)]
        if not len(values):
            continue
        low, high, expected = float(values.min()), float(values.max()), d.units.get(band, "unknown")
        whole = bool((values == np.rint(values)).all())
        if source.units[band] == "unknown" and contradicts(expected, low, high, whole=whole):
            raise BadInput(source.path, _mismatch(f"numbers from {low:.4g} to {high:.4g}", band, expected))
        if mean := _trained_mean(d, band):
            ratios.append(abs(float(np.median(values)) / mean))
    ratio = float(np.median(ratios)) if ratios else 1.0
    if 1 / _UNLIKELY <= ratio <= _UNLIKELY:
        return []
    silent = "the weights do not record" if all(u == "unknown" for u in d.units.values()) else "it does not record"
    return [
        f"{source.path}: warning: its pixels are {ratio:.3g} times those in training, and {silent} their unit; if the units"
        " differ, the result is meaningless"
    ]


def _trained_mean(d: Description, band: str) -> float:
    """The mean of a band in training, in the unit of the pixels; 0 if it is not recorded."""
    if band in d.statistics:
        return d.statistics[band][0]
    logarithm = d.statistics.get(f"log {band}")
    return math.exp(min(logarithm[0], 20.0)) - LOG_FLOOR if logarithm else 0.0
