"""Store → batches at native resolution, gathered ahead of use.

Batches are gathered from the store by threads into buffers that are used again: fresh memory's page faults cost more
than the copy (a DataLoader's workers would copy twice more).
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
from landscale.loading.batch import Batch
from landscale.loading.filling import positions
from landscale.loading.in_memory import InMemory
from landscale.loading.on_device import OnDevice
from landscale.loading.placement import Placed
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
    placed: Placed | None = None,
) -> Iterator[Batch]:
    """The batches of `steps`, each gathered while the ones before it are used.

    The bands are native ones or, `upsampled`, those of the store's `data_super`.

    Args:
        steps: rows of the store, of all ranks together, of which this one takes every world-th from its own on; perhaps
            none, and its batch is empty. No step is larger than the first.
        placed: where the split of these bands was brought to; by default it is read from the store.
    """
    remaining = iter(steps)
    first = next(remaining, None)
    if first is None:
        return
    planes = store.planes_for(bands, upsampled)
    size = max(-(-len(first) // ranks.world), 1)
    remaining = chain([first], remaining)
    if isinstance(placed, OnDevice):
        yield from _on_device(placed, targets, remaining, size, ranks)
        return
    rings = [_Buffers(placed or store, planes, size, device) for _ in range(ahead + 1)]
    free = deque(rings)

    with ThreadPoolExecutor(ahead) as pool:
        waiting: deque[tuple[_Buffers, Future[Batch]]] = deque()

        def ask(step: NDArray[np.int64]) -> None:
            buffers = free.popleft()
            waiting.append((buffers, pool.submit(buffers.gather, step[ranks.rank :: ranks.world], targets)))

        for step in islice(remaining, ahead):
            ask(step)
        while waiting:
            buffers, future = waiting.popleft()
            batch = future.result()
            for step in islice(remaining, 1):
                ask(step)
            buffers.arrive(batch)
            yield batch
            free.append(buffers)


def _on_device(
    placed: OnDevice, targets: NDArray[np.uint8], steps: Iterable[NDArray[np.int64]], size: int, ranks: Ranks
) -> Iterator[Batch]:
    """In this thread: ranks may exchange patches, and a device works ahead of us by itself, in order, on one buffer."""
    labels = placed.there(targets[placed.rows])
    into = placed.buffers(size)
    for step in steps:
        rows = step[ranks.rank :: ranks.world]
        planes = placed.gather(step, ranks, into)
        yield Batch(rows, planes, labels.index_select(0, placed.there(positions(placed.rows, rows))).float())


class _Buffers:
    """Memory for one batch, pinned where a GPU will fetch it, in a stream of its own: beside the steps, not between them."""

    def __init__(self, source: PatchStore | InMemory, planes: Sequence[Plane], size: int, device: torch.device) -> None:
        self._source, self._planes, self._device = source, planes, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._host = {p.key: torch.from_numpy(np.zeros((size, *p.shape), p.dtype)) for p in planes}
        if self._stream:
            self._host = {key: tensor.pin_memory() for key, tensor in self._host.items()}

    def gather(self, rows: NDArray[np.int64], targets: NDArray[np.uint8]) -> Batch:
        if self._stream:
            self._stream.synchronize()  # the device may still be reading what we are about to overwrite
        host = {key: tensor[: len(rows)] for key, tensor in self._host.items()}
        if len(rows):
            self._source.gather(rows, {key: tensor.numpy() for key, tensor in host.items()})
        wanted = torch.from_numpy(targets[rows].astype(np.float32))
        with torch.cuda.stream(self._stream):  # none on a CPU, where nothing moves
            planes = {p.bands: host[p.key].to(self._device, non_blocking=True) for p in self._planes}
            return Batch(rows, planes, wanted.to(self._device, non_blocking=True))

    def arrive(self, batch: Batch) -> None:
        """Let what the device does next with a batch wait for it, and its memory wait for that."""
        if self._stream:
            here = torch.cuda.current_stream(self._device)
            here.wait_stream(self._stream)
            for tensor in (*batch.planes.values(), batch.targets):
                tensor.record_stream(here)
