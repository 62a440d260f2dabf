"""Reading and writing at the same time: one thread reads patches, another writes those that were read before."""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")

_PATIENCE = 1e-4  # seconds that a thread with bytes on their way waits for Python's lock; by default 50 times as long
AHEAD = 3  # parts at once: one in each thread, and one on its way


def settled(parts: Iterable[Part], write: Callable[[Part], Result]) -> Iterator[Result]:
    """What `write` makes of each part, in order. The caller's thread reads the parts.

    When `parts` is asked for one, the part AHEAD before it is written, so its memory may be used again. If `parts`
    raises an error, what came before it is written first. After a part that fails, or Ctrl-C, none is.
    """
    failed = False
    errors: list[Exception] = []

    def finish(part: Part) -> Result:
        nonlocal failed
        if failed:
            raise CancelledError
        failed = True
        result = write(part)
        failed = False
        return result

    patience = sys.getswitchinterval()
    sys.setswitchinterval(_PATIENCE)
    gc.freeze()  # looking for garbage, again and again, in all that was there before takes a tenth of the time
    writing = ThreadPoolExecutor(1, "write")
    waiting: deque[Future[Result]] = deque()
    try:
        for part in _until(parts, errors):
            waiting.append(writing.submit(finish, part))
            if len(waiting) == AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        writing.shutdown(cancel_futures=True)
        gc.unfreeze()
        sys.setswitchinterval(patience)
    if errors:
        raise errors[0]


def _until(parts: Iterable[Part], errors: list[Exception]) -> Iterator[Part]:
    """The parts; an error ends them, and is kept."""
    try:
        yield from parts
    except Exception as error:
        errors.append(error)
