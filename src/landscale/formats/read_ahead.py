"""Bytes that a thread fetches while those before are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np


def read_fully(readinto: Callable[[memoryview], int | None], block: memoryview) -> int:
    """Read into `block` until it is full, and return its bytes: fewer only at the end. Any single read may be short."""
    filled = 0
    while filled < len(block) and (more := readinto(block[filled:])):
        filled += more
    return filled


class ReadAhead:
    """What `fill` says, block by block.

    Args:
        fill: fills a block from its beginning, returns with how many bytes: fewer than it has only at the end.
        size: bytes of a block.
        blocks: as many are in memory, with the one that is used.
    """

    def __init__(self, fill: Callable[[memoryview], int], size: int, blocks: int) -> None:
        self._fill, self._size = fill, size
        self._error: Exception | None = None
        self._pool = ThreadPoolExecutor(1, "ahead")
        self._coming: deque[Future[memoryview]] = deque()
        self._block = memoryview(b"")
        for _ in range(blocks):
            self._fetch(np.empty(size, np.uint8).data)  # not zeroed, and in large pages

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()
        self._block = memoryview(b"")

    def block(self) -> memoryview:
        """The next bytes, none at the end. Those of the call before are overwritten. After an error of `fill`, that again."""
        if not self._coming:
            return self._block[:0]
        if len(self._block):
            self._fetch(memoryview(self._block.obj))
        self._block = self._coming.popleft().result()
        if len(self._block) < self._size:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._coming.clear()
        return self._block

    def _fetch(self, block: memoryview) -> None:
        self._coming.append(self._pool.submit(self._filled, block))

    def _filled(self, block: memoryview) -> memoryview:
        if self._error is None:  # after one, nothing is sure of what follows
            try:
                return block[: self._fill(block)]
            except Exception as error:
                self._error = error
        raise self._error
