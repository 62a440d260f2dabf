"""What a file says when it is decompressed, ahead of who reads it: plain, or compressed by gzip or Zstandard."""

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

BLOCK = 16 << 20  # bytes decompressed at a time: seldom enough that the thread hardly waits for Python's lock
_AHEAD = 4  # blocks
_GZIP = b"\x1f\x8b"
_PROBED = 4 << 20  # bytes, decompressed to see how well a file is compressed


class _File(Protocol):
    def tell(self) -> int: ...
    def close(self) -> None: ...


class _Stream(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


def _open(path: Path, size: int) -> tuple[_File, _Stream]:
    """The file, and what it says when it is decompressed."""
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
    """How many bytes of `block` could be filled: all of it but at the end of the stream."""
    try:
        return read_fully(stream.readinto, block)
    except (OSError, EOFError, ValueError, IsalError) as error:  # type: ignore[misc]
        raise BadInput(path, f"cannot be decompressed ({reason(error)})") from None


class DecompressedFile:
    """The content of a file, block by block, decompressed by a thread while the caller has those before.

    Args:
        path: the file.
        block: bytes of a block; BLOCK by default.

    Raises:
        BadInput: it cannot be read, is empty, or is damaged.
    """

    def __init__(self, path: str | Path, block: int | None = None) -> None:
        path = Path(path)
        try:
            self._file, stream = _open(path, block or BLOCK)
        except OSError as error:
            raise BadInput(path, f"cannot be read ({error.strerror})") from None
        self._blocks = ReadAhead(partial(_fill, path, stream), block or BLOCK, _AHEAD)

    def close(self) -> None:
        self._blocks.close()
        self._file.close()

    def consumed(self) -> int:
        """Bytes of the file that have been read so far."""
        return self._file.tell()

    def block(self) -> memoryview:
        """The next bytes, none at the end. Those of the call before are overwritten."""
        return self._blocks.block()


def estimated_size(path: str | Path) -> int:
    """About how many bytes a file has when it is decompressed: by the ratio of its beginning, exact if that is all."""
    path = Path(path)
    file, stream = _open(path, _PROBED)
    with closing(file):
        size = _fill(path, stream, memoryview(bytearray(_PROBED)))
        return size if size < _PROBED else size * path.stat().st_size // max(file.tell(), 1)
