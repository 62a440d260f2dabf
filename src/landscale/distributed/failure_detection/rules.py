"""Which rank a diagnosis names: pure functions of what was observed."""

from __future__ import annotations

from collections.abc import Mapping

from landscale.distributed.failure_detection import messages
from landscale.distributed.failure_detection.messages import Processes
from landscale.distributed.failure_detection.records import SILENT_INTERVALS, Observation

Observations = Mapping[int, Observation]  # by rank


def is_silent(observation: Observation, now: float, interval: float) -> bool:
    """Whether a rank sent no heartbeat for three intervals and readings (readings, because this process may have been paused)."""
    return now - observation.unchanged_since > SILENT_INTERVALS * interval and observation.readings > SILENT_INTERVALS


def all_ended(observations: Observations, world: int) -> bool:
    return len(observations) == world and all(o.heartbeat.end_reason is not None for o in observations.values())


def all_failed_alike(observations: Observations, failure: str) -> bool:
    """Whether every rank ended for the same reason, as when the loss is no longer finite."""
    return all(o.heartbeat.end_reason == failure for o in observations.values())


def furthest_step(observations: Observations) -> int:
    """The last step that any rank has begun; a dead rank's own last heartbeat may be a step older."""
    return max(o.heartbeat.progress.step for o in observations.values())


def explain_without_silent_ranks(
    observations: Observations, own_rank: int, processes: Processes, cause: str, *, hangs: bool
) -> str | None:
    """The message if no rank is silent. It names a rank that ended early, else the ranks that are behind, else no rank.

    Args:
        own_rank: the rank that made the observations. It counts as running, even if it has an end reason.
        cause: why a diagnosis is needed: this rank's broken collective, or the time without progress.
        hangs: whether the reason is the time without progress.

    Returns:
        None if all other ranks have ended well: then no rank waits for this one.
    """
    ended = {rank: o for rank, o in observations.items() if rank != own_rank and o.heartbeat.end_reason}
    if ended:
        first = min(ended, key=lambda rank: ended[rank].ended_at)
        return messages.ended(first, str(ended[first].heartbeat.end_reason), processes)
    running = {
        rank: o.heartbeat.progress
        for rank, o in observations.items()
        if o.heartbeat.end_reason is None or rank == own_rank
    }
    if hangs and len(running) == 1:
        return None
    reached = {rank: (progress.steps_begun, progress.calls_in_step) for rank, progress in running.items()}
    behind = [rank for rank in running if reached[rank] == min(reached.values())]
    ahead = max(running, key=reached.__getitem__)
    if ahead not in behind:
        return messages.behind(behind, running[behind[0]].step, running[ahead].step, processes)
    return messages.all_stalled(running, running[ahead].step, cause, processes)
