"""Store → batches at native resolution, read ahead of use.

Threads copy batches from the store into buffers that are used again: page faults of fresh memory cost more than the copy, and a
DataLoader's workers would copy twice more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray

from landscale.distributed import Ranks
from landscale.loading.batch import PatchBatch
from landscale.loading.filling import positions
from landscale.loading.in_memory import SplitInMemory
from landscale.loading.on_device import SplitOnDevice
from landscale.loading.placement import PlacedSplit
from landscale.store import PatchStore, Plane

_ALONE = Ranks()


def batches(
    store: PatchStore,
    bands: Sequence[str],
    targets: NDArray[np.uint8],
    steps: Iterable[NDArray[np.int64]],
    device: torch.device,
    ahead: int = 2,
    upsampled: bool = False,
    ranks: Ranks = _ALONE,
    placed: PlacedSplit | None = None,
) -> Iterator[PatchBatch]:
    """The batches of `steps`, each read while the ones before it are used.

    Args:
        bands: every plane that holds one of them is read.
        targets: (N, C) for all rows of the store.
        steps: rows in the store, of all ranks together. Rank r takes rows r, r + world, …; if there are none, its batch is
            empty. No step is larger than the first.
        ahead: batches that are read in advance.
        upsampled: read the store's `data_super` instead of the native planes.
        placed: the split as `place` returned it; None: it is read from the store.
    """
    remaining = iter(steps)
    first = next(remaining, None)
    if first is None:
        return
    planes = store.planes_for(bands, upsampled)
    size = max(-(-len(first) // ranks.world), 1)
    remaining = chain([first], remaining)
    if isinstance(placed, SplitOnDevice):
        yield from _on_device(placed, targets, remaining, size, ranks)
        return
    free = deque(_Buffers(placed or store, planes, size, device) for _ in range(ahead + 1))

    with ThreadPoolExecutor(ahead) as pool:
        waiting: deque[tuple[_Buffers, Future[PatchBatch]]] = deque()

        def start_reading(step: NDArray[np.int64]) -> None:
            buffers = free.popleft()
            waiting.append((buffers, pool.submit(buffers.gather, step[ranks.rank :: ranks.world], targets)))

        for step in islice(remaining, ahead):
            start_reading(step)
        while waiting:
            buffers, future = waiting.popleft()
            batch = future.result()
            for step in islice(remaining, 1):
                start_reading(step)
            buffers.wait_for_copy(batch)
            yield batch
            free.append(buffers)


def _on_device(
    placed: SplitOnDevice, targets: NDArray[np.uint8], steps: Iterable[NDArray[np.int64]], size: int, ranks: Ranks
) -> Iterator[PatchBatch]:
    """Batches of a split on the device, without threads or a second buffer.

    Ranks may exchange patches, which must happen in the same order on all. A GPU works asynchronously without threads.
    """
    labels = placed.to_own_device(targets[placed.rows])
    into = placed.buffers(size)
    for step in steps:
        rows = step[ranks.rank :: ranks.world]
        planes = placed.gather(step, ranks, into)
        yield PatchBatch(
            rows, planes, labels.index_select(0, placed.to_own_device(positions(placed.rows, rows))).float()
        )


class _Buffers:
    """Memory for one batch. For a GPU it is pinned and copied in its own stream, so that copies and steps overlap."""

    def __init__(
        self, source: PatchStore | SplitInMemory, planes: Sequence[Plane], size: int, device: torch.device
    ) -> None:
        self._source, self._planes, self._device = source, planes, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._host = {p.key: torch.from_numpy(np.zeros((size, *p.shape), p.dtype)) for p in planes}
        if self._stream:
            self._host = {key: tensor.pin_memory() for key, tensor in self._host.items()}

    def gather(self, rows: NDArray[np.int64], targets: NDArray[np.uint8]) -> PatchBatch:
        """Read a batch and begin to copy it to the device."""
        if self._stream:
            self._stream.synchronize()  # the GPU may still be copying from this memory
        host = {key: tensor[: len(rows)] for key, tensor in self._host.items()}
        if len(rows):
            self._source.gather(rows, {key: tensor.numpy() for key, tensor in host.items()})
        labels = torch.from_numpy(targets[rows].astype(np.float32))
        with torch.cuda.stream(self._stream):  # None on a CPU, where nothing is copied
            planes = {p.bands: host[p.key].to(self._device, non_blocking=True) for p in self._planes}
            return PatchBatch(rows, planes, labels.to(self._device, non_blocking=True))

    def wait_for_copy(self, batch: PatchBatch) -> None:
        """Queue the GPU's next work behind the batch's copy, and keep the batch's memory allocated until that work is done."""
        if self._stream:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            for tensor in (*batch.planes.values(), batch.targets):
                tensor.record_stream(current)
