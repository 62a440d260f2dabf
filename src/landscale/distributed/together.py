"""All ranks together, from their first meeting to their end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from landscale.distributed.ranks import Ranks, start, stop


@contextmanager
def together(patience: float) -> Iterator[Ranks]:
    """This process among the ranks that a launcher started; alone without one."""
    try:
        yield start()
    finally:
        stop()
