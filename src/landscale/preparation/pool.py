"""Jobs on this machine: in this process, or in several."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import cache
from typing import Any

from landscale.errors import LandscaleError
from landscale.preparation.extract import Damaged, Extractor, Task
from landscale.preparation.plan import Job
from landscale.runtime.workers import exit_with_parent, interrupts_left_to_parent, keep_freed_memory, start_fork_server

LOOK = 0.25  # seconds between two looks at the progress


def run_here(task: Task, jobs: list[Job], workers: int) -> Generator[Damaged, None, None]:
    """Extract all jobs; yields damaged patches as they turn up, and often nothing, so that progress can be shown."""
    if workers <= 1 or len(jobs) <= 1:
        with closing(Extractor(task)) as extractor:
            yield from extractor.run(Job([chunk for job in jobs for chunk in job.chunks]))
        return
    context = start_fork_server()
    stop = context.Event()
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (stop, task)) as pool:
        waiting = iter(sorted(jobs, key=len, reverse=True))  # the longest first: a short one ends the work
        running: set[Future[Damaged]] = set()
        try:
            while True:
                while len(running) < 2 * workers and (job := next(waiting, None)) is not None:
                    with interrupts_left_to_parent():
                        running.add(pool.submit(_run_in_worker, job))
                if not running:
                    return
                done, running = wait(running, LOOK, FIRST_COMPLETED)
                yield [damaged for future in done for damaged in future.result()]
        except BrokenProcessPool:
            raise LandscaleError(
                "a worker process died (killed, or out of memory?); run the same command again"
            ) from None
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


_task: Task
_stop: Any


def _start_worker(stop: Any, task: Task) -> None:
    global _task, _stop
    exit_with_parent()
    keep_freed_memory()
    _task, _stop = task, stop


@cache
def _extractor() -> Extractor:
    """Made with the first job, which can tell what is wrong with the store."""
    return Extractor(_task)


def _run_in_worker(job: Job) -> Damaged:
    return [damaged for part in _extractor().run(job, _stop.is_set) for damaged in part]
