"""If a rank dies, is stopped, hangs or fails, all others end in time, and one line names it and its host: real processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from launchers import members, session_of, wait_until_gone

TIMEOUT = 3.0
SLACK = 5.0  # seconds that a rank may take longer, as other tests run on the same cores
LAST = 20  # the step at which the failure happens
HOST = socket.gethostname()
slow = pytest.mark.slow

# What `landscale train` does around a training; the training here is one all-reduce after the other.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import torch
from landscale.distributed import start_process_group, end_process_group
from landscale.distributed.failure_detection import detect_failures
from landscale.errors import LandscaleError, LostRank

failure, rank, timeout, last, folder = sys.argv[1:]
rank, timeout, last, folder = int(rank), float(timeout), int(last), Path(folder)
torch.set_num_threads(1)
ranks = start_process_group("gloo")
fails = ranks.rank == rank


def announce(event):
    file = folder / f"{event}-{ranks.rank}"
    file.with_suffix(".partial").write_text(str(os.getpid()))
    file.with_suffix(".partial").rename(file)


def fail(counter):
    if failure == "diverge":
        raise LandscaleError("the loss is nan")
    if failure == "alone":  # an evaluation on one rank, longer than the time-out
        for _ in range(int(2 * timeout / 0.3) * fails):
            time.sleep(0.3)
            counter.report(last)
    if failure == "handled":
        signal.signal(signal.SIGTERM, lambda *_: (folder / f"received-{ranks.rank}").touch())
        announce("fails")
    if failure == "slow":  # a long pause, shorter than the time-out
        time.sleep(0.8 * timeout * fails)
    if not fails:
        return
    if failure == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if failure == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if failure == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if failure == "sleep":
        time.sleep(1000)
    if failure == "fail":
        raise LandscaleError("s.h5: torn at\\n  byte 7")
    if failure == "full":
        raise OSError(28, "No space left on device", "run/last.safetensors")
    if failure == "bug":
        [][1]
    if failure == "interrupt":
        raise KeyboardInterrupt


def train(counter):
    announce("begins")
    ends = failure in ("alone", "slow", "leave", "suspend", "handled")
    for step in range(last + 200 if ends else 10**6):
        if step == last:
            if failure != "handled":
                announce("fails")
            fail(counter)
        counter.report(step)
        torch.distributed.all_reduce(torch.ones(3))
        time.sleep(0.01)
    if failure == "handled":  # the training receives it, and ignores it at the end
        assert (folder / f"received-{ranks.rank}").exists()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if failure == "leave":
        time.sleep(timeout * (2.5 if fails else 0.3 * ranks.rank))


try:
    with detect_failures(ranks, timeout) as counter:
        train(counter)
except LostRank as lost:
    sys.exit(lost.code)
except LandscaleError as error:
    print(f"landscale: {error}", file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:
    sys.exit(130)
finally:
    end_process_group()
assert failure != "handled" or signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
print("ended well")
"""


@dataclass
class Outcome:
    output: str
    """of all ranks and of the launcher"""
    seconds: float
    """from the failure to the end of the last rank"""
    codes: list[int]
    """exit codes of the ranks if each was started alone, else of torchrun"""

    def line(self) -> str:
        """The only line by landscale in the output."""
        (line,) = re.findall("^landscale: .*$", self.output, re.MULTILINE)
        return line.removeprefix("landscale: ")

    def names(self, rank: int) -> bool:
        return re.match(rf"rank {rank} on host {re.escape(HOST)} \(process \d+\) ", self.line()) is not None


RunRanks = Callable[..., Outcome]


@pytest.fixture
def run_ranks(tmp_path: Path) -> Iterator[RunRanks]:
    """Run the script on several ranks, by torchrun or each alone, and let one of them fail."""
    started: list[subprocess.Popen[bytes]] = []

    def run(failure: str, rank: int, world: int, *, alone: bool) -> Outcome:
        script, log = tmp_path / "script.py", tmp_path / "log"
        script.write_text(SCRIPT)
        arguments = [str(script), failure, str(rank), str(TIMEOUT), str(LAST), str(tmp_path)]
        environment = os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"}
        with log.open("wb") as out:
            for command, more in commands_without_launcher(world) if alone else [torchrun_command(world)]:
                how = {"stdout": out, "stderr": out, "env": environment | more, "start_new_session": True}
                started.append(subprocess.Popen([*command, *arguments], **how))
        wait_until((tmp_path / f"fails-{rank}").exists, 120)
        begin = time.monotonic()
        pids = [int((tmp_path / f"begins-{rank}").read_text()) for rank in range(world)]
        SIGNALS_FROM_OUTSIDE.get(failure, lambda _: None)(pids)
        wait_until(lambda: not any(map(session_of, pids)), 90)
        seconds = time.monotonic() - begin
        codes = [process.wait(60) for process in started]
        return Outcome(log.read_text(), seconds, codes)

    yield run
    for process in started:
        for member in members(process.pid):
            os.kill(member, signal.SIGKILL)
        process.wait()
        assert not wait_until_gone(process.pid)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def torchrun_command(world: int) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"], {}


