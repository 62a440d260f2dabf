"""Who decides that a rank is gone, tells it, and ends the process where its main thread sits in a collective.

The judge never talks to the store, whose host may be the one that is gone; the heart does. The first verdict that is written
to the store holds, and who wrote it tells it.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

import torch.distributed as dist

from landscale.distributed.heart import SILENT, Heart, Process, Sight, Verdict
from landscale.errors import LandscaleError, LostRank, reason

_LOOKING = 6  # beats after which one gives up looking for a silent rank
_STORE_SILENT = 5  # beats, and at least 3 s
_GRACE = 10  # beats that the main thread has to notice a loss by itself, as when it is writing a checkpoint
_AGAIN = "run the same command again, it goes on from the last checkpoint"
DONE, TERMINATED = "", "SIGTERM"  # how a rank ended: well, by a signal; or a reason


def ignored(_number: int, _frame: FrameType | None) -> None:
    """The judge hears of it."""


class Judge:
    """Decides what is wrong, tells it, and ends the process where the main thread cannot."""

    def __init__(self, heart: Heart, everybody: Sequence[Process], patience: float, said: TextIO) -> None:
        self.heart, self.rank, self.everybody = heart, heart.ranks.rank, everybody
        self.patience, self.said, self.beat = patience, said, heart.beat
        self._ear, self.bell = socket.socketpair()
        self._ear.setblocking(False)
        self.bell.setblocking(False)
        here = everybody[self.rank].host
        births = {r: _birth(process.pid) for r, process in enumerate(everybody) if process.host == here}
        self._near = {r: birth for r, birth in births.items() if birth is not None}
        self._died: dict[int, float] = {}  # when that was seen
        self._thread = threading.Thread(target=self._run, name="landscale-judge", daemon=True)
        self._closed = False
        self._calls, self._moved, self._awake = 0, time.monotonic(), time.monotonic()
        self._asked = self._terminated = False
        self._trouble: float | None = None  # since when
        self._error: str | None = None  # what the main thread's collective said
        self._failure: str | None = None  # why this rank ends by itself
        self._decided, self._decided_at, self._line = threading.Event(), 0.0, ""

    # ---- the main thread's side

    def begin(self) -> None:
        self.heart.tell = self._ring
        self.heart.begin()
        self._thread.start()

    def leave(self, ended: str) -> None:
        """Tell the others that this rank ends. The first one, which may hold the store, stays until they know."""
        self._close()
        heart, heart.ended = self.heart, ended
        heart.looks = self.rank == 0
        until = time.monotonic() + SILENT * self.beat
        while heart.looks and heart.beats and not self._all_ended() and time.monotonic() < until:
            heart.hurry()
            time.sleep(0.1 * self.beat)

    def explain(self, error: Exception) -> Exception:
        """What to raise instead of an error: who broke the collective, or the same error if it is a bug of ours."""
        lost = isinstance(error, dist.DistError) or "gloo" in str(error)
        if lost:
            self._error = reason(error)
        else:
            self._failure = self.heart.ended = _one_line(error)
        self._asked, self._trouble = True, time.monotonic()
        self._ring()
        self._decided.wait()
        self._linger()
        if lost:
            return LostRank(self._line)
        return LostRank(self._line, code=2) if isinstance(error, LandscaleError | OSError) else error

    def close(self) -> None:
        self._close()
        if self.heart.ended is None:
            self.heart.ended = "interrupted"
        self.heart.close()

    def _close(self) -> None:
        self._closed = True
        self._ring()
        self._thread.join()

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # it rings already
            self.bell.send(b"\0")

    # ---- the thread

    def _run(self) -> None:
        while not self._closed:
            select.select([self._ear], [], [], self.beat)
            with suppress(BlockingIOError):
                self._terminated |= signal.SIGTERM in self._ear.recv(64)
            if not self._closed:
                self._judge(time.monotonic())

    def _judge(self, now: float) -> None:
        heart = self.heart
        slept, self._awake = now - self._awake > _STORE_SILENT * self.beat + 1, now
        if slept:  # stopped and continued, perhaps with all others: nobody is to blame for that time
            heart.moved = heart.heard = now
        calls = heart.watch.mark.calls
        if calls != self._calls:
            self._calls, self._moved = calls, now
        still = now - max(heart.moved, self._moved)
        if not self._decided.is_set():
            self._consider(now, still, slept)
        if self._decided.is_set() and not self._asked:
            late = now - self._decided_at > _GRACE * self.beat
            if still >= self.patience or late or self._quiet:
                self._exit(1)

    def _consider(self, now: float, still: float, slept: bool) -> None:
        heart, hangs = self.heart, still >= self.patience
        if self._terminated and not self._asked and signal.getsignal(signal.SIGTERM) is ignored:
            heart.ended = TERMINATED
        if self._trouble is None and (self._terminated or self._asked):
            self._trouble = now
        looked = now - self._trouble if self._trouble is not None else still - self.patience + _STORE_SILENT * self.beat
        looked -= self.rank // 8 * self.beat  # of many ranks a few find out, and the others read it
        looks = looked >= 0 and not slept
        if looks > heart.looks:
            heart.hurry()
        heart.looks = looks
        if heart.verdict is not None:
            self._decide(heart.verdict, tells=heart.verdict.rank == self.rank)
        elif self._trouble is not None or hangs:
            self._search(now, looked, hangs)
            if heart.proposal is not None:
                heart.hurry()

    @property
    def _quiet(self) -> bool:
        """Whether this process ends anyway, and with a word only if a rank is gone."""
        return self.heart.ended == TERMINATED

    def _search(self, now: float, looked: float, hangs: bool) -> None:
        """Propose a verdict, which the next exchange with the store makes one; where the store is gone, decide."""
        heart = self.heart
        if heart.lost or now - heart.heard > max(_STORE_SILENT * self.beat, 3):
            if self._quiet:
                self._exit(128 + signal.SIGTERM)
            if self._failure is not None:
                self._decide(self._failed(), tells=True)
            elif self._asked or (hangs and heart.first_ended != DONE):
                self._decide(self._store_lost(hangs), tells=self._tells_of_store())
        elif len(heart.sights) < len(self.everybody) or heart.proposal is not None:
            return
        elif self._failure is not None:
            all_alike = all(sight.beat.ended == self._failure for sight in heart.sights.values())
            if all_alike:  # as when the loss is no longer finite: then no rank is to be named
                self._decide(Verdict(self.rank, self._failure), tells=self.rank == 0)
            elif looked > SILENT * self.beat:
                heart.proposal = self._failed()
        elif silent := [r for r, sight in heart.sights.items() if self._is_gone(r, sight, now)]:
            step = max(sight.beat.mark.step for sight in heart.sights.values())  # its own last beat is older
            heart.proposal = self._gone(silent, step, hangs)
        elif looked > (SILENT + 1 if hangs else _LOOKING) * self.beat or self._all_ended():
            if self._quiet:
                self._exit(128 + signal.SIGTERM)
            if not (self._asked or hangs):  # nobody is gone, and the main thread handles the signal
                self._terminated, self._trouble = False, None
            elif line := self._none_silent(hangs):
                heart.proposal = Verdict(self.rank, line)

    def _is_gone(self, rank: int, sight: Sight, now: float) -> bool:
        """Silent, or dead: seen on this host, as mpirun kills those that are left after a second or two."""
        silent = now - sight.since > SILENT * self.beat and sight.looks > SILENT
        if rank in self._near and not self._lives(rank) and rank not in self._died:
            self._died[rank] = now
            self.heart.hurry()  # it may have said why since the last look
        dead = sight.looked > self._died.get(rank, math.inf)
        return sight.beat.ended is None and (silent or dead)

    def _lives(self, rank: int) -> bool:
        return _birth(self.everybody[rank].pid) == self._near[rank]

    def _all_ended(self) -> bool:
        sights = self.heart.sights
        return len(sights) == len(self.everybody) and all(s.beat.ended is not None for s in sights.values())

    def _none_silent(self, hangs: bool) -> str | None:
        """Who left without a failure, who is behind, or nobody in particular; None if nobody waits for this rank."""
        sights = self.heart.sights
        left = {r: s for r, s in sights.items() if r != self.rank and s.beat.ended}
        if left:
            first = min(left, key=lambda r: left[r].ended_since)
            return f"{self._named([first])} ended: {left[first].beat.ended}"
        at = {r: s.beat.mark for r, s in sights.items() if s.beat.ended is None or r == self.rank}
        if hangs and len(at) == 1:
            return None
        begun = {r: (mark.begun, mark.within) for r, mark in at.items()}
        behind = [r for r in at if begun[r] == min(begun.values())]
        ahead = max(at, key=begun.__getitem__)
        if ahead not in behind:
            still = f"{self._named(behind)} {_are(behind, 'standing still')} {_at(at[behind[0]].step)}"
            return f"{still}, others wait {_at(at[ahead].step)}; {_AGAIN}"
        why = self._error or f"no progress for {self.patience:g} s"
        hosts = _hosts({self.everybody[r].host for r in at})
        return f"all ranks stand still {_at(at[ahead].step)}, and none can be named ({why}; {hosts}); {_AGAIN}"

    # ---- words

    def _failed(self) -> Verdict:
        return Verdict(self.rank, f"{self._named([self.rank])} ended: {self._failure}")

    def _gone(self, ranks: Sequence[int], step: int, hangs: bool) -> Verdict:
        line = f"{self._named(ranks)} {_are(ranks, 'silent' if hangs else 'gone')} {_since(step)}; {_AGAIN}"
        return Verdict(self.rank, line, ranks if hangs else ())

    def _store_lost(self, hangs: bool) -> Verdict:
        step, ended = _since(self.heart.watch.mark.step), self.heart.first_ended
        if ended == DONE:  # and with it the store
            return Verdict(self.rank, f"a rank is gone {step}, and none can be named ({self._error}); {_AGAIN}")
        if ended:
            return Verdict(self.rank, f"{self._named([0])} ended: {ended}")
        if _agent_holds_store():
            where = f"torchrun on host {self.everybody[0].host}, where rank 0 ran,"
            return Verdict(self.rank, f"{where} is gone {step}; {_AGAIN}")
        return self._gone([0], self.heart.watch.mark.step, hangs)

    def _tells_of_store(self) -> bool:
        """Who tells that the store is gone cannot be settled through it: the first on another host, which may live."""
        elsewhere = [r for r, process in enumerate(self.everybody) if process.host != self.everybody[0].host]
        return self.rank == (elsewhere or [0 if _agent_holds_store() else 1])[0]

    def _named(self, ranks: Sequence[int]) -> str:
        if len(ranks) == 1:
            host, pid = self.everybody[ranks[0]]
            return f"rank {ranks[0]} on host {host} (process {pid})"
        return f"ranks {_listed(ranks)} on {_hosts({self.everybody[r].host for r in ranks})}"

    # ---- the end

    def _decide(self, verdict: Verdict, tells: bool) -> None:
        if tells:
            with suppress(OSError, ValueError):  # nobody listens any more
                # A bar that is cut off on a terminal stands on this line and has hidden the cursor.
                before = "\n\x1b[?25h" if self.said.isatty() else ""
                self.said.write(f"{before}landscale: {verdict.line}\n")
                self.said.flush()
        for rank in verdict.stopped:  # launchers would wait for it, and it would keep its memory
            if rank != self.rank and rank in self._near and self._lives(rank):
                with suppress(OSError):
                    os.kill(self.everybody[rank].pid, signal.SIGKILL)
        self._line, self._decided_at = verdict.line, time.monotonic()
        self._decided.set()

    def _exit(self, code: int) -> NoReturn:
        self._linger()
        os._exit(code)

    def _linger(self) -> None:
        """The first rank may hold the store, where the others read the verdict."""
        if self.rank == 0 and not _agent_holds_store():
            time.sleep(SILENT * self.beat)


def _agent_holds_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _birth(pid: int) -> int | None:
    """When a process of this host was started, in ticks, which no later one of the same number shares; None if it is dead."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None


def _one_line(error: Exception) -> str:
    if isinstance(error, LandscaleError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        return f"{error.filename or 'file system'}: {error.strerror or error}"
    return f"{type(error).__name__}: {reason(error)}"


def _at(step: int) -> str:
    return f"at step {step}" if step >= 0 else "before the first step"


def _since(step: int) -> str:
    return f"since step {step}" if step >= 0 else "since before the first step"


def _are(ranks: Sequence[int], what: str) -> str:
    return f"{'is' if len(ranks) == 1 else 'are'} {what}"


def _listed(words: Sequence[object]) -> str:
    return ", ".join(map(str, words[:16])) + (f" and {len(words) - 16} more" if len(words) > 16 else "")


def _hosts(hosts: set[str]) -> str:
    return f"host{'s' if len(hosts) > 1 else ''} {_listed(sorted(hosts))}"
