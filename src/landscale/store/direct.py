"""Write a file in place, bypassing the page cache where possible.

A copy into the page cache takes longer than checksums and statistics together, and a store may be larger than memory.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput
from landscale.runtime.portability import drop_from_page_cache, open_direct, read_into, sync_data, use_large_pages
from landscale.store.layout import Layout

PAGE = 4096  # bytes; direct writes start and end at multiples of it, in the file and in memory


class DirectFile:
    """A file that any number of processes write at once, each to different bytes.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self._path = path = Path(path)
        self._file = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
        self._direct = open_direct(path)

    def close(self) -> None:
        os.close(self._file)
        if self._direct is not None:
            os.close(self._direct)

    def write(self, values: NDArray[np.generic], position: int) -> None:
        """Write the bytes of a C-contiguous array at `position`, in bytes from the start of the file.

        Raises:
            BadInput: the disk is full or fails.
        """
        data = values.data.cast("B") if values.size else memoryview(b"")
        while data:
            with self._as_bad_input():
                written = self._write(data, position)
            data, position = data[written:], position + written

    def _write(self, data: memoryview, position: int) -> int:
        if self._direct is not None and position % PAGE == 0 and len(data) % PAGE == 0:
            try:
                return os.pwrite(self._direct, data, position)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # memory or file systems with another alignment
                    raise
        return os.pwrite(self._file, data, position)

    def read(self, out: NDArray[np.generic], position: int) -> None:
        """Read bytes at `position` into a C-contiguous array."""
        read_into(self._file, [out.data.cast("B")], position)

    def drop_from_cache(self, position: int, size: int) -> None:
        """Drop synced bytes from the page cache, so that new writes reuse its pages, in a tenth of the time of new pages."""
        drop_from_page_cache(self._file, position, size)

    def sync(self, *, metadata: bool = False) -> None:
        """Bring everything that was written to the disk, with `metadata` also the file's size and times.

        Raises:
            BadInput: the disk fails.
        """
        with self._as_bad_input():
            (os.fsync if metadata else sync_data)(self._file)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._file, size)

    @contextmanager
    def _as_bad_input(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BadInput(self._path, f"cannot be written ({error.strerror})") from None


def page_aligned_buffers(layout: Layout, patches: int) -> dict[str, NDArray[np.generic]]:
    """Zeroed arrays (patches, bands, side, side) by key of a plane, aligned so that they can bypass the page cache."""
    return {
        p.key: np.frombuffer(_memory(patches * p.nbytes), p.dtype).reshape(patches, *p.shape) for p in layout.planes
    }


def _memory(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    use_large_pages(memory)
    return memory
