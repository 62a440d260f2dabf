"""Where a step's numbers are read one step later, as on a GPU: same weights, and a divergence is found before it is saved."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

from landscale.errors import Diverged
from landscale.runtime.signals import Stopped
from landscale.training.checkpoint import load_checkpoint
from landscale.training.trainable_model import TrainableModel
from landscale.training.training import Trainer
from trainings import CPU, PLAIN, TINY, interrupted_learning, learn, outcome

SGD = replace(PLAIN, optimizer="sgd", weight_decay=0.0, warmup_epochs=0.0, turns=False)
CONSTANT = replace(SGD, schedule="constant", rate=8e-3, epochs=2, save_minutes=0.0)


@pytest.fixture(autouse=True)
def later(monkeypatch):
    monkeypatch.setattr("landscale.training.trainable_model.reads_later", lambda device: True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of several threads are in another order
    yield
    torch.set_num_threads(threads)


def explode_at(monkeypatch, step, factor):
    """Multiply the loss of one step, counted from 1, as long as the rate is the first one."""
    true = Trainer.step

    def exploding(self, parts, incoming, *others):
        loss, rate = self.model.loss, self.highest_rate / 2**self.state.halved
        if self.state.step + 1 == step and rate > 0.005:
            self.model.loss = lambda *about: loss(*about) * factor
        try:
            return true(self, parts, incoming, *others)
        finally:
            self.model.loss = loss

    monkeypatch.setattr(Trainer, "step", exploding)


def last(run):
    return load_checkpoint(run / "checkpoints" / "last.safetensors", CPU)


def test_weights_and_metrics_are_those_of_reading_at_once(store, tmp_path, undisturbed):
    """Also with a checkpoint after every step, whose loss is not counted yet."""
    learn(replace(TINY, save_minutes=0.0), store, tmp_path / "run")
    assert outcome(tmp_path / "run") == undisturbed


def test_a_stopped_training_resumes_exactly(store, tmp_path, monkeypatch, undisturbed):
    """In the middle of an epoch, in its last step, and with checkpoints in between."""
    interrupted_learning(monkeypatch, lambda step: step in (3, 10))
    for _ in range(3):
        try:
            learn(replace(TINY, save_minutes=0.0), store, tmp_path / "run")
        except Stopped:
            _, saved = last(tmp_path / "run")
            assert saved["state"]["epoch_steps"] == saved["state"]["step"] % 5
    assert outcome(tmp_path / "run") == undisturbed


@pytest.mark.parametrize("factor", [math.inf, math.nan, 1e4])
@pytest.mark.parametrize("step", [7, 10])  # within an epoch, and its last step
def test_a_divergence_leaves_the_checkpoint_before_it(store, tmp_path, monkeypatch, factor, step):
    explode_at(monkeypatch, step, factor)
    with pytest.raises(Diverged, match=f"the loss of step {step} is .* at rate 0.008"):
        learn(CONSTANT, store, tmp_path / "run")
    tensors, saved = last(tmp_path / "run")
    assert saved["state"]["step"] == step - 1
    assert all(value.isfinite().all() for value in tensors.values())
    assert not (tmp_path / "run" / "weights").exists()


def test_the_checkpoint_before_a_divergence_has_the_weights_of_reading_at_once(store, tmp_path, monkeypatch):
    explode_at(monkeypatch, 7, math.nan)
    found = {}
    for name, later in (("at once", False), ("later", True)):
        monkeypatch.setattr("landscale.training.trainable_model.reads_later", lambda device, later=later: later)
        with pytest.raises(Diverged) as caught:
            learn(CONSTANT, store, tmp_path / name)
        tensors, saved = last(tmp_path / name)
        message = str(caught.value).replace(name, "")
        del saved["state"]["seconds"], saved["state"]["epoch_seconds"]
        for row in saved["state"]["history"]:
            del row["seconds"], row["train_seconds"]
        found[name] = ({key: value.numpy().tobytes() for key, value in tensors.items()}, repr(saved), message)
    assert found["at once"] == found["later"]


def test_backoff_goes_back_and_halves_the_rate(store, tmp_path, monkeypatch):
    explode_at(monkeypatch, 7, math.inf)
    learn(replace(CONSTANT, on_divergence="backoff"), store, tmp_path / "run")
    assert pd.read_csv(tmp_path / "run" / "metrics.csv")["rate"].tolist() == [0.008, 0.004]
    assert last(tmp_path / "run")[1]["state"]["step"] == 10


def test_a_loss_that_explodes_without_being_infinite_is_measured_by_the_first_step(store, tmp_path, monkeypatch):
    """In the second step already, though the loss of the first is read only then."""
    explode_at(monkeypatch, 2, 1e4)
    with pytest.raises(Diverged, match="the loss of step 2"):
        learn(CONSTANT, store, tmp_path / "run")
    assert last(tmp_path / "run")[1]["state"]["step"] == 1


def test_each_step_gives_the_result_of_the_one_before(store, tmp_path, monkeypatch):
    results = []
    true = TrainableModel.step

    def noted(self, *arguments):
        results.append(true(self, *arguments))
        return results[-1]

    monkeypatch.setattr(TrainableModel, "step", noted)
    learn(replace(PLAIN, epochs=2), store, tmp_path / "run")
    assert [result is None for result in results] == [True, *[False] * 4] * 2  # read at the end of each epoch
