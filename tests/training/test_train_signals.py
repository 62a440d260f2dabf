"""A signal of a scheduler before the first step, after the last one, and in its evaluation: exit code 75, one line, resumable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launchers import run_until_killed
from trainings import PLAIN, flags, learn, outcome

SHORT = replace(PLAIN, epochs=2, thresholds="one")
# The functions at whose first call the signal arrives; all are called on the way from the command line to its last line.
MOMENTS = {
    "the recipe is read": "landscale.training.recipe:load_recipe",
    "the store is opened": "landscale.store:open_store",
    "the trial pass": "landscale.training.build:_try_side",
    "the run begins": "landscale.training.runs:Run.begin",
    "the data are placed": "landscale.training.trainer:place",
    "the pace is measured": "landscale.training.trainer:seconds_of_evaluation",
    "the thresholds are chosen": "landscale.training.results:choose_thresholds",
    "the weights are written": "landscale.training.results:save_weights",
    "the scores are shown": "landscale.inference.scores_table:show_scores",
}


@pytest.fixture(scope="module")
def undisturbed(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    learn(SHORT, store, folder)
    return outcome(folder)


def words(store, run):
    return ["train", "--store", store.path, "--run", run, "--max-time=1h", *flags(SHORT)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_outside_the_steps_is_answered_at_once(moment, number, store, tmp_path, undisturbed):
    if number == signal.SIGUSR1 and moment not in ("the store is opened", "the weights are written"):
        pytest.skip("two moments are enough for the second signal")
    command = words(store, tmp_path / "run")
    assert run_until_killed(command, MOMENTS[moment], 1, {}, number) == 75
    assert run_until_killed(command, "os:getpid", 0, {}) == 0
    assert outcome(tmp_path / "run") == undisturbed
    assert not list((tmp_path / "run").rglob("*.partial"))


@pytest.mark.parametrize("call", [1, 2])
def test_a_signal_in_the_evaluation_of_an_epoch_stops_after_it(call, store, tmp_path, undisturbed):
    """The second of two epochs is the last: no step is left, but the final scores may take longer than a scheduler waits."""
    command = words(store, tmp_path / "run")
    assert run_until_killed(command, "landscale.training.trainer:evaluate", call, {}, signal.SIGTERM) == 75
    assert not (tmp_path / "run" / "scores.json").exists()
    assert run_until_killed(command, "os:getpid", 0, {}) == 0
    assert outcome(tmp_path / "run") == undisturbed


@pytest.mark.slow  # it imports everything anew
def test_a_signal_while_torch_is_imported(store, tmp_path):
    command = [sys.executable, "-m", "landscale", *map(str, words(store, tmp_path / "run"))]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert said == (
        "landscale: stopped outside the training steps, no step is lost; run the same command again to resume\n"
    )
    assert not (tmp_path / "run").exists()
