"""A training that was stopped by a signal or killed, and then resumed, gives the same result as an undisturbed one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from dataclasses import replace

import pytest

from landscale.cli import main
from landscale.runtime.signals import Stopped
from trainings import TINY, ended, flags, interrupted_learning, learn, outcome

# ---- signals


def test_a_training_stopped_after_every_step_gives_the_undisturbed_result(store, tmp_path, monkeypatch, undisturbed):
    """Also stops after the last step of an epoch and of the training, whose evaluation and metrics row must not be lost."""
    interrupted_learning(monkeypatch, lambda step: True)
    stops = []
    for _ in range(40):
        try:
            learn(TINY, store, tmp_path / "run")
        except Stopped as stopped:
            stops.append(str(stopped))
            assert not (tmp_path / "run" / "scores.json").exists()
        else:
            break
    assert len(stops) >= 12  # of 15 steps; a stop at the end of an epoch may be delayed to the next step
    assert "after step 1 of 15" in stops[0]
    assert outcome(tmp_path / "run") == undisturbed


@pytest.mark.parametrize("step", [5, 15])
def test_a_training_stopped_at_the_end_of_an_epoch_gives_the_undisturbed_result(
    store, tmp_path, monkeypatch, undisturbed, step
):
    interrupted_learning(monkeypatch, lambda k: k == step)
    with contextlib.suppress(Stopped):
        learn(TINY, store, tmp_path / "run")
    monkeypatch.undo()
    learn(TINY, store, tmp_path / "run")
    assert outcome(tmp_path / "run") == undisturbed


OPTIMIZERS = (
    "sgd",
    "momentum",
    "adam",
    "adamw",
    "nadamw",
    "radam",
    "lamb",
    "lars",
    "lion",
    "adafactor",
    "adopt",
    "lookahead_adamw",
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_resumes_with_identical_results(store, tmp_path, monkeypatch, optimizer):
    recipe = replace(TINY, optimizer=optimizer, rate=1e-3, epochs=2, ema=0.0, select="last", evaluate_every=2)
    learn(recipe, store, tmp_path / "uninterrupted")
    interrupted_learning(monkeypatch, lambda step: step in (4, 7))
    for _ in range(2):
        with pytest.raises(Stopped):
            learn(recipe, store, tmp_path / "interrupted")
        monkeypatch.undo()
        interrupted_learning(monkeypatch, lambda step: step == 7)
    monkeypatch.undo()
    learn(recipe, store, tmp_path / "interrupted")
    assert outcome(tmp_path / "interrupted") == outcome(tmp_path / "uninterrupted")


# ---- kills


def output_of_repeated_kills(start, store, folder, kills, save_minutes, seed):
    """Run the same command, kill it at random moments, run it to its end; return all output. `first` is an undisturbed run."""
    args = ["train", "--store", store.path, "--run", folder / "run", *flags(TINY, save_minutes=save_minutes)]
    output = folder / "output.txt"
    started = time.monotonic()
    assert ended(start([*args[:4], folder / "first", *args[5:]], output)) == 0  # measures the duration of one run
    duration = time.monotonic() - started
    rng = random.Random(seed)
    for _ in range(kills):
        process = start(args, output)
        process.join(duration * rng.uniform(0.05, 0.9))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
        assert ended(process) in (0, -signal.SIGKILL), output.read_text()
    assert ended(start(args, output)) == 0, output.read_text()
    return output.read_text()


@pytest.mark.parametrize("save_minutes", [0.0, 5.0])
def test_a_training_killed_four_times_gives_the_undisturbed_result(start, store, tmp_path, undisturbed, save_minutes):
    output_of_repeated_kills(start, store, tmp_path, 4, save_minutes, seed=int(save_minutes))
    assert outcome(tmp_path / "first") == undisturbed
    assert outcome(tmp_path / "run") == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("save_minutes", [0.0, 5.0])
def test_a_training_killed_twenty_times_gives_the_undisturbed_result(start, store, tmp_path, undisturbed, save_minutes):
    output_of_repeated_kills(start, store, tmp_path, 20, save_minutes, seed=100)
    assert outcome(tmp_path / "run") == undisturbed


def test_a_training_killed_in_each_kind_of_write_gives_the_undisturbed_result(start, store, tmp_path, undisturbed):
    """The k-th call is killed at its k-th change of the file system."""
    args = ["train", "--store", store.path, "--run", tmp_path / "run", *flags(TINY)]
    for k in range(1, 11):
        code = ended(start(args, tmp_path / "output.txt", k))
        assert code in (0, -signal.SIGKILL), (k, (tmp_path / "output.txt").read_text())
    assert ended(start(args, tmp_path / "output.txt")) == 0, (tmp_path / "output.txt").read_text()
    assert outcome(tmp_path / "run") == undisturbed


@pytest.mark.slow
def test_a_training_killed_in_any_write_gives_the_undisturbed_result(start, store, tmp_path, undisturbed):
    for k in range(1, 200):
        args = ["train", "--store", store.path, "--run", tmp_path / f"run{k}", *flags(TINY)]
        if ended(start(args, tmp_path / "output.txt", k)) == 0:
            break
        assert ended(start(args, tmp_path / "output.txt")) == 0, (k, (tmp_path / "output.txt").read_text())
        assert outcome(tmp_path / f"run{k}") == undisturbed, k
    assert k > 30


def test_ctrl_c_stops_after_the_current_step_and_the_same_command_resumes(start, store, tmp_path, undisturbed):
    args = ["train", "--store", store.path, "--run", tmp_path / "run", *flags(TINY, save_minutes=0.0)]
    process = start(args, tmp_path / "output.txt")
    for _ in range(600):
        if (tmp_path / "run" / "checkpoints" / "last.safetensors").exists() or process.exitcode is not None:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    assert ended(process) == 130, (tmp_path / "output.txt").read_text()
    output = (tmp_path / "output.txt").read_text()
    assert "Traceback" not in output
    assert "stopped after step" in output
    assert not (tmp_path / "run" / "scores.json").exists()
    assert ended(start(args, tmp_path / "output.txt")) == 0
    assert "resumes at step" in (tmp_path / "output.txt").read_text()
    assert outcome(tmp_path / "run") == undisturbed


def test_partial_files_of_a_killed_save_are_ignored(store, tmp_path, monkeypatch, undisturbed):
    """A kill during a save leaves the old file and a part of the new one under a temporary name."""
    interrupted_learning(monkeypatch, lambda step: step == 8)
    with pytest.raises(Stopped):
        learn(TINY, store, tmp_path / "run")
    monkeypatch.undo()
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    half = last.read_bytes()[:999]
    (last.parent / ".last.safetensors.4711.partial").write_bytes(half)
    (last.parent / ".best.safetensors.4711.partial").write_bytes(half)
    (tmp_path / "run" / ".metrics.csv.4711.partial").write_text("epoch,st")
    (tmp_path / "run" / ".weights.4711.partial").mkdir()
    learn(TINY, store, tmp_path / "run")
    assert outcome(tmp_path / "run") == undisturbed


def test_a_damaged_checkpoint_is_named_in_one_error_line(store, tmp_path, monkeypatch, capsys):
    interrupted_learning(monkeypatch, lambda step: step == 3)
    with pytest.raises(Stopped):
        learn(TINY, store, tmp_path / "run")
    monkeypatch.undo()
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    assert main(["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(TINY)]) == 2
    line = [text for text in capsys.readouterr().err.splitlines() if text.startswith("landscale:")]
    assert len(line) == 1
    assert str(last) in line[0]
