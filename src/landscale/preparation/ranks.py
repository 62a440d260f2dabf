"""Ranks in step: what one finds all are told, the error of one ends all, and it is told once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from landscale.errors import LandscaleError, reason

if TYPE_CHECKING:  # it imports torch, which a preparation by one process does without
    from landscale.distributed import Ranks

T = TypeVar("T")
_TO_BEGIN = timedelta(minutes=5)  # for all ranks to be there: one that died before is not waited for any longer


class ToldByFirst(LandscaleError):
    """An error that the first rank tells: the others end without a word."""


def join() -> Ranks:
    """Join the ranks that a launcher announced.

    Raises:
        LandscaleError: some do not come.
    """
    from landscale.distributed import start_process_group

    return start_process_group("gloo", _TO_BEGIN)


def on_first(ranks: Ranks | None, action: Callable[[], T]) -> T:
    """What an action gives on the first rank, which alone does it.

    Raises:
        LandscaleError: it fails there, or a rank is gone.
    """
    if ranks is None:
        return action()
    found = _exchange(ranks.broadcast, _tried(action) if ranks.first else None)
    value: T = _values(ranks, [found])[0]
    return value


def on_all(ranks: Ranks | None, action: Callable[[], T]) -> list[T]:
    """What an action gives on each rank.

    Raises:
        LandscaleError: it fails on one of them, or a rank is gone.
    """
    if ranks is None:
        return [action()]
    return _values(ranks, _exchange(ranks.gather, _tried(action)))


def _tried(action: Callable[[], T]) -> tuple[T | None, str | None]:
    try:
        return action(), None
    except LandscaleError as error:
        return None, str(error)
    except OSError as error:
        return None, f"{error.filename or 'file system'}: {error.strerror or error}"


def _exchange(how: Callable[[Any], Any], mine: Any) -> Any:
    try:
        return how(mine)
    except RuntimeError as error:  # gloo's connections end with a killed process
        raise LandscaleError(f"another rank is gone ({reason(error)}); run the same command again") from None


def _values(ranks: Ranks, answers: list[tuple[Any, str | None]]) -> list[Any]:
    for _, problem in answers:
        if problem is not None:
            raise (LandscaleError if ranks.first else ToldByFirst)(problem)
    return [value for value, _ in answers]
