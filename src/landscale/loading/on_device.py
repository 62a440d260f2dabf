"""A split on the device, or spread over the devices of a machine. For a batch, only row numbers are copied to the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from landscale.distributed import Ranks
from landscale.loading.batch import Native
from landscale.loading.filling import bytes_per_patch, copy_in_parts, patches_per_part, positions
from landscale.loading.transfer import to_device
from landscale.store import PatchStore, Plane


class SplitOnDevice:
    """The patches of a split. With L `peers`, peer k holds patches k, k + L, …; a rank without other peers holds all.

    A patch is stored as a row of wider integers, since torch cannot index uint16 on every device and NCCL cannot send it.
    `description` is text for the terminal.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        planes: tuple[Plane, ...],
        shards: Mapping[str, Tensor],
        peers: Sequence[int],
        group: dist.ProcessGroup | None,
        description: str,
    ) -> None:
        self.rows, self.shards, self.description = rows, shards, description
        self._planes, self._peers, self._group = planes, peers, group

    def buffers(self, size: int) -> dict[str, Tensor]:
        """Memory for batches of at most `size` patches, by plane."""
        return {key: shard.new_empty((size, shard.shape[1])) for key, shard in self.shards.items()}

    def gather(self, step: NDArray[np.int64], ranks: Ranks, into: Mapping[str, Tensor]) -> Native:
        """Copy this rank's patches of a step to `into`.

        Peers exchange patches, so all of them call this for every step, in the same order.

        Args:
            step: rows in the store, of all ranks. Rank r takes rows r, r + world, ….

        Returns:
            The planes of the batch, which lie in `into`.
        """
        at = positions(self.rows, step)
        n = len(at[ranks.rank :: ranks.world])
        if len(self._peers) == 1:
            index = self.to_own_device(at[ranks.rank :: ranks.world])
            for key, shard in self.shards.items():
                torch.index_select(shard, 0, index, out=into[key][:n])
        else:
            route = routes(at, ranks, self._peers)
            send_positions, order = self.to_own_device(route.send_positions), self.to_own_device(route.order)
            for key, shard in self.shards.items():
                received = shard.new_empty((n, shard.shape[1]))
                dist.all_to_all_single(
                    received, shard.index_select(0, send_positions), route.receives, route.sends, group=self._group
                )
                torch.index_select(received, 0, order, out=into[key][:n])
        return {p.bands: into[p.key][:n].view(_dtype(p)).view(n, *p.shape) for p in self._planes}

    def to_own_device(self, values: NDArray[np.generic]) -> Tensor:
        """A copy of host values on the split's device; the host does not wait for it."""
        return to_device(torch.from_numpy(values), next(iter(self.shards.values())).device)


def on_device(
    store: PatchStore,
    planes: tuple[Plane, ...],
    rows: NDArray[np.int64],
    ranks: Ranks,
    peers: Sequence[int],
    group: dist.ProcessGroup | None,
    device: torch.device,
    description: str,
) -> SplitOnDevice:
    """Copy a split to the device, part by part through one buffer of pinned memory.

    Args:
        rows: rows of the split in the store, ascending.
        peers: the ranks, ascending, among which the split is divided; only this rank if it holds the whole split.
        group: the process group of the peers; None without other peers.
    """
    own = rows[peers.index(ranks.rank) :: len(peers)]
    part = min(patches_per_part(planes), len(rows))
    shards = {
        p.key: torch.empty((len(own), *words), dtype=dtype, device=device)
        for p in planes
        for dtype, *words in [_words(p)]
    }
    staging = {p.key: torch.from_numpy(np.empty((part, *p.shape), p.dtype)) for p in planes}
    if device.type == "cuda":
        staging = {key: tensor.pin_memory() for key, tensor in staging.items()}
    arrays = {key: tensor.numpy() for key, tensor in staging.items()}
    for part_rows in copy_in_parts(store, planes, own, len(rows), lambda _: arrays, ranks):
        for key, shard in shards.items():
            copied = shard[part_rows]
            copied.copy_(staging[key][: len(copied)].flatten(1).view(shard.dtype))
    return SplitOnDevice(rows, planes, shards, peers, group, description)


class Route(NamedTuple):
    """How one peer exchanges the patches of a step.

    send_positions: positions in its shard of the patches that it sends, ordered by receiver. sends, receives: how many patches
    it sends to and receives from each peer. order: for each patch of its batch, the position among the received patches.
    """

    send_positions: NDArray[np.int64]
    sends: list[int]
    receives: list[int]
    order: NDArray[np.int64]


def routes(at: NDArray[np.int64], ranks: Ranks, peers: Sequence[int]) -> Route:
    """What this rank sends and receives in one step. Every peer computes it from the step, without communication.

    Args:
        at: positions in the split of the step's patches, of all ranks. With L peers, position p is held by peer p mod L, in its
            shard at p div L.
    """
    own, shards = peers.index(ranks.rank), len(peers)
    batches = [at[peer :: ranks.world] for peer in peers]
    send_positions = [batch[batch % shards == own] // shards for batch in batches]
    owners = batches[own] % shards
    return Route(
        np.concatenate(send_positions),
        [len(places) for places in send_positions],
        np.bincount(owners, minlength=shards).tolist(),
        np.argsort(np.argsort(owners, kind="stable"), kind="stable"),
    )


def _dtype(plane: Plane) -> torch.dtype:
    return torch.from_numpy(np.empty(0, plane.dtype)).dtype


def _words(plane: Plane) -> tuple[torch.dtype, int]:
    """The widest integer type whose size divides that of a patch, and the number of such integers in a patch."""
    size = bytes_per_patch(plane)
    dtype = next(dtype for dtype in (torch.int64, torch.int32, torch.uint8) if size % dtype.itemsize == 0)
    return dtype, size // dtype.itemsize
