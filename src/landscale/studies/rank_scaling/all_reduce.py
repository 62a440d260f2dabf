"""The time of an all-reduce among the processes that a launcher has started; each of them runs this."""

from __future__ import annotations

import socket
import statistics
import time
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist

from landscale.distributed import Ranks
from landscale.runtime.portability import usable_core_numbers
from landscale.studies.rank_scaling.cost_model import BUCKET_BYTES

SMALL_BYTES = 4  # one number: all of its time is latency
REPEATS = {SMALL_BYTES: 50, BUCKET_BYTES: 9}
WARM_UP = 3  # all-reduces that are not timed


def measure_all_reduce(ranks: Ranks, device: torch.device) -> dict[str, Any]:
    """The median time of the slowest rank, for one number and for a bucket of gradients.

    Returns:
        `ranks`, `nodes`, `threads` (of each rank), `cores` (of all ranks together), `device`, `backend`; with several ranks
        also `small` and `large`, the seconds of both messages, and `bytes`, the size of the large one.
    """
    host = socket.gethostname()
    # Launchers may bind each rank to its own cores.
    cores = ranks.gather([(host, core) for core in usable_core_numbers()])
    about = {
        "ranks": ranks.world,
        "nodes": len(set(ranks.gather(host))),
        "threads": torch.get_num_threads(),
        "cores": len(set(chain(*cores))),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "backend": dist.get_backend() if ranks.world > 1 else None,
    }
    if ranks.world == 1:
        return about
    small, large = (max(ranks.gather(_median_seconds(size, device))) for size in (SMALL_BYTES, BUCKET_BYTES))
    return about | {"small": small, "large": large, "bytes": BUCKET_BYTES}


def _median_seconds(size: int, device: torch.device) -> float:
    values = torch.ones(size // 4, device=device)
    times = []
    for _ in range(WARM_UP + REPEATS[size]):
        begin = time.perf_counter()
        dist.all_reduce(values)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
        values.fill_(1.0)  # sums of sums would overflow
    return statistics.median(times[WARM_UP:])
