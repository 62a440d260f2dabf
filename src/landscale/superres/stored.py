"""`data_super` of a store: all bands of a patch at 10 m, made when the store is prepared."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from landscale.datasets.survey import Found, Reader, Survey
from landscale.distributed import local_device
from landscale.errors import LandscaleError, UnknownName
from landscale.store import SUPER, Layout, Plane
from landscale.superres.planes import ESA_ORDER, interpolate
from landscale.superres.superresolver import Superresolver

if TYPE_CHECKING:  # a worker does without pandas
    from landscale.datasets.bigearthnet.archive import Stream

Source = TypeVar("Source", Survey, "Stream")
WAYS = ("bilinear", "bicubic", "dsen2")


@dataclass(frozen=True)
class Upsampling:
    """Fills `data_super` of patches from their planes at native resolution; called with all planes of a store by key."""

    native: tuple[Plane, ...]
    way: str
    weights: Path | None

    def __call__(self, planes: Mapping[str, NDArray[np.generic]]) -> None:
        if multiprocessing.parent_process() is not None:
            torch.set_num_threads(1)  # the workers are the threads
        tensors = {p.bands: torch.from_numpy(planes[p.key]) for p in self.native}
        out = interpolate(tensors, self.way) if self.weights is None else _superresolver(self.weights)(tensors)
        planes[SUPER][...] = out.numpy()

    def layout(self, native: Layout) -> Layout:
        """That of the store: the new plane follows those that it is made of."""
        planes = list(native.planes)
        place = 1 + max(planes.index(plane) for plane in self.native)
        finest = max(self.native, key=lambda plane: plane.side)
        planes.insert(place, Plane(SUPER, ESA_ORDER, finest.side, finest.gsd))
        return replace(native, planes=tuple(planes))

    @property
    def provenance(self) -> dict[str, Any]:
        told = {} if self.weights is None else {"digest": _superresolver(self.weights).config["digest"]}
        return {SUPER: {"upsample": self.way, **told}}


@dataclass(frozen=True)
class UpsampledReader:
    """A Reader that also fills `data_super`, from the planes that `read` fills."""

    read: Reader
    upsampling: Upsampling

    def __call__(
        self, wheres: Sequence[Any], planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]
    ) -> Iterator[Found | LandscaleError]:
        found = list(self.read(wheres, {key: plane for key, plane in planes.items() if key != SUPER}, classes))
        self.upsampling(planes)
        yield from found


@cache
def _superresolver(weights: Path) -> Superresolver:
    return Superresolver.load(weights, local_device())


def with_upsampled(source: Source, way: str, weights: Path | None) -> Source:
    """A survey, or an archive that is streamed, whose store gets `data_super` (N, 12, 120, 120) uint16 as well: all bands
    in ESA order at 10 m.

    Args:
        source: of patches with all twelve bands at native resolution.
        way: bilinear, bicubic or dsen2.
        weights: folder that `superres train` wrote; for dsen2 only.

    Raises:
        UnknownName: no such way. LandscaleError: dsen2 without weights, or bands are missing. BadInput: the weights are damaged.
    """
    upsampling = _upsampling(source.layout, way, weights)
    how: dict[str, Any] = {"complete": upsampling}
    if isinstance(source, Survey):
        how = {"read": UpsampledReader(source.read, upsampling)}
    provenance = source.provenance | upsampling.provenance
    return replace(source, layout=upsampling.layout(source.layout), provenance=provenance, **how)


def _upsampling(layout: Layout, way: str, weights: Path | None) -> Upsampling:
    if way not in WAYS:
        raise UnknownName("way of upsampling", way, WAYS)
    if way == "dsen2" and weights is None:
        raise LandscaleError("--upsample dsen2: needs --weights, which `landscale superres train` makes")
    if way != "dsen2" and weights is not None:
        raise LandscaleError(f"--upsample {way}: takes no --weights")
    native = tuple(p for p in layout.planes if set(p.bands) <= set(ESA_ORDER))
    have = {band for p in native for band in p.bands}
    if missing := [band for band in ESA_ORDER if band not in have]:
        raise LandscaleError(f"--upsample {way}: the source lacks {', '.join(missing)}")
    return Upsampling(native, way, weights.resolve() if weights else None)
