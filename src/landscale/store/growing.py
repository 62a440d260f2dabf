"""A store whose number of patches shows only at its end, as when an archive is streamed into it.

Each plane has a region of the file, large enough for more patches than there may be; what is never written there is a hole,
which takes no space on the disk. The plane with the largest patches comes last, as its region needs no end. When the number of
patches is known, HDF5's headers are written around the pixels that already lie there, and the columns behind them.
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
from landscale.store.writer import StoreWriter, dataset_shapes, typed_columns, write_structure

_FRONT = 1 << 20  # bytes for HDF5's headers; they take about 16 kB
_GAP = 1 << 16  # bytes, at least: HDF5 puts what is smaller where it likes


class StoreFullError(Exception):
    """There are more patches than the store has room for."""


class GrowingStore:
    """The pixels of a store that grows."""

    def __init__(self, path: str | Path, layout: Layout, capacity: int) -> None:
        path = Path(path)
        self._path, self._layout, self._capacity = path, layout, capacity
        self._places: dict[str, int] = {}
        self._patch = {plane.key: plane.nbytes for plane in layout.planes}
        end = _FRONT
        for plane in sorted(layout.planes, key=lambda plane: plane.nbytes):
            self._places[plane.key] = end
            end += _GAP - (-capacity * plane.nbytes // PAGE) * PAGE
        self._file = DirectFile(path, make=True)

    def close(self) -> None:
        self._file.close()

    def put(self, key: str, row: int, pixels: NDArray[np.generic]) -> None:
        """Write the pixels (n, bands, side, side) of the plane `key`, of consecutive patches from `row` on.

        Raises:
            FullError: so many do not fit. BadInput: the disk is full, or broken.
        """
        if row + len(pixels) > self._capacity:
            raise StoreFullError
        self._file.write(pixels, self._places[key] + row * self._patch[key])

    def get(self, key: str, row: int, out: NDArray[np.generic]) -> None:
        """Read pixels from `row` on back into `out` (bands, side, side), or (n, bands, side, side)."""
        self._file.read(out, self._places[key] + row * self._patch[key])

    def sync(self) -> None:
        self._file.sync()

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
        columns = typed_columns(described)
        shapes = dataset_shapes(self._layout, columns["name"])
        shapes = {key: shapes[key] for key in self._places} | shapes
        frame = self._path.with_name(f".{self._path.name}.frame")
        try:
            write_structure(frame, self._layout, shapes, {}, attributes, places=self._places)
            with frame.open("rb") as file:
                self._file.write(np.frombuffer(file.read(_FRONT).rstrip(b"\0"), np.uint8), 0)
            self._file.truncate(frame.stat().st_size)
        except (OSError, RuntimeError) as error:  # h5py raises either
            what = getattr(error, "strerror", None) or reason(error)
            raise BadInput(self._path, f"cannot be written ({what})") from None
        finally:
            frame.unlink(missing_ok=True)
        with closing(StoreWriter(self._path)) as writer:
            writer.put(0, columns | found)
            writer.finish()
