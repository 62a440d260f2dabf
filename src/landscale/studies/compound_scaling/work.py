"""Several trainings at once, each in a process of its own; one that fails, or dies, does not stop the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Generator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from landscale.distributed import Ranks, local_device
from landscale.errors import LandscaleError, reason
from landscale.runtime.portability import signal_when_parent_ends, usable_cores
from landscale.runtime.signals import Stopped, deferred_signals
from landscale.runtime.workers import interrupts_left_to_parent
from landscale.store import open_store
from landscale.training.recipe import Recipe
from landscale.training.runs import Run
from landscale.training.training import train

LOOK = 0.25  # seconds between two looks at signals
Pipe = connection.Connection


@dataclass(frozen=True)
class Job:
    """One training. seconds: its share of the time, if that is limited; ends: when on the monotonic clock all has to end."""

    recipe: Recipe
    store: Path
    run: Path
    seconds: float | None = None
    ends: float | None = None


def work(jobs: Sequence[Job], workers: int) -> Generator[tuple[Job, str | None], None, None]:
    """Train, in this order, `workers` at a time; each as it ends comes out with what went wrong, or None.

    The processes share the cores evenly; with GPUs, each takes the next one.

    Raises:
        Stopped: by a signal, after the trainings have saved their state.
    """
    resource_tracker.ensure_running()  # by ourselves, as starting it lifts the block of signals below
    workers = min(workers, len(jobs))
    threads = max(1, min(torch.get_num_threads(), usable_cores() // max(workers, 1)))
    waiting = list(reversed(jobs))
    idle: list[tuple[int, SpawnProcess, Pipe]] = []
    busy: dict[Pipe, tuple[int, SpawnProcess, Job]] = {}
    with deferred_signals(True) as caught:
        try:
            for number in range(workers):
                idle.append(_start(number, threads))  # noqa: PERF401  those that have begun are ended if one cannot
            while waiting or busy:
                while waiting and idle:
                    number, process, pipe = idle.pop()
                    job = waiting.pop()
                    busy[pipe] = (number, process, job)
                    pipe.send(job)
                ready = connection.wait(list(busy), LOOK)
                if caught():
                    raise Stopped("stopped; the same command goes on", caught())
                for pipe in [pipe for pipe in busy if pipe in ready]:
                    number, process, job = busy.pop(pipe)
                    try:
                        problem = pipe.recv()
                        idle.append((number, process, pipe))
                    except (EOFError, OSError):
                        process.join()
                        problem = f"{job.run}: its process died (exit code {process.exitcode}; out of memory?)"
                        idle.append(_start(number, threads))
                    yield job, problem
        finally:
            running = [*idle, *((number, process, pipe) for pipe, (number, process, _) in busy.items())]
            for _, process, pipe in running:
                process.terminate()  # a training saves its state first
                pipe.close()  # one that has just ended its training would wait for the next
            for _, process, _ in running:
                process.join()


def _start(number: int, threads: int) -> tuple[int, SpawnProcess, Pipe]:
    context = multiprocessing.get_context("spawn")  # no inherited threads, locks or CUDA
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, os.getpid(), number, threads), daemon=True)
    with interrupts_left_to_parent():
        process.start()
    theirs.close()  # so that the death of the process closes the pipe
    return number, process, ours


def _serve(pipe: Pipe, parent: int, number: int, threads: int) -> None:
    signal_when_parent_ends(signal.SIGKILL)  # two must not write one run after the parent is killed
    if os.getppid() != parent:
        os._exit(1)
    torch.set_num_threads(threads)
    where = local_device(Ranks(local=number % max(1, torch.cuda.device_count())))
    while True:
        try:
            pipe.send(_train(pipe.recv(), where))
        except (EOFError, OSError, Stopped):
            return


def _train(job: Job, where: torch.device) -> str | None:
    """Train; what it says goes to a log beside the run."""
    seconds = job.seconds
    if seconds is not None and job.ends is not None:
        seconds = max(1.0, min(seconds, job.ends - time.monotonic()))
    job.run.parent.mkdir(parents=True, exist_ok=True)
    with job.run.with_name(f"{job.run.name}.log").open("a", encoding="utf-8") as log, redirect_stderr(log):
        try:
            train(job.recipe, open_store(job.store), Run(job.run), Ranks(), where, seconds)
        except Stopped:
            raise
        except LandscaleError as error:
            return str(error)
        except Exception as error:  # whatever it is, the others go on
            traceback.print_exc()
            return f"{job.run}: {type(error).__name__}: {reason(error)}"
    return None
