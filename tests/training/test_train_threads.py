"""A training beside other processes takes fewer threads, says so, and has as many when it is resumed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import landscale.training.training as training_module
from landscale.cli import main
from landscale.errors import BadInput
from landscale.runtime import threads
from landscale.training.runs import Run
from landscale.training.trainable_model import TrainableModel
from trainings import PLAIN, flags, learn

SHORT = replace(PLAIN, epochs=1)


@pytest.fixture
def eight_cores(monkeypatch):
    """Eight cores and threads, no OMP_NUM_THREADS, and the numbers of threads that steps were computed with.

    torch only seems to have eight threads: they would wait for each other on a machine with fewer cores.
    """
    number = [8]
    monkeypatch.setattr(torch, "get_num_threads", lambda: number[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: number.__setitem__(0, n))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "usable_core_numbers", lambda: set(range(8)))
    monkeypatch.setattr(training_module, "usable_cores", lambda: 8)
    seen = set()
    step = TrainableModel.step

    def recorded(self, *arguments):
        seen.add(torch.get_num_threads())
        return step(self, *arguments)

    monkeypatch.setattr(TrainableModel, "step", recorded)
    yield seen
    assert number == [8]  # as before the training


def test_a_training_beside_busy_processes_takes_the_free_cores_and_says_so(
    eight_cores, store, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(training_module, "cores_of_others", lambda: 6.1)
    assert main(["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(SHORT)]) == 0
    assert eight_cores == {2}
    said = "other processes keep 6.1 of 8 cores busy: this run computes with 2 threads instead of 8"
    assert said in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["threads"] == 2
    # Resumed on quiet cores, it has as many threads, so that its result stays the same.
    (tmp_path / "run" / "scores.json").unlink()
    (tmp_path / "run" / "checkpoints" / "last.safetensors").unlink()
    monkeypatch.setattr(training_module, "cores_of_others", lambda: 0.0)
    learn(SHORT, store, tmp_path / "run")
    assert eight_cores == {2}
    learn(SHORT, store, tmp_path / "other")
    assert eight_cores == {2, 8}


def test_the_number_of_threads_that_the_user_sets_is_kept(eight_cores, store, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setattr(training_module, "cores_of_others", lambda: 6.1)
    learn(SHORT, store, tmp_path / "run")
    assert eight_cores == {8}


@pytest.mark.parametrize("value", [0, "2", None, 1.5, True])
def test_a_damaged_number_of_threads_is_refused(value, tmp_path):
    (tmp_path / "environment.json").write_text(json.dumps({"threads": value}))
    with pytest.raises(BadInput, match=r"environment.json: threads: found .*, expected a whole number from 1"):
        Run(tmp_path).threads()


def test_a_training_by_several_processes_says_nothing_about_the_threads_of_one(tmp_path):
    (tmp_path / "environment.json").write_text(json.dumps({"threads": 1, "processes": 4}))
    assert Run(tmp_path).threads() is None
