"""Sum and sum of squares of every band of a patch, from which the statistics of a split are computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = (
    1 << 19
)  # pixels that are converted to float64 at once: they stay in the cache, which halves the time of one einsum
_SINGLE_THREADED = 8192  # pixels; for longer vectors OpenBLAS starts threads, which takes longer than the sum


def moments(planes: Sequence[NDArray[np.generic]]) -> NDArray[np.float64]:
    """Sum and sum of squares of every band: planes (n, bands, side, side) → (n, all bands, 2).

    Sums of squares of 16-bit integers stay below 2⁵³ in a patch, so in float64 they are exact, whatever the order of addition.
    """
    return np.concatenate([_moments(plane) for plane in planes], axis=1)


def _moments(plane: NDArray[np.generic]) -> NDArray[np.float64]:
    n, bands = plane.shape[:2]
    if plane.dtype.kind != "u":  # patch by patch: sums of floats must not depend on the other patches
        found = [_sums_of_floats(patch.reshape(bands, -1).astype(np.float64)) for patch in plane]
        return np.array(found).reshape(n, bands, 2)
    values: NDArray[Any] = plane.reshape(n * bands, -1)
    pixels = values.shape[1]
    exact = np.uint32 if pixels * (256**plane.dtype.itemsize - 1) < 2**32 else np.uint64
    total = np.zeros((n * bands, 2))
    step = max(1, min(_BLOCK // pixels, n * bands))
    floats = np.empty((step, pixels))
    for k in range(0, n * bands, step):
        part, sums = values[k : k + step], total[k : k + step]
        block = floats[: len(part)]
        np.copyto(block, part)  # before the sum, as the copy brings the pixels into the cache faster
        sums[:, 0] = part.sum(1, dtype=exact)
        for c in range(0, pixels, _SINGLE_THREADED):
            columns = block[:, c : c + _SINGLE_THREADED]
            sums[:, 1] += np.vecdot(columns, columns)
    return total.reshape(n, bands, 2)


def _sums_of_floats(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum and sum of squares of each row, in an order of addition that does not depend on the machine's BLAS."""
    return np.stack([values.sum(1), np.einsum("bp,bp->b", values, values)], axis=1)
