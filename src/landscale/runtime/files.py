"""Write files and folders atomically: under a temporary name, synced to the disk, then renamed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from landscale.errors import BadInput


def check_regular(path: Path, limit: int | None = None) -> None:
    """Refuse what is not a regular file of at most `limit` bytes: reading a pipe may wait for ever, a device may never end.

    Raises:
        BadInput: it is another thing, is larger, or cannot be read.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise BadInput(path, f"cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(found.st_mode):
        raise BadInput(path, "is not a regular file")
    if limit is not None and found.st_size > limit:
        raise BadInput(path, f"has {found.st_size:,} bytes, expected at most {limit:,}")


def sha256_of(path: Path, limit: int | None = None) -> str:
    """The SHA-256 of a regular file of at most `limit` bytes, in hexadecimal.

    Raises:
        BadInput: it is another thing, is larger, or cannot be read.
    """
    check_regular(path, limit)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(path, f"cannot be read ({error.strerror})") from None


def sync(path: Path) -> None:
    """Bring the content of a file, or the list of names in a folder, to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path, whose file replaces `path` when the block ends without an error; after an error, `path` is unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_files(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Temporary paths, whose files replace `paths`, in this order, when the block ends without an error and all are synced."""
    temporaries = [path.with_name(f".{path.name}.{os.getpid()}.partial") for path in paths]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporaries
        for temporary in temporaries:
            sync(temporary)
        for temporary, path in zip(temporaries, paths, strict=True):
            temporary.replace(path)
        for folder in {path.parent for path in paths}:
            sync(folder)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that replaces `path` when the block ends without an error; after an error, `path` is unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    for left in (temporary, old):  # of a killed process with the same process id, as happens in containers
        shutil.rmtree(left, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        sync(temporary)
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_abandoned(path: Path) -> None:
    """Remove temporary files and folders of `path` that killed processes left. The caller must hold the lock of `path`."""
    name = re.compile(rf"\.{re.escape(path.name)}\.\d+\.partial(\.\w+)?")
    for left in path.parent.iterdir():
        if name.fullmatch(left.name):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created if necessary, so that two processes never do the same work.

    Where the file system has no locks, as on some network drives, nothing is locked, and a line on stderr reports it.

    Raises:
        BadInput: another process holds the lock.
    """
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The file may have been renamed since it was opened.
            locked = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except (BlockingIOError, FileNotFoundError):
            locked = False
        except OSError as error:
            locked = True
            problem = f"its file system has no locks ({error.strerror}); make sure that no other process writes there"
            print(f"landscale: {path.parent}: {problem}", file=sys.stderr, flush=True)
        if not locked:
            raise BadInput(path, "is in use by another process; run the same command again when that has ended")
        yield


@contextmanager
def named_lock(path: Path, owner: Path, purpose: str) -> Iterator[None]:
    """Hold the lock of a file that names this host and process, so that the error message of another process names it.

    The system releases the lock when this process ends, even if it is killed; the file stays.

    Args:
        path: the lock file.
        owner: what is locked, for the error message.
        purpose: what its holder does with it, for the error message, such as "is being trained".

    Raises:
        BadInput: another process holds the lock.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(path))
        except BadInput:
            host, _, process = path.read_text(errors="replace").strip().partition(" ")
            holder = f"process {process} on {host}" if process else "another process"
            raise BadInput(owner, f"{purpose} by {holder}; wait until that has ended, or end it") from None
        path.write_text(f"{platform.node()} {os.getpid()}\n")
        yield


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
