"""Reading, summing up and writing at the same time: patches go through three threads, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Sums = TypeVar("Sums")
Result = TypeVar("Result")

AHEAD = 4  # parts at once: one in each thread, and one on its way


def settled(
    parts: Iterable[Part], sum_up: Callable[[Part], Sums], write: Callable[[Part, Sums], Result]
) -> Iterator[Result]:
    """What `write` makes of each part and its sums, in order. The caller's thread reads the parts.

    When `parts` is asked for one, the part AHEAD before it is written, so its memory may be used again. After a part
    that fails, none is written.
    """
    failed = False

    def finish(part: Part, sums: Future[Sums]) -> Result:
        nonlocal failed
        if failed:
            raise CancelledError
        failed = True
        result = write(part, sums.result())
        failed = False
        return result

    with ThreadPoolExecutor(1, "sum_up") as summing, ThreadPoolExecutor(1, "write") as writing:
        waiting: deque[Future[Result]] = deque()
        for part in parts:
            waiting.append(writing.submit(finish, part, summing.submit(sum_up, part)))
            if len(waiting) == AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
