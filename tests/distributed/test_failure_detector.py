"""The rules, messages and threads of failure detection, without processes of ranks."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from landscale.distributed import Ranks
from landscale.distributed.failure_detection import ProgressCounter, detect_failures, liveness, messages, rules
from landscale.distributed.failure_detection.detector import FailureDetector
from landscale.distributed.failure_detection.heartbeat import HeartbeatThread
from landscale.distributed.failure_detection.liveness import start_time
from landscale.distributed.failure_detection.records import (
    Diagnosis,
    Heartbeat,
    Observation,
    RankProcess,
    RankProgress,
)
from landscale.errors import LandscaleError, LostRank


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# ---- many ranks, as threads that share a store in memory


class ThreadRanks:
    """Ranks that have a heartbeat thread and a failure detector each, but share one process."""

    def __init__(self, hosts: list[str], timeout: float) -> None:
        store, world = dist.HashStore(), len(hosts)
        processes = [RankProcess(host, os.getpid()) for host in hosts]
        self.outputs = [io.StringIO() for _ in hosts]
        self.counters = [ProgressCounter() for _ in hosts]
        self.heartbeats = [
            HeartbeatThread(store, Ranks(r, world), self.counters[r], timeout / 10) for r in range(world)
        ]
        self.detectors = [
            FailureDetector(self.heartbeats[r], processes, timeout, self.outputs[r]) for r in range(world)
        ]
        for heartbeats in self.heartbeats:
            heartbeats.write_first()

    def lines(self) -> list[str]:
        return [line for output in self.outputs for line in output.getvalue().splitlines()]


def test_all_ranks_of_a_dead_host_are_named_once():
    """Five of twenty ranks are silent: each of the others ends with the same message, and one has written it."""
    ranks = ThreadRanks([f"node{rank // 5}" for rank in range(20)], timeout=2)
    alive = [rank for rank in range(20) if rank // 5 != 2]
    errors: dict[int, Exception] = {}

    def end(rank):
        errors[rank] = ranks.detectors[rank].replacement_for(RuntimeError("gloo: Connection closed by peer"))
        ranks.detectors[rank].stop()

    for rank in alive:
        ranks.counters[rank].report(7)
        ranks.detectors[rank].start()
    threads = [threading.Thread(target=end, args=(rank,)) for rank in alive]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    (line,) = ranks.lines()
    assert line.startswith("landscale: ranks 10, 11, 12, 13, 14 on host node2 died or became unreachable at step 7; ")
    assert sorted(errors) == alive
    assert all(isinstance(error, LostRank) and f"landscale: {error}" == line for error in errors.values())


class StoreWithoutDiagnosis:
    """A store in which the diagnosis of another rank appears just after it was read."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def multi_get(self, keys):
        values = zip(keys, self._store.multi_get(keys), strict=True)
        return [b"" if key == "diagnosis" else value for key, value in values]


def test_first_proposed_diagnosis_is_final():
    ranks = ThreadRanks(["a", "a"], timeout=10.0)
    for rank, heartbeats in enumerate(ranks.heartbeats):
        heartbeats.store, heartbeats.proposal = StoreWithoutDiagnosis(heartbeats.store), Diagnosis(rank, f"by {rank}")
        heartbeats._exchange()
    assert [heartbeats.diagnosis[:2] for heartbeats in ranks.heartbeats] == [(0, "by 0")] * 2


progress = st.tuples(st.integers(-1, 3), st.integers(0, 2))
rank_states = st.tuples(progress, st.sampled_from(["runs", "silent", "ended"]), st.sampled_from(["a", "b"]))


