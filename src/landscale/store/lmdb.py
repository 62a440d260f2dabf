"""LMDB environments, in which BigEarthNet v2 is published: each process opens its own, which many threads read.

An LMDB environment must not be used after a fork, nor be opened twice by one process. So this module owns all environments: it
opens one on the first read; before a fork it waits until no thread reads, and closes all. Afterwards parent and child
open their own.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import lmdb

from landscale.errors import BadStore, reason
from landscale.store.bus_error import report_bus_errors
from landscale.store.file import file_state
from landscale.store.lmdb_tree import Pages, read_keys

_MAGIC = struct.pack("=I", 0xBEEFC0DE)
_HEADERS = (16, 24)  # bytes of a page's header in LMDB 0.9 and 1.0; the magic number follows it
_PAGE_SIZES = {2**k for k in range(9, 17)}


def is_environment(path: str | Path) -> bool:
    """Whether a path is a folder with `data.mdb`, or a file that starts like one."""
    path = Path(path)
    if path.is_dir():
        return (path / "data.mdb").is_file()
    if not path.is_file():  # reading a pipe would wait for ever
        return False
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return False
    return any(head[at : at + 4] == _MAGIC for at in _HEADERS)


class LmdbEnvironment:
    """An LMDB environment with one key-value table, for reading; works after a fork and can be pickled.

    Raises:
        BadStore: not an LMDB environment, or a truncated one, which LMDB would read until SIGBUS ends the process.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        self.data = path / "data.mdb" if path.is_dir() else path
        try:
            with self.data.open("rb", buffering=0) as file:
                self._state = file_state(os.fstat(file.fileno()))
                self.transaction, self._pages = self._check_whole(file)
        except OSError as error:
            raise BadStore(self.data, f"cannot be read ({error.strerror})") from None
        report_bus_errors(self.data)

    def __reduce__(self) -> tuple[type[LmdbEnvironment], tuple[Path]]:
        return type(self), (self.path,)

    @contextmanager
    def reading(self) -> Iterator[lmdb.Transaction]:
        """A read transaction of the calling thread. Values are buffers in the mapped file, valid until the block ends.

        If the file is cut short during the block, the process ends in one line (`bus_error`), as the library maps it.

        Raises:
            BadStore: the environment has changed, cannot be opened, or LMDB finds it damaged.
        """
        try:
            if file_state(self.data.stat()) != self._state:
                raise BadStore(self.path, "was changed or replaced while it was being read; start again")
            with _ENVIRONMENTS.reading(self.data) as environment, environment.begin(buffers=True) as transaction:
                yield transaction
        except (lmdb.Error, OSError, MemoryError) as error:
            raise BadStore(self.path, f"cannot be read by LMDB ({reason(error)})") from None

    def keys(self) -> set[bytes]:
        """All keys, once every page of the tree has been checked: to be called before anything is read through LMDB.

        Raises:
            BadStore: a page is damaged.
        """
        try:
            with self.data.open("rb", buffering=0) as file:
                return read_keys(file.fileno(), self._pages)
        except OSError as error:
            raise BadStore(self.data, f"cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise BadStore(self.path, f"is a damaged LMDB environment: it {error}") from None

    def _check_whole(self, file: BinaryIO) -> tuple[int, Pages]:
        """Refuse a file that is shorter than its header announces; returns the number of its last transaction."""
        size = os.fstat(file.fileno()).st_size
        head = file.read(64)
        at = next((at for at in _HEADERS if head[at : at + 4] == _MAGIC), None)
        if at is None:
            raise BadStore(self.path, "is not an LMDB environment in the byte order of this machine")
        # After the magic number: version, address, map size, two tables of 48 bytes each (the first starts with the page size,
        # the second, of the keys, ends with its root), last page, transaction. The first two pages have a copy each; the later
        # transaction is valid.
        meta_pages = []
        page = 0
        for copy in range(2):
            file.seek(copy * page + at)
            content = file.read(136)
            if len(content) < 136:
                raise BadStore(self.path, f"is truncated: {self.data.name} has {size} bytes")
            (page,) = struct.unpack_from("=I", content, 24)
            if content[:4] != _MAGIC or page not in _PAGE_SIZES:
                raise BadStore(self.path, "is an LMDB environment whose first pages are damaged")
            root, last, transaction = struct.unpack_from("=QQQ", content, 112)
            meta_pages.append((transaction, last, root))
        transaction, last, root = max(meta_pages)
        if size < (last + 1) * page:
            raise BadStore(
                self.path, f"is truncated: {self.data.name} has {size} bytes, its pages need {(last + 1) * page}"
            )
        return int(transaction), Pages(page, at, root, last)


class _Opened:
    """The environments that this process has opened, and the number of threads that read them."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._readers = 0
        self._by_file: dict[tuple[int, int], lmdb.Environment] = {}

    @contextmanager
    def reading(self, data: Path) -> Iterator[lmdb.Environment]:
        with self._change:
            environment = self._open(data)
            self._readers += 1
        try:
            yield environment
        finally:
            with self._change:
                self._readers -= 1
                self._change.notify_all()

    def _open(self, data: Path) -> lmdb.Environment:
        file = data.stat()
        key = file.st_dev, file.st_ino
        if key not in self._by_file:
            # No lock, which would need a writable folder: published files do not change. No read-ahead: training reads patches
            # in random order.
            self._by_file[key] = lmdb.open(str(data), subdir=False, readonly=True, lock=False, readahead=False)
        return self._by_file[key]

    def close(self) -> None:
        """Close all environments once no thread reads, and block reads until `resume`."""
        self._change.acquire()
        while self._readers:
            self._change.wait()
        for environment in self._by_file.values():
            environment.close()
        self._by_file.clear()

    def resume(self) -> None:
        self._change.release()


_ENVIRONMENTS = _Opened()
os.register_at_fork(
    before=_ENVIRONMENTS.close, after_in_parent=_ENVIRONMENTS.resume, after_in_child=_ENVIRONMENTS.resume
)
