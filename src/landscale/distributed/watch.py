"""Nobody waits for ever for a rank that is gone: all others end, and one line names it and its host.

Two threads a rank: its `heart` beats, its `judge` decides.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from landscale.distributed.heart import Heart, Process, Watch, connect
from landscale.distributed.judge import DONE, Judge, ignored
from landscale.distributed.ranks import Ranks
from landscale.errors import LandscaleError, reason
from landscale.runtime.signals import Stopped


@contextmanager
def watched(ranks: Ranks, patience: float, said: TextIO = sys.stderr) -> Iterator[Watch]:
    """Within the block, a rank that dies, fails or hangs ends all others. All ranks enter it together.

    An error of a rank's own is told to the others before it ends; an interruption is no failure. SIGTERM, which launchers
    send to those that are left, makes a rank look who is gone; unless it is handled otherwise, the process ends then.

    Args:
        patience: seconds without progress of any rank after which all end; the process is ended where its main thread
            sits in a collective. The process group's own timeout must be longer.
        said: where the line goes; one rank writes it.

    Raises:
        LostRank: another rank is gone or has failed, or this one failed by what a user can mend.
    """
    watch = Watch()
    if ranks.world == 1:
        yield watch
        return
    try:
        heart = Heart(connect(), ranks, watch, min(1.0, patience / 10))
        heart.exchange_first()
        everybody = [Process(*about) for about in ranks.gather((socket.gethostname(), os.getpid()))]
    except RuntimeError as error:
        raise LandscaleError(f"another rank is gone ({reason(error)}); run the same command again") from None
    judge = Judge(heart, everybody, patience, said)
    with _terminations_to(judge.bell):
        judge.begin()
        try:
            yield watch
        except Stopped:  # by all ranks together
            judge.leave(DONE)
            raise
        except Exception as error:
            better = judge.explain(error)
            if better is error:
                raise
            raise better from None
        except BaseException:
            judge.leave("interrupted")
            raise
        else:
            judge.leave(DONE)
        finally:
            judge.close()


@contextmanager
def _terminations_to(bell: socket.socket) -> Iterator[None]:
    """SIGTERM rings a bell, at once even while the main thread sits in a collective."""
    before = signal.signal(signal.SIGTERM, ignored)
    wakes = signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakes)
        if signal.getsignal(signal.SIGTERM) is ignored:
            signal.signal(signal.SIGTERM, before)
