"""Ctrl-C and SIGTERM wait for a good moment."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):
    """A signal came, the step was finished and the state saved."""


@contextmanager
def signals_wait(alone: bool) -> Iterator[Callable[[], bool]]:
    """Within the block, signals are only noted; the value tells whether one came. The second one interrupts at once.

    A process that is not `alone` must not stop by itself while others wait for it: there signals do what they always do.
    """
    caught: list[int] = []
    if not alone:
        yield lambda: False
        return

    def note(number: int, _frame: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