@given(st.lists(rank_states, min_size=2, max_size=9))
def test_named_ranks_when_no_rank_makes_progress(states):
    """The silent ranks are named; otherwise those that are furthest behind; otherwise none. Never a rank that ended well."""
    states[0] = (states[0][0], "runs", states[0][2])  # the rank that searches
    ranks = ThreadRanks([host for _, _, host in states], timeout=10.0)
    heartbeats, detector = ranks.heartbeats[0], ranks.detectors[0]
    for rank, ((step, calls), state, _) in enumerate(states):
        heartbeat = Heartbeat(1, RankProgress(9, step, step + 1, calls), "" if state == "ended" else None)
        unchanged_since, readings = (90.0, 9) if state == "silent" else (99.9, 1)
        heartbeats.observations[rank] = Observation(heartbeat, 99.9, unchanged_since, readings)
    heartbeats.last_exchange = 100.0
    detector._search(100.0, searched=5.0, hangs=True)
    message = heartbeats.proposal.message if heartbeats.proposal else None
    running = {rank: reached for rank, (reached, state, _) in enumerate(states) if state != "ended"}
    expected = [rank for rank in running if states[rank][1] == "silent"]
    if len(running) == 1:
        assert message is None
        return
    if expected:
        assert heartbeats.proposal.hanging == expected
    elif len(set(running.values())) > 1:
        expected = [rank for rank in running if running[rank] == min(running.values())]
    named = set(map(int, re.search(r"^ranks? ([\d, ]+) on", message)[1].split(", "))) if expected else set()
    assert named == set(expected)
    hosts = {states[rank][2] for rank in expected or running}
    assert all(re.search(rf"hosts? [ab, ]*\b{host}\b", message) for host in hosts)
    assert ("is unknown" in message) == (not expected)


def test_one_rank_starts_no_threads():
    before = threading.active_count()
    with detect_failures(Ranks(), 1.0) as counter:
        counter.report(1)
        counter.report(1)
        counter.report(2)
        assert threading.active_count() == before
        counter.report(-1)
    assert counter.progress == RankProgress(calls=4, step=2, steps_begun=2, calls_in_step=1)


def replace_errors(ranks: ThreadRanks, errors: dict[int, Exception]) -> dict[int, Exception]:
    """What each of these ranks raises instead of its error, all at the same time."""
    replacements: dict[int, Exception] = {}

    def end(rank: int) -> None:
        replacements[rank] = ranks.detectors[rank].replacement_for(errors[rank])
        ranks.detectors[rank].stop()

    threads = [threading.Thread(target=end, args=(rank,)) for rank in errors]
    for rank in errors:
        ranks.detectors[rank].start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return replacements


BROKEN = RuntimeError("gloo: Connection closed by peer")


def test_bug_of_one_rank_is_named_on_all_and_raised_unchanged():
    ranks, bug = ThreadRanks(["a", "b", "b"], timeout=2), ValueError("wrong shape\nmore")
    replacements = replace_errors(ranks, {0: BROKEN, 1: bug, 2: BROKEN})
    (line,) = ranks.lines()
    assert line == f"landscale: rank 1 on host b (process {os.getpid()}) ended: ValueError: wrong shape"
    assert ranks.outputs[1].getvalue()
    assert replacements[1] is bug
    assert [(type(replacements[rank]), replacements[rank].code) for rank in (0, 2)] == [(LostRank, 1)] * 2


def test_same_error_on_all_ranks_is_written_once_without_a_rank():
    ranks = ThreadRanks(["a", "b"], timeout=2)
    replacements = replace_errors(ranks, {rank: LandscaleError("the loss\n is nan") for rank in range(2)})
    assert ranks.lines() == ["landscale: the loss is nan"]
    assert [(type(error), error.code) for error in replacements.values()] == [(LostRank, 2)] * 2


def test_full_disk_of_one_rank_is_named_on_all():
    """An error that a user can correct ends the rank with exit code 2 and without a traceback."""
    ranks, full = ThreadRanks(["a", "b"], timeout=2), OSError(28, "No space left on device", "run/last.safetensors")
    replacements = replace_errors(ranks, {0: BROKEN, 1: full})
    (line,) = ranks.lines()
    assert line.endswith(" ended: run/last.safetensors: No space left on device")
    assert [(type(replacements[rank]), replacements[rank].code) for rank in (0, 1)] == [(LostRank, 1), (LostRank, 2)]


