"""Processes that work for a command on its machine: how they begin and end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, parent_process, resource_tracker
from multiprocessing.context import ForkServerContext
from types import FrameType

_NEEDED = ["landscale.preparation.extract", "rasterio"]


def start_fork_server() -> ForkServerContext:
    """Start what workers are forked from: a process without threads, locks or HDF5 handles, which imports what they need
    while the caller still looks at its source. Its children are deaf to Ctrl-C. Called again, it does nothing.
    """
    resource_tracker.ensure_running()  # by ourselves, as starting it lifts the block of signals below
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_NEEDED)
    with interrupts_left_to_parent():
        forkserver.ensure_running()
    return context


@contextmanager
def interrupts_left_to_parent() -> Iterator[None]:
    """Processes that start in here stay deaf to Ctrl-C, which is their parent's to handle; for us it only waits.

    To be called in the main thread. The mask is for them; ours does not help, as a signal goes to any thread.
    """
    caught: list[tuple[int, FrameType | None]] = []
    handler = signal.signal(signal.SIGINT, lambda *signalled: caught.append(signalled))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
        if caught and callable(handler):
            handler(*caught[0])


def exit_with_parent() -> None:
    """In a worker: let none outlive a killed command. (What it was forked from lives as long as it does.)"""

    def watch() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
