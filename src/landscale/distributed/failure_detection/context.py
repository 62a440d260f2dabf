"""Failure detection around a block of code, on every rank at once."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from landscale.distributed.failure_detection.detector import FailureDetector, wake_detector
from landscale.distributed.failure_detection.heartbeat import HeartbeatThread, ProgressCounter, connect_to_store
from landscale.distributed.failure_detection.records import ENDED_WELL, INTERRUPTED, RankProcess
from landscale.distributed.ranks import Ranks
from landscale.errors import LandscaleError, reason
from landscale.runtime.signals import Stopped

_LONGEST_INTERVAL = 1.0  # seconds between two heartbeats


@contextmanager
def detect_failures(ranks: Ranks, timeout: float, output: TextIO | None = None) -> Iterator[ProgressCounter]:
    """Within the block, a rank that dies, fails or hangs ends all others. All ranks must enter the block together.

    The error of a rank is announced to the others before it ends; an interruption is no failure. After SIGTERM, which
    launchers send to the ranks that are left, a rank searches for a failed one, and then ends unless the training has
    a SIGTERM handler of its own.

    Args:
        timeout: seconds without progress of any rank, after which all end; a process whose main thread is in a collective
            is ended by `os._exit`. The process group's own time-out must be longer.
        output: where the line is written, by one rank; stderr by default.

    Yields:
        This rank's counter; the block reports its progress there.

    Raises:
        LandscaleError: another rank ended before the block began.
        LostRank: another rank died or failed, or this one failed with an error that a user can correct.
    """
    counter = ProgressCounter()
    if ranks.world == 1:
        yield counter
        return
    try:
        heartbeats = HeartbeatThread(connect_to_store(), ranks, counter, min(_LONGEST_INTERVAL, timeout / 10))
        heartbeats.write_first()
        processes = [RankProcess(*process) for process in ranks.gather((socket.gethostname(), os.getpid()))]
    except RuntimeError as error:
        raise LandscaleError(f"another rank ended early ({reason(error)}); run the same command again") from None
    detector = FailureDetector(heartbeats, processes, timeout, output or sys.stderr)
    with _sigterm_wakes(detector.wake_sender):
        detector.start()
        try:
            yield counter
        except Stopped:  # raised on all ranks together
            detector.announce_end(ENDED_WELL)
            raise
        except Exception as error:
            replacement = detector.replacement_for(error)
            if replacement is error:
                raise
            raise replacement from None
        except BaseException:
            detector.announce_end(INTERRUPTED)
            raise
        else:
            detector.announce_end(ENDED_WELL)
        finally:
            detector.stop()


@contextmanager
def _sigterm_wakes(wake_sender: socket.socket) -> Iterator[None]:
    """Within the block, SIGTERM writes to `wake_sender` at once, even while the main thread is in a collective."""
    previous_handler = signal.signal(signal.SIGTERM, wake_detector)
    previous_descriptor = signal.set_wakeup_fd(wake_sender.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous_descriptor)
        if signal.getsignal(signal.SIGTERM) is wake_detector:
            signal.signal(signal.SIGTERM, previous_handler)
