"""Start `landscale` by dask, torchrun, SLURM or Open MPI, or in forked processes; list the processes of a session."""

from __future__ import annotations

import functools
import io
import itertools
import multiprocessing
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest

PROGRAMS = Path(sys.executable).parent
PRELOAD = [
    "trainings",
    "torch.utils.tensorboard",
    "torch._dynamo",
]  # imported by the fork server


def command_of(process: int) -> list[str]:
    """The command line of a process; empty if the process has ended."""
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text().split("\0")
    return []


def environment_of(process: int) -> dict[str, str]:
    with suppress(OSError):
        lines = Path(f"/proc/{process}/environ").read_text(errors="replace").split("\0")
        return dict(line.split("=", 1) for line in lines if "=" in line)
    return {}


def processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def session_of(process: int) -> int:
    """Session ID of a running process; 0 if it has ended."""
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return int(fields[3]) if fields[0] != "Z" else 0
    return 0


def members(session: int) -> list[int]:
    """Running processes of a session: a command and all processes that it started."""
    return [process for process in processes() if session_of(process) == session]


def parent_of(process: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def workers_of(session: int) -> list[int]:
    """The workers of `prepare`, without the fork server."""
    forked = [process for process in members(session) if "multiprocessing.forkserver" in " ".join(command_of(process))]
    return [process for process in forked if parent_of(process) in forked]


def wait_until_gone(session: int, seconds: float = 10) -> list[int]:
    end = time.monotonic() + seconds
    while (left := members(session)) and time.monotonic() < end:
        time.sleep(0.02)
    return left


def ranks_at(store: Path) -> dict[int, int]:
    """Process IDs of the ranks whose command line names this store, by rank, for any launcher."""
    found = {}
    for process in processes():
        if str(store) not in command_of(process):
            continue
        about = environment_of(process)
        rank = next((about[k] for k in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK") if k in about), None)
        if rank is not None:
            found[int(rank)] = process
    return found


# ---- a process that kills itself


@functools.cache
def fork_context() -> ForkServerContext:
    """Processes that are forked from a server with all imports done, which takes much less time than the imports.

    A process has one fork server. If `prepare` has run in this one, its server runs already, without torch; it is replaced.
    """
    context = multiprocessing.get_context("forkserver")
    forkserver._forkserver._stop()  # what the tests of Python itself call
    context.set_forkserver_preload(PRELOAD)
    return context


def run_until_killed(
    words: list[object], function: str, call: int, settings: dict[str, object], number: int = signal.SIGKILL
) -> int | None:
    """Run a command in a process that sends itself a signal, SIGKILL, at the given call, counted from 1, of a function.

    Args:
        words: arguments of the command.
        function: the function whose calls are counted, as `module:Class.function`.
        call: the process kills itself before this call.
        settings: values to set in the process first, by `module:name`.
        number: another signal; where it does not end the process, the call is made.

    Returns:
        The exit code of the process, -9 if it was killed.
    """
    process = fork_context().Process(
        target=_main_until_killed, args=([str(word) for word in words], function, call, settings, number)
    )
    process.start()
    process.join(120)
    return process.exitcode


def _main_until_killed(words: list[str], function: str, call: int, settings: dict[str, object], number: int) -> None:
    from landscale.cli import main

    for name, value in settings.items():
        module, _, attribute = name.partition(":")
        setattr(pkgutil.resolve_name(module), attribute, value)
    owner_name, _, attribute = function.replace(":", ".").rpartition(".")
    owner = pkgutil.resolve_name(owner_name)
    true, calls = getattr(owner, attribute), itertools.count(1)

    def counted(*arguments: object, **options: object) -> object:
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return true(*arguments, **options)

    setattr(owner, attribute, counted)
    sys.exit(main(words))


# ---- ranks without a launcher


def run_on_ranks(world: int, log: Path, program: Callable[..., object], *arguments: object) -> None:
    """Run a function on several ranks, and assert that all succeed; without the seconds that a launcher and imports take.

    Args:
        log: file for their output.
        program: a function of a module, for example `landscale.cli.main`; it returns None or an exit code.
    """
    assert codes_of(start_ranks(world, log, program, *arguments)) == world * [0], log.read_text()


def run_script(script: Path, *arguments: object) -> None:
    """Run a script as `python SCRIPT ARGUMENTS` does, but in this process."""
    sys.argv = [str(script), *map(str, arguments)]
    runpy.run_path(str(script), run_name="__main__")


def start_ranks(world: int, log: Path, program: Callable[..., object], *arguments: object) -> list[ForkServerProcess]:
    """Start what `run_on_ranks` runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    started = []
    for rank in range(world):
        variables = master | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        started.append(fork_context().Process(target=_rank, args=(variables, log, program, arguments)))
        started[-1].start()
    return started


def codes_of(started: list[ForkServerProcess], seconds: float = 300) -> list[int | None]:
    """Exit codes of processes, once they have ended; those that have not ended in time are killed."""
    end = time.monotonic() + seconds
    for process in started:
        process.join(end - time.monotonic())
        process.kill()
        process.join()
    return [process.exitcode for process in started]


def _rank(variables: dict[str, str], log: Path, program: Callable[..., object], arguments: tuple[object, ...]) -> None:
    import torch

    os.environ.update(variables)
    write_output_to(log)
    torch.set_num_threads(1)
    sys.exit(program(*arguments))


def write_output_to(file: Path) -> None:
    """Append what this process prints to a file."""
    from landscale.runtime import progress

    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), line_buffering=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), line_buffering=True)
    progress.console.file = sys.stderr


# ---- dask


class Dask:
    """A scheduler and a `dask worker` command, each in a session of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "scheduler.json"
        self._commands: list[subprocess.Popen[bytes]] = []
        self._expected = 0  # number of workers
        self._begin("scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1")
        end = time.monotonic() + 60
        while not self._file.exists() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.1)  # until the file is complete
        import json

        self.address = json.loads(self._file.read_text())["address"]

    def add_workers(self, workers: int, threads: int, *more: str) -> None:
        self._expected += workers
        how = ["--nworkers", str(workers), "--nthreads", str(threads), "--local-directory", str(self._folder)]
        self._begin("worker", *how, "--no-dashboard", "--host", "127.0.0.1", *more)

    def _begin(self, *words: str) -> None:
        log = (self._folder / "log").open("ab")
        program = [PROGRAMS / "dask", words[0], "--scheduler-file", self._file, *words[1:]]
        self._commands.append(subprocess.Popen(program, stdout=log, stderr=log, start_new_session=True))

    def workers(self) -> list[int]:
        """Process IDs of the workers once all have joined, else none: a nanny gives up if its worker dies while starting."""
        from distributed import Client

        children = [p for command in self._commands[1:] for p in members(command.pid) if p != command.pid]
        # Where setproctitle is installed, dask gives its workers this title instead of their command line.
        found = [
            p for p in children if (line := " ".join(command_of(p))).startswith("dask worker [") or "spawn_main" in line
        ]
        with Client(self.address) as client:
            joined = len(client.scheduler_info()["workers"])
        return found if joined == len(found) == self._expected else []

    def kill_scheduler(self) -> None:
        self._commands[0].kill()

    def stop(self) -> None:
        for command in self._commands:
            with suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGKILL)
            for process in members(command.pid):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            command.wait()


@contextmanager
def dask(folder: Path, workers: int, threads: int = 1, *more: str) -> Iterator[Dask]:
    pytest.importorskip("distributed")
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Dask(folder)
    try:
        cluster.add_workers(workers, threads, *more)
        yield cluster
    finally:
        cluster.stop()


# ---- ranks by a launcher


def torchrun(processes: int) -> list[object]:
    """The words of torchrun before a command; `--` ends torchrun's own options."""
    how = ["--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, "-m", "torch.distributed.run", *how, "-m", "--", "landscale"]


def srun(processes: int) -> list[object]:
    return ["srun", "--overcommit", "--quiet", f"--ntasks={processes}", PROGRAMS / "landscale"]


def mpirun(processes: int) -> list[object]:
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(processes), PROGRAMS / "landscale"]


@contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder in /dev/shm, where syncs are fast, or `otherwise` where there is none."""
    if not os.access("/dev/shm", os.W_OK):
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="landscale-tests-") as folder:
        yield Path(folder)
