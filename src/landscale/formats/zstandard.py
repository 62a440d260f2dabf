"""What a file compressed by Zstandard says, decompressed by the system's own library.

Arrow reads such files too, but it reads and decompresses in one thread, and copies each byte once more.
"""

from __future__ import annotations

import ctypes
from functools import cache, partial
from pathlib import Path

import numpy as np

from landscale.formats.read_ahead import ReadAhead, read_fully

_LIBRARY = "libzstd.so.1"
_FRAME, _SKIPPABLE = b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer, which are laid out alike."""

    _fields_ = (("start", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t))


@cache
def library() -> ctypes.CDLL | None:
    """The system's libzstd, if it has one."""
    try:
        zstd = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    zstd.ZSTD_createDStream.restype = ctypes.c_void_p
    zstd.ZSTD_freeDStream.argtypes = (ctypes.c_void_p,)
    zstd.ZSTD_decompressStream.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer))
    zstd.ZSTD_decompressStream.restype = ctypes.c_size_t
    zstd.ZSTD_isError.argtypes = zstd.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    zstd.ZSTD_getErrorName.restype = ctypes.c_char_p
    return zstd


def is_zstandard(start: bytes) -> bool:
    """Whether a file that begins so is one: with a frame, or one that is to be skipped, as `pzstd` writes them (RFC 8878)."""
    return start[:4] == _FRAME or (start[1:4] == _SKIPPABLE and start[0] >> 4 == 5)


class Zstandard:
    """A file of one frame or several, of which a thread reads the next `size` bytes while those before are decompressed.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, zstd: ctypes.CDLL, size: int) -> None:
        self._zstd = zstd
        self._file = path.open("rb", buffering=0)
        self._stream = zstd.ZSTD_createDStream()
        self._ahead = ReadAhead(partial(read_fully, self._file.readinto), size, 2)
        self._packed = _Buffer()
        self._consumed = 0
        self._wanted = 0  # more than 0 within a frame, whose last byte the library takes when all it says is out

    def tell(self) -> int:
        """Bytes of the file that have been decompressed so far."""
        return self._consumed

    def close(self) -> None:
        self._ahead.close()
        self._file.close()
        self._zstd.ZSTD_freeDStream(self._stream)
        self._stream = None

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill `buffer`; returns the bytes filled, fewer only at the end of the file.

        Raises:
            EOFError: the file ends within a frame.
            OSError: it cannot be read.
            ValueError: it is damaged.
        """
        plain = _over(buffer)
        while plain.position < plain.size:
            if self._packed.position == self._packed.size:
                self._packed = _over(self._ahead.block())
            if not self._packed.size:
                if self._wanted:
                    raise EOFError("it ends too early")
                break
            before = self._packed.position
            self._wanted = self._zstd.ZSTD_decompressStream(self._stream, plain, self._packed)
            if self._zstd.ZSTD_isError(self._wanted):
                raise ValueError(self._zstd.ZSTD_getErrorName(self._wanted).decode())
            self._consumed += self._packed.position - before
        filled: int = plain.position
        return filled


def _over(block: memoryview) -> _Buffer:
    return _Buffer(np.frombuffer(block, np.uint8).ctypes.data if block else None, len(block), 0)
