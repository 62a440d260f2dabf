"""Where the train split lies while it is learnt from: on the disk, in the machine's memory, or on its GPUs.

Wherever it lies, the patches, their order and their bytes are the same.
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
from landscale.loading.filling import bytes_of
from landscale.loading.in_memory import InMemory, in_memory
from landscale.loading.on_device import OnDevice, on_device
from landscale.loading.room import SHARED, Room, look
from landscale.store import PatchStore

Placement = Literal["disk", "memory", "device", "auto"]
Place = Literal["disk", "memory", "device", "sharded"]
Placed = InMemory | OnDevice

# Shares of what is free that a split may take: the network needs room, and so does the page cache.
_AUTO, _ASKED = 0.6, 0.9


def place(
    store: PatchStore,
    bands: Sequence[str],
    upsampled: bool,
    rows: NDArray[np.int64],
    ranks: Ranks,
    device: torch.device,
    how: Placement,
) -> Placed | None:
    """Bring a split to where `batches` then takes it from. All ranks call it together.

    Args:
        bands, upsampled: as `batches` has them.
        rows: all that may be asked for.
        device: of this rank; a CPU as a device is this process's own memory.
        how: auto takes the GPU, all GPUs of a machine together, or the memory, whichever has room first; on a CPU the
            disk, whose page cache is in memory already.

    Returns:
        What to hand to `batches`, and in its `told` a phrase for the screen; None: the disk.

    Raises:
        LandscaleError: on every rank, when there is not the room that was asked for, or a patch cannot be read.
        BadStore: a band is missing.
    """
    planes = store.planes_for(bands, upsampled)
    if how == "disk" or (how == "auto" and device.type == "cpu"):
        return None
    rows = np.unique(rows)
    need = len(rows) * sum(map(bytes_of, planes))
    rooms = ranks.gather(look(device))
    where = choose(how, need, rooms)
    machines: dict[str, list[int]] = {}
    for rank, room in enumerate(rooms):
        machines.setdefault(room.host, []).append(rank)
    mine = machines[rooms[ranks.rank].host]
    gpu = "GPU" if device.type == "cuda" else "device"
    match where:
        case "disk":
            return None
        case "memory":
            told = f"train split in {'shared ' if ranks.world > 1 else ''}memory ({_gb(need)})"
            return in_memory(store, planes, rows, ranks, mine, told)
        case "device":
            told = f"train split on the {gpu} ({_gb(need)})"
            return on_device(store, planes, rows, ranks, [ranks.rank], None, device, told)
        case "sharded":
            told = f"train split sharded over {len(mine)} {gpu}s ({_gb(need / len(mine))} each)"
            groups = {tuple(peers): dist.new_group(peers) for peers in machines.values()}  # all ranks make all of them
            return on_device(store, planes, rows, ranks, mine, groups[tuple(mine)], device, told)


def choose(how: Placement, need: int, rooms: Sequence[Room]) -> Place:
    """Where `need` bytes go, by the rooms of all ranks: the same place for all.

    Raises:
        LandscaleError: no room for what was asked for.
    """
    ranks = Counter(room.host for room in rooms)
    devices = [room.memory // ranks[room.host] if room.gpu is None else room.gpu for room in rooms]
    free: dict[Place, int] = {
        "device": min(devices),
        "sharded": min(device * ranks[room.host] for device, room in zip(devices, rooms, strict=True)),
        "memory": min(room.memory if len(rooms) == 1 else room.shared for room in rooms),
    }
    wishes: dict[Placement, tuple[Place, ...]] = {
        "device": ("device", "sharded"),
        "memory": ("memory",),
        "auto": ("device", "sharded", "memory"),
    }
    share = _AUTO if how == "auto" else _ASKED
    for wish in wishes[how]:
        if need <= share * free[wish]:
            return wish
    if how == "auto":
        return "disk"
    found = {
        "device": f"{_gb(free['device'])} on a device, {_gb(free['sharded'])} on all of a machine together",
        "memory": f"{_gb(free['memory'])} of memory" + (f" that can be shared ({SHARED})" if len(rooms) > 1 else ""),
    }
    raise LandscaleError(
        f"--placement {how}: the train split takes {_gb(need)}, and may take {share:.0%} of what is free: {found[how]}"
    )


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
