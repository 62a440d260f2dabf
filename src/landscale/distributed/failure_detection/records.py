"""What ranks write to the store about themselves, and what one rank has observed of another."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

SILENT_INTERVALS = 3  # a rank without a new heartbeat for so many intervals counts as silent
ENDED_WELL, TERMINATED, INTERRUPTED = "", "SIGTERM", "interrupted"  # end reasons; any other is the text of an error


class RankProgress(NamedTuple):
    """The progress of a rank.

    Ranks are compared by (`steps_begun`, `calls_in_step`): after a resumed epoch step numbers need not grow by one.
    """

    calls: int = 0
    """calls of `ProgressCounter.report`"""
    step: int = -1
    """the last step that was begun, −1 before the first"""
    steps_begun: int = 0
    calls_in_step: int = 0
    """calls since that step was begun"""


class Heartbeat(NamedTuple):
    """What a rank writes at every interval. `end_reason` is None while it trains; see `ENDED_WELL` and the others."""

    number: int
    progress: RankProgress = RankProgress()
    end_reason: str | None = None

    def to_json(self) -> str:
        return json.dumps(self)

    @classmethod
    def from_json(cls, text: bytes) -> Heartbeat:
        number, progress, end_reason = json.loads(text)
        return cls(number, RankProgress(*progress), end_reason)


class Diagnosis(NamedTuple):
    """What happened, as one line, and the rank that found it and writes the line."""

    rank: int
    message: str
    hanging: Sequence[int] = ()
    """ranks without heartbeats whose processes may still exist, as after SIGSTOP: they are killed"""


class RankProcess(NamedTuple):
    """Where a rank runs."""

    host: str
    pid: int


class Observation(NamedTuple):
    """What one rank has observed of another: its latest heartbeat, and since when there is no newer one. Times are monotonic."""

    heartbeat: Heartbeat
    read_at: float
    """when the latest reading began"""
    unchanged_since: float
    readings: int = 1
    """readings in which the heartbeat was this one"""
    ended_at: float = math.inf
    """when an end reason was first read"""

    def updated(self, heartbeat: Heartbeat, read_at: float, now: float) -> Observation:
        """The observation after one more reading, which began at `read_at` and ended `now`."""
        ended_at = self.ended_at if heartbeat.end_reason is None else min(self.ended_at, now)
        if heartbeat.number == self.heartbeat.number:
            return self._replace(read_at=read_at, readings=self.readings + 1, ended_at=ended_at)
        return Observation(heartbeat, read_at, now, 1, ended_at)
