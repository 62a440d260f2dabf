"""Run jobs on many machines, by a dask.distributed scheduler. The jobs of a lost worker are repeated by another."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from concurrent.futures import CancelledError
from contextlib import closing
from typing import Any

from landscale.errors import BadInput, LandscaleError, reason
from landscale.preparation.extract import ExtractionTask, Extractor
from landscale.preparation.plan import ReadJob
from landscale.preparation.pool import POLL_INTERVAL
from landscale.preparation.result import DamagedPatches

_TIMEOUT = 60  # seconds for the scheduler to answer and its first worker to join
_MAX_TRIES = 10  # tries of a job whose workers die (in each, the scheduler itself restarts the job a few times)


def run_on_cluster(task: ExtractionTask, jobs: list[ReadJob], scheduler: str) -> Generator[DamagedPatches, None, None]:
    """Extract all jobs on the workers of the dask scheduler at that address; yields as `run_locally` does.

    The store and the data set must be on a file system that all workers share, under the same path.

    Raises:
        LandscaleError: dask is not installed, no scheduler or no worker answers, the connection to the scheduler is lost, or
            every worker that runs a certain job dies.
    """
    try:
        from distributed.comm.core import CommClosedError

        from distributed import Client, KilledWorker, as_completed
    except ImportError:
        raise LandscaleError("--scheduler needs dask.distributed: pip install 'landscale[dask]'") from None
    for name in ("distributed", "distributed.client"):  # each has its own handler
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are reported in our own single line
    try:
        client = Client(scheduler, timeout=_TIMEOUT)
    except (OSError, ValueError) as error:
        raise LandscaleError(f"--scheduler {scheduler}: no dask scheduler answers there ({reason(error)})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_TIMEOUT)
        except TimeoutError:
            raise LandscaleError(f"--scheduler {scheduler}: no worker joined within {_TIMEOUT} s") from None
        tries: dict[Any, tuple[ReadJob, int]] = {}

        def submit(job: ReadJob, number: int) -> Any:
            future = client.submit(_run, task, job, pure=False)
            tries[future.key] = job, number
            return future

        running = as_completed([submit(job, 1) for job in sorted(jobs, key=len, reverse=True)])
        while running.count():
            time.sleep(POLL_INTERVAL)
            for future in running.next_batch(block=False):
                job, number = tries.pop(future.key)
                try:
                    yield future.result()
                except KilledWorker as killed:
                    if number == _MAX_TRIES:
                        raise LandscaleError(
                            f"--scheduler {scheduler}: workers died in all {_MAX_TRIES} tries of the same job ({killed})"
                        ) from None
                    running.add(submit(job, number + 1))
                except (CancelledError, CommClosedError):  # not cancelled by this process
                    raise LandscaleError(
                        f"lost the connection to the scheduler at {scheduler}; run the same command again to resume"
                    ) from None
            yield []


def _run(task: ExtractionTask, job: ReadJob) -> DamagedPatches:
    try:
        extractor = Extractor(task)
    except BadInput as error:
        raise BadInput(task.store, f"{error.problem}; is it on a file system that all workers share?") from None
    with closing(extractor):
        return [damaged for part in extractor.run(job) for damaged in part]
