"""Start and end worker processes on the machine of a command."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, parent_process, resource_tracker
from multiprocessing.context import ForkServerContext
from types import FrameType

_PRELOADED = ("landscale.preparation.extract", "rasterio")


def start_fork_server(modules: Sequence[str] = _PRELOADED) -> ForkServerContext:
    """Start the fork server, from which workers are forked; called again, it does nothing.

    It has no threads, locks or HDF5 handles, and imports the `modules` of the workers while the caller still surveys its
    source. Workers ignore Ctrl-C.
    """
    resource_tracker.ensure_running()  # before the block below, as starting it unblocks signals
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    with interrupts_left_to_parent():
        forkserver.ensure_running()
    return context


@contextmanager
def interrupts_left_to_parent() -> Iterator[None]:
    """Processes that are started in the block ignore Ctrl-C, which their parent handles; the parent handles it after the block.

    Call it in the main thread. The processes inherit the signal mask. In this process the mask alone is not enough, as a
    signal may be delivered to any thread, so the handler records it.
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
    """In a worker: exit when the command ends, even if it was killed."""

    def watch() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
