"""A rank that dies, stops, hangs or fails: all others end in time, and one line names it and its host."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from landscale.distributed import Ranks
from landscale.distributed.heart import Beat, Heart, Mark, Process, Sight, Verdict, Watch
from landscale.distributed.judge import Judge
from landscale.distributed.watch import watched
from landscale.errors import LostRank
from launchers import members, session_of, wait_until_gone

PATIENCE = 3.0
SLACK = 5.0  # for two cores that other tests share
LAST = 20  # the step of the trouble
HOST = socket.gethostname()
slow = pytest.mark.slow

# What `landscale train` does around a training, which here consists of waiting for each other.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import torch
from landscale.distributed import start, stop
from landscale.distributed.watch import watched
from landscale.errors import LandscaleError, LostRank

what, who, patience, last, folder = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])
torch.set_num_threads(1)
ranks = start("gloo")
acts = ranks.rank == who


def note(what):
    (folder / f"aside-{ranks.rank}").write_text(str(os.getpid()))
    (folder / f"aside-{ranks.rank}").rename(folder / f"{what}-{ranks.rank}")


def trouble(watch):
    if what == "diverge":
        raise LandscaleError("the loss is nan")
    if what == "alone":  # an evaluation by one rank, longer than the patience
        for _ in range(int(2 * patience / 0.3) * acts):
            time.sleep(0.3)
            watch.progress(last)
    if what == "handled":
        signal.signal(signal.SIGTERM, lambda *_: (folder / f"heard-{ranks.rank}").touch())
        note("acts")
    if what == "slow":  # a long pause, shorter than the patience
        time.sleep(0.8 * patience * acts)
    if not acts:
        return
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if what == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if what == "sleep":
        time.sleep(1000)
    if what == "fail":
        raise LandscaleError("s.h5: torn at\\n  byte 7")
    if what == "full":
        raise OSError(28, "No space left on device", "run/last.safetensors")
    if what == "bug":
        [][1]
    if what == "interrupt":
        raise KeyboardInterrupt


def train(watch):
    note("begins")
    ends = what in ("alone", "slow", "leave", "suspend", "handled")
    for step in range(last + 200 if ends else 10**6):
        if step == last:
            if what != "handled":
                note("acts")
            trouble(watch)
        watch.progress(step)
        torch.distributed.all_reduce(torch.ones(3))
        time.sleep(0.01)
    if what == "handled":  # the training hears of it, and ends deaf
        assert (folder / f"heard-{ranks.rank}").exists()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if what == "leave":
        time.sleep(patience * (2.5 if acts else 0.3 * ranks.rank))


try:
    with watched(ranks, patience) as watch:
        train(watch)
except LostRank as lost:
    sys.exit(lost.code)
except LandscaleError as error:
    print(f"landscale: {error}", file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:
    sys.exit(130)
finally:
    stop()
assert what != "handled" or signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
print("ended well")
"""


@dataclass
class Ended:
    said: str
    seconds: float  # from the trouble to the end of the last rank
    codes: list[int]  # of the ranks if started by hand, else of torchrun

    def line(self) -> str:
        """The one line of ours in all that was said."""
        (line,) = re.findall("^landscale: .*$", self.said, re.MULTILINE)
        return line.removeprefix("landscale: ")

    def names(self, rank: int) -> bool:
        return re.match(rf"rank {rank} on host {re.escape(HOST)} \(process \d+\) ", self.line()) is not None


Play = Callable[..., Ended]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    begun: list[subprocess.Popen[bytes]] = []

    def go(what: str, who: int, world: int, *, by_hand: bool) -> Ended:
        script, log = tmp_path / "script.py", tmp_path / "log"
        script.write_text(SCRIPT)
        words = [str(script), what, str(who), str(PATIENCE), str(LAST), str(tmp_path)]
        quiet = os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"}
        with log.open("wb") as out:
            for command, more in hand_commands(world) if by_hand else [torchrun_command(world)]:
                how = {"stdout": out, "stderr": out, "env": quiet | more, "start_new_session": True}
                begun.append(subprocess.Popen([*command, *words], **how))
        until((tmp_path / f"acts-{who}").exists, 120)
        clock = time.monotonic()
        pids = [int((tmp_path / f"begins-{rank}").read_text()) for rank in range(world)]
        MEANWHILE.get(what, lambda _: None)(pids)
        until(lambda: not any(map(session_of, pids)), 90)
        seconds = time.monotonic() - clock
        codes = [process.wait(60) for process in begun]
        return Ended(log.read_text(), seconds, codes)

    yield go
    for process in begun:
        for member in members(process.pid):
            os.kill(member, signal.SIGKILL)
        process.wait()
        assert not wait_until_gone(process.pid)


