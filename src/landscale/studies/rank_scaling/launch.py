"""Run a command under a launcher and wait for it: torchrun, srun, mpirun, or anything else that starts processes."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from landscale.errors import LandscaleError
from landscale.runtime.signals import Stopped

# Without `--`, torchrun would read landscale's flags as its own.
TORCHRUN = "{python} -m torch.distributed.run --standalone --nproc-per-node={ranks} -m -- landscale"
POLL_SECONDS = 0.25
SAVE_SECONDS = 60.0  # for a training to save its state after SIGTERM

# Replaces itself by a command that receives SIGTERM when its parent dies (PR_SET_PDEATHSIG, Linux), so that two commands
# never write the same run.
EXEC_WITH_PARENT = (
    "import ctypes, os, sys; getattr(ctypes.CDLL(None), 'prctl', lambda *_: None)(1, 15);"
    " os.execvp(sys.argv[1], sys.argv[1:])"
)


def launcher_command(template: str, ranks: int) -> list[str]:
    """The command that starts `ranks` processes of landscale; a landscale command with its arguments must be appended.

    Args:
        template: a command line that contains `{ranks}`; `{python}` is replaced by this Python.

    Raises:
        LandscaleError: `{ranks}` is missing, the text is no command line, or its program does not exist.
    """
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise LandscaleError(f"--launch: found '{template}', expected a command line ({error})") from None
    if not any("{ranks}" in word for word in words):
        raise LandscaleError(f"--launch: found '{template}', expected {{ranks}} in place of the number of processes")
    words = [word.replace("{ranks}", str(ranks)).replace("{python}", sys.executable) for word in words]
    if shutil.which(words[0]) is None:
        raise LandscaleError(f"--launch: found '{words[0]}', expected a program on the PATH")
    return words


def run_to_end(command: Sequence[str], log: Path, threads: int | None, first_signal: Callable[[], int]) -> int:
    """Run a command to its end and return its exit code.

    It runs in a session of its own, so that Ctrl-C reaches this process only, and it ends when this process dies.

    Args:
        log: the file to which its output is appended.
        threads: threads of each rank; None leaves the number to the launcher.
        first_signal: returns the first signal that this process received, or 0.

    Raises:
        Stopped: after a signal, once the command has received SIGTERM and has ended.
    """
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with log.open("ab") as output:
        words = [sys.executable, "-I", "-c", EXEC_WITH_PARENT, *command]
        process = subprocess.Popen(words, stdout=output, stderr=output, env=environment, start_new_session=True)
    try:
        while True:
            try:
                return process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if first_signal():
                    raise Stopped("stopped; run the same command again to resume", first_signal()) from None
    finally:
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # launchers forward SIGTERM to their processes
    try:
        process.wait(SAVE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_error(log: Path) -> str:
    """The last error message of landscale in a log; if there is none, the last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.partition("landscale: ")[2] for line in lines if "landscale: " in line]
    return (errors or lines or ["no output"])[-1]
