"""Reading a step's numbers one step later, as on a GPU: same weights; a divergence is detected before it is saved."""

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
from landscale.training.trainer import Trainer
from trainings import CPU, PLAIN, TINY, interrupted_learning, learn, outcome

SGD = replace(PLAIN, optimizer="sgd", weight_decay=0.0, warmup_epochs=0.0, turns=False)
CONSTANT = replace(SGD, schedule="constant", rate=8e-3, epochs=2, save_minutes=0.0)


@pytest.fixture(autouse=True)
def read_one_step_later(monkeypatch):
    monkeypatch.setattr("landscale.training.trainable_model.reads_later", lambda device: True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several threads add in another order
    yield
    torch.set_num_threads(threads)


def explode_at(monkeypatch, step, factor):
    """Multiply the loss of one step, counted from 1, unless the rate was halved."""
    original = Trainer.step

    def exploding(self, parts, incoming, *arguments):
        loss, rate = self.model.loss, self.highest_rate / 2**self.state.halved
        if self.state.step + 1 == step and rate > 0.005:
            self.model.loss = lambda *inputs: loss(*inputs) * factor
        try:
            return original(self, parts, incoming, *arguments)
        finally:
            self.model.loss = loss

    monkeypatch.setattr(Trainer, "step", exploding)


def load_last_checkpoint(run):
    return load_checkpoint(run / "checkpoints" / "last.safetensors", CPU)


def test_weights_and_metrics_equal_those_of_reading_at_once(store, tmp_path, undisturbed):
    """Also with a checkpoint after every step, written before the loss of the step is read."""
    learn(replace(TINY, save_minutes=0.0), store, tmp_path / "run")
    assert outcome(tmp_path / "run") == undisturbed


def test_a_stopped_training_resumes_with_identical_results(store, tmp_path, monkeypatch, undisturbed):
    """Stopped in the middle of an epoch and in its last step; a checkpoint is saved after every step."""
    interrupted_learning(monkeypatch, lambda step: step in (3, 10))
    for _ in range(3):
        try:
            learn(replace(TINY, save_minutes=0.0), store, tmp_path / "run")
        except Stopped:
            _, saved = load_last_checkpoint(tmp_path / "run")
            assert saved["state"]["epoch_steps"] == saved["state"]["step"] % 5
    assert outcome(tmp_path / "run") == undisturbed


@pytest.mark.parametrize("factor", [math.inf, math.nan, 1e4])
@pytest.mark.parametrize("step", [7, 10])  # within an epoch, and its last step
def test_a_divergence_leaves_the_checkpoint_of_the_step_before(store, tmp_path, monkeypatch, factor, step):
    explode_at(monkeypatch, step, factor)
    with pytest.raises(Diverged, match=f"the loss of step {step} is .* at rate 0.008"):
        learn(CONSTANT, store, tmp_path / "run")
    tensors, saved = load_last_checkpoint(tmp_path / "run")
    assert saved["state"]["step"] == step - 1
    assert all(value.isfinite().all() for value in tensors.values())
    assert not (tmp_path / "run" / "weights").exists()


def test_the_checkpoint_before_a_divergence_equals_that_of_reading_at_once(store, tmp_path, monkeypatch):
    explode_at(monkeypatch, 7, math.nan)
    found = {}
    for name, later in (("at once", False), ("later", True)):
        monkeypatch.setattr("landscale.training.trainable_model.reads_later", lambda device, later=later: later)
        with pytest.raises(Diverged) as caught:
            learn(CONSTANT, store, tmp_path / name)
        tensors, saved = load_last_checkpoint(tmp_path / name)
        message = str(caught.value).replace(name, "")
        del saved["state"]["seconds"], saved["state"]["epoch_seconds"]
        for row in saved["state"]["history"]:
            del row["seconds"], row["train_seconds"]
        found[name] = ({key: value.numpy().tobytes() for key, value in tensors.items()}, repr(saved), message)
    assert found["at once"] == found["later"]


def test_backoff_restores_the_checkpoint_and_halves_the_rate(store, tmp_path, monkeypatch):
    explode_at(monkeypatch, 7, math.inf)
    learn(replace(CONSTANT, on_divergence="backoff"), store, tmp_path / "run")
    assert pd.read_csv(tmp_path / "run" / "metrics.csv")["rate"].tolist() == [0.008, 0.004]
    assert load_last_checkpoint(tmp_path / "run")[1]["state"]["step"] == 10


def test_a_finite_exploding_loss_is_compared_with_the_loss_of_the_first_step(store, tmp_path, monkeypatch):
    """The comparison works in the second step, although the loss of the first is read only then."""
    explode_at(monkeypatch, 2, 1e4)
    with pytest.raises(Diverged, match="the loss of step 2"):
        learn(CONSTANT, store, tmp_path / "run")
    assert load_last_checkpoint(tmp_path / "run")[1]["state"]["step"] == 1


def test_each_step_returns_the_result_of_the_step_before(store, tmp_path, monkeypatch):
    results = []
    original = TrainableModel.step

    def recorded(self, *arguments):
        results.append(original(self, *arguments))
        return results[-1]

    monkeypatch.setattr(TrainableModel, "step", recorded)
    learn(replace(PLAIN, epochs=2), store, tmp_path / "run")
    assert [result is None for result in results] == [True, *[False] * 4] * 2  # read at the end of each epoch
