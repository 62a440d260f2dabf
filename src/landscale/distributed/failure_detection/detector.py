"""The failure detector of a rank: finds out which rank failed, writes one line, ends the process if its main thread cannot.

It runs in a thread of its own and never calls the store, whose host may be the one that died; it reads what the heartbeat
thread has found. The first diagnosis that reaches the store is final, and the rank that proposed it writes the line.
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
from types import FrameType
from typing import NoReturn, TextIO

import torch.distributed as dist

from landscale.distributed.failure_detection import messages, rules
from landscale.distributed.failure_detection.heartbeat import HeartbeatThread
from landscale.distributed.failure_detection.liveness import start_time
from landscale.distributed.failure_detection.records import (
    ENDED_WELL,
    INTERRUPTED,
    SILENT_INTERVALS,
    TERMINATED,
    Diagnosis,
    Observation,
    RankProcess,
)
from landscale.errors import LandscaleError, LostRank, reason

# The first three are numbers of intervals between heartbeats.
_SEARCH_INTERVALS = 6  # after which the search for a silent rank ends
_STORE_INTERVALS = 5  # without an exchange, after which the store counts as dead; at least 3 s
_GRACE_INTERVALS = 10  # for the main thread to notice a failure by itself, as while it writes a checkpoint
_RANKS_PER_INTERVAL = 8  # ranks that begin to search at the same time; the others read their diagnosis


def wake_detector(_number: int, _frame: FrameType | None) -> None:
    """A SIGTERM handler that does nothing: the wake-up descriptor notifies the failure detector."""


class FailureDetector:
    """Decides which rank failed, writes the line, and ends the process where the main thread cannot.

    Args:
        heartbeats: this rank's heartbeat thread; `start` starts it.
        processes: where each rank runs, in order.
        timeout: seconds without progress of any rank, after which the training hangs.
        output: where the line is written.
    """

    def __init__(
        self, heartbeats: HeartbeatThread, processes: Sequence[RankProcess], timeout: float, output: TextIO
    ) -> None:
        self.heartbeats, self.rank, self.processes = heartbeats, heartbeats.ranks.rank, processes
        self.timeout, self.output, self.interval = timeout, output, heartbeats.interval
        self._wake_receiver, self.wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self.wake_sender.setblocking(False)
        own_host = processes[self.rank].host
        starts = {r: start_time(process.pid) for r, process in enumerate(processes) if process.host == own_host}
        self._start_times = {r: start for r, start in starts.items() if start is not None}  # by rank on this host
        self._death_seen_at: dict[int, float] = {}
        self._thread = threading.Thread(target=self._run, name="landscale-failure-detector", daemon=True)
        self._stopping = False
        self._own_calls, self._own_progress_at, self._last_check = 0, time.monotonic(), time.monotonic()
        self._main_thread_waits = self._sigterm_received = False
        self._search_began_at: float | None = None
        self._collective_error: str | None = None  # of the main thread
        self._own_failure: str | None = None  # why this rank fails by itself
        self._diagnosed, self._diagnosed_at, self._message = threading.Event(), 0.0, ""

    # ---- called by the main thread

    def start(self) -> None:
        self.heartbeats.notify = self._wake
        self.heartbeats.start()
        self._thread.start()

    def announce_end(self, end_reason: str) -> None:
        """Announce that this rank ends. The first rank, which may hold the store, waits until all others have ended."""
        self._stop_thread()
        heartbeats, heartbeats.end_reason = self.heartbeats, end_reason
        heartbeats.reads_all = self.rank == 0
        deadline = time.monotonic() + SILENT_INTERVALS * self.interval
        while heartbeats.reads_all and heartbeats.is_alive and not self._all_ended() and time.monotonic() < deadline:
            heartbeats.exchange_now()
            time.sleep(0.1 * self.interval)

    def replacement_for(self, error: Exception) -> Exception:
        """The exception to raise instead of `error`, once there is a diagnosis.

        `LostRank` if another rank broke this one's collective, or if a user can correct the error; otherwise `error` itself.
        """
        is_collective = isinstance(error, dist.DistError) or "gloo" in str(error)
        if is_collective:
            self._collective_error = reason(error)
        else:
            self._own_failure = self.heartbeats.end_reason = messages.error_in_one_line(error)
        self._main_thread_waits, self._search_began_at = True, time.monotonic()
        self._wake()
        self._diagnosed.wait()
        self._keep_store_alive()
        if is_collective:
            return LostRank(self._message)
        return LostRank(self._message, code=2) if isinstance(error, LandscaleError | OSError) else error

    def stop(self) -> None:
        self._stop_thread()
        if self.heartbeats.end_reason is None:
            self.heartbeats.end_reason = INTERRUPTED
        self.heartbeats.stop()

    def _stop_thread(self) -> None:
        self._stopping = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # the socket is full, so the detector wakes anyway
            self.wake_sender.send(b"\0")

    # ---- run in the detector's thread

    def _run(self) -> None:
        while not self._stopping:
            select.select([self._wake_receiver], [], [], self.interval)
            with suppress(BlockingIOError):
                self._sigterm_received |= signal.SIGTERM in self._wake_receiver.recv(64)
            if not self._stopping:
                self._check(time.monotonic())

    def _check(self, now: float) -> None:
        heartbeats = self.heartbeats
        was_paused = now - self._last_check > _STORE_INTERVALS * self.interval + 1
        self._last_check = now
        if was_paused:  # this process was stopped and continued, perhaps with all others; ignore that time
            heartbeats.last_progress = heartbeats.last_exchange = now
        calls = heartbeats.counter.progress.calls
        if calls != self._own_calls:
            self._own_calls, self._own_progress_at = calls, now
        stalled = now - max(heartbeats.last_progress, self._own_progress_at)
        if not self._diagnosed.is_set():
            self._look_for_failure(now, stalled, was_paused=was_paused)
        if self._diagnosed.is_set() and not self._main_thread_waits:
            is_late = now - self._diagnosed_at > _GRACE_INTERVALS * self.interval
            if stalled >= self.timeout or is_late or self._is_terminating:
                self._exit(1)

    def _look_for_failure(self, now: float, stalled: float, *, was_paused: bool) -> None:
        heartbeats, hangs = self.heartbeats, stalled >= self.timeout
        if self._sigterm_received and not self._main_thread_waits and signal.getsignal(signal.SIGTERM) is wake_detector:
            heartbeats.end_reason = TERMINATED
        if self._search_began_at is None and (self._sigterm_received or self._main_thread_waits):
            self._search_began_at = now
        if self._search_began_at is not None:
            searched = now - self._search_began_at
        else:  # all heartbeats are read some time before the time-out, so that silent ranks are known by then
            searched = stalled - self.timeout + _STORE_INTERVALS * self.interval
        searched -= self.rank // _RANKS_PER_INTERVAL * self.interval
        reads_all = searched >= 0 and not was_paused
        if reads_all and not heartbeats.reads_all:
            heartbeats.exchange_now()
        heartbeats.reads_all = reads_all
        if heartbeats.diagnosis is not None:
            self._accept(heartbeats.diagnosis, writes=heartbeats.diagnosis.rank == self.rank)
        elif self._search_began_at is not None or hangs:
            self._search(now, searched, hangs=hangs)
            if heartbeats.proposal is not None:
                heartbeats.exchange_now()

    @property
    def _is_terminating(self) -> bool:
        """Whether this process ends anyway after SIGTERM, and writes a line only if a rank failed."""
        return self.heartbeats.end_reason == TERMINATED

    def _search(self, now: float, searched: float, *, hangs: bool) -> None:
        """Propose a diagnosis, which the next exchange with the store makes final. If the store is dead, decide without it."""
        heartbeats, observations = self.heartbeats, self.heartbeats.observations
        if heartbeats.connection_lost or now - heartbeats.last_exchange > max(_STORE_INTERVALS * self.interval, 3):
            if self._is_terminating:
                self._exit(128 + signal.SIGTERM)
            if self._own_failure is not None:
                self._accept(self._own_failure_diagnosis(), writes=True)
            elif self._main_thread_waits or (hangs and heartbeats.first_rank_end_reason != ENDED_WELL):
                self._accept(self._store_lost_diagnosis(hangs=hangs), writes=self._writes_without_store())
        elif len(observations) < len(self.processes) or heartbeats.proposal is not None:
            return
        elif self._own_failure is not None:
            if rules.all_failed_alike(observations, self._own_failure):
                self._accept(Diagnosis(self.rank, self._own_failure), writes=self.rank == 0)
            elif searched > SILENT_INTERVALS * self.interval:
                heartbeats.proposal = self._own_failure_diagnosis()
        elif lost := [rank for rank, observation in observations.items() if self._is_lost(rank, observation, now)]:
            heartbeats.proposal = self._lost_diagnosis(lost, rules.furthest_step(observations), hangs=hangs)
        elif searched > (SILENT_INTERVALS + 1 if hangs else _SEARCH_INTERVALS) * self.interval or self._all_ended():
            if self._is_terminating:
                self._exit(128 + signal.SIGTERM)
            if not (self._main_thread_waits or hangs):  # no rank failed, and the training handles SIGTERM itself
                self._sigterm_received, self._search_began_at = False, None
                return
            cause = self._collective_error or f"no progress for {self.timeout:g} s"
            message = rules.explain_without_silent_ranks(observations, self.rank, self.processes, cause, hangs=hangs)
            if message is not None:
                heartbeats.proposal = Diagnosis(self.rank, message)

    def _is_lost(self, rank: int, observation: Observation, now: float) -> bool:
        """Whether a rank is silent, or its process on this host dead. mpirun ends all ranks before one counts as silent."""
        if rank in self._start_times and rank not in self._death_seen_at and not self._is_alive(rank):
            self._death_seen_at[rank] = now
            self.heartbeats.exchange_now()  # the rank may have written its end reason since the last reading
        is_dead = observation.read_at > self._death_seen_at.get(rank, math.inf)
        return observation.heartbeat.end_reason is None and (
            is_dead or rules.is_silent(observation, now, self.interval)
        )

    def _is_alive(self, rank: int) -> bool:
        return start_time(self.processes[rank].pid) == self._start_times[rank]

    def _all_ended(self) -> bool:
        return rules.all_ended(self.heartbeats.observations, len(self.processes))

    # ---- diagnoses

    def _own_failure_diagnosis(self) -> Diagnosis:
        return Diagnosis(self.rank, messages.ended(self.rank, str(self._own_failure), self.processes))

    def _lost_diagnosis(self, ranks: Sequence[int], step: int, *, hangs: bool) -> Diagnosis:
        if hangs:
            return Diagnosis(self.rank, messages.silent(ranks, step, self.processes), ranks)
        return Diagnosis(self.rank, messages.dead(ranks, step, self.processes))

    def _store_lost_diagnosis(self, *, hangs: bool) -> Diagnosis:
        step, first_ended = self.heartbeats.counter.progress.step, self.heartbeats.first_rank_end_reason
        if first_ended == ENDED_WELL:  # and the store ended with it
            message = messages.unknown_rank_dead(step, self._collective_error, self.processes)
        elif first_ended:
            message = messages.ended(0, first_ended, self.processes)
        elif _torchrun_holds_store():
            message = messages.torchrun_dead(step, self.processes)
        else:
            return self._lost_diagnosis([0], step, hangs=hangs)
        return Diagnosis(self.rank, message)

    def _writes_without_store(self) -> bool:
        """Whether this rank writes the line if the store is dead: the first rank on a host other than the store's."""
        elsewhere = [r for r, process in enumerate(self.processes) if process.host != self.processes[0].host]
        return self.rank == (elsewhere or [0 if _torchrun_holds_store() else 1])[0]

    # ---- the end

    def _accept(self, diagnosis: Diagnosis, *, writes: bool) -> None:
        if writes:
            with suppress(OSError, ValueError):  # the output is closed
                # A progress bar that is cut off on a terminal leaves the line unfinished and the cursor hidden.
                before = "\n\x1b[?25h" if self.output.isatty() else ""
                self.output.write(f"{before}landscale: {diagnosis.message}\n")
                self.output.flush()
        for rank in diagnosis.hanging:  # otherwise launchers wait for them, and they keep their memory
            if rank != self.rank and rank in self._start_times and self._is_alive(rank):
                with suppress(OSError):
                    os.kill(self.processes[rank].pid, signal.SIGKILL)
        self._message, self._diagnosed_at = diagnosis.message, time.monotonic()
        self._diagnosed.set()

    def _exit(self, code: int) -> NoReturn:
        self._keep_store_alive()
        os._exit(code)

    def _keep_store_alive(self) -> None:
        """Wait on the first rank if it holds the store, so that the others can read the diagnosis."""
        if self.rank == 0 and not _torchrun_holds_store():
            time.sleep(SILENT_INTERVALS * self.interval)


def _torchrun_holds_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
