"""`data_super` of a store: all bands of a patch at 10 m, computed when the store is prepared."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from landscale.datasets.sequential import SequentialSurvey
from landscale.datasets.survey import PatchDetails, Reader, Survey
from landscale.distributed import local_device
from landscale.errors import LandscaleError, UnknownName
from landscale.runtime.progress import print_notes
from landscale.store import SUPER, Layout, Plane
from landscale.superres.planes import ESA_ORDER, interpolate
from landscale.superres.superresolver import Superresolver
from landscale.superres.units import compare_levels
from landscale.vocabulary.units import unit_name

S = TypeVar("S", Survey, SequentialSurvey)
METHODS = ("bilinear", "bicubic", "dsen2")


@dataclass(frozen=True)
class Upsampling:
    """Fills `data_super` of patches from their planes at native resolution. It is called with the arrays of all planes, by key.

    native: the planes to upsample. method: one of METHODS. weights: folder of DSen2's weights, for dsen2 only.
    """

    native: tuple[Plane, ...]
    method: str
    weights: Path | None

    def __call__(self, planes: Mapping[str, NDArray[np.generic]]) -> None:
        if multiprocessing.parent_process() is not None:
            torch.set_num_threads(1)  # there is a worker process for each core already
        tensors = {p.bands: torch.from_numpy(planes[p.key]) for p in self.native}
        out = interpolate(tensors, self.method) if self.weights is None else _superresolver(self.weights)(tensors)
        planes[SUPER][...] = out.numpy()

    def layout(self, native: Layout) -> Layout:
        """The layout of the store: the new plane follows those that it is computed from."""
        planes = list(native.planes)
        index = 1 + max(planes.index(plane) for plane in self.native)
        finest = max(self.native, key=lambda plane: plane.side)
        planes.insert(index, Plane(SUPER, ESA_ORDER, finest.side, finest.gsd, unit=finest.unit))
        return replace(native, planes=tuple(planes))

    @property
    def provenance(self) -> dict[str, Any]:
        digest = {} if self.weights is None else {"digest": _superresolver(self.weights).config["digest"]}
        return {SUPER: {"upsample": self.method, **digest}}


@dataclass(frozen=True)
class UpsampledReader:
    """A reader of patches that calls `read`, and then computes `data_super` from the planes that `read` has filled."""

    read: Reader
    upsampling: Upsampling

    def __call__(
        self, locations: Sequence[Any], planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]
    ) -> Iterator[PatchDetails | LandscaleError]:
        found = list(self.read(locations, {key: plane for key, plane in planes.items() if key != SUPER}, classes))
        self.upsampling(planes)
        yield from found


@cache
def _superresolver(weights: Path) -> Superresolver:
    return Superresolver.load(weights, local_device())


def with_upsampled(survey: S, method: str, weights: str | Path | None = None) -> S:
    """A survey whose store also gets `data_super` (N, 12, 120, 120) uint16: all bands in ESA order at 10 m.

    Args:
        survey: of patches with all twelve bands at native resolution.
        method: bilinear, bicubic or dsen2.
        weights: folder that `superres train` wrote; for dsen2 only.

    Raises:
        UnknownName: no such method. LandscaleError: dsen2 without weights, or bands are missing.
        BadInput: the weights are damaged.
    """
    upsampling = _upsampling(survey.layout, method, Path(weights) if weights else None)
    filled: dict[str, Any] = {"derive": upsampling, "derived": (SUPER,)}
    if isinstance(survey, Survey):
        filled = {"read": UpsampledReader(survey.read, upsampling)}
    if upsampling.weights is not None:
        print_notes(compare_levels("--upsample dsen2", survey.layout.level, _superresolver(upsampling.weights).level))
    provenance = survey.provenance | upsampling.provenance
    return replace(survey, layout=upsampling.layout(survey.layout), provenance=provenance, **filled)


def _upsampling(layout: Layout, method: str, weights: Path | None) -> Upsampling:
    if method not in METHODS:
        raise UnknownName("upsampling method", method, METHODS)
    if method == "dsen2" and weights is None:
        raise LandscaleError("--upsample dsen2: needs --weights, which `landscale superres train` makes")
    if method != "dsen2" and weights is not None:
        raise LandscaleError(f"--upsample {method}: takes no --weights")
    native = tuple(p for p in layout.planes if set(p.bands) <= set(ESA_ORDER))
    present = {band for p in native for band in p.bands}
    if missing := [band for band in ESA_ORDER if band not in present]:
        raise LandscaleError(f"--upsample {method}: the data set lacks {', '.join(missing)}")
    if other := [p for p in native if p.unit not in ("digital number", "unknown")]:
        raise LandscaleError(f"--upsample {method}: expected digital numbers, found {unit_name(other[0].unit)}")
    return Upsampling(native, method, weights.resolve() if weights else None)