def commands_without_launcher(world: int) -> list[tuple[list[str], dict[str, str]]]:
    """As under srun: the first rank holds the store, and no launcher ends the ranks that are left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(world)}
    return [([sys.executable], master | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(world)]


# ---- real processes


@pytest.mark.parametrize(
    "rank, world, alone",
    [
        (0, 2, False),
        pytest.param(1, 3, False, marks=slow),
        pytest.param(1, 3, True, marks=slow),
        pytest.param(0, 3, True, marks=slow),  # and the store with it
    ],
)
def test_killed_rank_is_named_at_once(run_ranks, rank, world, alone):
    outcome = run_ranks("kill", rank, world, alone=alone)
    assert outcome.names(rank)
    assert f"died or became unreachable at step {LAST}; run the same command again" in outcome.line()
    assert outcome.seconds < TIMEOUT + SLACK
    assert all(outcome.codes)


@pytest.mark.parametrize(
    "rank, world, alone",
    [
        pytest.param(1, 3, False, marks=slow),
        pytest.param(0, 2, False, marks=slow),
        pytest.param(1, 3, True, marks=slow),
        (0, 2, True),  # and the store with it
        pytest.param(0, 3, True, marks=slow),
    ],
)
def test_suspended_rank_is_named_after_the_timeout(run_ranks, rank, world, alone):
    outcome = run_ranks("stop", rank, world, alone=alone)
    assert outcome.names(rank)
    assert f"since step {LAST}; run the same command again" in outcome.line()
    assert TIMEOUT - 1 < outcome.seconds < TIMEOUT + SLACK
    assert all(outcome.codes)


@slow
@pytest.mark.parametrize("rank, world, alone", [(1, 3, False), (0, 2, False), (1, 3, True), (0, 2, True)])
def test_hanging_rank_with_heartbeats_is_named(run_ranks, rank, world, alone):
    """The main thread sleeps; the heartbeat thread continues."""
    outcome = run_ranks("sleep", rank, world, alone=alone)
    assert outcome.names(rank)
    assert f"makes no progress at step {LAST - 1}, other ranks wait at step {LAST}" in outcome.line()
    assert TIMEOUT - 1 < outcome.seconds < TIMEOUT + SLACK
    assert all(outcome.codes)


FAILURES = {
    "fail": ("s.h5: torn at byte 7", 2),
    "full": ("run/last.safetensors: No space left on device", 2),
    "bug": ("IndexError: list index out of range", 1),
    "term": ("SIGTERM", 128 + 15),  # not under torchrun, which sends it to the others too and names the first itself
    "interrupt": ("interrupted", 130),
}


@slow
@pytest.mark.parametrize(
    "failure, rank, alone",
    [
        *product(FAILURES, [0, 1], [True]),
        ("fail", 0, False),
        ("full", 1, False),
        ("bug", 1, False),
        ("interrupt", 1, False),
    ],
)
def test_failed_rank_is_named_with_its_error(run_ranks, failure, rank, alone):
    error, code = FAILURES[failure]
    outcome = run_ranks(failure, rank, 3, alone=alone)
    assert outcome.names(rank)
    assert outcome.line().endswith(f" ended: {error}")
    assert outcome.seconds < TIMEOUT + SLACK
    assert outcome.codes == ([code if r == rank else 1 for r in range(3)] if alone else [1])
    assert not alone or ("Traceback" in outcome.output) == (failure == "bug")  # torchrun prints a traceback of its own


@slow
@pytest.mark.parametrize("alone", [False, True])
def test_error_on_all_ranks_names_none(run_ranks, alone):
    outcome = run_ranks("diverge", 0, 3, alone=alone)
    assert outcome.line() == "the loss is nan"
    assert outcome.codes == ([2, 2, 2] if alone else [1])


def suspend(pids):
    for number, seconds in ((signal.SIGSTOP, 2 * TIMEOUT), (signal.SIGCONT, 0)):
        for pid in pids:
            os.kill(pid, number)
        time.sleep(seconds)


def terminate(pids):
    for pid in pids:
        os.kill(pid, signal.SIGTERM)


SIGNALS_FROM_OUTSIDE = {"suspend": suspend, "handled": terminate, "cancel": terminate}


@slow
@pytest.mark.parametrize(
    "case, rank, world, alone",
    [
        ("slow", 1, 2, False),
        ("alone", 0, 2, True),
        ("alone", 1, 3, False),
        ("leave", 0, 3, False),
        ("leave", 0, 3, True),
        ("leave", 1, 2, True),  # the first rank ends, and the store with it
        ("suspend", 0, 3, True),
        ("handled", 1, 2, True),
    ],
)
def test_no_false_alarm(run_ranks, case, rank, world, alone):
    """No rank is reported for a slow rank, an evaluation on one rank, a late end, a suspended job, or a handled SIGTERM."""
    outcome = run_ranks(case, rank, world, alone=alone)
    assert not any(outcome.codes)
    assert "landscale: " not in outcome.output
    assert outcome.output.count("ended well") == world


@slow
def test_cancelled_job_prints_nothing(run_ranks):
    outcome = run_ranks("cancel", 0, 3, alone=True)
    assert "landscale: " not in outcome.output
    assert outcome.codes == [128 + 15] * 3
    assert outcome.seconds < TIMEOUT
