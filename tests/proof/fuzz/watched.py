"""Run one command in a forked process with limits, and watch what it does beyond reading its inputs.

The forked process starts with everything imported, so a case takes milliseconds. It is ended when it takes too long or too
much memory. Three things show whether it ran or fetched what a case offered as bait:

- Python's audit events: programs started, classes that a pickle names, connections, files changed outside the folder of the case;
- inotify on the folder `bait`, which no valid command reads: libraries in C open files without an audit event;
- a server on this machine, which no valid command asks for anything.
"""

from __future__ import annotations

import ctypes
import faulthandler
import io
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEMORY = 2 << 30  # bytes that a command may take, beyond those of the process from which it is forked
SECONDS = 30.0  # that a command may take
_POLL = 0.01  # seconds between two looks at its memory

_STARTED = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "pickle.find_class", "pty.spawn")
_CONNECTED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
_CHANGED = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree", "os.link", "os.symlink")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (negative: the signal), output, seconds, bytes of memory, and what it should not do."""

    code: int
    out: str
    err: str
    seconds: float
    memory: int
    hung: bool
    forbidden: tuple[str, ...]


class Bait:
    """A folder and a server that nothing may touch."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setblocking(False)
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/bait"
        self._inotify = -1

    def watch(self) -> None:
        """Watch the folder from now on; everything that it should hold is there."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        opened, created, removed = 0x20, 0x100, 0x200
        if (
            self._inotify < 0
            or libc.inotify_add_watch(self._inotify, bytes(self.folder), opened | created | removed) < 0
        ):
            raise OSError(ctypes.get_errno(), "inotify", str(self.folder))

    def taken(self) -> list[str]:
        """What was touched since the last call."""
        found: list[str] = []
        if self._inotify < 0:
            return found
        try:
            if os.read(self._inotify, 1 << 16):
                found.append(f"opened something in {self.folder}")
        except BlockingIOError:
            pass
        try:
            connection, _ = self._server.accept()
            connection.close()
            found.append("fetched a URL")
        except BlockingIOError:
            pass
        return found


def run(words: Sequence[str], folder: Path, bait: Bait) -> Ended:
    """Run `landscale WORDS` in a process of its own, whose working folder is `folder`."""
    records = {name: tempfile.TemporaryFile() for name in ("out", "err", "forbidden")}  # noqa: SIM115  closed below
    started, before = time.monotonic(), _memory(os.getpid())
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if not process:
        try:
            _command(words, folder, {name: file.fileno() for name, file in records.items()})
        finally:
            os._exit(99)
    hung = over = False
    handle = os.pidfd_open(process)
    while not select.select([handle], [], [], _POLL)[0]:
        hung = time.monotonic() - started > SECONDS
        over = _memory(process) - before > MEMORY
        if hung or over:
            os.kill(process, signal.SIGKILL)
            break
    _, status, used = os.wait4(process, 0)
    os.close(handle)
    _end_session(process)
    text = {}
    for name, file in records.items():
        file.seek(0)
        text[name] = file.read().decode(errors="replace")
        file.close()
    forbidden = (*text["forbidden"].splitlines(), *bait.taken())
    memory = max(used.ru_maxrss * 1024 - before, MEMORY + 1 if over else 0)
    seconds = time.monotonic() - started
    return Ended(os.waitstatus_to_exitcode(status), text["out"], text["err"], seconds, memory, hung, forbidden)


def _memory(process: int) -> int:
    """Bytes of memory that a process does not share with files; 0 if it has ended."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{process}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGESIZE")


def _end_session(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def _command(words: Sequence[str], folder: Path, files: dict[str, int]) -> None:
    """In the forked process."""
    faulthandler.disable()  # pytest's would print the stack of a crash
    os.setsid()
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(files["out"], 1)
    os.dup2(files["err"], 2)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), line_buffering=True, encoding="utf-8")
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), line_buffering=True, encoding="utf-8")
    sys.argv = ["landscale", *words]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)

    from landscale.cli import main
    from landscale.commands import command
    from landscale.runtime import progress

    progress.console.file = sys.stderr
    command.STARTED = time.monotonic()
    _audit([folder, *(Path(part) for word in words for part in (word, word.partition("=")[2]))], files["forbidden"])
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _audit(places: Sequence[Path], file: int) -> None:
    """Note in `file` what the command does, unless it changes only what is below `places`."""
    named = {os.path.realpath(place) for place in places if str(place)}
    inside = tuple([f"{place}{os.sep}" for place in named] + ["/dev/"])

    def outside(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        place = os.path.realpath(os.fsdecode(path))
        return place not in named and not place.startswith(inside)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        forbidden = event.startswith(_STARTED) or event in _CONNECTED
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
        if writes or event in _CHANGED:
            forbidden = outside(arguments[0])
        if forbidden:
            os.write(file, f"{event} {arguments!r}"[:300].replace("\n", " ").encode(errors="replace") + b"\n")

    sys.addaudithook(hook)
