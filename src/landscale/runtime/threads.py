"""Computing threads beside other processes: how many there are, and how they wait for each other."""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping
from pathlib import Path

from landscale.runtime.portability import usable_core_numbers

STAT = Path("/proc/stat")
SECONDS = 0.3  # for which other processes are observed


def wait_without_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make threads of OpenMP that wait for another one give up their core soon. Call it before torch is imported.

    By default a thread repeats a test (it spins) for milliseconds. If other processes run on the same cores, the thread it waits
    for may need that core. It still spins for about 0.1 ms, as waking a thread takes time and most waits are shorter. What
    the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", "3000")  # GNU's OpenMP, as in PyTorch's wheels
        environment.setdefault("KMP_BLOCKTIME", "1")  # Intel's and LLVM's, in milliseconds


def cores_of_others() -> float:
    """How many of the cores that this process may use are kept busy by other processes, observed for a moment; 0 if unknown.

    A process that computes without a pause counts as at most 1. The calling process should have no threads at work.
    """
    before, begun = _busy_seconds(), time.monotonic()
    if before is None:
        return 0.0
    time.sleep(SECONDS)
    after = _busy_seconds()
    return 0.0 if after is None else max(0.0, (after - before) / (time.monotonic() - begun))


def free_threads(threads: int, others: float) -> int:
    """How many of `threads` threads have a core for themselves, when `others` of the usable cores are busy; at least 1.

    All threads wait for the slowest one. So beside other processes fewer threads are faster than many that share cores.
    """
    return max(1, min(threads, round(len(usable_core_numbers()) - others)))


def _busy_seconds() -> float | None:
    """Seconds for which the usable cores have been busy since the system started; None where the system does not count them."""
    try:
        lines = STAT.read_text(encoding="ascii").splitlines()
        times = {line.split()[0]: list(map(int, line.split()[1:])) for line in lines if line.startswith("cpu")}
        ticks = 0
        for core in usable_core_numbers():
            user, nice, system, _idle, _waits_for_disk, interrupts, soft_interrupts, steal = times[f"cpu{core}"][:8]
            ticks += user + nice + system + interrupts + soft_interrupts + steal
    except (OSError, ValueError, KeyError):
        return None
    return ticks / os.sysconf("SC_CLK_TCK")
