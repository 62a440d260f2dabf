"""Store → batches at native resolution: which patches, in which order, gathered ahead of use.

The order is a pure function of (seed, epoch), and a rank's part of it of (rank, world): nothing to save, nothing to lose.
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

from landscale.errors import BadStore, UnknownName
from landscale.labels import columns_by_name
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


def epoch_order(patches: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """The patches in the order of an epoch: a permutation that depends on nothing but its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(patches)


def train_steps(order: NDArray[np.int64], batch: int, rank: int = 0, world: int = 1) -> list[NDArray[np.int64]]:
    """The rows of each step for one rank. A step's global batch is the same set for any number of ranks of its size.

    What does not fill a global batch is left to later epochs; a split smaller than one is a batch of its own.
    """
    size = batch * world
    if len(order) < size:
        return [order[rank::world]] if len(order) >= world else []
    return [order[k : k + size][rank::world] for k in range(0, len(order) - size + 1, size)]


def evaluation_steps(patches: NDArray[np.int64], batch: int, rank: int = 0, world: int = 1) -> list[NDArray[np.int64]]:
    """All patches once, dealt to the ranks without padding."""
    mine = patches[rank::world]
    return [mine[k : k + batch] for k in range(0, len(mine), batch)]


def targets_by_name(store: PatchStore, classes: Sequence[str]) -> NDArray[np.uint8]:
    """The store's labels as columns of `classes` (N, C) uint8, matched by name, finer classes gathered.

    Raises:
        BadStore: a class that the store does not have.
    """
    if tuple(classes) == store.layout.classes:
        return store.classes
    try:
        columns = columns_by_name(classes, store.layout.classes)
    except UnknownName as error:
        raise BadStore(store.path, f"cannot give the classes asked for: {error}") from None
    return np.stack([store.classes[:, c].max(axis=1) for c in columns], axis=1)


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
