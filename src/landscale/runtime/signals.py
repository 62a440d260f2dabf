"""Ctrl-C, SIGTERM and SIGUSR1 (a scheduler's warning) wait for a good moment."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
TOGETHER = 5.0  # seconds: launchers pass on what their processes got already
REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, start it again


class Stopped(Exception):
    """A signal came, the step was finished and the state saved."""

    def __init__(self, line: str, signalled: int = signal.SIGINT) -> None:
        super().__init__(line)
        self.code = 128 + signal.SIGINT if signalled == signal.SIGINT else REQUEUE
        """exit code: 130 after Ctrl-C; after a scheduler's signal one that asks it to start the command again"""


def ignore_scheduler_signals() -> None:
    """For a rank that has saved and ends: launchers end all as soon as one has ended, and its exit code would be lost."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def deferred_signals(alone: bool) -> Iterator[Callable[[], int]]:
    """Within the block, signals are only noted; the value tells the first that came, or 0. The second one interrupts at once.

    A process that is not `alone` gets the same signal from the scheduler, the launcher and the terminal, so for it those
    of a few seconds are one. Its fellows must be told of it, as no process must stop by itself while others wait for it.
    """
    caught: list[int] = []
    since = 0.0

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal since
        if caught and (alone or time.monotonic() - since > TOGETHER):
            raise KeyboardInterrupt
        since = since if caught else time.monotonic()
        caught.append(int(number))

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield lambda: caught[0] if caught else 0
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is note:
                signal.signal(number, handler)
