"""Frozen stages, gradual unfreezing and rates by layer: which weights change, by how much, and exact resuming."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from timm.models import group_parameters

from landscale.cli import main
from landscale.distributed import Ranks
from landscale.errors import LandscaleError
from landscale.models.stages import stages
from landscale.models.weights import save_weights
from landscale.runtime.signals import Stopped
from landscale.training.build import build_classifier, check_smallest_step
from landscale.training.checkpoint import load_checkpoint
from landscale.training.frozen import Frozen
from landscale.training.recipe import load_recipe
from landscale.training.speed import Speed
from landscale.training.trainable_model import TrainableModel
from landscale.training.trainer import Trainer
from trainings import CPU, PLAIN, TINY, flags, interrupted_learning, learn, outcome, tiny_store

STEPS = 15  # of three epochs
HEAD = ("head.fc.weight", "head.fc.bias")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def encoder(store, tmp_path_factory):
    """Untrained weights whose batch norms have seen other statistics than the initial ones."""
    classifier = build_classifier(PLAIN, store)
    with torch.no_grad():
        for name, value in classifier.network.state_dict().items():
            if "running" in name:
                value.add_(0.1)
    folder = tmp_path_factory.mktemp("encoder") / "weights"
    save_weights(folder, classifier, {})
    return folder


def changed(before, after):
    """Names of the floating-point tensors that differ."""
    assert before.keys() == after.keys()
    return {k for k, v in before.items() if v.is_floating_point() and not torch.equal(v, after[k])}


def changes_by_step(monkeypatch, recipe, store, run):
    """Train; for each step, the names of parameters and buffers that it changed."""
    found = []
    step = Trainer.step

    def recorded(self, *arguments):
        before = {k: v.clone() for k, v in self.model.network.state_dict().items()}
        result = step(self, *arguments)
        found.append(changed(before, self.model.network.state_dict()))
        return result

    monkeypatch.setattr(Trainer, "step", recorded)
    learn(recipe, store, run)
    return found


def stage_names(network, first):
    """Names of parameters and of running statistics in the stages from `first` on, and of the head."""
    by_stage = stages(network)
    kept = {name for name, stage in by_stage.items() if stage < first}
    modules = {name.rpartition(".")[0] for name in kept}
    return {
        name
        for name, value in network.state_dict().items()
        if value.is_floating_point() and name not in kept and name.rpartition(".")[0] not in modules
    }


# ---- what is trained


@pytest.mark.parametrize("freeze", [1, 3, "all"])
def test_frozen_stages_keep_weights_and_statistics_and_all_others_change(freeze, store, encoder, tmp_path, monkeypatch):
    recipe = replace(PLAIN, init=str(encoder), freeze=freeze, weight_decay=0.5, warmup_epochs=0.0)
    every = changes_by_step(monkeypatch, recipe, store, tmp_path / "run")
    expected = stage_names(build_classifier(PLAIN, store).network, 4 if freeze == "all" else freeze)
    assert all(step == expected for step in every)
    assert set(HEAD) == expected if freeze == "all" else set(HEAD) < expected
    after = load_file(tmp_path / "run" / "weights" / "model.safetensors")
    before = load_file(encoder / "model.safetensors")
    assert changed(before, after) == expected
    last, _ = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors", CPU)
    states = {name.split(".")[1] for name in last if name.startswith("optimizer.") and "group" not in name}
    assert len(states) == sum("running" not in name for name in expected)  # nothing of the frozen ones


def test_stages_are_unfrozen_from_the_last_to_the_first_as_fractions_of_the_plan(store, encoder, tmp_path, monkeypatch):
    """Of three epochs of five steps: all four stages are frozen for 4 steps, then one fewer after every 0.8 epochs."""
    recipe = replace(PLAIN, init=str(encoder), freeze="all", unfreeze_every=0.8, warmup_epochs=0.0)
    every = changes_by_step(monkeypatch, recipe, store, tmp_path / "run")
    network = build_classifier(PLAIN, store).network
    frozen = [4] * 4 + [3] * 4 + [2] * 4 + [1] * 3
    assert every == [stage_names(network, count) for count in frozen]
    assert stages(network)["stem.0.weight"] == 0
    assert "stem.0.weight" not in every[-1]


def test_what_is_frozen_depends_on_the_fraction_of_the_training_only(store):
    network = build_classifier(PLAIN, store).network
    frozen = Frozen(replace(PLAIN, freeze=3, unfreeze_every=1.0), network)
    assert [frozen.stages_at(x) for x in (0.0, 0.33, 1 / 3, 0.5, 2 / 3 - 1e-12, 0.99)] == [3, 3, 2, 2, 1, 1]
    assert frozen.stages_for_good == 1
    assert Frozen(replace(PLAIN, freeze=3, unfreeze_every=0.5), network).stages_for_good == 0
    assert Frozen(replace(PLAIN, freeze=3), network).stages_for_good == 3


def test_a_parameter_that_is_never_trained_stays_so(store):
    """As fixed position embeddings."""
    recipe = replace(PLAIN, freeze=2, unfreeze_every=1.0)
    classifier = build_classifier(recipe, store)
    fixed = ["stages.0.0.conv1.weight", "stages.2.0.conv1.weight"]
    for name in fixed:
        classifier.network.get_parameter(name).requires_grad_(False)
    model = TrainableModel(recipe, classifier, Ranks(), CPU, lambda logits, targets: logits.sum(), Speed(False, False))
    model.freeze(1.0)
    assert [name for name, p in model.network.named_parameters() if not p.requires_grad] == fixed
    assert sum(len(group["params"]) for group in model.optimizer.param_groups) == sum(
        p.requires_grad for p in model.network.parameters()
    )


def test_frozen_norms_allow_steps_of_one_patch(store):
    recipe = replace(PLAIN, side=1, batch=1)
    classifier = build_classifier(recipe, store)
    with pytest.raises(LandscaleError, match="has one patch a process"):
        check_smallest_step(recipe, classifier, 40, 1)
    check_smallest_step(replace(recipe, freeze="all"), classifier, 40, 1)
    with pytest.raises(LandscaleError, match="has one patch a process"):
        check_smallest_step(replace(recipe, freeze="all", unfreeze_every=1.0), classifier, 40, 1)


def test_the_settings_say_how_much_is_trained(store, encoder, tmp_path, capsys):
    args = [f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(PLAIN, epochs=1, warmup_epochs=0.0)]
    assert main(["train", *args, f"--init={encoder}", "--freeze=all"]) == 0
    log = " ".join(capsys.readouterr().err.split())
    assert re.search(r"\(0\.0\d M parameters, 0\.00 M of them trained\)", log), log


# ---- rates


def trainable(store, **changes):
    recipe = replace(PLAIN, options={"width": 0.5, "depth": 16}, **changes)
    classifier = build_classifier(recipe, store)
    return TrainableModel(recipe, classifier, Ranks(), CPU, lambda logits, targets: logits.sum(), Speed(False, False))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_each_layer_has_a_lower_rate_than_the_next(weight_decay, store):
    model = trainable(store, layer_decay=0.5, weight_decay=weight_decay)
    layers = group_parameters(model.network, model.network.group_matcher(coarse=False), reverse=True)
    last = max(layers.values())
    assert last == 7  # the stem, two blocks in each of three stages, and the head
    scale = {id(p): group["lr_scale"] for group in model.optimizer.param_groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in model.optimizer.param_groups for p in group["params"]}
    for name, parameter in model.network.named_parameters():
        assert scale[id(parameter)] == 0.5 ** (last - layers[name])
        assert decay[id(parameter)] == (weight_decay if parameter.ndim > 1 else 0)
    assert layers["head.fc.weight"] == last
    assert layers["stem.0.weight"] == 0
    assert {group.get("lr_scale", 1.0) for group in trainable(store).optimizer.param_groups} == {1.0}


def test_the_rate_that_is_reported_is_that_of_the_head(store, encoder, tmp_path):
    recipe = replace(PLAIN, init=str(encoder), layer_decay=0.5, schedule="constant", epochs=1, warmup_epochs=0.0)
    learn(recipe, store, tmp_path / "run")
    assert "0.01" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1].split(",")


# ---- resuming


@pytest.mark.parametrize(
    "changes",
    [
        {"freeze": 2},
        {"freeze": "all", "unfreeze_every": 0.6, "layer_decay": 0.7},
        {"freeze": 2, "unfreeze_every": 0.5, "optimizer": "sgd", "ema": 0.0},
        {"freeze": "all", "unfreeze_every": 0.4, "optimizer": "lookahead_adamw"},
    ],
)
def test_a_training_that_is_stopped_in_every_third_step_ends_with_the_same_weights(
    changes, store, encoder, tmp_path, monkeypatch
):
    """With all augmentations, dropout and averaged weights, across the steps in which stages are unfrozen."""
    recipe = replace(TINY, init=str(encoder), **changes)
    learn(recipe, store, tmp_path / "undisturbed")
    sessions = 0
    with monkeypatch.context() as patch:
        interrupted_learning(patch, lambda step: step % 3 == 1)
        while not (tmp_path / "run" / "scores.json").exists():
            try:
                learn(recipe, store, tmp_path / "run")
            except Stopped:
                sessions += 1
    assert sessions >= 4
    assert outcome(tmp_path / "run") == outcome(tmp_path / "undisturbed")


def test_a_checkpoint_that_lacks_the_state_of_a_trained_weight_is_refused(store):
    model = trainable(store, freeze=2, unfreeze_every=1.0)
    for parameter in model.network.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    model.optimizer.step()
    tensors, numbers = model.pack()
    model.unpack(dict(tensors), dict(numbers))  # stages that are still frozen have none
    key = next(name for name in tensors if name.startswith("optimizer.") and name.endswith(".exp_avg"))
    del tensors[key]
    with pytest.raises(ValueError, match="is missing"):
        model.unpack(tensors, numbers)


# ---- refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--freeze=2"], "--freeze 2: needs --init"),
        (["--unfreeze-every=1"], "--unfreeze-every: needs --freeze"),
        (["--init=w", "--freeze=2", "--unfreeze-every=30"], "--unfreeze-every: found 30, expected less than the 30"),
        (["--init=w", "--freeze=-1"], "--freeze: found -1, expected at least 0"),
        (["--layer-decay=1.5"], "--layer_decay: found 1.5, expected 0.01 to 1"),
        (["--layer-decay=0"], "--layer_decay: found 0"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(words, message):
    with pytest.raises(LandscaleError, match=re.escape(message)):
        load_recipe(None, words)


def test_unfreezing_is_scaled_with_the_epochs(tmp_path):
    (tmp_path / "r.yaml").write_text("{init: w, freeze: all, unfreeze_every: 2, epochs: 10}")
    assert load_recipe(str(tmp_path / "r.yaml"), ["--epochs=5"]).unfreeze_every == 1
    assert load_recipe(str(tmp_path / "r.yaml"), ["--epochs=5", "--unfreeze-every=2"]).unfreeze_every == 2
    assert load_recipe(None, ["--init=w", "--freeze=3"]).freeze == 3


def test_more_stages_than_the_network_has_are_refused(store, encoder, tmp_path):
    with pytest.raises(LandscaleError, match="found 5, but 'wide_resnet' has 4 stages before its head"):
        learn(replace(PLAIN, init=str(encoder), freeze=5), store, tmp_path / "run")
    assert not (tmp_path / "run").exists()
