"""Signals end a training when the current step is saved, or at once outside the steps.

They are Ctrl-C, SIGTERM and SIGUSR1, the warning of a scheduler.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
SAME_SIGNAL = (
    5.0  # seconds in which signals count as one: launchers repeat signals that their processes already received
)
REQUEUE = 75  # exit code EX_TEMPFAIL of sysexits.h: not an error, start the command again
_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")  # set by launchers


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


@contextmanager
def requeued_by_signals(line: str) -> Iterator[None]:
    """After SIGTERM or SIGUSR1 within the block, end the process at once, with `line` on stderr and exit code 75.

    For work that need not be finished, and leaves no file half-written when it is killed. It ends without an exception,
    because one that is raised while a library is imported may be caught there.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        visible = "\x1b[?25h" if os.isatty(2) else ""  # the cursor, which a progress bar hides
        if all(os.environ.get(name, "0") == "0" for name in _RANKS):  # the other ranks are silent
            with suppress(OSError):
                os.write(2, f"{visible}landscale: {line}\n".encode(sys.getfilesystemencoding(), "replace"))
        os._exit(REQUEUE)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is end:
                signal.signal(number, handler)
