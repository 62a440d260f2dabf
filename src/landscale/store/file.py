"""The file of a store: columns are read by ranges of bytes, patches are copied from a memory map, which is twice as fast."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadStore
from landscale.runtime.portability import read_into
from landscale.store.bus_error import CUT_SHORT, report_bus_errors
from landscale.store.structure import Place

_BLOCK = 1 << 22  # bytes read at once


class StoreFile:
    """A file that is open for reading, in this process and in those forked from it. Threads may read it at once.

    Args:
        path: the file. changes: whether other processes are writing it; otherwise a file that changes is refused.

    Raises:
        BadStore: the file cannot be opened.
    """

    def __init__(self, path: Path, *, changes: bool = False) -> None:
        self._path, self._changes = path, changes
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise BadStore(path, f"cannot be opened ({error.strerror})") from None
        weakref.finalize(self, os.close, self._handle)
        self._state = file_state(os.fstat(self._handle))
        self._maps: dict[int, NDArray[Any]] = {}  # by offset in the file

    @property
    def version(self) -> tuple[int, int]:
        """Size in bytes, and time of the last change in ns: other values, other content."""
        return self._state[2:]

    def check_unchanged(self) -> None:
        """Compare the file that is now under the path with the one that was opened. Takes microseconds.

        Raises:
            BadStore: it has been changed, replaced or removed.
        """
        if self._changes:
            return
        try:
            found = file_state(self._path.stat())
        except OSError as error:
            raise BadStore(self._path, f"cannot be read any more ({error.strerror})") from None
        if found != self._state:
            raise BadStore(self._path, "was changed or replaced while it was being read; start again")

    def rows(self, place: Place, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows of a dataset from `start` to before `stop`, in new memory; without them all rows."""
        stop = place.shape[0] if stop is None else min(stop, place.shape[0])
        out = np.empty((max(stop - start, 0), *place.shape[1:]), place.dtype)
        self._read(_bytes_of(out), place.offset + start * place.row_bytes)
        return out

    def take(self, place: Place, rows: NDArray[np.int64], out: NDArray[np.generic]) -> None:
        """Copy rows of a dataset, in any order, to `out`: (rows, …) of the dataset's dtype, C-contiguous.

        If the file is cut short or the disk fails during the copy, the process ends in one line (`bus_error`).

        Raises:
            ValueError: `out` is another array. IndexError: there is no such row. BadStore: the file is shorter than it was.
        """
        if (out.shape, out.dtype) != ((len(rows), *place.shape[1:]), place.dtype) or not out.flags.c_contiguous:
            raise ValueError(f"expected an array {(len(rows), *place.shape[1:])} of {place.dtype}, C-contiguous")
        if not len(rows):
            return
        if rows.min() < 0 or rows.max() >= place.shape[0]:
            raise IndexError(f"row outside 0…{place.shape[0] - 1}")
        np.take(self._mapped(place), rows, axis=0, out=out, mode="clip")  # other modes copy once more

    def _mapped(self, place: Place) -> NDArray[Any]:
        found = self._maps.get(place.offset)
        if found is None:
            report_bus_errors(self._path)
            try:
                content = mmap.mmap(self._handle, 0, prot=mmap.PROT_READ)
                values: NDArray[Any] = np.frombuffer(content, place.dtype, int(np.prod(place.shape)), place.offset)
            except (OSError, ValueError):
                raise BadStore(self._path, CUT_SHORT) from None
            found = self._maps[place.offset] = values.reshape(place.shape)
        return found

    def blocks(self, place: Place) -> Iterator[NDArray[np.uint8]]:
        """The bytes of a dataset, block by block; each is valid until the next is taken."""
        memory = np.empty(min(_BLOCK, place.nbytes), np.uint8)
        for at in range(0, place.nbytes, _BLOCK):
            block = memory[: place.nbytes - at]
            self._read(block.data, place.offset + at)
            yield block

    def _read(self, buffer: memoryview, position: int) -> None:
        while buffer:
            try:
                got = read_into(self._handle, [buffer], position)
            except OSError as error:
                raise BadStore(self._path, f"cannot be read ({error.strerror})") from None
            if not got:
                raise BadStore(self._path, CUT_SHORT)
            buffer, position = buffer[got:], position + got


def file_state(file: os.stat_result) -> tuple[int, int, int, int]:
    """Which file it is, its size in bytes, and the time of its last change: other values, another file or content."""
    return file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns


def _bytes_of(array: NDArray[np.generic]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
