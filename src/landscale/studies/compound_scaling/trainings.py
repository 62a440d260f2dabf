"""Several trainings at a time, each in its own process. If one fails or its process dies, the others continue."""

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
from landscale.training.recipe import Recipe
from landscale.training.training import train

POLL = 0.25  # seconds between two checks for signals
Pipe = connection.Connection


@dataclass(frozen=True)
class TrainingJob:
    """One training.

    Args:
        store: file of the patch store.
        run: folder of the run.
        seconds: time limit of this training, or None.
        ends: time on the monotonic clock at which all trainings must have ended, or None.
    """

    recipe: Recipe
    store: Path
    run: Path
    seconds: float | None = None
    ends: float | None = None


def run_trainings(jobs: Sequence[TrainingJob], workers: int) -> Generator[tuple[TrainingJob, str | None], None, None]:
    """Run trainings in the order of `jobs`, `workers` at a time, and yield each when it ends, with its error or None.

    The processes share the cores evenly. If there are GPUs, process k uses GPU k modulo their number.

    Raises:
        Stopped: a signal came; the trainings have saved their state.
    """
    resource_tracker.ensure_running()  # start it here, because its start would unblock the signals blocked below
    workers = min(workers, len(jobs))
    threads = max(1, min(torch.get_num_threads(), usable_cores() // max(workers, 1)))
    waiting = list(reversed(jobs))
    idle: list[tuple[int, SpawnProcess, Pipe]] = []
    busy: dict[Pipe, tuple[int, SpawnProcess, TrainingJob]] = {}
    with deferred_signals(True) as caught:
        try:
            for number in range(workers):
                idle.append(_start(number, threads))  # noqa: PERF401  if one cannot start, `finally` ends those before it
            while waiting or busy:
                while waiting and idle:
                    number, process, pipe = idle.pop()
                    job = waiting.pop()
                    busy[pipe] = (number, process, job)
                    pipe.send(job)
                ready = connection.wait(list(busy), POLL)
                if caught():
                    raise Stopped("stopped; run the same command again to resume", caught())
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
                process.terminate()  # a training saves its state before it ends
                pipe.close()  # a process that has just finished its training would otherwise wait for the next one
            for _, process, _ in running:
                process.join()


def _start(number: int, threads: int) -> tuple[int, SpawnProcess, Pipe]:
    context = multiprocessing.get_context("spawn")  # inherits no threads, locks or CUDA context
    pipe, pipe_of_child = context.Pipe()
    process = context.Process(target=_serve, args=(pipe_of_child, os.getpid(), number, threads), daemon=True)
    with interrupts_left_to_parent():
        process.start()
    pipe_of_child.close()  # so that the pipe closes when the process dies
    return number, process, pipe


def _serve(pipe: Pipe, parent: int, number: int, threads: int) -> None:
    # end with the parent, so that after a restart no two processes write the same run
    signal_when_parent_ends(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    torch.set_num_threads(threads)
    place = local_device(Ranks(local=number % max(1, torch.cuda.device_count())))
    while True:
        try:
            pipe.send(_train(pipe.recv(), place))
        except (EOFError, OSError, Stopped):
            return


def _train(job: TrainingJob, place: torch.device) -> str | None:
    """Run one training, with its output in a log file next to the run's folder. Returns its error, or None."""
    seconds = job.seconds
    if seconds is not None and job.ends is not None:
        seconds = max(1.0, min(seconds, job.ends - time.monotonic()))
    job.run.parent.mkdir(parents=True, exist_ok=True)
    with job.run.with_name(f"{job.run.name}.log").open("a", encoding="utf-8") as log, redirect_stderr(log):
        try:
            train(job.recipe, job.store, job.run, device=place, max_time=seconds)
        except Stopped:
            raise
        except LandscaleError as error:
            return str(error)
        except Exception as error:  # the other trainings continue
            traceback.print_exc()
            return f"{job.run}: {type(error).__name__}: {reason(error)}"
    return None
