"""What an all-reduce costs among the processes that a launcher has started: run by each of them."""

from __future__ import annotations

import os
import socket
import statistics
import time
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist

from landscale.distributed import Ranks
from landscale.studies.rank_scaling.cost_model import BUCKET

SMALL = 4  # bytes, one number: all of its time is latency
REPEATS = {SMALL: 50, BUCKET: 9}
WARM = 3


def measure_all_reduce(ranks: Ranks, device: torch.device) -> dict[str, Any]:
    """The median time of the slowest rank, for one number and for a bucket of gradients.

    Returns:
        `ranks`, `nodes`, `threads` (of a rank), `cores` (of all ranks together), `device`, `backend`, and where there are
        several ranks `small`, `large`: seconds, `bytes` of the large message.
    """
    host = socket.gethostname()
    cores = ranks.gather([(host, core) for core in os.sched_getaffinity(0)])  # launchers may bind each rank to its own
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
    small, large = (max(ranks.gather(_seconds(size, device))) for size in (SMALL, BUCKET))
    return about | {"small": small, "large": large, "bytes": BUCKET}


def _seconds(size: int, device: torch.device) -> float:
    values = torch.ones(size // 4, device=device)
    times = []
    for _ in range(WARM + REPEATS[size]):
        begun = time.perf_counter()
        dist.all_reduce(values)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
        values.fill_(1.0)
    return statistics.median(times[WARM:])
