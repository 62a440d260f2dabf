"""The patches of an archive, batch by batch, on their way to a store that grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.bigearthnet.archive import Patch, Patches
from landscale.preparation import plan
from landscale.preparation.beside import AHEAD, settled
from landscale.store import Layout
from landscale.store.direct import page_aligned_buffers

Advance = Callable[[int], None]
# Reads the next patch into planes (bands, side, side) and classes (C,); None at the end.
Read = Callable[[dict[str, NDArray[np.generic]], NDArray[np.uint8]], Patch | None]


class Batch:
    """Patches on their way from an archive to the store, in arrays that are used again."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._planes = page_aligned_buffers(layout, plan.CHUNK)
        self._classes = np.zeros((plan.CHUNK, len(layout.classes)), np.uint8)
        self._rows = [{key: plane[i] for key, plane in self._planes.items()} for i in range(plan.CHUNK)]
        self.patches: list[Patch] = []
        self.first = 0  # row of the first of them

    @property
    def end(self) -> int:
        return self.first + len(self.patches)

    @property
    def planes(self) -> dict[str, NDArray[np.generic]]:
        return {key: plane[: len(self.patches)] for key, plane in self._planes.items()}

    @property
    def classes(self) -> NDArray[np.uint8]:
        return self._classes[: len(self.patches)]

    def fill(self, first: int, read: Read) -> None:
        self.first, self.patches = first, []
        self._classes[:] = 0
        for planes, classes in zip(self._rows, self._classes, strict=True):
            patch = read(planes, classes)
            if patch is None:
                return
            self.patches.append(patch)


def pump(
    patches: Patches,
    layout: Layout,
    read: Read,
    sum_up: Callable[[Batch], NDArray[np.void]],
    write: Callable[[Batch, NDArray[np.void]], None],
    advance: Advance,
) -> None:
    """Read all patches in batches, sum each up, and write it with what came of that, while the next is read."""

    def batches() -> Iterator[tuple[Batch, NDArray[np.void]]]:
        shown, first = 0, 0
        for batch in cycle([Batch(layout) for _ in range(AHEAD)]):
            batch.fill(first, read)
            first = batch.end
            if batch.patches:
                yield batch, sum_up(batch)
            megabytes = patches.consumed() // 1_000_000
            advance(megabytes - shown)
            shown = megabytes
            if len(batch.patches) < plan.CHUNK:
                return

    with closing(patches):
        for _ in settled(batches(), lambda part: write(*part)):
            pass
