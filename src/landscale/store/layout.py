"""What a patch store holds: one HDF5 file, contiguous and uncompressed, allocated when it is created.

    data_10m, data_20m, data_60m   (N, bands, side, side)   digital numbers; `bands` in the dataset's attributes
    data_super                     (N, 12, 120, 120)        where asked for: every band at 10 m
    classes                        (N, C) uint8             multi-hot (one-hot in a single-label store)
    name, tile, crs, date, country (N,) fixed-length text
    split, state                   (N,) uint8 enumerations
    origin                         (N, 2) float64           x, y of the outer upper left corner, in units of the CRS
    snow, cloud                    (N,) uint8               flags
    nodata_share, cloud_share, shadow_share, snow_share     (N,) float32, of the patch's area; NaN where unknown
    moments                        (N, bands, 2) float64    sum and sum of squares of the pixels of every band
    checksum                       (N,) uint64              xxh3-64 of the pixels, plane by plane, and of the row of classes
    seal                           (N + 1,) uint64          xxh3-64 of all else about a patch; the last of the statistics
    statistics                     (bands, 2) float64       mean and standard deviation over the train split

Every dataset is a plain byte range, so many processes write it without HDF5, and training maps it into memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

FORMAT = 3
READABLE = (2, 3)  # formats that are opened; 2 lacks `gsd` in the attribute `layout`
SPLITS = ("none", "train", "val", "test")
STATES = ("pending", "whole", "bad")
SHARES = ("nodata_share", "cloud_share", "shadow_share", "snow_share")
COLUMNS = ("name", "split", "state", "tile", "crs", "origin", "date", "country", "snow", "cloud", *SHARES)
SEALED = (
    "name",
    "split",
    "state",
    "tile",
    "crs",
    "origin",
    "date",
    "country",
    "snow",
    "cloud",
    *SHARES,
    "moments",
    "checksum",
)
PENDING, WHOLE, BAD = range(3)
SUPER = "data_super"  # key of the plane with every band at 10 m, beside the native ones
_GSD_IN_KEY = re.compile(r"data_(\d+)m")
_AT_ONCE = 1 << 19  # pixels whose squares are summed up at once
_ALONE = 8192  # pixels; for longer ones OpenBLAS wakes other threads, which takes longer than the sum


@dataclass(frozen=True)
class Plane:
    """One dataset of pixels: bands that share a sampling distance, a side in pixels and a dtype.

    key: name of the dataset. side: pixels a side of a patch. gsd: ground sampling distance, metres a pixel.

    Raises:
        ValueError: gsd is not a positive number.
    """

    key: str
    bands: tuple[str, ...]
    side: int
    gsd: float
    dtype: str = "uint16"

    def __post_init__(self) -> None:
        if not (isinstance(self.gsd, int | float) and 0 < self.gsd < math.inf):
            raise ValueError(f"plane {self.key}: gsd is {self.gsd!r}, expected a positive number of metres a pixel")

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self.bands), self.side, self.side)

    @property
    def nbytes(self) -> int:
        """Bytes of one patch."""
        return len(self.bands) * self.side**2 * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Layout:
    """Planes and classes: everything that determines the shape of a store, except its number of patches.

    Raises:
        ValueError: the planes cover squares of ground of different sizes.
    """

    planes: tuple[Plane, ...]
    classes: tuple[str, ...]
    nomenclature: str
    multi_label: bool

    def __post_init__(self) -> None:
        sizes = {plane.key: plane.side * plane.gsd for plane in self.planes}
        if any(not math.isclose(size, self.ground, rel_tol=1e-6) for size in sizes.values()):
            found = ", ".join(f"{key} {size:g} m" for key, size in sizes.items())
            raise ValueError(f"the planes of a patch cover squares of different sides: {found}")

    @property
    def ground(self) -> float:
        """Metres a side of a patch, the same for all planes; an `int` where it is a whole number; 0 without planes."""
        plane = max(self.planes, key=lambda plane: plane.side, default=None)
        side = plane.side * plane.gsd if plane else 0
        return int(side) if side == int(side) else side

    def to_json(self) -> dict[str, Any]:
        """The attribute `layout` of a store."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned. Planes without `gsd`, as format 2 has them, get it from their keys.

        Raises:
            KeyError, TypeError, ValueError: fields are missing, of another type, or contradict each other.
        """
        named = [int(m[1]) for p in content["planes"] if (m := _GSD_IN_KEY.fullmatch(p["key"]))]
        planes = []
        for p in content["planes"]:
            known = _GSD_IN_KEY.fullmatch(p["key"])
            gsd = int(known[1]) if known else min(named, default=10)  # data_super, data_s1: on the finest grid
            planes.append(Plane(**{"gsd": gsd, **p, "bands": tuple(p["bands"])}))
        return cls(**{**content, "planes": tuple(planes), "classes": tuple(content["classes"])})

    def identity(self) -> dict[str, Any]:
        """The fields of format 2, for digests that identify the content of a store: the same with and without `gsd`."""
        fields = asdict(self)
        for plane in fields["planes"]:
            del plane["gsd"]
        return fields

    @property
    def bands(self) -> tuple[str, ...]:
        """All bands, plane by plane: the order of `moments` and `statistics`."""
        return tuple(band for plane in self.planes for band in plane.bands)

    @property
    def side(self) -> int:
        """Pixels a side at the finest resolution."""
        return max(plane.side for plane in self.planes)

    def buffers(self, patches: int) -> dict[str, NDArray[np.generic]]:
        """Empty arrays for so many patches, by plane."""
        return {p.key: np.empty((patches, *p.shape), p.dtype) for p in self.planes}


def checksum(planes: list[NDArray[np.generic]], classes: NDArray[np.uint8]) -> int:
    """xxh3-64 over the bytes of a patch's planes, in the layout's order, and its row of classes."""
    digest = xxhash.xxh3_64()
    for plane in planes:
        digest.update(plane.data)
    digest.update(classes.data)
    return digest.intdigest()


def seals(file: Mapping[str, Any]) -> NDArray[np.uint64]:
    """The column `seal` of an open store, from what its other columns hold."""
    n = len(file["state"])
    found = np.empty(n + 1, np.uint64)
    for start in range(0, n, 4096):
        columns = [np.ascontiguousarray(file[key][start : start + 4096]) for key in SEALED]
        rows = np.concatenate([c.view(np.uint8).reshape(len(c), -1) for c in columns], axis=1)
        found[start : start + len(rows)] = [xxhash.xxh3_64_intdigest(row.data) for row in rows]
    found[n] = xxhash.xxh3_64_intdigest(np.ascontiguousarray(file["statistics"][...]).data)
    return found


def moments(planes: Sequence[NDArray[np.generic]]) -> NDArray[np.float64]:
    """Sum and sum of squares of every band of patches, given by their planes (n, bands, side, side) → (n, all bands, 2).

    In float64, sums of squared 16-bit numbers stay below 2⁵³ and thus exact, whatever the order of addition.
    """
    return np.concatenate([_moments(plane) for plane in planes], axis=1)


def _moments(plane: NDArray[np.generic]) -> NDArray[np.float64]:
    n, bands = plane.shape[:2]
    if plane.dtype.kind != "u":  # each patch by itself: what the sums of floats are must not depend on its neighbours
        found = [_sums_of_floats(patch.reshape(bands, -1).astype(np.float64)) for patch in plane]
        return np.array(found).reshape(n, bands, 2)
    numbers: NDArray[Any] = plane.reshape(n * bands, -1)
    pixels = numbers.shape[1]
    exact = np.uint32 if pixels * (256**plane.dtype.itemsize - 1) < 2**32 else np.uint64
    total = np.zeros((n * bands, 2))
    rows = max(1, min(_AT_ONCE // pixels, n * bands))
    block = np.empty((rows, pixels))
    for k in range(0, n * bands, rows):  # as many as stay in the cache: half the time of one `einsum`
        some, into = numbers[k : k + rows], total[k : k + rows]
        floats = block[: len(some)]
        np.copyto(floats, some)  # first, as it brings them into the cache faster than the sum does
        into[:, 0] = some.sum(1, dtype=exact)
        for c in range(0, pixels, _ALONE):
            part = floats[:, c : c + _ALONE]
            into[:, 1] += np.vecdot(part, part)
    return total.reshape(n, bands, 2)


def _sums_of_floats(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum and sum of squares of each row, in an order that no machine's BLAS decides."""
    return np.stack([numbers.sum(1), np.einsum("bp,bp->b", numbers, numbers)], axis=1)
