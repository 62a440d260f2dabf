"""Read blocks in a background thread, ahead of the reader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np


def read_fully(readinto: Callable[[memoryview], int | None], block: memoryview) -> int:
    """Call `readinto` until `block` is full; returns the number of bytes, fewer than its length only at the end of the stream."""
    filled = 0
    while filled < len(block) and (more := readinto(block[filled:])):
        filled += more
    return filled


class ReadAhead:
    """The bytes that `fill` reads, in blocks.

    Args:
        fill: fills a block from its beginning and returns the number of bytes, fewer than its length only at the end.
        size: bytes of a block.
        blocks: blocks in memory, including the one that the caller uses.
    """

    def __init__(self, fill: Callable[[memoryview], int], size: int, blocks: int) -> None:
        self._fill, self._size = fill, size
        self._error: Exception | None = None
        self._pool = ThreadPoolExecutor(1, "read-ahead")
        self._pending: deque[Future[memoryview]] = deque()
        self._block = memoryview(b"")
        for _ in range(blocks):
            self._fetch(np.empty(size, np.uint8).data)  # np.empty neither zeroes it nor splits it into small pages

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()
        self._block = memoryview(b"")

    def block(self) -> memoryview:
        """The next block, empty at the end; it overwrites the block that the last call returned.

        Raises the error of `fill`, again in every later call.
        """
        if not self._pending:
            return self._block[:0]
        if len(self._block):
            self._fetch(memoryview(self._block.obj))
        self._block = self._pending.popleft().result()
        if len(self._block) < self._size:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pending.clear()
        return self._block

    def _fetch(self, block: memoryview) -> None:
        self._pending.append(self._pool.submit(self._filled, block))

    def _filled(self, block: memoryview) -> memoryview:
        if self._error is None:  # after an error the state of the stream is undefined
            try:
                return block[: self._fill(block)]
            except Exception as error:
                self._error = error
        raise self._error
