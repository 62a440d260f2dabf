"""One worker's part of a preparation: read patches chunk by chunk into reused buffers, and write them into the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.survey import PatchDetails, Reader
from landscale.errors import LandscaleError
from landscale.preparation import plan
from landscale.preparation.overlap import IN_FLIGHT, write_while_reading
from landscale.preparation.plan import ReadJob
from landscale.preparation.result import DamagedPatches
from landscale.store import BAD, NO_CLASS, REFERENCE, WHOLE, Layout, StoreWriter, checksum, moments
from landscale.store.direct import page_aligned_buffers


@dataclass(frozen=True)
class ExtractionTask:
    """What every worker needs. Without `skip_bad`, the first damaged patch ends its job."""

    read: Reader
    layout: Layout
    store: Path
    skip_bad: bool


@dataclass
class _ChunkRead:
    """A chunk that was read: row of its first patch, its columns of the store, and its damaged patches."""

    start: int
    columns: dict[str, NDArray[Any]]
    damaged: DamagedPatches


class Extractor:
    """Reads jobs and writes them into the store of a task."""

    def __init__(self, task: ExtractionTask) -> None:
        self._task = task
        self._writer = StoreWriter(task.store)
        self._buffers: deque[dict[str, NDArray[np.generic]]] = deque()

    def close(self) -> None:
        self._writer.close()

    def run(self, job: ReadJob, stopped: Callable[[], bool] = lambda: False) -> Iterator[DamagedPatches]:
        """Extract a job; yields the damaged patches of each chunk once the chunk is on disk."""
        for damaged in write_while_reading(self._read_chunks(job, stopped), self._write_chunk):
            yield damaged
            if damaged and not self._task.skip_bad:
                return

    def _read_chunks(self, job: ReadJob, stopped: Callable[[], bool]) -> Iterator[_ChunkRead]:
        for chunk in job.chunks:
            if stopped():
                return
            n = len(chunk.names)
            planes = {key: buffer[:n] for key, buffer in self._free_buffer().items()}
            classes = chunk.classes
            if classes is None:
                classes = np.zeros((n, len(self._task.layout.classes)), np.uint8)
            columns, damaged = PatchColumns(self._task.layout, planes, classes), []
            for i, found in enumerate(self._task.read(chunk.locations, planes, classes)):
                columns.add(i, found)
                if isinstance(found, LandscaleError):
                    damaged.append((chunk.names[i], str(found)))
            yield _ChunkRead(chunk.start, columns.all(), damaged)

    def _free_buffer(self) -> dict[str, NDArray[np.generic]]:
        """The buffer that was used longest ago; a job of few chunks allocates fewer than IN_FLIGHT."""
        if len(self._buffers) < IN_FLIGHT:
            self._buffers.append(page_aligned_buffers(self._task.layout, plan.CHUNK))
        else:
            self._buffers.rotate(-1)
        return self._buffers[-1]

    def _write_chunk(self, chunk: _ChunkRead) -> DamagedPatches:
        self._writer.put(chunk.start, chunk.columns)
        return chunk.damaged


class PatchColumns:
    """Patches that have been read, as columns of the store."""

    def __init__(self, layout: Layout, planes: dict[str, NDArray[np.generic]], classes: NDArray[np.uint8]) -> None:
        n = len(classes)
        self._planes, self._classes = [planes[p.key] for p in layout.planes], classes
        self._blanks = [NO_CLASS if p.key == REFERENCE else 0 for p in layout.planes]
        self._tiles = np.zeros(n, "S8")
        self._columns: dict[str, NDArray[Any]] = planes | {
            "classes": classes,
            "crs": np.zeros(n, "S16"),
            "origin": np.full((n, 2), np.nan),
            "checksum": np.zeros(n, np.uint64),
            "state": np.full(n, WHOLE, np.uint8),
        }

    def add(self, i: int, found: PatchDetails | LandscaleError) -> None:
        """Set the other columns of row `i`, whose pixels are in place; zero the pixels of a damaged patch."""
        columns = self._columns
        if isinstance(found, LandscaleError):
            columns["state"][i] = BAD
            for plane, blank in zip(self._planes, self._blanks, strict=True):
                plane[i] = blank
            return
        columns["crs"][i] = found.place.crs.encode()
        columns["origin"][i] = found.place.x, found.place.y
        self._tiles[i] = found.tile.encode()
        columns["checksum"][i] = checksum([plane[i] for plane in self._planes], self._classes[i])

    def all(self) -> dict[str, NDArray[Any]]:
        """All columns, once every row is added."""
        # If the survey had the tiles, they are in the store already.
        tiles = {"tile": self._tiles} if self._tiles.any() else {}
        return self._columns | {"moments": moments(self._planes)} | tiles
