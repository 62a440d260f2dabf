"""Read an archive in batches of patches, and write each batch to the store while the next one is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.sequential import PatchSequence, SequentialPatch
from landscale.preparation import plan
from landscale.preparation.overlap import IN_FLIGHT, write_while_reading
from landscale.store import Layout
from landscale.store.direct import page_aligned_buffers

Advance = Callable[[int], None]
# Reads the next patch into planes (bands, side, side) and classes (C,); None at the end.
ReadNext = Callable[[dict[str, NDArray[np.generic]], NDArray[np.uint8]], SequentialPatch | None]


class PatchBatch:
    """Consecutive patches of an archive, at most `plan.CHUNK`, in arrays that are reused.

    first: row in the store of the first patch.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._planes = page_aligned_buffers(layout, plan.CHUNK)
        self._classes = np.zeros((plan.CHUNK, len(layout.classes)), np.uint8)
        self._rows = [{key: plane[i] for key, plane in self._planes.items()} for i in range(plan.CHUNK)]
        self.patches: list[SequentialPatch] = []
        self.first = 0

    @property
    def end(self) -> int:
        return self.first + len(self.patches)

    @property
    def planes(self) -> dict[str, NDArray[np.generic]]:
        return {key: plane[: len(self.patches)] for key, plane in self._planes.items()}

    @property
    def classes(self) -> NDArray[np.uint8]:
        return self._classes[: len(self.patches)]

    def fill(self, first: int, read_next: ReadNext) -> None:
        self.first, self.patches = first, []
        self._classes[:] = 0
        for planes, classes in zip(self._rows, self._classes, strict=True):
            patch = read_next(planes, classes)
            if patch is None:
                return
            self.patches.append(patch)


def store_batches(
    sequence: PatchSequence,
    layout: Layout,
    read_next: ReadNext,
    summarise: Callable[[PatchBatch], NDArray[np.void]],
    write: Callable[[PatchBatch, NDArray[np.void]], None],
    advance: Advance,
) -> None:
    """Read all patches in batches, make the records of each, and write both in a second thread while the next is read.

    Args:
        sequence: the archive; it is closed at the end.
        layout: planes and classes of a batch.
        read_next: reads a patch of `sequence`.
        summarise: makes the journal's records (n,) of a batch.
        write: writes a batch and its records.
        advance: called with the megabytes of the archive that were read.
    """

    def batches() -> Iterator[tuple[PatchBatch, NDArray[np.void]]]:
        shown, first = 0, 0
        for batch in cycle([PatchBatch(layout) for _ in range(IN_FLIGHT)]):
            batch.fill(first, read_next)
            first = batch.end
            if batch.patches:
                yield batch, summarise(batch)
            megabytes = sequence.consumed() // 1_000_000
            advance(megabytes - shown)
            shown = megabytes
            if len(batch.patches) < plan.CHUNK:
                return

    with closing(sequence):
        for _ in write_while_reading(batches(), lambda part: write(*part)):
            pass
