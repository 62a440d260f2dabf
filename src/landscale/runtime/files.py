"""Files that are whole or absent: written under a temporary name, synced, renamed."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from landscale.errors import BadInput


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is there when the block ends takes its place, synced; after an error, nothing does."""
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
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place, files synced, when the block ends. An older `path` is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    for left in (temporary, old):  # of a killed process that had our number, as in containers
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
    """Remove what killed processes left of `path` under temporary names. For one who holds it against all others."""
    name = re.compile(rf"\.{re.escape(path.name)}\.\d+\.partial(\.\w+)?")
    for left in path.parent.iterdir():
        if name.fullmatch(left.name):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold a file, made if need be, against another process that would do the same work at the same time.

    Raises:
        BadInput: another one holds it.
    """
    with path.open("ab") as file:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = os.path.samestat(os.fstat(file.fileno()), path.stat())  # and not renamed since it was opened
            except (BlockingIOError, FileNotFoundError):
                locked = False
            if not locked:
                raise BadInput(path, "is at work in another process; run the same command again when that has ended")
        yield


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
