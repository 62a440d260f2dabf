"""How much memory is free on a rank's machine and on its GPU."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from landscale.runtime.portability import available_memory

SHARED = "/dev/shm"  # holds the memory that processes share
_LIMITS = {
    "": ("", "memory.max"),
    "memory": ("memory", "memory.limit_in_bytes"),
}  # controllers → (folder, file) of the limit: cgroup version 2, version 1


@dataclass(frozen=True)
class FreeMemory:
    """Free bytes on the machine `host`: of memory, of memory that can be shared, and of the rank's GPU (None without one)."""

    host: str
    memory: int
    shared: int
    gpu: int | None


def free_memory(device: torch.device) -> FreeMemory:
    """Free memory of this process, which computes on `device`."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    memory = min(available_memory(), *cgroup_limits())
    shared = 0
    with suppress(OSError):
        about = os.statvfs(SHARED)
        shared = about.f_bavail * about.f_frsize
    return FreeMemory(socket.gethostname(), memory, min(memory, shared), free)


def cgroup_limits(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """The memory limits, in bytes, of this process's control groups: a batch job seldom may use all memory of a node.

    (https://docs.kernel.org/admin-guide/cgroup-v2.html, cgroup-v1/memory.html)
    """
    with suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers not in _LIMITS:
                continue
            hierarchy, file = _LIMITS[controllers]
            group = Path(name.lstrip("/"))
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError):  # the file may not be read, or contains "max": no limit
                    yield int((root / hierarchy / folder / file).read_text())
