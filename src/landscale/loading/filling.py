"""Copy a split from its store to memory once, in the order of the store."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from landscale.distributed import Ranks
from landscale.errors import LandscaleError
from landscale.runtime.progress import progress_bar
from landscale.store import PatchStore, Plane

_PART = 256 << 20  # bytes that a rank copies before it waits for the others
_PIECE = 8 << 20  # bytes that a thread copies in one call
_THREADS = 4

Arrays = Mapping[str, NDArray[np.generic]]


def bytes_per_patch(plane: Plane) -> int:
    """Bytes of one patch of a plane."""
    return math.prod(plane.shape) * np.dtype(plane.dtype).itemsize


def patches_per_part(planes: tuple[Plane, ...]) -> int:
    """Number of patches that a rank copies before it waits for the others."""
    return max(_PART // sum(map(bytes_per_patch, planes)), 1)


def copy_in_parts(
    store: PatchStore,
    planes: tuple[Plane, ...],
    rows: NDArray[np.int64],
    max_rows: int,
    arrays_for: Callable[[slice], Arrays],
    ranks: Ranks,
) -> Iterator[slice]:
    """Copy `rows` part by part; yields each part as a slice of `rows` when its pixels have been copied.

    All ranks copy part by part together: pages that one reads from the disk are in the page cache for the others, and no rank
    waits for another longer than one part takes.

    Args:
        rows: ascending rows of the store that this rank copies; may be empty.
        max_rows: the largest number of rows of any rank; the same on all.
        arrays_for: takes a part as a slice of `rows` and returns the arrays to fill, by key of the plane.

    Raises:
        LandscaleError: on every rank, if one cannot read its patches.
    """
    part = patches_per_part(planes)
    piece = max(_PIECE // sum(map(bytes_per_patch, planes)), 1)
    with ThreadPoolExecutor(_THREADS) as pool, progress_bar("place", len(rows), visible=ranks.first) as advance:
        for start in range(0, max_rows, part):
            current = slice(start, start + part)
            part_rows = rows[current]
            arrays = {key: array[: len(part_rows)] for key, array in arrays_for(current).items()}
            pieces = [slice(k, k + piece) for k in range(0, len(part_rows), piece)]
            ranks.report_progress(-1)  # −1: the first step has not begun
            with raise_on_all_ranks(ranks):
                for copied in pool.map(partial(_copy, store, part_rows, arrays), pieces):
                    advance(copied)
            yield current


def _copy(store: PatchStore, rows: NDArray[np.int64], arrays: Arrays, piece: slice) -> int:
    store.gather(rows[piece], {key: array[piece] for key, array in arrays.items()})
    return len(rows[piece])


@contextmanager
def raise_on_all_ranks(ranks: Ranks) -> Iterator[None]:
    """If the block raises a LandscaleError on one rank, all ranks raise it, so that none blocks in a collective."""
    try:
        yield
    except LandscaleError as error:
        ranks.gather(str(error))
        raise
    for line in filter(None, ranks.gather("")):
        raise LandscaleError(line)


def positions(split: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions in a split (its rows in the store, ascending) of some of its rows (n,).

    Raises:
        ValueError: a row is not in the split.
    """
    at = np.searchsorted(split, rows)
    if not np.array_equal(split.take(at, mode="clip"), rows):
        raise ValueError("rows that are not in the split that was placed")
    return at
