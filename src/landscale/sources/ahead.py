"""Bytes that a thread fetches while those before are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np


class Ahead:
    """What `fill` says, block by block.

    Args:
        fill: fills a block from its beginning, returns with how many bytes: fewer than it has only at the end.
        size: bytes of a block.
        blocks: as many are in memory.
    """

    def __init__(self, fill: Callable[[memoryview], int], size: int, blocks: int) -> None:
        self._fill, self._size = fill, size
        self._pool = ThreadPoolExecutor(1, "ahead")
        self._coming: deque[Future[memoryview]] = deque()
        self._block = memoryview(b"")
        for _ in range(blocks):
            self._fetch(np.empty(size, np.uint8).data)  # not zeroed, and in large pages

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def block(self) -> memoryview:
        """The next bytes, none at the end. Those of the call before are overwritten."""
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
        return block[: self._fill(block)]
