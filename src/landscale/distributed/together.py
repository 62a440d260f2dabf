"""All ranks together, from their first meeting to their end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from landscale.distributed.ranks import Ranks, start, stop
from landscale.distributed.watch import watched


@contextmanager
def together(patience: float) -> Iterator[Ranks]:
    """This process among the ranks that a launcher started, watched; alone without one.

    Raises:
        LandscaleError: some ranks do not come. LostRank: one is gone, has failed, or does not go on for `patience` seconds.
    """
    ranks = start()
    try:
        with watched(ranks, patience) as watch:
            yield replace(ranks, beat=watch.progress)
    finally:
        stop()
