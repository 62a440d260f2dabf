"""Decompress a plain, gzip or Zstandard file in a background thread, ahead of the reader."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from isal import igzip
from isal.igzip_lib import IsalError

from landscale.errors import BadInput, reason
from landscale.formats.read_ahead import ReadAhead, read_fully
from landscale.formats.zstandard import ZstandardFile, is_zstandard
from landscale.runtime.files import check_regular

BLOCK = 16 << 20  # bytes decompressed at a time: large, so that the thread rarely has to acquire Python's GIL
_BLOCKS = 4  # in memory at once
_GZIP = b"\x1f\x8b"
_PROBE = 4 << 20  # bytes that are decompressed to estimate the compression ratio of a file


class _File(Protocol):
    def tell(self) -> int: ...
    def close(self) -> None: ...


class _Stream(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


def _open(path: Path, size: int) -> tuple[_File, _Stream]:
    """The file, whose position counts compressed bytes, and a stream of its decompressed content."""
    if path.exists():
        check_regular(path)
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise BadInput(path, "is empty")
    if is_zstandard(start):
        opened = ZstandardFile(path, size)
        return opened, opened
    file = path.open("rb")
    if start[:2] == _GZIP:
        return file, igzip.IGzipFile(fileobj=file)  # type: ignore[no-untyped-call]
    return file, cast(_Stream, file)


def _fill(path: Path, stream: _Stream, block: memoryview) -> int:
    """Fill `block`; returns its number of bytes, fewer than its length only at the end of the stream."""
    try:
        return read_fully(stream.readinto, block)
    except (OSError, EOFError, ValueError, IsalError) as error:  # type: ignore[misc]
        raise BadInput(path, f"cannot be decompressed ({reason(error)})") from None


class DecompressedFile:
    """The decompressed content of a file in blocks; a thread decompresses the next ones while the caller uses the last.

    Args:
        path: the file.
        block: bytes of a block, by default BLOCK.

    Raises:
        BadInput: the file cannot be read, is empty, or is damaged.
    """

    def __init__(self, path: str | Path, block: int | None = None) -> None:
        path = Path(path)
        try:
            self._file, stream = _open(path, block or BLOCK)
        except OSError as error:
            raise BadInput(path, f"cannot be read ({error.strerror})") from None
        self._blocks = ReadAhead(partial(_fill, path, stream), block or BLOCK, _BLOCKS)

    def close(self) -> None:
        self._blocks.close()
        self._file.close()

    def consumed(self) -> int:
        """Compressed bytes that have been read so far."""
        return self._file.tell()

    def block(self) -> memoryview:
        """The next block, empty at the end; it overwrites the block that the last call returned.

        Raises:
            BadInput: the file is damaged; later calls raise it again.
        """
        return self._blocks.block()


def estimated_size(path: str | Path) -> int:
    """Estimated size of the decompressed content in bytes, by the compression ratio of its beginning; exact for small files."""
    path = Path(path)
    file, stream = _open(path, _PROBE)
    with closing(file):
        size = _fill(path, stream, memoryview(bytearray(_PROBE)))
        return size if size < _PROBE else size * path.stat().st_size // max(file.tell(), 1)
