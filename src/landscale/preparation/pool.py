"""Run jobs on this machine: in this process, or in several."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import cache
from typing import Any

from landscale.errors import LandscaleError
from landscale.preparation.extract import ExtractionTask, Extractor
from landscale.preparation.plan import ReadJob
from landscale.preparation.result import DamagedPatches
from landscale.runtime.portability import keep_freed_memory
from landscale.runtime.workers import exit_with_parent, interrupts_left_to_parent, start_fork_server

POLL_INTERVAL = 0.25  # seconds between two updates of the progress


def run_locally(task: ExtractionTask, jobs: list[ReadJob], workers: int) -> Generator[DamagedPatches, None, None]:
    """Extract all jobs. Yields the damaged patches as they are found, often an empty list, so that progress can be shown."""
    if workers <= 1 or len(jobs) <= 1:
        with closing(Extractor(task)) as extractor:
            yield from extractor.run(ReadJob([chunk for job in jobs for chunk in job.chunks]))
        return
    context = start_fork_server()
    stop = context.Event()
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (stop, task)) as pool:
        waiting = iter(sorted(jobs, key=len, reverse=True))  # longest first, so that the last are short
        running: set[Future[DamagedPatches]] = set()
        try:
            while True:
                while len(running) < 2 * workers and (job := next(waiting, None)) is not None:
                    with interrupts_left_to_parent():
                        running.add(pool.submit(_run_in_worker, job))
                if not running:
                    return
                done, running = wait(running, POLL_INTERVAL, FIRST_COMPLETED)
                yield [damaged for future in done for damaged in future.result()]
        except BrokenProcessPool:
            raise LandscaleError(
                "a worker process died (killed, or out of memory?); run the same command again"
            ) from None
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


_task: ExtractionTask
_stop: Any


def _start_worker(stop: Any, task: ExtractionTask) -> None:
    global _task, _stop
    exit_with_parent()
    keep_freed_memory()
    _task, _stop = task, stop


@cache
def _extractor() -> Extractor:
    """The worker's extractor. The first job creates it, so that an error of opening the store is raised by that job's future."""
    return Extractor(_task)


def _run_in_worker(job: ReadJob) -> DamagedPatches:
    return [damaged for part in _extractor().run(job, _stop.is_set) for damaged in part]
