"""A split in memory, one copy for all ranks of a machine."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from landscale.distributed import Ranks
from landscale.errors import LandscaleError
from landscale.loading.filling import Arrays, bytes_per_patch, copy_in_parts, positions, raise_on_all_ranks
from landscale.loading.free_memory import SHARED
from landscale.runtime.portability import open_unnamed, reserve_space
from landscale.store import PatchStore, Plane

_ALIGNMENT = 4096


class SplitInMemory:
    """The patches of a split, read as from a store. `description` is text for the terminal."""

    def __init__(self, rows: NDArray[np.int64], planes: Arrays, description: str) -> None:
        self._rows, self.planes, self.description = rows, planes, description

    def gather(self, rows: NDArray[np.int64], into: Arrays) -> None:
        """Copy the patches at `rows` of the store to `into`, as `PatchStore.gather` does; the rows must be in the split."""
        at = positions(self._rows, rows)
        for key, out in into.items():
            np.take(self.planes[key], at, axis=0, out=out, mode="clip")  # the default mode fills a temporary copy first


def in_memory(
    store: PatchStore,
    planes: tuple[Plane, ...],
    rows: NDArray[np.int64],
    ranks: Ranks,
    peers: Sequence[int],
    description: str,
) -> SplitInMemory:
    """Copy a split to memory.

    Args:
        rows: rows of the split in the store, ascending. peers: the ranks on this machine; the first one copies for all of them.

    Raises:
        LandscaleError: on every rank, if a machine has too little memory or a patch cannot be read.
    """
    sizes = [len(rows) * bytes_per_patch(p) for p in planes]
    starts = np.cumsum([0, *(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)]).tolist()
    memory = _shared_memory(starts[-1], ranks, peers) if ranks.world > 1 else np.empty(starts[-1], np.uint8)
    arrays = {
        p.key: memory[start : start + size].view(p.dtype).reshape(len(rows), *p.shape)
        for p, start, size in zip(planes, starts[:-1], sizes, strict=True)
    }
    own = rows if ranks.rank == peers[0] else rows[:0]
    for _ in copy_in_parts(
        store, planes, own, len(rows), lambda part: {key: a[part] for key, a in arrays.items()}, ranks
    ):
        pass
    return SplitInMemory(rows, arrays, description)


def _shared_memory(size: int, ranks: Ranks, peers: Sequence[int]) -> NDArray[np.uint8]:
    """Memory that the ranks of a machine share; only the first of them may write.

    It is a file without a name, which the others open through the first one's file descriptor. The system removes it when the
    last of them ends, even if all are killed.
    """
    handle = -1
    try:
        with raise_on_all_ranks(ranks):
            if ranks.rank == peers[0]:
                handle = _create_file(size)
        paths = ranks.gather(f"/proc/{os.getpid()}/fd/{handle}")
        with raise_on_all_ranks(ranks):
            if handle < 0:
                handle = _open_file(paths[peers[0]])
        access = mmap.ACCESS_WRITE if ranks.rank == peers[0] else mmap.ACCESS_READ
        return np.frombuffer(mmap.mmap(handle, size, access=access), np.uint8)
    finally:
        if handle >= 0:
            os.close(handle)


def _create_file(size: int) -> int:
    try:
        handle = open_unnamed(SHARED)
    except OSError as error:
        raise LandscaleError(f"{SHARED}: shared memory cannot be used on this machine ({error.strerror})") from None
    try:
        reserve_space(handle, size)  # now, because a write to a page that cannot be allocated later raises SIGBUS
    except OSError as error:
        os.close(handle)
        raise LandscaleError(f"{SHARED}: cannot hold {size / 1e9:.3g} GB ({error.strerror})") from None
    return handle


def _open_file(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LandscaleError(f"{path}: memory of another process cannot be shared ({error.strerror})") from None