def test_ranks_without_progress_are_those_behind_when_a_collective_breaks():
    """All ranks have heartbeats, and none has failed: the one that has begun the fewest steps is named."""
    ranks = ThreadRanks(["a", "a", "b"], timeout=2)
    for rank, steps in enumerate((3, 3, 2)):
        for step in range(steps):
            ranks.counters[rank].report(step)
    ranks.detectors[2].start()
    replace_errors(ranks, {0: BROKEN, 1: BROKEN})
    ranks.detectors[2].stop()
    (line,) = ranks.lines()
    behind = f"rank 2 on host b (process {os.getpid()})"
    assert line.startswith(f"landscale: {behind} makes no progress at step 1, other ranks wait at step 2; ")


@pytest.mark.parametrize(
    "first_ended, torchrun, hosts, message, writer",
    [
        (None, False, "aab", "rank 0 on host a (process {pid}) died or became unreachable at step 4; ", 2),
        (None, False, "aaa", "rank 0 on host a (process {pid}) died or became unreachable at step 4; ", 1),
        (None, True, "aaa", "torchrun on host a, where rank 0 ran, died or became unreachable at step 4; ", 0),
        (
            "",
            False,
            "aab",
            "a rank died or became unreachable at step 4, and which one is unknown (closed; hosts a, b); ",
            2,
        ),
        ("disk full", False, "aab", "rank 0 on host a (process {pid}) ended: disk full", 2),
    ],
)
def test_dead_store_is_reported_by_one_rank(monkeypatch, first_ended, torchrun, hosts, message, writer):
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", str(torchrun))
    ranks = ThreadRanks(list(hosts), timeout=100)
    for rank, detector in enumerate(ranks.detectors):
        ranks.counters[rank].report(4)
        detector._main_thread_waits, detector._collective_error = True, "closed"
        detector.heartbeats.first_rank_end_reason, detector.heartbeats.connection_lost = first_ended, True
        detector._search(time.monotonic(), searched=0.0, hangs=False)
    assert [bool(output.getvalue()) for output in ranks.outputs] == [rank == writer for rank in range(3)]
    assert ranks.lines()[0].startswith("landscale: " + message.format(pid=os.getpid()))


def test_store_that_does_not_answer_counts_as_dead_after_five_intervals():
    ranks = ThreadRanks(["a", "a"], timeout=100)
    detector = ranks.detectors[1]
    detector._main_thread_waits = True
    now = detector.heartbeats.last_exchange
    detector._search(now + 5.0, searched=0.0, hangs=False)
    assert not detector._diagnosed.is_set()
    detector._search(now + 5.1 * detector.interval, searched=0.0, hangs=False)
    assert detector._diagnosed.is_set()


def test_store_counts_as_dead_after_three_seconds_at_the_earliest():
    detector = ThreadRanks(["a", "a"], timeout=1).detectors[1]  # intervals of 0.1 s
    detector._main_thread_waits = True
    detector._search(detector.heartbeats.last_exchange + 2.9, searched=0.0, hangs=False)
    assert not detector._diagnosed.is_set()


def test_proposal_is_kept_until_the_store_has_answered():
    ranks = ThreadRanks(["a", "b"], timeout=10)
    detector = ranks.detectors[0]
    heartbeats, proposal = detector.heartbeats, Diagnosis(0, "first")
    detector._own_failure, heartbeats.reads_all = "full", True
    heartbeats._exchange()
    heartbeats.proposal = proposal
    detector._search(time.monotonic(), searched=100.0, hangs=False)
    assert heartbeats.proposal is proposal


def test_own_failure_is_reported_even_without_the_store():
    ranks = ThreadRanks(["a", "a"], timeout=100)
    detector = ranks.detectors[1]
    detector._own_failure, detector.heartbeats.connection_lost = "disk full", True
    detector._search(time.monotonic(), searched=0.0, hangs=False)
    assert ranks.outputs[1].getvalue().endswith("ended: disk full\n")


@pytest.fixture
def sleeping() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(3)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def detector_of(processes: list[RankProcess], output: io.StringIO) -> FailureDetector:
    """The detector of rank 0, with heartbeats of 1 s."""
    ranks = Ranks(0, len(processes))
    return FailureDetector(HeartbeatThread(dist.HashStore(), ranks, ProgressCounter(), 1.0), processes, 10.0, output)