def until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def torchrun_command(world: int) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"], {}


def hand_commands(world: int) -> list[tuple[list[str], dict[str, str]]]:
    """As under srun: the first rank holds the store, and no launcher ends those that are left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(world)}
    return [([sys.executable], meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(world)]


# ---- real processes


@pytest.mark.parametrize(
    "who, world, by_hand",
    [
        (0, 2, False),
        pytest.param(1, 3, False, marks=slow),
        pytest.param(1, 3, True, marks=slow),
        pytest.param(0, 3, True, marks=slow),  # and with it the store
    ],
)
def test_killed(play, who, world, by_hand):
    ended = play("kill", who, world, by_hand=by_hand)
    assert ended.names(who)
    assert f"is gone since step {LAST}; run the same command again" in ended.line()
    assert ended.seconds < PATIENCE + SLACK
    assert all(ended.codes)


@pytest.mark.parametrize(
    "who, world, by_hand",
    [
        pytest.param(1, 3, False, marks=slow),
        pytest.param(0, 2, False, marks=slow),
        pytest.param(1, 3, True, marks=slow),
        (0, 2, True),  # and with it the store
        pytest.param(0, 3, True, marks=slow),
    ],
)
def test_stopped(play, who, world, by_hand):
    ended = play("stop", who, world, by_hand=by_hand)
    assert ended.names(who)
    assert f"since step {LAST}; run the same command again" in ended.line()
    assert PATIENCE - 1 < ended.seconds < PATIENCE + SLACK
    assert all(ended.codes)


@slow
@pytest.mark.parametrize("who, world, by_hand", [(1, 3, False), (0, 2, False), (1, 3, True), (0, 2, True)])
def test_stuck(play, who, world, by_hand):
    """The main thread stands still; the heart goes on beating."""
    ended = play("sleep", who, world, by_hand=by_hand)
    assert ended.names(who)
    assert f"is standing still at step {LAST - 1}, others wait at step {LAST}" in ended.line()
    assert PATIENCE - 1 < ended.seconds < PATIENCE + SLACK
    assert all(ended.codes)


WAYS = {
    "fail": ("s.h5: torn at byte 7", 2),
    "full": ("run/last.safetensors: No space left on device", 2),
    "bug": ("IndexError: list index out of range", 1),
    "term": ("SIGTERM", 128 + 15),  # torchrun sends one to the others too, and says itself where it began
    "interrupt": ("interrupted", 130),
}


@slow
@pytest.mark.parametrize(
    "what, who, by_hand",
    [
        *product(WAYS, [0, 1], [True]),
        ("fail", 0, False),
        ("full", 1, False),
        ("bug", 1, False),
        ("interrupt", 1, False),
    ],
)
def test_failed(play, what, who, by_hand):
    why, code = WAYS[what]
    ended = play(what, who, 3, by_hand=by_hand)
    assert ended.names(who)
    assert ended.line().endswith(f" ended: {why}")
    assert ended.seconds < PATIENCE + SLACK
    assert ended.codes == ([code if rank == who else 1 for rank in range(3)] if by_hand else [1])
    assert not by_hand or ("Traceback" in ended.said) == (what == "bug")  # torchrun has one of its own


@slow
@pytest.mark.parametrize("by_hand", [False, True])
def test_what_fails_everywhere_names_no_rank(play, by_hand):
    ended = play("diverge", 0, 3, by_hand=by_hand)
    assert ended.line() == "the loss is nan"
    assert ended.codes == ([2, 2, 2] if by_hand else [1])


def suspend(pids):
    for number, seconds in ((signal.SIGSTOP, 2 * PATIENCE), (signal.SIGCONT, 0)):
        for pid in pids:
            os.kill(pid, number)
        time.sleep(seconds)


def terminate(pids):
    for pid in pids:
        os.kill(pid, signal.SIGTERM)


MEANWHILE = {"suspend": suspend, "handled": terminate, "cancel": terminate}


@slow
@pytest.mark.parametrize(
    "what, who, world, by_hand",
    [
        ("slow", 1, 2, False),
        ("alone", 0, 2, True),
        ("alone", 1, 3, False),
        ("leave", 0, 3, False),
        ("leave", 0, 3, True),
        ("leave", 1, 2, True),  # the first one takes the store with it
        ("suspend", 0, 3, True),
        ("handled", 1, 2, True),
    ],
)
def test_nobody_is_accused(play, what, who, world, by_hand):
    """Neither a slow rank, nor one that evaluates alone, nor those that end later, nor any of a job that was suspended or
    that handles signals itself.
    """
    ended = play(what, who, world, by_hand=by_hand)
    assert not any(ended.codes)
    assert "landscale: " not in ended.said
    assert ended.said.count("ended well") == world


@slow
def test_a_job_that_is_cancelled_says_nothing(play):
    ended = play("cancel", 0, 3, by_hand=True)
    assert "landscale: " not in ended.said
    assert ended.codes == [128 + 15] * 3
    assert ended.seconds < PATIENCE


# ---- many ranks, as threads over a store in memory


class Many:
    """Ranks of which each has a heart and a judge, but no process of its own."""

    def __init__(self, hosts: list[str], patience: float) -> None:
        store, world = dist.HashStore(), len(hosts)
        everybody = [Process(host, os.getpid()) for host in hosts]
        self.said = [io.StringIO() for _ in hosts]
        self.watches = [Watch() for _ in hosts]
        self.hearts = [Heart(store, Ranks(r, world), self.watches[r], patience / 10) for r in range(world)]
        self.judges = [Judge(self.hearts[r], everybody, patience, self.said[r]) for r in range(world)]
        for heart in self.hearts:
            heart.exchange_first()

    def lines(self) -> list[str]:
        return [line for said in self.said for line in said.getvalue().splitlines()]


def test_the_ranks_of_a_host_that_is_gone():
    """Five of twenty are silent: each of the others ends with the same line, one has told it."""
    many = Many([f"node{rank // 5}" for rank in range(20)], patience=2)
    alive = [rank for rank in range(20) if rank // 5 != 2]
    ended: dict[int, Exception] = {}

    def end(rank):
        ended[rank] = many.judges[rank].explain(RuntimeError("gloo: Connection closed by peer"))
        many.judges[rank].close()

    for rank in alive:
        many.watches[rank].progress(7)
        many.judges[rank].begin()
    threads = [threading.Thread(target=end, args=(rank,)) for rank in alive]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    (line,) = many.lines()
    assert line.startswith("landscale: ranks 10, 11, 12, 13, 14 on host node2 are gone since step 7; ")
    assert sorted(ended) == alive
    assert all(isinstance(error, LostRank) and f"landscale: {error}" == line for error in ended.values())


class Late:
    """The store, where another rank's verdict comes just after one has looked for it."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def multi_get(self, keys):
        found = zip(keys, self._store.multi_get(keys), strict=True)
        return [b"" if key == "verdict" else value for key, value in found]


