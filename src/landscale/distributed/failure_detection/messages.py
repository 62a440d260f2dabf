"""Messages for the user about failed ranks: which rank, on which host, at which step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from landscale.distributed.failure_detection.records import RankProcess
from landscale.errors import LandscaleError, reason

RESUME = "run the same command again to resume from the last checkpoint"
_MOST_LISTED = 16

Processes = Sequence[RankProcess]  # of all ranks


def ended(rank: int, end_reason: str, processes: Processes) -> str:
    return f"{_name([rank], processes)} ended: {end_reason}"


def dead(ranks: Sequence[int], step: int, processes: Processes) -> str:
    return f"{_name(ranks, processes)} died or became unreachable {_at(step)}; {RESUME}"


def silent(ranks: Sequence[int], step: int, processes: Processes) -> str:
    since = f"since step {step}" if step >= 0 else "since before the first step"
    return f"{_name(ranks, processes)} {_have(ranks)} not responded {since}; {RESUME}"


def behind(ranks: Sequence[int], step: int, others_step: int, processes: Processes) -> str:
    makes = "makes" if len(ranks) == 1 else "make"
    return f"{_name(ranks, processes)} {makes} no progress {_at(step)}, other ranks wait {_at(others_step)}; {RESUME}"


def all_stalled(ranks: Iterable[int], step: int, cause: str, processes: Processes) -> str:
    hosts = _name_hosts({processes[rank].host for rank in ranks})
    return f"no rank makes progress {_at(step)}, and which one causes it is unknown ({cause}; {hosts}); {RESUME}"


def unknown_rank_dead(step: int, cause: str | None, processes: Processes) -> str:
    hosts = _name_hosts({process.host for process in processes})
    return f"a rank died or became unreachable {_at(step)}, and which one is unknown ({cause}; {hosts}); {RESUME}"


def torchrun_dead(step: int, processes: Processes) -> str:
    return f"torchrun on host {processes[0].host}, where rank 0 ran, died or became unreachable {_at(step)}; {RESUME}"


def error_in_one_line(error: Exception) -> str:
    """The end reason that a failed rank writes to the store: its error, in one line."""
    if isinstance(error, LandscaleError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        return f"{error.filename or 'file system'}: {error.strerror or error}"
    return f"{type(error).__name__}: {reason(error)}"


def _name(ranks: Sequence[int], processes: Processes) -> str:
    if len(ranks) == 1:
        host, pid = processes[ranks[0]]
        return f"rank {ranks[0]} on host {host} (process {pid})"
    return f"ranks {_list(ranks)} on {_name_hosts({processes[rank].host for rank in ranks})}"


def _name_hosts(hosts: set[str]) -> str:
    return f"host{'s' if len(hosts) > 1 else ''} {_list(sorted(hosts))}"


def _list(items: Sequence[object]) -> str:
    more = f" and {len(items) - _MOST_LISTED} more" if len(items) > _MOST_LISTED else ""
    return ", ".join(map(str, items[:_MOST_LISTED])) + more


def _at(step: int) -> str:
    return f"at step {step}" if step >= 0 else "before the first step"


def _have(ranks: Sequence[int]) -> str:
    return "has" if len(ranks) == 1 else "have"