def test_hanging_ranks_on_this_host_are_killed(sleeping):
    """This rank itself, and a process of another host that has the same number, are not killed."""
    first, second, third = sleeping
    processes = [RankProcess("a", first.pid), RankProcess("a", second.pid), RankProcess("b", third.pid)]
    detector_of(processes, io.StringIO())._accept(Diagnosis(0, "x", hanging=[0, 1, 2]), writes=False)
    assert second.wait(10) == -signal.SIGKILL
    assert (first.poll(), third.poll()) == (None, None)


def test_dead_process_is_lost_once_its_end_reason_was_read(sleeping):
    """A rank may have written why it ended just before it died."""
    detector = detector_of([RankProcess("a", os.getpid()), RankProcess("a", sleeping[0].pid)], io.StringIO())
    observation = Observation(Heartbeat(1), read_at=10.0, unchanged_since=10.0)
    assert not detector._is_lost(1, observation, 10.5)
    sleeping[0].kill()
    wait_until(lambda: start_time(sleeping[0].pid) is None, 10)
    assert not detector._is_lost(1, observation, 11.0), "its heartbeat was read before it was seen to be dead"
    assert detector._is_lost(1, observation.updated(Heartbeat(1), 11.1, 11.2), 11.5)
    assert not detector._is_lost(1, observation.updated(Heartbeat(2, end_reason="full"), 11.1, 11.2), 11.5)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_line_on_a_terminal_follows_a_progress_bar():
    """The line begins on a new line and shows the cursor, which the bar has hidden."""
    output = Terminal()
    detector = detector_of([RankProcess("a", os.getpid())] * 2, output)
    detector._accept(Diagnosis(1, "x"), writes=True)
    assert output.getvalue() == "\n\x1b[?25hlandscale: x\n"
    closed = io.StringIO()
    closed.close()
    detector_of([RankProcess("a", os.getpid())] * 2, closed)._accept(Diagnosis(1, "x"), writes=True)


def test_heartbeat_thread_notices_the_progress_of_others():
    ranks = ThreadRanks(["a", "a"], timeout=10.0)
    first, second = ranks.heartbeats
    before = first.last_progress
    first._exchange()
    assert first.last_progress == before
    ranks.counters[1].report(1)
    second._exchange()
    first._exchange()
    assert first.last_progress > before
    before = first.last_progress
    second._exchange()  # without new progress
    first._exchange()
    assert first.last_progress == before
    assert not first.observations
    first.reads_all = True
    first._exchange()
    assert [first.observations[rank].heartbeat.progress.calls for rank in (0, 1)] == [0, 1]


def test_heartbeat_thread_ends_with_the_end_reason():
    ranks = ThreadRanks(["a", "a"], timeout=10.0)
    first, second = ranks.heartbeats
    first.start()
    first.end_reason = "SIGTERM"
    first.stop()
    assert not first.is_alive
    second._exchange()
    assert second.first_rank_end_reason == "SIGTERM"


def test_heartbeat_thread_notices_a_broken_connection():
    class Broken:
        def set(self, *_):
            raise RuntimeError("Connection reset by peer")

    heartbeats = HeartbeatThread(Broken(), Ranks(1, 2), ProgressCounter(), 0.1)
    heartbeats.start()
    wait_until(lambda: heartbeats.connection_lost, 10)
    assert not heartbeats.is_alive or heartbeats.stop() is None


# ---- single rules


def observe(*heartbeats: Heartbeat, interval: float = 1.0) -> Observation:
    """An observation after one reading of each heartbeat."""
    observation = Observation(Heartbeat(0), 0.0, 0.0)
    for k, heartbeat in enumerate(heartbeats, 1):
        observation = observation.updated(heartbeat, k * interval - 0.1, k * interval)
    return observation


def test_rank_is_silent_only_after_three_intervals_and_readings():
    unchanged = observe(*[Heartbeat(5)] * 4)
    assert unchanged.unchanged_since == 1.0
    assert not rules.is_silent(unchanged, 4.0, 1.0)
    assert rules.is_silent(unchanged, 4.1, 1.0)
    assert not rules.is_silent(observe(*[Heartbeat(5)] * 3), 100.0, 1.0), "this rank itself was paused"
    assert not rules.is_silent(observe(*map(Heartbeat, range(1, 9))), 8.5, 1.0)


