"""A split on the device, or spread over the devices of a machine: a batch comes from there, and only row numbers travel."""

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
from landscale.loading.filling import bytes_of, filled, part_of, positions
from landscale.loading.transfer import to_device
from landscale.store import PatchStore, Plane


class OnDevice:
    """A split's patches, of which this rank holds every L-th from its place among its L `peers` on; all of them if it has none.

    A patch is a row of words: torch cannot index uint16 everywhere, nor NCCL send it.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        planes: tuple[Plane, ...],
        shards: Mapping[str, Tensor],
        peers: Sequence[int],
        group: dist.ProcessGroup | None,
        told: str,
    ) -> None:
        self.rows, self.shards, self.told = rows, shards, told
        self._planes, self._peers, self._group = planes, peers, group

    def buffers(self, size: int) -> dict[str, Tensor]:
        """Memory for batches of `size` patches."""
        return {key: shard.new_empty((size, shard.shape[1])) for key, shard in self.shards.items()}

    def gather(self, step: NDArray[np.int64], ranks: Ranks, into: Mapping[str, Tensor]) -> Native:
        """This rank's patches of a step, in `into`. Peers exchange theirs, so all call it for every step, in one order.

        Args:
            step: the rows of all ranks.
        """
        at = positions(self.rows, step)
        n = len(at[ranks.rank :: ranks.world])
        if len(self._peers) == 1:
            index = self.there(at[ranks.rank :: ranks.world])
            for key, shard in self.shards.items():
                torch.index_select(shard, 0, index, out=into[key][:n])
        else:
            route = routes(at, ranks, self._peers)
            given, order = self.there(route.given), self.there(route.order)
            for key, shard in self.shards.items():
                received = shard.new_empty((n, shard.shape[1]))
                dist.all_to_all_single(
                    received, shard.index_select(0, given), route.receives, route.gives, group=self._group
                )
                torch.index_select(received, 0, order, out=into[key][:n])
        return {p.bands: into[p.key][:n].view(_dtype(p)).view(n, *p.shape) for p in self._planes}

    def there(self, values: NDArray[np.generic]) -> Tensor:
        """On the device; nobody waits for the copy."""
        return to_device(torch.from_numpy(values), next(iter(self.shards.values())).device)


def on_device(
    store: PatchStore,
    planes: tuple[Plane, ...],
    rows: NDArray[np.int64],
    ranks: Ranks,
    peers: Sequence[int],
    group: dist.ProcessGroup | None,
    device: torch.device,
    told: str,
) -> OnDevice:
    """Copy a split to the device, through one piece of pinned memory.

    Args:
        peers: the ranks, ascending, that share the split; this one alone if it holds all of it.
    """
    mine = rows[peers.index(ranks.rank) :: len(peers)]
    part = min(part_of(planes), len(rows))
    shards = {
        p.key: torch.empty((len(mine), *words), dtype=dtype, device=device)
        for p in planes
        for dtype, *words in [_words(p)]
    }
    staging = {p.key: torch.from_numpy(np.empty((part, *p.shape), p.dtype)) for p in planes}
    if device.type == "cuda":
        staging = {key: tensor.pin_memory() for key, tensor in staging.items()}
    arrays = {key: tensor.numpy() for key, tensor in staging.items()}
    for here in filled(store, planes, mine, len(rows), lambda _: arrays, ranks):
        for key, shard in shards.items():
            copied = shard[here]
            copied.copy_(staging[key][: len(copied)].flatten(1).view(shard.dtype))
    return OnDevice(rows, planes, shards, peers, group, told)


class Route(NamedTuple):
    """How a step's patches come to one of the peers.

    given: places in its shard that it sends, peer by peer; gives and receives: how many to and from each; order: where,
    in what it receives, its patches stand.
    """

    given: NDArray[np.int64]
    gives: list[int]
    receives: list[int]
    order: NDArray[np.int64]


def routes(at: NDArray[np.int64], ranks: Ranks, peers: Sequence[int]) -> Route:
    """Every peer knows the step, so nobody has to ask.

    Args:
        at: positions in the split of the step's patches, of all ranks: position p lies with peer p mod L, at p div L.
    """
    me, shares = peers.index(ranks.rank), len(peers)
    wanted = [at[peer :: ranks.world] for peer in peers]
    given = [theirs[theirs % shares == me] // shares for theirs in wanted]
    owners = wanted[me] % shares
    return Route(
        np.concatenate(given),
        [len(places) for places in given],
        np.bincount(owners, minlength=shares).tolist(),
        np.argsort(np.argsort(owners, kind="stable"), kind="stable"),
    )


def _dtype(plane: Plane) -> torch.dtype:
    return torch.from_numpy(np.empty(0, plane.dtype)).dtype


def _words(plane: Plane) -> tuple[torch.dtype, int]:
    """The widest type that a patch is a whole number of, and that number."""
    size = bytes_of(plane)
    dtype = next(dtype for dtype in (torch.int64, torch.int32, torch.uint8) if size % dtype.itemsize == 0)
    return dtype, size // dtype.itemsize
