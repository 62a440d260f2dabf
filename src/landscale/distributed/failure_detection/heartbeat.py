"""The heartbeat thread of a rank: writes this rank's heartbeat to the store and reads those of the others.

One exchange costs three requests, however many ranks there are: this rank's heartbeat, the total progress of all ranks, and
whether there is a diagnosis. The heartbeats of all ranks are read only while the failure detector sets `reads_all`.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store

from landscale.distributed.failure_detection.records import (
    SILENT_INTERVALS,
    Diagnosis,
    Heartbeat,
    Observation,
    RankProgress,
)
from landscale.distributed.ranks import Ranks

_sessions = itertools.count()  # numbers of `detect_failures` blocks in this process, each with its own keys


class ProgressCounter:
    """The progress of this rank; written by its main thread, read by its heartbeat thread."""

    def __init__(self) -> None:
        self.progress = RankProgress()

    def report(self, step: int) -> None:
        """Report that this rank makes progress. Call it with a step just before its collectives, and with −1 within a step.

        Costs well under a microsecond. A training hangs if no rank calls this for longer than the time-out. Ranks are
        compared by the number of steps that they have begun, so all must begin the same ones.
        """
        p = self.progress
        if step in (-1, p.step):
            self.progress = RankProgress(p.calls + 1, p.step, p.steps_begun, p.calls_in_step + 1)
        else:
            self.progress = RankProgress(p.calls + 1, step, p.steps_begun + 1, 0)


def connect_to_store() -> Store:
    """A second connection to the store by which the ranks connected: torchrun's, or the first rank's."""
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    client = TCPStore(*address, is_master=False, timeout=timedelta(minutes=1))
    # After a time-out, the late answer to one request would be read as the answer to the next. So requests of this
    # connection do not time out; the failure detector measures how long they take.
    client.set_timeout(timedelta(days=7))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"landscale/failure_detection/{attempt}/{next(_sessions)}", client)


@dataclass
class HeartbeatThread:
    """Exchanges heartbeats with the store. The failure detector sets and reads its attributes."""

    store: Store
    ranks: Ranks
    counter: ProgressCounter
    interval: float
    """seconds between two heartbeats"""

    # Set by the failure detector.
    end_reason: str | None = None
    proposal: Diagnosis | None = None
    """written to the store unless there is a diagnosis already"""
    reads_all: bool = False
    """whether to read the heartbeats of all ranks"""
    notify: Callable[[], None] = lambda: None
    """called after each exchange"""

    # Set by this thread.
    last_exchange: float = field(default_factory=time.monotonic)
    last_progress: float = field(default_factory=time.monotonic)
    """when the total progress of all ranks last changed"""
    connection_lost: bool = False
    diagnosis: Diagnosis | None = None
    first_rank_end_reason: str | None = None
    observations: dict[int, Observation] = field(default_factory=dict)
    """of all ranks; empty unless `reads_all`"""

    def __post_init__(self) -> None:
        self._number = self._reported_calls = self._total_calls = 0
        self._wake, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="landscale-heartbeat", daemon=True)

    def write_first(self) -> None:
        """Write this rank's keys. After a barrier of all ranks, every key exists."""
        if self.ranks.first:
            self.store.set("diagnosis", "")
        self._write()

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def exchange_now(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        """End after one more exchange. If a request is not answered, the (daemon) thread is left running."""
        self._stopping = True
        self.exchange_now()
        self._thread.join(SILENT_INTERVALS * self.interval)

    def _run(self) -> None:
        try:
            is_last = False
            while not is_last and self.diagnosis is None:
                is_last = self._stopping
                self._exchange()
                if not is_last:
                    self._wake.wait(self.interval)
                    self._wake.clear()
        except RuntimeError:  # the connection to the store is broken
            self.connection_lost = True

    def _write(self) -> None:
        progress = self.counter.progress
        self._number += 1
        heartbeat = Heartbeat(self._number, progress, self.end_reason)
        self.store.set(f"heartbeat/{self.ranks.rank}", heartbeat.to_json())
        total = self.store.add("progress", progress.calls - self._reported_calls)
        self._reported_calls = progress.calls
        if total != self._total_calls:
            self._total_calls, self.last_progress = total, time.monotonic()

    def _exchange(self) -> None:
        self._write()
        diagnosis, first_heartbeat = self.store.multi_get(["diagnosis", "heartbeat/0"])
        if not diagnosis and self.proposal is not None:
            diagnosis = self.store.compare_set(
                "diagnosis", "", json.dumps(self.proposal)
            )  # the diagnosis of the first rank that proposed one
        self.first_rank_end_reason = Heartbeat.from_json(first_heartbeat).end_reason
        self._read_all()
        if diagnosis:
            self.diagnosis = Diagnosis(*json.loads(diagnosis))
        self.last_exchange = time.monotonic()
        self.notify()

    def _read_all(self) -> None:
        if not self.reads_all:
            self.observations = {}
            return
        read_at = time.monotonic()
        texts = self.store.multi_get([f"heartbeat/{rank}" for rank in range(self.ranks.world)])
        now = time.monotonic()
        none_yet = Observation(Heartbeat(0), read_at, now)
        self.observations = {
            rank: self.observations.get(rank, none_yet).updated(Heartbeat.from_json(text), read_at, now)
            for rank, text in enumerate(texts)
        }
