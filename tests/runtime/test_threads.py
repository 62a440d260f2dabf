"""How many threads compute beside other processes, and how they wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from landscale.runtime import threads
from landscale.runtime.threads import cores_of_others, free_threads, wait_without_spinning


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_core_numbers", lambda: {0, 1, 4, 5})


@pytest.mark.parametrize(
    "others,expected", [(0.0, 4), (0.4, 4), (1.0, 3), (1.6, 2), (2.9, 1), (3.9, 1), (4.0, 1), (9.0, 1)]
)
def test_every_thread_has_a_core_for_itself(four_cores: None, others: float, expected: int) -> None:
    assert free_threads(4, others) == expected
    assert free_threads(2, others) == min(2, expected)


def test_only_the_cores_of_this_process_are_observed(
    four_cores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one second core 0 computes for 1 s, core 4 (low priority, system, interrupts, stolen) for 0.5 s, core 2 for 1 s."""
    stat = tmp_path / "stat"
    quiet = {core: [100, 100, 100, 1000, 50, 10, 10, 10, 0, 0] for core in range(6)}
    busy = {core: list(ticks) for core, ticks in quiet.items()}
    busy[0][0] += 100
    busy[2][0] += 100
    for column, ticks in ((1, 20), (2, 10), (3, 50), (4, 70), (5, 5), (6, 5), (7, 10)):
        busy[4][column] += ticks

    def write(cores: dict[int, list[int]]) -> None:
        lines = [f"cpu{core} {' '.join(map(str, ticks))}" for core, ticks in cores.items()]
        stat.write_text("\n".join(["cpu 1 2 3 4 5 6 7 8 0 0", *lines, "intr 1 2 3"]))

    now = [5.0]

    def sleep(seconds: float) -> None:
        now[0] += 1.0
        write(busy)

    write(quiet)
    monkeypatch.setattr(threads, "STAT", stat)
    monkeypatch.setattr(threads.os, "sysconf", lambda _: 100)
    monkeypatch.setattr(threads.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(threads.time, "sleep", sleep)
    assert cores_of_others() == pytest.approx(1.5)


@pytest.mark.parametrize(
    "content", [None, "", "cpu0 1 2", "cpu0 a b c d e f g h", "\n".join(f"cpu{k} 1" for k in range(6))]
)
def test_where_the_system_does_not_count_nothing_is_assumed(
    four_cores: None, content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "stat").write_text(content)
    monkeypatch.setattr(threads, "STAT", tmp_path / "stat")
    assert cores_of_others() == 0.0


def test_threads_soon_stop_spinning_unless_the_user_has_set_how_they_wait() -> None:
    environment: dict[str, str] = {"KMP_BLOCKTIME": "7"}
    wait_without_spinning(environment)
    assert environment == {"KMP_BLOCKTIME": "7", "GOMP_SPINCOUNT": "3000"}
    environment = {"OMP_WAIT_POLICY": "active"}
    wait_without_spinning(environment)
    assert environment == {"OMP_WAIT_POLICY": "active"}
