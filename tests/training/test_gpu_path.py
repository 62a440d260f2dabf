"""The code for GPUs, tested with a fake GPU on any machine: no mixed devices, no step that waits for the GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fake_gpu import GPU, ReadsANumber, fake_gpu
from landscale.distributed import Ranks
from landscale.inference.evaluate import infer
from landscale.loading import batches, epoch_order, place, train_steps
from landscale.models.classifier import Classifier
from landscale.training import step as step_module
from landscale.training.build import build_classifier
from landscale.training.runs import Run
from landscale.training.trainable_model import StepResult
from landscale.training.trainer import Trainer
from trainings import BANDS, PLAIN, TINY


class PendingReadings:
    """Replaces `Readings`, the step's numbers that are copied to the host later: a loss of 1, no divergence."""

    def __init__(self, values: torch.Tensor) -> None:
        assert values.device == GPU
        assert values.shape == (3,)

    def read(self) -> list[float]:
        return [1.0, 0.0, 1.0]


RECIPES = {
    "augmented, averaged": replace(TINY, precision="bf16"),
    "accumulated, clipped": replace(PLAIN, accumulate=2, clip_grad=1.0, optimizer="sgd"),
    "lamb": replace(TINY, optimizer="lamb", mixup=0.0),
    "members": replace(PLAIN, model="trio", options={"parts": 2, "copies": 1}, loss="focal", balance=0.5),
    "weighted": replace(PLAIN, loss="asymmetric", smoothing=0.1, balance=1.0, optimizer="adam"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_training_steps_make_no_blocking_gpu_copies(name, store, tmp_path, monkeypatch):
    """Three steps. The fake GPU raises for a tensor left on the host and for reading a number, and counts blocking copies."""
    monkeypatch.setattr("landscale.training.trainable_model.Readings", PendingReadings)
    recipe = replace(RECIPES[name], compile="off")
    classifier = build_classifier(recipe, store)
    with fake_gpu() as transfers:
        trainer = Trainer(recipe, store, Run(tmp_path / "run"), Ranks(), classifier.to(GPU), GPU)
        rows = epoch_order(trainer.patches, 0, 0)
        steps = train_steps(rows, 8)[:3]
        parts = [np.array_split(step, recipe.accumulate) for step in steps]
        incoming = trainer.batches([part for step in parts for part in step])
        transfers.waits.clear()
        results = []
        for step in parts:
            results.append(trainer.step(step, incoming))
            trainer.state.step += 1
        assert transfers.waits == [], [str(w) for w in transfers.waits]
        gradients = {p.grad for p in trainer.model.network.parameters()}
        assert gradients == {None}  # cleared after the optimiser step
        assert {p.device for p in trainer.model.averaged.parameters()} == {GPU}
    assert results == [None, StepResult(1.0, 0), StepResult(1.0, 0)]  # each step returns the result of the step before
    assert trainer.model.read_last_step() == StepResult(1.0, 0)
    assert trainer.model.read_last_step() is None


def test_the_fake_gpu_raises_when_a_step_reads_its_loss_at_once(store, tmp_path, monkeypatch):
    """Shows that the test above can fail: reading the numbers within the step, as on a CPU, raises."""
    monkeypatch.setattr("landscale.training.trainable_model.reads_later", lambda device: False)
    recipe = replace(PLAIN, compile="off")
    classifier = build_classifier(recipe, store)
    with fake_gpu():
        trainer = Trainer(recipe, store, Run(tmp_path / "run"), Ranks(), classifier.to(GPU), GPU)
        monkeypatch.setattr(step_module.Readings, "__init__", lambda self, values: setattr(self, "values", values))
        monkeypatch.setattr(step_module.Readings, "read", lambda self: self.values.tolist())
        with pytest.raises(ReadsANumber):
            trainer.step([trainer.patches[:8]], trainer.batches([trainer.patches[:8]]))


def test_the_fake_gpu_raises_for_mixed_devices_and_counts_blocking_copies(store, tmp_path, monkeypatch):
    with fake_gpu() as transfers:
        values = torch.zeros(3, device=GPU)
        with pytest.raises(RuntimeError, match="device"):
            values + torch.zeros(3)
        torch.zeros(3).to(GPU)
        values.cpu()
        assert len(transfers.waits) == 2


def test_a_split_placed_on_the_gpu_gives_batches_on_the_gpu(store):
    with fake_gpu() as transfers:
        placed = place(store, BANDS.split(","), False, store.patches("train"), Ranks(), GPU, "device")
        assert placed.description.startswith("train split on the GPU")
        transfers.waits.clear()
        steps = train_steps(epoch_order(store.patches("train"), 0, 0), 8)
        for batch in batches(store, BANDS.split(","), store.classes, steps, GPU, placed=placed):
            (pixels,) = batch.planes.values()
            assert (pixels.device, pixels.dtype, tuple(pixels.shape)) == (GPU, torch.uint16, (8, 4, 12, 12))
            assert (batch.targets.device, batch.targets.dtype, tuple(batch.targets.shape)) == (
                GPU,
                torch.float32,
                (8, 4),
            )
        assert transfers.waits == []


def test_evaluation_computes_probabilities_on_the_gpu(store, monkeypatch):
    """All views of a patch are computed there; only the probabilities are copied to the host, once per batch."""
    classifier = build_classifier(replace(TINY, views=8), store)
    original, shapes = Classifier.probabilities, []

    def probabilities(self, planes):
        found = original(self, planes)
        assert found.device == GPU
        assert {plane.device for plane in planes.values()} == {GPU}
        shapes.append(tuple(found.shape))
        return found

    monkeypatch.setattr(Classifier, "probabilities", probabilities)
    with fake_gpu() as transfers:
        found = infer(classifier.to(GPU), store, store.patches("val"), Ranks(), 8, show=False)
    assert shapes == [(8, 4), (8, 4)]
    assert found.shape == (16, 4)
    assert len([wait for wait in transfers.waits if wait.endswith("→ cpu")]) == 2
