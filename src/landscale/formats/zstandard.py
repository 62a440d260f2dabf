"""Decompress Zstandard files (RFC 8878) of one or several frames, reading ahead in a background thread."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from landscale.formats.read_ahead import ReadAhead, read_fully

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_FRAME, _SKIPPABLE = b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"
_PIECES = 64  # parts of a block that are decompressed at once: enough for a precise position, few enough to be fast


def is_zstandard(start: bytes) -> bool:
    """Whether a file with these first 4 bytes begins with a frame, or with a skippable frame, as `pzstd` writes them."""
    return start[:4] == _FRAME or (start[1:4] == _SKIPPABLE and start[0] >> 4 == 5)


class ZstandardFile:
    """A Zstandard file that is open for reading; a thread reads the next `size` bytes while the last are decompressed.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._ahead = ReadAhead(partial(read_fully, self._file.readinto), size, 2)
        self._piece = max(1, size // _PIECES)
        self._block = memoryview(b"")  # compressed bytes
        self._position = 0  # bytes of the block that were decompressed
        self._before = 0  # bytes of the file before the block
        self._frame: zstd.ZstdDecompressor | None = None  # None between two frames

    def tell(self) -> int:
        """Bytes of the file that have been decompressed so far."""
        return self._before + self._position

    def close(self) -> None:
        self._block = memoryview(b"")
        self._ahead.close()
        self._file.close()

    def readinto(self, buffer: memoryview, /) -> int:
        """Decompress into `buffer`; returns the number of bytes, 0 only at the end of the file.

        Raises:
            EOFError: the file ends within a frame.
            OSError: it cannot be read.
            ValueError: it is damaged.
        """
        while len(buffer):
            piece = self._next_piece() if self._frame is None or self._frame.needs_input else b""
            if self._frame is None:
                if not piece:
                    return 0
                self._frame = zstd.ZstdDecompressor()
            elif not piece and self._frame.needs_input:
                raise EOFError("it ends within a frame")
            try:
                content = self._frame.decompress(piece, len(buffer))
            except zstd.ZstdError as error:
                raise ValueError(str(error)) from None
            if self._frame.eof:
                self._position -= len(self._frame.unused_data)  # the end of the last piece, which is part of this block
                self._frame = None
            if content:
                buffer[: len(content)] = content
                return len(content)
        return 0

    def _next_piece(self) -> memoryview:
        """The next compressed bytes; empty at the end of the file."""
        if self._position == len(self._block):
            self._before += self._position
            self._block, self._position = self._ahead.block(), 0
        piece = self._block[self._position : self._position + self._piece]
        self._position += len(piece)
        return piece
