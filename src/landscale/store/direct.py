"""A file that is written in place, past the page cache where that can be: a copy into it costs more time than all else that is
done with pixels, and a store may well be larger than memory.
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

PAGE = 4096  # bytes; direct writes begin and end at multiples of it, in the file and in memory


class DirectFile:
    """A file to write from any number of processes, each other pages or other bytes of a page.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str | Path, *, make: bool = False) -> None:
        self._path = path = Path(path)
        self._file = os.open(path, os.O_RDWR | (os.O_CREAT if make else 0), 0o666)
        self._direct = open_direct(path)

    def close(self) -> None:
        os.close(self._file)
        if self._direct is not None:
            os.close(self._direct)

    def write(self, values: NDArray[np.generic], position: int) -> None:
        """The bytes of C-contiguous values.

        Raises:
            BadInput: the disk is full, or broken.
        """
        data = values.data.cast("B") if values.size else memoryview(b"")
        while data:
            with self._told():
                written = self._write(data, position)
            data, position = data[written:], position + written

    def _write(self, data: memoryview, position: int) -> int:
        if self._direct is not None and position % PAGE == 0 and len(data) % PAGE == 0:
            try:
                return os.pwrite(self._direct, data, position)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # memory, or a file system, with other bounds
                    raise
        return os.pwrite(self._file, data, position)

    def read(self, out: NDArray[np.generic], position: int) -> None:
        """Bytes into a C-contiguous array."""
        read_into(self._file, [out.data.cast("B")], position)

    def forget(self, position: int, size: int) -> None:
        """Let the page cache drop what is on disk: a page that is used again costs a tenth of a fresh one."""
        drop_from_page_cache(self._file, position, size)

    def sync(self, *, whole: bool = False) -> None:
        """Bring all that was written to the disk; `whole`: with what the file system says of it.

        Raises:
            BadInput: the disk is broken.
        """
        with self._told():
            (os.fsync if whole else sync_data)(self._file)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._file, size)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BadInput(self._path, f"cannot be written ({error.strerror})") from None


def page_aligned_buffers(layout: Layout, patches: int) -> dict[str, NDArray[np.generic]]:
    """Arrays (patches, bands, side, side) by plane, which can be written past the page cache."""
    return {
        p.key: np.frombuffer(_memory(patches * p.nbytes), p.dtype).reshape(patches, *p.shape) for p in layout.planes
    }


def _memory(size: int) -> mmap.mmap:
    """Of large pages, where there are any: it is looked up less often."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    use_large_pages(memory)
    return memory
