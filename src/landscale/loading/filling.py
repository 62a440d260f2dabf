"""Copying a split out of its store, once, in the order in which it lies there."""

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

_PART = 256 << 20  # bytes that a rank copies before it hears of the others
_PIECE = 8 << 20  # bytes that a thread copies at once
_THREADS = 4

Arrays = Mapping[str, NDArray[np.generic]]


def bytes_of(plane: Plane) -> int:
    """Of one patch."""
    return math.prod(plane.shape) * np.dtype(plane.dtype).itemsize


def part_of(planes: tuple[Plane, ...]) -> int:
    """Patches of a part."""
    return max(_PART // sum(map(bytes_of, planes)), 1)


def filled(
    store: PatchStore,
    planes: tuple[Plane, ...],
    rows: NDArray[np.int64],
    most: int,
    into: Callable[[slice], Arrays],
    ranks: Ranks,
) -> Iterator[slice]:
    """The parts of `rows`, each when its pixels are there.

    The ranks go part by part together: what one reads from the disk, the others find in the page cache, and none waits
    for another longer than for a part.

    Args:
        rows: what this rank copies, ascending; perhaps nothing.
        most: no rank has more rows than this; the same on all.
        into: gives the arrays that take a part's pixels from their beginning on, by plane.

    Raises:
        LandscaleError: on every rank, when one cannot read its patches.
    """
    part = part_of(planes)
    piece = max(_PIECE // sum(map(bytes_of, planes)), 1)
    with ThreadPoolExecutor(_THREADS) as pool, progress_bar("place", len(rows), visible=ranks.first) as advance:
        for start in range(0, most, part):
            here = slice(start, start + part)
            wanted = rows[here]
            arrays = {key: array[: len(wanted)] for key, array in into(here).items()}
            pieces = [slice(k, k + piece) for k in range(0, len(wanted), piece)]
            ranks.report_progress(-1)  # before the first step
            with agreed(ranks):
                for copied in pool.map(partial(_copy, store, wanted, arrays), pieces):
                    advance(copied)
            yield here


def _copy(store: PatchStore, rows: NDArray[np.int64], arrays: Arrays, piece: slice) -> int:
    store.gather(rows[piece], {key: array[piece] for key, array in arrays.items()})
    return len(rows[piece])


@contextmanager
def agreed(ranks: Ranks) -> Iterator[None]:
    """What a user can put right fails on all ranks when it fails on one, with its line: nobody waits for who gave up."""
    try:
        yield
    except LandscaleError as error:
        ranks.gather(str(error))
        raise
    for line in filter(None, ranks.gather("")):
        raise LandscaleError(line)


def positions(split: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where rows of the store (n,) stand in a split, whose rows ascend.

    Raises:
        ValueError: a row that is not of the split.
    """
    at = np.searchsorted(split, rows)
    if not np.array_equal(split.take(at, mode="clip"), rows):
        raise ValueError("rows that are not of the split that was placed")
    return at
