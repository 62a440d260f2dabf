"""A store whose number of patches shows only at its end, as when an archive is streamed into it.

Each plane has a region of the file, large enough for more patches than there may be; what is never written there is a hole,
which takes no space on the disk. The plane with the largest patches comes last, as its region needs no end. When the number of
patches is known, HDF5's headers are written around the pixels that already lie there, and the columns behind them.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput, reason
from landscale.store.layout import Layout, Plane
from landscale.store.writer import Writer, datasets, typed, write_structure

_FRONT = 1 << 20  # bytes for HDF5's headers; they take about 16 kB
_GAP = 1 << 16  # bytes, at least: HDF5 puts what is smaller where it likes
_PAGE = 4096  # direct writes are multiples of it


class FullError(Exception):
    """There are more patches than the store has room for."""


class Growing:
    """The pixels of a store that grows."""

    def __init__(self, path: Path, layout: Layout, capacity: int) -> None:
        self._path, self._layout, self._capacity = path, layout, capacity
        self._places: dict[str, int] = {}
        self._patch = {plane.key: _size(plane) for plane in layout.planes}
        end = _FRONT
        for plane in sorted(layout.planes, key=_size):
            self._places[plane.key] = end
            end += _GAP - (-capacity * _size(plane) // _PAGE) * _PAGE
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._direct: int | None = None
        with suppress(OSError):  # a file system that cannot
            self._direct = os.open(path, os.O_RDWR | os.O_DIRECT)

    def close(self) -> None:
        os.close(self._file)
        if self._direct is not None:
            os.close(self._direct)

    def put(self, key: str, row: int, pixels: NDArray[np.generic]) -> None:
        """Write the pixels (n, bands, side, side) of the plane `key`, of consecutive patches from `row` on.

        Raises:
            FullError: so many do not fit. BadInput: the disk is full, or broken.
        """
        if row + len(pixels) > self._capacity:
            raise FullError
        data = pixels.data.cast("B")
        position = self._places[key] + row * self._patch[key]
        while data:
            try:
                written = self._write(data, position)
            except OSError as error:
                raise BadInput(self._path, f"cannot be written ({error.strerror})") from None
            data, position = data[written:], position + written

    def _write(self, data: memoryview, position: int) -> int:
        """Past the page cache where that can be: a copy costs more time than all else that is done with the pixels."""
        if self._direct is not None and position % _PAGE == 0 and len(data) % _PAGE == 0:
            try:
                return os.pwrite(self._direct, data, position)
            except OSError as error:
                if error.errno != errno.EINVAL:  # as for memory, or a file system, with other bounds
                    raise
        return os.pwrite(self._file, data, position)

    def get(self, key: str, row: int, out: NDArray[np.generic]) -> None:
        """Read the pixels of one patch back into `out` (bands, side, side)."""
        os.preadv(self._file, [out.data.cast("B")], self._places[key] + row * self._patch[key])

    def sync(self) -> None:
        os.fdatasync(self._file)

    def finish(
        self, described: Mapping[str, NDArray[Any]], found: dict[str, NDArray[Any]], attributes: Mapping[str, str]
    ) -> None:
        """Make a store of it, whole and on disk. Called again after a kill, it does the same again.

        Args:
            described: columns as for `create`.
            found: all other columns but planes, as for `Writer.put`.
            attributes: as for `create`.

        Raises:
            BadInput: the disk is full, or broken.
        """
        columns = typed(described)
        shapes = datasets(self._layout, columns["name"])
        shapes = {key: shapes[key] for key in self._places} | shapes
        frame = self._path.with_name(f".{self._path.name}.frame")
        try:
            write_structure(frame, self._layout, shapes, {}, attributes, places=self._places)
            with frame.open("rb") as file:
                os.pwrite(self._file, file.read(_FRONT).rstrip(b"\0"), 0)
            os.ftruncate(self._file, frame.stat().st_size)
        except (OSError, RuntimeError) as error:  # h5py raises either
            what = getattr(error, "strerror", None) or reason(error)
            raise BadInput(self._path, f"cannot be written ({what})") from None
        finally:
            frame.unlink(missing_ok=True)
        with closing(Writer(self._path)) as writer:
            writer.put(0, columns | found)
            writer.finish()


def _size(plane: Plane) -> int:
    """Bytes of a patch."""
    return int(np.prod(plane.shape)) * np.dtype(plane.dtype).itemsize


def page_aligned(patches: int, plane: Plane) -> NDArray[np.generic]:
    """An array (patches, bands, side, side) that can be written past the page cache."""
    memory = mmap.mmap(-1, patches * _size(plane))
    return np.frombuffer(memory, plane.dtype).reshape(patches, *plane.shape)