def test_rank_that_ended_first_is_named():
    processes = [RankProcess("a", 1), RankProcess("b", 2), RankProcess("c", 3)]
    late, early = (Heartbeat(n, end_reason=reason) for n, reason in ((3, "disk full"), (2, "SIGTERM")))
    observations = {
        0: observe(Heartbeat(1)),
        1: observe(Heartbeat(1), Heartbeat(2), late),
        2: observe(early, early, early),
    }
    message = rules.explain_without_silent_ranks(observations, 0, processes, "broken", hangs=False)
    assert message == "rank 2 on host c (process 3) ended: SIGTERM"
    well = {**observations, 2: observe(Heartbeat(2, end_reason=""))}
    assert "rank 1 on host b" in str(rules.explain_without_silent_ranks(well, 0, processes, "broken", hangs=False))


def test_searching_rank_counts_as_running():
    """Even if it has announced an end reason, it is not named as a rank that ended."""
    processes = [RankProcess("a", 1), RankProcess("b", 2)]
    own = observe(Heartbeat(1, RankProgress(1, 0, 1, 0), "SIGTERM"))
    other = observe(Heartbeat(1, RankProgress(2, 1, 2, 0)))
    message = rules.explain_without_silent_ranks({0: own, 1: other}, 0, processes, "broken", hangs=True)
    assert str(message).startswith(
        "rank 0 on host a (process 1) makes no progress at step 0, other ranks wait at step 1"
    )


def test_last_rank_explains_a_broken_collective_but_not_a_long_wait():
    """All others have ended well: no rank waits for it, unless its own collective broke."""
    processes = [RankProcess("a", 1), RankProcess("b", 2)]
    observations = {0: observe(Heartbeat(1)), 1: observe(Heartbeat(1, end_reason=""))}
    assert rules.explain_without_silent_ranks(observations, 0, processes, "x", hangs=True) is None
    message = rules.explain_without_silent_ranks(observations, 0, processes, "connection closed", hangs=False)
    assert "which one causes it is unknown (connection closed; host a)" in str(message)


def test_heartbeat_survives_json():
    heartbeat = Heartbeat(7, RankProgress(4, 3, 2, 1), "s.h5: “full”")
    assert Heartbeat.from_json(heartbeat.to_json().encode()) == heartbeat


def test_messages_name_ranks_hosts_and_step():
    processes = [RankProcess(f"node{rank // 4}", 100 + rank) for rank in range(20)]
    assert messages.dead([5], -1, processes).startswith(
        "rank 5 on host node1 (process 105) died or became unreachable before"
    )
    assert messages.silent([1], 7, processes).startswith(
        "rank 1 on host node0 (process 101) has not responded since step 7"
    )
    assert messages.silent([3, 4], -1, processes).startswith(
        "ranks 3, 4 on hosts node0, node1 have not responded since before the first step; "
    )
    assert "14, 15 and 4 more on hosts node0, node1, node2, node3, node4 make no" in messages.behind(
        range(20), 1, 2, processes
    )
    assert "unknown (no progress for 3 s; host node2); run" in messages.all_stalled(
        [8, 9], 1, "no progress for 3 s", processes
    )
    assert messages.torchrun_dead(2, processes).startswith("torchrun on host node0, where rank 0 ran, ")


def test_start_time_distinguishes_processes():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    first = start_time(child.pid)
    assert first == start_time(child.pid)
    assert first > start_time(os.getpid()) > 0
    child.kill()
    wait_until(lambda: start_time(child.pid) is None, 10)  # a zombie until it is waited for
    child.wait()
    assert start_time(child.pid) is None


def test_without_proc_a_process_is_alive_while_its_number_exists(monkeypatch, tmp_path):
    """As on macOS."""
    monkeypatch.setattr(liveness, "_PROC", tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert start_time(child.pid) == start_time(os.getpid()) == 0
    child.kill()
    child.wait()
    assert start_time(child.pid) is None
    monkeypatch.setattr(os, "kill", lambda pid, number: (_ for _ in ()).throw(PermissionError))  # another user's
    assert start_time(child.pid) == 0
