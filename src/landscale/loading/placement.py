"""Where the train split is kept during training: on the disk, in the machine's memory, or on its GPUs.

The patches, their order and their bytes are the same in every place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from landscale.distributed import Ranks
from landscale.errors import LandscaleError
from landscale.loading.filling import bytes_per_patch
from landscale.loading.free_memory import SHARED, FreeMemory, free_memory
from landscale.loading.in_memory import SplitInMemory, in_memory
from landscale.loading.on_device import SplitOnDevice, on_device
from landscale.store import PatchStore

Placement = Literal["disk", "memory", "device", "auto"]
Place = Literal["disk", "memory", "device", "sharded"]
PlacedSplit = SplitInMemory | SplitOnDevice

# Fractions of the free memory that a split may take; the rest is for the network and the page cache.
_AUTO_FRACTION, _REQUESTED_FRACTION = 0.6, 0.9


def place(
    store: PatchStore,
    bands: Sequence[str],
    upsampled: bool,
    rows: NDArray[np.int64],
    ranks: Ranks,
    device: torch.device,
    how: Placement,
) -> PlacedSplit | None:
    """Copy a split to the place from which `batches` will take it. All ranks call it together.

    Args:
        bands, upsampled: as in `batches`.
        rows: rows of the split in the store.
        device: the device of this rank; on a CPU, placement "device" is this process's own memory.
        how: the requested place. auto: the first with enough free memory of the rank's GPU, all GPUs of a machine together, and
            the machine's memory; on a CPU the disk, because its page cache is in memory already.

    Returns:
        The argument `placed` of `batches`; its `description` is text for the terminal. None: the split stays on the disk.

    Raises:
        LandscaleError: on every rank, if the requested place is too small or a patch cannot be read.
        BadStore: the store lacks a band.
    """
    planes = store.planes_for(bands, upsampled)
    if how == "disk" or (how == "auto" and device.type == "cpu"):
        return None
    rows = np.unique(rows)
    need = len(rows) * sum(map(bytes_per_patch, planes))
    free_of_ranks = ranks.gather(free_memory(device))
    place_for_all = choose(how, need, free_of_ranks)
    machines: dict[str, list[int]] = {}
    for rank, free in enumerate(free_of_ranks):
        machines.setdefault(free.host, []).append(rank)
    own_machine = machines[free_of_ranks[ranks.rank].host]
    gpu = "GPU" if device.type == "cuda" else "device"
    match place_for_all:
        case "disk":
            return None
        case "memory":
            description = f"train split in {'shared ' if ranks.world > 1 else ''}memory ({_gb(need)})"
            return in_memory(store, planes, rows, ranks, own_machine, description)
        case "device":
            description = f"train split on the {gpu} ({_gb(need)})"
            return on_device(store, planes, rows, ranks, [ranks.rank], None, device, description)
        case "sharded":
            description = f"train split sharded over {len(own_machine)} {gpu}s ({_gb(need / len(own_machine))} each)"
            # torch requires that every rank creates every process group.
            groups = {tuple(peers): dist.new_group(peers) for peers in machines.values()}
            return on_device(store, planes, rows, ranks, own_machine, groups[tuple(own_machine)], device, description)


def choose(how: Placement, need: int, free_of_ranks: Sequence[FreeMemory]) -> Place:
    """Choose the place for a split of `need` bytes by the free memory of all ranks; it is the same for all ranks.

    Raises:
        LandscaleError: the requested place is too small.
    """
    ranks = Counter(available.host for available in free_of_ranks)
    devices = [
        available.memory // ranks[available.host] if available.gpu is None else available.gpu
        for available in free_of_ranks
    ]
    free: dict[Place, int] = {
        "device": min(devices),
        "sharded": min(
            device * ranks[available.host] for device, available in zip(devices, free_of_ranks, strict=True)
        ),
        "memory": min(available.memory if len(free_of_ranks) == 1 else available.shared for available in free_of_ranks),
    }
    candidates: dict[Placement, tuple[Place, ...]] = {
        "device": ("device", "sharded"),
        "memory": ("memory",),
        "auto": ("device", "sharded", "memory"),
    }
    fraction = _AUTO_FRACTION if how == "auto" else _REQUESTED_FRACTION
    for candidate in candidates[how]:
        if need <= fraction * free[candidate]:
            return candidate
    if how == "auto":
        return "disk"
    found = {
        "device": f"{_gb(free['device'])} on a device, {_gb(free['sharded'])} on all of a machine together",
        "memory": f"{_gb(free['memory'])} of memory"
        + (f" that can be shared ({SHARED})" if len(free_of_ranks) > 1 else ""),
    }
    raise LandscaleError(
        f"--placement {how}: the train split takes {_gb(need)}, and may take {fraction:.0%} of the free memory: {found[how]}"
    )


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