def test_the_first_verdict_holds():
    many = Many(["a", "a"], patience=10.0)
    for rank, heart in enumerate(many.hearts):
        heart.store, heart.proposal = Late(heart.store), Verdict(rank, f"{rank} says so")
        heart._exchange()
    assert [heart.verdict[:2] for heart in many.hearts] == [(0, "0 says so")] * 2


marks = st.tuples(st.integers(-1, 3), st.integers(0, 2))
seen = st.tuples(marks, st.sampled_from(["lives", "silent", "ended"]), st.sampled_from(["a", "b"]))


@given(st.lists(seen, min_size=2, max_size=9))
def test_who_is_named_when_all_stand_still(ranks):
    """The silent; else those that are furthest behind; else nobody. Never one that ended well."""
    ranks[0] = (ranks[0][0], "lives", ranks[0][2])  # the one that looks
    many = Many([host for _, _, host in ranks], patience=10.0)
    heart, judge = many.hearts[0], many.judges[0]
    for rank, ((step, within), state, _) in enumerate(ranks):
        beat = Beat(1, Mark(9, step, step + 1, within), "" if state == "ended" else None)
        heart.sights[rank] = Sight(beat, 99.9, *((90.0, 9) if state == "silent" else (99.9, 1)))
    heart.heard = 100.0
    judge._search(100.0, looked=5.0, hangs=True)
    line = heart.proposal.line if heart.proposal else None
    found = {r: mark for r, (mark, state, _) in enumerate(ranks) if state != "ended"}
    named = [r for r in found if ranks[r][1] == "silent"]
    if len(found) == 1:
        assert line is None
        return
    if named:
        assert heart.proposal.stopped == named
    elif len(set(found.values())) > 1:
        named = [r for r in found if found[r] == min(found.values())]
    about = set(map(int, re.search(r"^ranks? ([\d, ]+) on", line)[1].split(", "))) if named else set()
    assert about == set(named)
    hosts = {ranks[r][2] for r in named or found}
    assert all(re.search(rf"hosts? [ab, ]*\b{host}\b", line) for host in hosts)
    assert "none can be named" in line if not named else "none can be named" not in line


def test_alone_nobody_watches():
    before = threading.active_count()
    with watched(Ranks(), 1.0) as watch:
        watch.progress(1)
        watch.progress(1)
        watch.progress(2)
        assert threading.active_count() == before
        watch.progress(-1)
    assert watch.mark == Mark(calls=4, step=2, begun=2, within=1)
