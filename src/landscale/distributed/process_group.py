"""A context manager that connects the ranks of one run and detects failures until they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from landscale.distributed.failure_detection import detect_failures
from landscale.distributed.ranks import Ranks, end_process_group, start_process_group


@contextmanager
def process_group(timeout: float) -> Iterator[Ranks]:
    """This process among the ranks that a launcher started; without a launcher, `Ranks()`.

    Args:
        timeout: seconds without progress of any rank, after which all end.

    Raises:
        LandscaleError: not all ranks arrive.
        LostRank: a rank died, failed or hangs.
    """
    ranks = start_process_group()
    try:
        with detect_failures(ranks, timeout) as counter:
            yield replace(ranks, report_progress=counter.report)
    finally:
        end_process_group()
