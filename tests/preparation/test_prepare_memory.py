"""Ten times as many patches take the same memory, except for one row each in the survey's table."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from archives import link_v2
from conftest import command, outcome
from launchers import workers_of

# Limit for the memory of a patch in the survey (its pixels have 160,000 bytes); larger surveys need less (docs/at-scale.md).
BYTES_PER_ROW = 12_000


def high_water(process: int) -> float:
    """Peak resident memory of a running process so far, in MB, from the kernel."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{process}/status").read_text().split("VmHWM:")[1].split()[0]) / 1000
    return 0.0


def peaks(archive: Path, store: Path, workers: int) -> tuple[float, float]:
    """Peak memory in MB of the command and of its largest worker."""
    process = command("prepare", "bigearthnet", archive, store, "--workers", workers, "--json")
    of_command, of_worker = 0.0, 0.0
    while process.poll() is None:
        of_command = max(of_command, high_water(process.pid))
        for other in workers_of(process.pid):
            of_worker = max(of_worker, high_water(other))
        time.sleep(0.01)
    assert outcome(process).code == 0
    store.unlink()
    return of_command, of_worker


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_memory_is_flat(workers: int, v2: Path, tmp_path: Path) -> None:
    least = 300 * workers  # so that each worker uses all of its buffers
    found = {n: peaks(link_v2(tmp_path / str(n), v2, n), tmp_path / "s.h5", workers) for n in (least, 10 * least)}
    print(f"{workers} workers, peak MB of the command and of a worker by patches: {found}")
    (few, few_of_worker), (many, many_of_worker) = found[least], found[10 * least]
    assert many - few < 4 + 9 * least * BYTES_PER_ROW / 1e6
    assert many_of_worker - few_of_worker < 4
