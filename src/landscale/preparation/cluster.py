"""Jobs on many machines, by a dask.distributed scheduler. Whatever a lost worker had is done again by another."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from concurrent.futures import CancelledError
from contextlib import closing
from typing import Any

from landscale.errors import BadInput, LandscaleError, reason
from landscale.preparation.extract import Damaged, Extractor, Task
from landscale.preparation.plan import Job
from landscale.preparation.pool import LOOK

_PATIENCE = 60  # seconds for the scheduler to answer and its first worker to join
_TRIES = 10  # of a job whose workers die again and again (each try outlives as many deaths as the scheduler allows)


def run_on_cluster(task: Task, jobs: list[Job], scheduler: str) -> Generator[Damaged, None, None]:
    """Extract all jobs on the workers of the scheduler at that address; yields as `run_here`.

    The store and the source must lie on a file system that all workers share, under the same path.

    Raises:
        LandscaleError: dask is not installed, no scheduler or no worker answers, the scheduler is lost, or a job kills
            every worker it meets.
    """
    try:
        from distributed.comm.core import CommClosedError

        from distributed import Client, KilledWorker, as_completed
    except ImportError:
        raise LandscaleError("--scheduler needs dask.distributed: pip install 'landscale[dask]'") from None
    for name in ("distributed", "distributed.client"):  # each has a handler of its own
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what is wrong is told in one line, ours
    try:
        client = Client(scheduler, timeout=_PATIENCE)
    except (OSError, ValueError) as error:
        raise LandscaleError(f"--scheduler {scheduler}: no dask scheduler answers there ({reason(error)})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise LandscaleError(f"--scheduler {scheduler}: no worker joined within {_PATIENCE} s") from None
        tries: dict[Any, tuple[Job, int]] = {}

        def submit(job: Job, number: int) -> Any:
            future = client.submit(_run, task, job, pure=False)
            tries[future.key] = job, number
            return future

        running = as_completed([submit(job, 1) for job in sorted(jobs, key=len, reverse=True)])
        while running.count():
            time.sleep(LOOK)
            for future in running.next_batch(block=False):
                job, number = tries.pop(future.key)
                try:
                    yield future.result()
                except KilledWorker as killed:
                    if number == _TRIES:
                        raise LandscaleError(f"the workers of {scheduler} die again and again ({killed})") from None
                    running.add(submit(job, number + 1))
                except (CancelledError, CommClosedError):  # not by us
                    raise LandscaleError(f"lost the scheduler at {scheduler}; run the same command again") from None
            yield []


def _run(task: Task, job: Job) -> Damaged:
    try:
        extractor = Extractor(task)
    except BadInput as error:
        raise BadInput(task.store, f"{error.problem}; do all workers see this file?") from None
    with closing(extractor):
        return [damaged for part in extractor.run(job) for damaged in part]
