"""What a file says when it is decompressed, ahead of who reads it: plain, or compressed by gzip or Zstandard."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import pyarrow as pa
from isal import igzip
from isal.igzip_lib import IsalError

from landscale.errors import BadInput, reason

BLOCK = 16 << 20  # bytes decompressed at a time: seldom enough that the thread hardly waits for Python's lock
_AHEAD = 3  # blocks
_PROBED = 4 << 20  # bytes, decompressed to see how well a file is compressed


class _File(Protocol):
    def tell(self) -> int: ...
    def close(self) -> None: ...


class _Stream(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


def _open(path: Path) -> tuple[_File, _Stream]:
    """The file, and what it says when it is decompressed."""
    file = path.open("rb")
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return file, igzip.IGzipFile(fileobj=file)  # type: ignore[no-untyped-call]
    if magic == b"\x28\xb5\x2f\xfd":
        file.close()
        raw = pa.OSFile(str(path))  # which Arrow reads without Python's lock
        return raw, pa.CompressedInputStream(raw, "zstd")
    if not magic:
        raise BadInput(path, "is empty")
    return file, cast(_Stream, file)


def _fill(path: Path, stream: _Stream, block: memoryview) -> memoryview:
    """The part of `block` that could be filled: all of it but at the end of the stream."""
    filled = 0
    try:
        while filled < len(block) and (more := stream.readinto(block[filled:])):
            filled += more
    except (OSError, EOFError, ValueError, IsalError) as error:  # type: ignore[misc]
        raise BadInput(path, f"cannot be decompressed ({reason(error)})") from None
    return block[:filled]


class Decompressed:
    """The content of a file, block by block, decompressed by a thread while the caller has those before.

    Args:
        path: the file.
        block: bytes of a block; BLOCK by default.

    Raises:
        BadInput: it cannot be read, is empty, or is damaged.
    """

    def __init__(self, path: Path, block: int | None = None) -> None:
        self._path, self._size = path, block or BLOCK
        try:
            self._file, self._stream = _open(path)
        except OSError as error:
            raise BadInput(path, f"cannot be read ({error.strerror})") from None
        self._pool = ThreadPoolExecutor(1, "decompress")
        self._coming: deque[Future[memoryview]] = deque()
        self._block = memoryview(b"")
        for _ in range(_AHEAD):
            self._fetch(np.empty(self._size, np.uint8).data)  # not zeroed, and in large pages

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._file.close()

    def consumed(self) -> int:
        """Bytes of the file that have been read so far."""
        return self._file.tell()

    def block(self) -> memoryview:
        """The next bytes, none at the end. Those of the call before are overwritten."""
        if not self._coming:
            return self._block[:0]
        if len(self._block):
            self._fetch(memoryview(self._block.obj))
        self._block = self._coming.popleft().result()
        if len(self._block) < self._size:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._coming.clear()
        return self._block

    def _fetch(self, block: memoryview) -> None:
        self._coming.append(self._pool.submit(_fill, self._path, self._stream, block))


def estimated_size(path: Path) -> int:
    """About how many bytes a file has when it is decompressed: by the ratio of its beginning, exact if that is all."""
    file, stream = _open(path)
    with closing(file):
        size = len(_fill(path, stream, memoryview(bytearray(_PROBED))))
        return size if size < _PROBED else size * path.stat().st_size // max(file.tell(), 1)
