"""A store whose number of patches is known only at the end, as when an archive is streamed into it.

Each plane has a region of the file that is large enough for more patches than can occur. Parts of a region that are never
written are holes and take no space on the disk. The plane with the largest patches comes last, as its region needs no end. When
the number of patches is known, HDF5's headers are written around the pixels, which stay where they are, and the columns
behind them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput, reason
from landscale.store.direct import PAGE, DirectFile
from landscale.store.layout import Layout
from landscale.store.structure import dataset_shapes
from landscale.store.writer import StoreWriter, typed_columns, write_structure

_HEADERS = 1 << 20  # bytes for HDF5's headers, which take about 16 kB
_GAP = 1 << 16  # bytes between regions, at least: HDF5 places smaller datasets where it has free space


class StoreFullError(Exception):
    """There are more patches than the capacity of the store."""


class GrowingStore:
    """The file of a store while pixels are added to it.

    Args:
        path: the file, which is created if it does not exist.
        layout: planes and classes.
        capacity: the largest possible number of patches.
    """

    def __init__(self, path: str | Path, layout: Layout, capacity: int) -> None:
        path = Path(path)
        self._path, self._layout, self._capacity = path, layout, capacity
        self._offsets: dict[str, int] = {}
        self._patch_bytes = {plane.key: plane.nbytes for plane in layout.planes}
        end = _HEADERS
        for plane in sorted(layout.planes, key=lambda plane: plane.nbytes):
            self._offsets[plane.key] = end
            end += _GAP - (-capacity * plane.nbytes // PAGE) * PAGE
        self._file = DirectFile(path, create=True)

    def close(self) -> None:
        self._file.close()

    def put(self, key: str, row: int, pixels: NDArray[np.generic]) -> None:
        """Write pixels (n, bands, side, side) of the plane `key` to consecutive patches from `row` on.

        Raises:
            StoreFullError: there are more patches than the capacity. BadInput: the disk is full or fails.
        """
        if row + len(pixels) > self._capacity:
            raise StoreFullError
        self._file.write(pixels, self._offsets[key] + row * self._patch_bytes[key])

    def get(self, key: str, row: int, out: NDArray[np.generic]) -> None:
        """Read pixels of the plane `key` from `row` on into `out` (bands, side, side) or (n, bands, side, side)."""
        self._file.read(out, self._offsets[key] + row * self._patch_bytes[key])

    def sync(self) -> None:
        self._file.sync()

    def finish(
        self, known: Mapping[str, NDArray[Any]], measured: dict[str, NDArray[Any]], attributes: Mapping[str, str]
    ) -> None:
        """Write headers and columns, so that the file is a finished store on the disk.

        If the process is killed meanwhile, the same call completes the store.

        Args:
            known: columns as for `create_store`.
            measured: all other columns except planes, as for `StoreWriter.put`.
            attributes: as for `create_store`.

        Raises:
            BadInput: the disk is full or fails.
        """
        columns = typed_columns(known)
        shapes = dataset_shapes(self._layout, len(columns["name"]), columns["name"].itemsize)
        shapes = {key: shapes[key] for key in self._offsets} | shapes
        template = self._path.with_name(f".{self._path.name}.frame")
        try:
            write_structure(template, self._layout, shapes, {}, attributes, offsets=self._offsets)
            with template.open("rb") as file:
                self._file.write(np.frombuffer(file.read(_HEADERS).rstrip(b"\0"), np.uint8), 0)
            self._file.truncate(template.stat().st_size)
        except (OSError, RuntimeError) as error:  # h5py raises either
            problem = getattr(error, "strerror", None) or reason(error)
            raise BadInput(self._path, f"cannot be written ({problem})") from None
        finally:
            template.unlink(missing_ok=True)
        with closing(StoreWriter(self._path)) as writer:
            writer.put(0, columns | measured)
            writer.finish()
