"""Reading and writing at the same time: one thread reads patches while another sums up and writes those before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")

AHEAD = 3  # parts at once: one that is read, one that is written, and one between them


def settled(parts: Iterable[Part], settle: Callable[[Part], Result]) -> Iterator[Result]:
    """What `settle` makes of each part, in order, in a thread of its own.

    When `parts` is asked for one, the part AHEAD before it is settled, so its memory may be used again. After a part
    that fails, none is settled.
    """
    failed = False

    def one(part: Part) -> Result:
        nonlocal failed
        if failed:
            raise CancelledError
        failed = True
        result = settle(part)
        failed = False
        return result

    with ThreadPoolExecutor(1, "settle") as pool:
        waiting: deque[Future[Result]] = deque()
        for part in parts:
            waiting.append(pool.submit(one, part))
            if len(waiting) == AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
