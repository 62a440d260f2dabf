"""Store → batches at native resolution, gathered ahead of use.

Batches are gathered from the store by threads into buffers that are used again: fresh memory's page faults cost more
than the copy (a DataLoader's workers would copy twice more).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscale.store import PatchStore, Plane

# The pixels of a batch by the bands they hold: (n, bands, side, side) in the store's dtype.
Native = dict[tuple[str, ...], Tensor]


@dataclass(frozen=True)
class Batch:
    """Some patches. `planes` and `targets` stay valid until the next batch is asked for.

    rows (n,) are indices in the store, planes the raw digital numbers, targets (n, C) float32 in 0…1.
    """

    rows: NDArray[np.int64]
    planes: Native
    targets: Tensor


def batches(
    store: PatchStore,
    bands: Sequence[str],
    targets: NDArray[np.uint8],
    steps: Iterable[NDArray[np.int64]],
    device: torch.device,
    ahead: int = 2,
    upsampled: bool = False,
) -> Iterator[Batch]:
    """The batches of `steps` (rows of the store), each gathered while the ones before it are used.

    The bands are native ones or, `upsampled`, those of the store's `data_super`.
    """
    remaining = iter(steps)
    first = next(remaining, None)
    if first is None:
        return
    planes = store.planes_for(bands, upsampled)
    size = max(len(first), 1)
    rings = [_Buffers(store, planes, size, device) for _ in range(ahead + 1)]
    free = deque(rings)

    with ThreadPoolExecutor(ahead) as pool:
        waiting: deque[tuple[_Buffers, Future[Batch]]] = deque()

        def ask(rows: NDArray[np.int64]) -> None:
            buffers = free.popleft()
            waiting.append((buffers, pool.submit(buffers.gather, rows, targets)))

        ask(first)
        for rows in islice(remaining, ahead - 1):
            ask(rows)
        while waiting:
            buffers, future = waiting.popleft()
            batch = future.result()
            for rows in islice(remaining, 1):
                ask(rows)
            yield batch
            free.append(buffers)


class _Buffers:
    """Memory for one batch, pinned where a GPU will fetch it."""

    def __init__(self, store: PatchStore, planes: Sequence[Plane], size: int, device: torch.device) -> None:
        self._store, self._planes, self._device = store, planes, device
        self._pinned = device.type == "cuda"
        self._host = {p.key: torch.from_numpy(np.zeros((size, *p.shape), p.dtype)) for p in planes}
        if self._pinned:
            self._host = {key: tensor.pin_memory() for key, tensor in self._host.items()}
        self._copied: torch.cuda.Event | None = None

    def gather(self, rows: NDArray[np.int64], targets: NDArray[np.uint8]) -> Batch:
        if self._copied is not None:
            self._copied.synchronize()  # the device may still be reading what we are about to overwrite
        host = {key: tensor[: len(rows)] for key, tensor in self._host.items()}
        self._store.gather(rows, {key: tensor.numpy() for key, tensor in host.items()})
        planes = {
            p.bands: host[p.key].to(self._device, non_blocking=True) if self._pinned else host[p.key]
            for p in self._planes
        }
        wanted = torch.from_numpy(targets[rows].astype(np.float32)).to(self._device)
        if self._pinned:
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()
        return Batch(rows, planes, wanted)
