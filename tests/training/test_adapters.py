"""Low-rank adapters: what is trained, that merged weights compute the same, and exact resuming."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import landscale.training.results as results_module
from landscale.cli import main
from landscale.errors import LandscaleError
from landscale.models.classifier import Classifier
from landscale.models.weights import load_model, save_weights
from landscale.runtime.signals import Stopped
from landscale.training.adapters import MARK, add_adapters, merge_adapters
from landscale.training.build import build_classifier
from landscale.training.recipe import load_recipe
from trainings import PLAIN, TINY, flags, interrupted_learning, learn, outcome, tiny_store

pytestmark = pytest.mark.skipif(not find_spec("peft"), reason="peft is not installed")
NETWORKS = {  # px of the smallest quick input
    **{"wide_resnet": 12, "resnet18": 32, "efficientnet60_eca": 32, "tf_efficientnetv2_b0": 32, "convnextv2_atto": 32},
    **{"vit_20": 40, "mlp_mixer_tiny": 24, "swinv2_tiny_window8_256": 64, "trio": 32, "k_branch": 24},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def encoder(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "weights"
    save_weights(folder, build_classifier(PLAIN, store), {})
    return folder


def with_running_statistics(network: nn.Module, x: torch.Tensor) -> nn.Module:
    """Set the running statistics of batch norms from `x`, then eval mode."""
    for module in network.modules():
        if hasattr(module, "running_mean"):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(x)
    return network.eval()


def randomised(network: nn.Module) -> nn.Module:
    """Give the second factor of every adapter, which starts at 0, random values."""
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_merged_weights_have_plain_names_and_give_the_logits_of_the_adapted_network(name, store):
    """Every adapter has a gradient, also in networks that use some weights without calling their layer."""
    side = NETWORKS[name]
    recipe = replace(PLAIN, scale="linear")
    d = build_classifier(recipe, store).description
    d = replace(d, model=name, options={}, side=side, ground=10 * side, upsample="nearest")
    classifier = Classifier(d)
    plain = classifier.network.state_dict().keys()
    x = torch.randn(2, 4, side, side)
    before = with_running_statistics(classifier.network, x)(x)
    scale = float(before.detach().std(0).mean())
    add_adapters(classifier, 2, seed=1)
    network = classifier.network.eval()
    torch.testing.assert_close(network(x), before, rtol=0, atol=1e-4 * scale)  # adapters start at 0
    randomised(network)
    adapters = {key: p for key, p in network.named_parameters() if MARK in key}
    assert len(adapters) >= 4
    adapted = network(x)
    gradients = torch.autograd.grad(adapted.square().sum(), list(adapters.values()), allow_unused=True)
    assert [key for key, g in zip(adapters, gradients, strict=True) if g is None] == []
    assert float((adapted - before).abs().max()) > 0.05 * scale
    merge_adapters(network)
    assert network.state_dict().keys() == plain
    torch.testing.assert_close(network(x), adapted, rtol=0, atol=1e-3 * scale)


def test_only_adapters_and_head_change_and_weights_are_those_of_the_plain_network(
    store, encoder, tmp_path, monkeypatch
):
    merged = []

    def recorded(network):
        state = {k: v.clone() for k, v in network.state_dict().items()}
        merged.append(state)
        merge_adapters(network)

    monkeypatch.setattr(results_module, "merge_adapters", recorded)
    learn(replace(PLAIN, init=str(encoder), lora=2, weight_decay=0.5), store, tmp_path / "run")
    before, after = (load_file(folder / "model.safetensors") for folder in (encoder, tmp_path / "run" / "weights"))
    assert before.keys() == after.keys()
    adapted = merged[0]
    for name, value in before.items():
        module, _, kind = name.rpartition(".")
        kept = adapted.get(f"{module}.base_layer.{kind}", adapted.get(name))
        assert torch.equal(kept, value) == (not name.startswith("head.")), name  # no update, no decay, no statistics
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    layers = {name.rpartition(MARK)[0] + ".weight" for name in adapted if "lora_A" in name}
    assert changed == layers | {"head.fc.weight", "head.fc.bias"}
    assert "stem.0.weight" in layers
    assert load_model(tmp_path / "run").description.classes


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "ema": 0.0, "layer_decay": 0.7}])
def test_a_training_with_adapters_that_is_stopped_ends_with_the_same_weights(
    changes, store, encoder, tmp_path, monkeypatch
):
    recipe = replace(TINY, init=str(encoder), lora=2, **changes)
    learn(recipe, store, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        interrupted_learning(patch, lambda step: step % 4 == 1)
        while not (tmp_path / "run" / "scores.json").exists():
            try:
                learn(recipe, store, tmp_path / "run")
            except Stopped:
                (tmp_path / "stopped").touch()
    assert (tmp_path / "stopped").exists()
    assert outcome(tmp_path / "run") == outcome(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lora=4"], "--lora 4: needs --init"),
        (["--init=w", "--lora=4", "--freeze=1"], "--lora with --freeze: adapters"),
    ],
)
def test_keys_that_contradict_adapters_are_refused(words, message):
    with pytest.raises(LandscaleError, match=message):
        load_recipe(None, words)


def test_without_peft_one_line_says_how_to_install_it(store, encoder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "peft", None)
    words = [f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(PLAIN), f"--init={encoder}", "--lora=4"]
    assert main(["train", *words]) == 2
    assert capsys.readouterr().err == "landscale: --lora needs peft: pip install 'landscale[lora]'\n"
    assert not (tmp_path / "run").exists()


def test_a_network_without_a_fitting_layer_is_refused(store):
    classifier = build_classifier(PLAIN, store)
    classifier.network = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    classifier.network.pretrained_cfg = {"classifier": "1"}
    classifier.network(torch.zeros(1, classifier.inputs.channels, 12, 12))
    with pytest.raises(LandscaleError, match="has no dense layer or ungrouped convolution before its head"):
        add_adapters(classifier, 4, 0)
