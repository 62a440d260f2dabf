"""`data_super` of a store: all bands of a patch at 10 m, made when the store is prepared."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from landscale.distributed import device
from landscale.errors import LandscaleError, UnknownName
from landscale.sources.survey import Found, Reader, Survey
from landscale.store import SUPER, Plane
from landscale.superres.planes import ESA_ORDER, interpolate
from landscale.superres.superresolver import Superresolver

WAYS = ("bilinear", "bicubic", "dsen2")


@dataclass(frozen=True)
class Upsampled:
    """A Reader that also fills `data_super`, from the planes that `read` fills. weights: of DSen2, else plain interpolation."""

    read: Reader
    native: tuple[Plane, ...]
    way: str
    weights: Path | None

    def __call__(
        self, wheres: Sequence[Any], planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]
    ) -> Iterator[Found | LandscaleError]:
        found = list(self.read(wheres, {p.key: planes[p.key] for p in self.native}, classes))
        if multiprocessing.parent_process() is not None:
            torch.set_num_threads(1)  # the workers are the threads
        tensors = {p.bands: torch.from_numpy(planes[p.key]) for p in self.native}
        out = interpolate(tensors, self.way) if self.weights is None else _superresolver(self.weights)(tensors)
        planes[SUPER][...] = out.numpy()
        yield from found


@cache
def _superresolver(weights: Path) -> Superresolver:
    return Superresolver.load(weights, device())


def with_upsampled(survey: Survey, way: str, weights: Path | None) -> Survey:
    """A survey whose store gets `data_super` (N, 12, 120, 120) uint16 as well: all bands in ESA order at 10 m.

    Args:
        survey: of patches with all twelve bands at native resolution.
        way: bilinear, bicubic or dsen2.
        weights: folder that `superres train` wrote; for dsen2 only.

    Raises:
        UnknownName: no such way. LandscaleError: dsen2 without weights, or bands are missing. BadInput: the weights are damaged.
    """
    if way not in WAYS:
        raise UnknownName("way of upsampling", way, WAYS)
    if way == "dsen2" and weights is None:
        raise LandscaleError("--upsample dsen2: needs --weights, which `landscale superres train` makes")
    if way != "dsen2" and weights is not None:
        raise LandscaleError(f"--upsample {way}: takes no --weights")
    native = tuple(p for p in survey.layout.planes if set(p.bands) <= set(ESA_ORDER))
    have = {band for p in native for band in p.bands}
    if missing := [band for band in ESA_ORDER if band not in have]:
        raise LandscaleError(f"--upsample {way}: the source lacks {', '.join(missing)}")
    plane = Plane(SUPER, ESA_ORDER, max(p.side for p in native))
    made = {"upsample": way}
    if weights is not None:
        made["digest"] = _superresolver(weights.resolve()).config["digest"]
    return replace(
        survey,
        layout=replace(survey.layout, planes=(*survey.layout.planes, plane)),
        read=Upsampled(survey.read, native, way, weights.resolve() if weights else None),
        provenance=survey.provenance | {SUPER: made},
    )
