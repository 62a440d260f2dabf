"""Preparation by several ranks in step: if one rank raises, all raise, so that none blocks in a collective."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from landscale.errors import LandscaleError, reason

if TYPE_CHECKING:  # it imports torch, which a preparation by one process does not need
    from landscale.distributed import Ranks

T = TypeVar("T")
_START_TIMEOUT = timedelta(
    minutes=5
)  # for all ranks to join; one that died before that does not block the others longer
_WORLD_SIZES = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


class ReportedByFirstRank(LandscaleError):
    """An error that the first rank reports: the other ranks exit without printing it."""


def several_ranks() -> bool:
    """Whether torchrun, srun or mpirun started several ranks, by the environment; imports nothing."""
    return any(int(os.environ.get(key, "1")) > 1 for key in _WORLD_SIZES)


@contextmanager
def joined_ranks() -> Iterator[Ranks | None]:
    """The ranks that a launcher started, connected until the end of the block; None for a single process.

    Raises:
        LandscaleError: some of them do not join.
    """
    if not several_ranks():
        yield None
        return
    from landscale.distributed import end_process_group, start_process_group

    ranks = start_process_group("gloo", _START_TIMEOUT)
    try:
        yield ranks
    finally:
        end_process_group()


def on_first_rank(ranks: Ranks | None, action: Callable[[], T]) -> T:
    """Run an action on the first rank only; all ranks get its value.

    Raises:
        LandscaleError: it fails, or a rank is gone.
    """
    if ranks is None:
        return action()
    outcome = _exchange(ranks.broadcast, _attempt(action) if ranks.first else None)
    value: T = _values(ranks, [outcome])[0]
    return value


def on_all_ranks(ranks: Ranks | None, action: Callable[[], T]) -> list[T]:
    """Run an action on every rank; all ranks get all values, in the order of the ranks.

    Raises:
        LandscaleError: it fails on one of them, or a rank is gone.
    """
    if ranks is None:
        return [action()]
    return _values(ranks, _exchange(ranks.gather, _attempt(action)))


def _attempt(action: Callable[[], T]) -> tuple[T | None, str | None]:
    """The value of an action, or the text of its error."""
    try:
        return action(), None
    except LandscaleError as error:
        return None, str(error)
    except OSError as error:
        return None, f"{error.filename or 'file system'}: {error.strerror or error}"


def _exchange(collective: Callable[[Any], Any], outcome: Any) -> Any:
    try:
        return collective(outcome)
    except RuntimeError as error:  # gloo's connections end with a killed process
        raise LandscaleError(f"another rank is gone ({reason(error)}); run the same command again to resume") from None


def _values(ranks: Ranks, outcomes: list[tuple[Any, str | None]]) -> list[Any]:
    for _, problem in outcomes:
        if problem is not None:
            raise (LandscaleError if ranks.first else ReportedByFirstRank)(problem)
    return [value for value, _ in outcomes]
