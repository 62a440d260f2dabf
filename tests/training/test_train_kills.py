"""The long proofs of training: killed, terminated and stopped at random moments, by one and by two ranks."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time

import pytest

from landscale.testing import make_store, rgbn_plane
from launchers import members, ranks_at, torchrun, wait_until_gone
from trainings import TINY, ended, flags, outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TIMEOUT = 5  # seconds


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    splits = {"train": 40, "val": 16}
    return make_store(tmp_path_factory.mktemp("kills") / "s.h5", planes=rgbn_plane(12), splits=splits, seed=1)


def words(store, run, epochs):
    how = flags(TINY, epochs=epochs, batch=4, save_minutes=0.0)
    return ["train", "--store", store.path, "--run-dir", run, *how, "--timeout", TIMEOUT]


def begun(store, run, epochs, ranks=2):
    return subprocess.Popen(
        [str(word) for word in (*torchrun(ranks), *words(store, run, epochs))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


EPOCHS = 30


@pytest.fixture(scope="module")
def both(store, tmp_path_factory):
    """What two ranks find undisturbed, and how many seconds of it they train."""
    run = tmp_path_factory.mktemp("both") / "run"
    process = begun(store, run, EPOCHS)
    while not (run / "checkpoints").exists() and process.poll() is None:
        time.sleep(0.01)
    since = time.monotonic()
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return outcome(run), time.monotonic() - since


def until_it_trains(run, process, seconds=90):
    """Until this session has written something."""
    begun_at, checkpoint = time.time(), run / "checkpoints" / "last.safetensors"
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if checkpoint.exists() and checkpoint.stat().st_mtime > begun_at:
            return
        time.sleep(0.01)


def test_two_ranks_killed_at_twelve_moments(store, tmp_path, both):
    rng, run = random.Random(7), tmp_path / "run"
    expected, seconds = both
    for k in range(12):
        process = begun(store, run, EPOCHS)
        until_it_trains(run, process)
        time.sleep(rng.uniform(0, 0.15 * seconds))
        victims = members(process.pid) if k % 2 else [p for p in members(process.pid) if p != process.pid]
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        process.communicate(timeout=60)
        assert wait_until_gone(process.pid, 40) == []
    process = begun(store, run, EPOCHS)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert outcome(run) == expected


def test_thirty_terminations_lose_no_step(start, store, tmp_path):
    rng = random.Random(3)
    undisturbed, run, output = tmp_path / "undisturbed", tmp_path / "run", tmp_path / "output.txt"
    epochs = 120
    since = time.monotonic()
    assert ended(start(words(store, undisturbed, epochs), output), 120) == 0
    usual = time.monotonic() - since
    stopped, k = [], 0
    while len(stopped) < 30 and not (run / "scores.json").exists():
        k += 1
        log = tmp_path / f"{k}.txt"
        process = start(words(store, run, epochs), log)
        process.join(usual * rng.uniform(0.02, 0.06))
        os.kill(process.pid, signal.SIGTERM)
        code = ended(process)
        said = log.read_text() if log.exists() else ""  # a signal that came before all else
        assert code in (75, -signal.SIGTERM, 0), said  # before the loop it has nothing to save, and nothing is lost
        went_on = re.search(r"resumes at step\s+(\d+)", said)
        if went_on:
            assert int(went_on[1]) == (stopped[-1] if stopped else 0)
        if code == 75:
            stopped.append(int(re.search(r"stopped after step (\d+)", said)[1]))
    assert len(stopped) > 10
    assert stopped == sorted(stopped)
    assert ended(start(words(store, run, epochs), output), 120) == 0
    assert outcome(run) == outcome(undisturbed)


def test_two_ranks_terminated_at_ten_moments(store, tmp_path, both):
    """The launcher gets the signal, as of a scheduler, and passes it on."""
    rng, run = random.Random(5), tmp_path / "run"
    expected, seconds = both
    stopped = 0
    for _ in range(10):
        process = begun(store, run, EPOCHS)
        until_it_trains(run, process)
        time.sleep(rng.uniform(0, 0.08 * seconds))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        assert wait_until_gone(process.pid, 40) == []
        if (went_on := re.search(r"resumes at step\s+(\d+)", said)) is not None:
            assert int(went_on[1]) == stopped, said
        found = re.search(r"stopped after step (\d+)", said)
        stopped = int(found[1]) if found else stopped
        if process.returncode == 0:
            break
    assert stopped > 0
    process = begun(store, run, EPOCHS)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert outcome(run) == expected


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_rank_ends_all_in_time(how, store, tmp_path, both):
    """At ten moments; no process is left after the timeout and 30 s, the line names the rank and its host."""
    rng, run = random.Random(int(how)), tmp_path / "run"
    expected, seconds = both
    for k in range(10):
        process = begun(store, run, 1000)
        until_it_trains(run, process)
        time.sleep(rng.uniform(0, 0.5 * seconds))
        os.kill(ranks_at(store.path)[k % 2], how)
        since = time.monotonic()
        said, _ = process.communicate(timeout=TIMEOUT + 40)
        assert wait_until_gone(process.pid, 10) == []
        assert time.monotonic() - since < TIMEOUT + 31
        assert process.returncode != 0
        ours = [line for line in said.splitlines() if line.startswith("landscale: ")]
        assert len(ours) == 1, said
        assert re.search(rf"rank {k % 2} on host \S+ ", ours[0]), ours
        assert "Traceback" not in said.split("landscale: ")[0]
    assert expected
