"""Updates of the weights: decay, SGD with momentum, averaged weights; each compared with its rule written out by hand."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from timm.optim import create_optimizer_v2, list_optimizers

import landscale.training.results as results_module
import landscale.training.trainer as trainer_module
from landscale.distributed import Ranks
from landscale.training.build import build_classifier
from landscale.training.recipe import Recipe
from landscale.training.speed import Speed
from landscale.training.trainable_model import UNSUITABLE, TrainableModel
from trainings import CPU, PLAIN, learn

RATE = 0.1


def trainable(store, **changes):
    recipe = replace(PLAIN, model="test_resnet", options={}, side=32, rate=RATE, **changes)
    classifier = build_classifier(recipe, store)
    return TrainableModel(recipe, classifier, Ranks(), CPU, lambda logits, targets: logits.sum(), Speed(False, False))


def update_with(model, gradient):
    """One optimiser step with the same gradient for every weight. Returns each weight's value before and after it."""
    before = {name: weight.detach().clone() for name, weight in model.network.named_parameters()}
    for weight in model.network.parameters():
        weight.grad = torch.full_like(weight, gradient)
    for group in model.optimizer.param_groups:
        group["lr"] = RATE
    model.optimizer.step()
    return {name: (before[name], weight.detach()) for name, weight in model.network.named_parameters()}


def test_all_other_optimisers_keep_their_state_in_tensors_and_numbers():
    """A checkpoint has no place for anything else. Optimisers that need a GPU or another package are left out."""
    incomplete = set()
    for name in set(list_optimizers(exclude_filters=["*bnb*", "fused*"])) - UNSUITABLE.keys():
        layer = torch.nn.Linear(3, 4)
        try:
            optimizer = create_optimizer_v2(layer, opt=name, lr=0.1)
        except (AssertionError, ImportError, RuntimeError):
            continue
        for weight in layer.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer.step()
        state = optimizer.state_dict()["state"].values()
        if not all(isinstance(value, torch.Tensor | int | float) for part in state for value in part.values()):
            incomplete.add(name)
    assert not incomplete


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_matrices_decay_but_norms_and_biases_do_not(store, optimizer):
    """Without a gradient, AdamW and SGD both multiply a decayed weight by 1 − rate · decay (SGD's Nesterov: · 1.9)."""
    changes = update_with(trainable(store, optimizer=optimizer, weight_decay=0.02), 0.0)
    factor = 1 - RATE * 0.02 * (1.9 if optimizer == "sgd" else 1)
    matrices = {name for name, (before, _) in changes.items() if before.ndim > 1}
    assert any("conv" in name for name in matrices)
    assert "fc.weight" in matrices
    assert any("bn" in name for name in changes.keys() - matrices)
    for name, (before, after) in changes.items():
        expected = before * factor if name in matrices else before
        torch.testing.assert_close(after, expected, rtol=1e-6, atol=0, msg=name)


def test_weight_decay_zero_changes_no_weight(store):
    for before, after in update_with(trainable(store, weight_decay=0.0), 0.0).values():
        assert torch.equal(before, after)


def test_sgd_has_nesterov_momentum(store):
    """Nesterov's first step is rate · (1 + momentum) · gradient, plain momentum's rate · gradient."""
    model = trainable(store, optimizer="sgd", weight_decay=0.0, momentum=0.8)
    for before, after in update_with(model, 1.0).values():
        torch.testing.assert_close(before - after, torch.full_like(before, RATE * 1.8), rtol=1e-3, atol=1e-6)
    # The velocity is now 1 + 0.8 = 1.8, so the second step is 1 + 0.8 · 1.8 = 2.44.
    for before, after in update_with(model, 1.0).values():
        torch.testing.assert_close(before - after, torch.full_like(before, RATE * 2.44), rtol=1e-3, atol=1e-6)


def test_the_averaged_weights_have_a_small_decay_in_the_first_steps(store, tmp_path, monkeypatch):
    """The decay at step k (from 0) is 0 for k ≤ 1, then min(ema, 1 − k^(−2/3)), so the initial weights soon have no effect."""
    weights, averages = [], []
    step = TrainableModel.step

    def recorded(self, *arguments):
        result = step(self, *arguments)
        weights.append(self.network.fc.weight.detach().clone())
        averages.append(self.averaged.fc.weight.detach().clone())
        return result

    monkeypatch.setattr(TrainableModel, "step", recorded)
    monkeypatch.setattr(trainer_module.Trainer, "end_epoch", lambda self, epoch: 0.0)
    monkeypatch.setattr(trainer_module.Trainer, "finish", lambda self: None)
    recipe = replace(PLAIN, model="test_resnet", options={}, side=32, epochs=1, ema=0.5, warmup_epochs=0.0)
    learn(recipe, store, tmp_path / "run")
    decays = [0.0, 0.0, 1 - 2 ** (-2 / 3), 0.5, 0.5]  # 1 − 3^(−2/3) = 0.519 is above 0.5
    expected = torch.zeros_like(weights[0])
    for decay, weight, average in zip(decays, weights, averages, strict=True):
        expected = decay * expected + (1 - decay) * weight
        torch.testing.assert_close(average, expected, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(weights[0], weights[4], atol=1e-4)


def test_thresholds_are_chosen_on_the_val_split(store, tmp_path, monkeypatch):
    """On the train split, to which the weights are fitted, the probabilities would be too good."""
    chosen = []
    choose = results_module.choose_thresholds

    def recorded(probabilities, targets, method):
        chosen.append((probabilities.shape, targets.tolist(), method))
        return choose(probabilities, targets, method)

    monkeypatch.setattr(results_module, "choose_thresholds", recorded)
    learn(replace(PLAIN, epochs=1, thresholds="per_class"), store, tmp_path / "run")
    val = store.patches("val")
    assert chosen == [((len(val), 4), store.classes[val].tolist(), "per_class")]
    assert len(store.patches("train")) != len(val)


def test_the_recipe_sets_every_option_of_the_augmentation(store):
    keys = {"turns": False, "shift": 2, "zoom": 0.3, "jitter": 0.1, "drop_bands": 0.2, "mixup": 0.4, "cutmix": 0.5}
    augment = trainable(store, **keys).augment
    assert {key: getattr(augment, key) for key in keys} == keys
    assert set(keys) == set(augment.__dataclass_fields__)
    assert set(keys) <= set(Recipe.__dataclass_fields__)


def test_the_augmentation_changes_when_the_training_has_reached_augment_until(store, tmp_path):
    """Four epochs of mixed patches, the last two of which are as in a training without mixing: only turns are left."""
    losses = {}
    for name, changes in {
        "mixed": {"mixup": 0.4, "cutmix": 0.5},
        "half": {"mixup": 0.4, "cutmix": 0.5, "augment_until": 0.5},
        "never": {"mixup": 0.4, "cutmix": 0.5, "augment_until": 0.0},
        "plain": {},
    }.items():
        learn(replace(PLAIN, epochs=4, schedule="constant", warmup_epochs=0.0, **changes), store, tmp_path / name)
        losses[name] = pd.read_csv(tmp_path / name / "metrics.csv")["loss"].tolist()
    assert losses["never"] == losses["plain"]
    assert losses["half"][:2] == losses["mixed"][:2]
    assert losses["half"][2] != losses["mixed"][2]
    assert losses["half"][0] != losses["plain"][0]
