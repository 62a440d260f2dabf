"""Long tests: training in one process and on two ranks, killed, terminated and paused at random moments."""

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


def train_words(store, run, epochs):
    options = flags(TINY, epochs=epochs, batch=4, save_minutes=0.0)
    return ["train", "--store", store.path, "--run-dir", run, *options, "--timeout", TIMEOUT]


def start_ranks(store, run, epochs, ranks=2):
    return subprocess.Popen(
        [str(word) for word in (*torchrun(ranks), *train_words(store, run, epochs))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


EPOCHS = 30


@pytest.fixture(scope="module")
def two_ranks(store, tmp_path_factory):
    """The outcome of an undisturbed training on two ranks, and its duration in seconds from the first checkpoint folder on."""
    run = tmp_path_factory.mktemp("two-ranks") / "run"
    process = start_ranks(store, run, EPOCHS)
    while not (run / "checkpoints").exists() and process.poll() is None:
        time.sleep(0.01)
    since = time.monotonic()
    output_text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output_text
    return outcome(run), time.monotonic() - since


def wait_for_checkpoint(run, process, seconds=90):
    """Wait until the process has written a checkpoint, or has ended."""
    begun_at, checkpoint = time.time(), run / "checkpoints" / "last.safetensors"
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if checkpoint.exists() and checkpoint.stat().st_mtime > begun_at:
            return
        time.sleep(0.01)


def test_two_ranks_killed_twelve_times_give_the_undisturbed_result(store, tmp_path, two_ranks):
    rng, run = random.Random(7), tmp_path / "run"
    expected, seconds = two_ranks
    for k in range(12):
        process = start_ranks(store, run, EPOCHS)
        wait_for_checkpoint(run, process)
        time.sleep(rng.uniform(0, 0.15 * seconds))
        victims = members(process.pid) if k % 2 else [p for p in members(process.pid) if p != process.pid]
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        process.communicate(timeout=60)
        assert wait_until_gone(process.pid, 40) == []
    process = start_ranks(store, run, EPOCHS)
    output_text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output_text
    assert outcome(run) == expected


def test_thirty_sigterms_lose_no_step(start, store, tmp_path):
    rng = random.Random(3)
    undisturbed, run, output = tmp_path / "undisturbed", tmp_path / "run", tmp_path / "output.txt"
    epochs = 120
    since = time.monotonic()
    assert ended(start(train_words(store, undisturbed, epochs), output), 120) == 0
    undisturbed_seconds = time.monotonic() - since
    stopped, k = [], 0
    while len(stopped) < 30 and not (run / "scores.json").exists():
        k += 1
        log = tmp_path / f"{k}.txt"
        process = start(train_words(store, run, epochs), log)
        process.join(undisturbed_seconds * rng.uniform(0.02, 0.06))
        os.kill(process.pid, signal.SIGTERM)
        code = ended(process)
        output_text = log.read_text() if log.exists() else ""  # no log if the signal came before the first output
        # Before the training loop there is nothing to save, and SIGTERM ends the process itself.
        assert code in (75, -signal.SIGTERM, 0), output_text
        resumed = re.search(r"resumes at step\s+(\d+)", output_text)
        if resumed:
            assert int(resumed[1]) == (stopped[-1] if stopped else 0)
        if code == 75:
            stopped.append(int(re.search(r"stopped after step (\d+)", output_text)[1]))
    assert len(stopped) > 10
    assert stopped == sorted(stopped)
    assert ended(start(train_words(store, run, epochs), output), 120) == 0
    assert outcome(run) == outcome(undisturbed)


def test_two_ranks_terminated_ten_times_give_the_undisturbed_result(store, tmp_path, two_ranks):
    """The launcher gets the signal, as from a job scheduler, and forwards it to the ranks."""
    rng, run = random.Random(5), tmp_path / "run"
    expected, seconds = two_ranks
    stopped = 0
    for _ in range(10):
        process = start_ranks(store, run, EPOCHS)
        wait_for_checkpoint(run, process)
        time.sleep(rng.uniform(0, 0.08 * seconds))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        output_text, _ = process.communicate(timeout=60)
        assert wait_until_gone(process.pid, 40) == []
        if (resumed := re.search(r"resumes at step\s+(\d+)", output_text)) is not None:
            assert int(resumed[1]) == stopped, output_text
        found = re.search(r"stopped after step (\d+)", output_text)
        stopped = int(found[1]) if found else stopped
        if process.returncode == 0:
            break
    assert stopped > 0
    process = start_ranks(store, run, EPOCHS)
    output_text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output_text
    assert outcome(run) == expected


@pytest.mark.parametrize("sent_signal", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_paused_rank_ends_all_ranks_within_the_timeout(sent_signal, store, tmp_path, two_ranks):
    """Ten times; no process remains 30 s after the timeout; the one error line names the lost rank and its host."""
    rng, run = random.Random(int(sent_signal)), tmp_path / "run"
    expected, seconds = two_ranks
    for k in range(10):
        process = start_ranks(store, run, 1000)
        wait_for_checkpoint(run, process)
        time.sleep(rng.uniform(0, 0.5 * seconds))
        os.kill(ranks_at(store.path)[k % 2], sent_signal)
        since = time.monotonic()
        output_text, _ = process.communicate(timeout=TIMEOUT + 40)
        assert wait_until_gone(process.pid, 10) == []
        assert time.monotonic() - since < TIMEOUT + 31
        assert process.returncode != 0
        error_lines = [line for line in output_text.splitlines() if line.startswith("landscale: ")]
        assert len(error_lines) == 1, output_text
        assert re.search(rf"rank {k % 2} on host \S+ ", error_lines[0]), error_lines
        assert "Traceback" not in output_text.split("landscale: ")[0]
    assert expected
