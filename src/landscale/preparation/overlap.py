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

_SWITCH_INTERVAL = (
    1e-4  # seconds for which a thread that is ready to run waits for the interpreter lock; Python's is 5e-3
)
IN_FLIGHT = 3  # parts in memory: one being read, one being written, and one between them


def write_while_reading(parts: Iterable[Part], write: Callable[[Part], Result]) -> Iterator[Result]:
    """Call `write` on each part in a second thread, and yield the results in order; the caller's thread produces the parts.

    When the next part is requested, the part IN_FLIGHT before it is written, so its memory may be reused. If `parts` raises an
    error, the parts before it are written first. After a part whose writing fails, or Ctrl-C, nothing more is written.
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

    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.freeze()  # scanning the objects that exist already for garbage, again and again, takes a tenth of the time
    writer = ThreadPoolExecutor(1, "write")
    pending: deque[Future[Result]] = deque()
    try:
        for part in _until_error(parts, errors):
            pending.append(writer.submit(finish, part))
            if len(pending) == IN_FLIGHT:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        writer.shutdown(cancel_futures=True)
        gc.unfreeze()
        sys.setswitchinterval(switch_interval)
    if errors:
        raise errors[0]


def _until_error(parts: Iterable[Part], errors: list[Exception]) -> Iterator[Part]:
    """The parts up to the first error, which is appended to `errors`."""
    try:
        yield from parts
    except Exception as error:
        errors.append(error)
