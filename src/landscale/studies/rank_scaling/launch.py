"""A launcher's command, waited for: torchrun, srun, mpirun, or whatever else starts some processes of landscale."""

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

# `--` keeps torchrun from taking our flags for its own.
TORCHRUN = "{python} -m torch.distributed.run --standalone --nproc-per-node={ranks} -m -- landscale"
LOOK = 0.25  # seconds between two looks at signals
PATIENCE = 60.0  # seconds in which a training saves its state

# Becomes a command that gets SIGTERM when its parent dies (PR_SET_PDEATHSIG): two must not write one run.
BECOME = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execvp(sys.argv[1], sys.argv[1:])"


def launcher(template: str, ranks: int) -> list[str]:
    """The words that start `ranks` processes of landscale; a command of landscale follows them.

    Args:
        template: a command line with `{ranks}` in it; `{python}` is this Python.

    Raises:
        LandscaleError: it does not say where the ranks go, is no command line, or its program is not here.
    """
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise LandscaleError(f"--launch: found '{template}', expected a command line ({error})") from None
    if not any("{ranks}" in word for word in words):
        raise LandscaleError(f"--launch: found '{template}', expected {{ranks}} where their number goes")
    words = [word.replace("{ranks}", str(ranks)).replace("{python}", sys.executable) for word in words]
    if shutil.which(words[0]) is None:
        raise LandscaleError(f"--launch: found '{words[0]}', which is no program here")
    return words


def launch(command: Sequence[str], log: Path, threads: int | None, caught: Callable[[], int]) -> int:
    """Run a command to its end; returns its exit code.

    It is in a session of its own, so Ctrl-C is ours to handle, and it ends when we die.

    Args:
        log: what it says is added there.
        threads: of each rank; None leaves them to the launcher.
        caught: the signal that came, if one did.

    Raises:
        Stopped: by a signal, after the command was told and has ended.
    """
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with log.open("ab") as said:
        words = [sys.executable, "-I", "-c", BECOME, *command]
        process = subprocess.Popen(words, stdout=said, stderr=said, env=environment, start_new_session=True)
    try:
        while True:
            try:
                return process.wait(LOOK)
            except subprocess.TimeoutExpired:
                if caught():
                    raise Stopped("stopped; the same command goes on", caught()) from None
    finally:
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # launchers pass it on
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_line(log: Path) -> str:
    """What a command said last that is about itself: its own error if there is one, else the last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    ours = [line.partition("landscale: ")[2] for line in lines if "landscale: " in line]
    return (ours or lines or ["said nothing"])[-1]
