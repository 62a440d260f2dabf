"""Defer Ctrl-C, SIGTERM and SIGUSR1 (the warning of a scheduler) until the current step is finished and saved."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
SAME_SIGNAL = (
    5.0  # seconds in which signals count as one: launchers repeat signals that their processes already received
)
REQUEUE = 75  # exit code EX_TEMPFAIL of sysexits.h: not an error, start the command again


class Stopped(Exception):
    """A signal was received; the step was finished and the state saved."""

    def __init__(self, line: str, signalled: int = signal.SIGINT) -> None:
        super().__init__(line)
        self.code = 128 + signal.SIGINT if signalled == signal.SIGINT else REQUEUE
        """Exit code: 130 after Ctrl-C; after a signal of a scheduler, 75, by which a job script starts the command again."""


def ignore_scheduler_signals() -> None:
    """Ignore SIGTERM and SIGUSR1 in a rank that has saved and is about to exit.

    Launchers send signals to all ranks as soon as one has ended, which would replace this rank's exit code.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def deferred_signals(alone: bool) -> Iterator[Callable[[], int]]:
    """Record signals within the block; yields a function that returns the first one, or 0. A second one interrupts at once.

    Args:
        alone: whether this is the only process. Otherwise the scheduler, launcher and terminal send the same signal, so signals
            within a few seconds count as one; and the caller must send its number to the other processes before it stops.
    """
    caught: list[int] = []
    since = 0.0

    def record(number: int, _frame: FrameType | None) -> None:
        nonlocal since
        if caught and (alone or time.monotonic() - since > SAME_SIGNAL):
            raise KeyboardInterrupt
        since = since if caught else time.monotonic()
        caught.append(int(number))

    before = {number: signal.signal(number, record) for number in SIGNALS}
    try:
        yield lambda: caught[0] if caught else 0
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is record:
                signal.signal(number, handler)
