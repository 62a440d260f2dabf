"""The K-branch CNN: each branch gets the store's native pixels of its resolution; timm's interface."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from landscale.cli import main
from landscale.errors import LandscaleError
from landscale.loading import batches
from landscale.models import create_model, describe_model
from landscale.models.classifier import Classifier, Description
from landscale.models.input_stage import turn
from landscale.models.k_branch import default_gsd
from landscale.models.weights import load_model
from landscale.store import open_store
from landscale.testing import make_store, sentinel_planes
from landscale.training.build import build_classifier
from landscale.training.recipe import Recipe
from landscale.vocabulary.bands import BAND_SETS, band, band_set
from weights_folders import entries

pytestmark = pytest.mark.usefixtures("seeded")

CPU = torch.device("cpu")


def small_network(bands=10, classes=5, side=24, **options):
    return create_model("k_branch", bands, classes, side, **options)


def description_for(bands, side, **changes):
    names = band_set(bands).names
    statistics = {name: (1000.0 + 7 * k, 300.0 + k) for k, name in enumerate(names)}
    statistics |= {f"log {name}": (7.0, 0.5) for name in names}
    content = {"options": {}, "upsample": "nearest", "side": side, "ground": 10 * side} | changes
    return Description("k_branch", names, ("a", "b"), "custom", True, statistics, **content)


def inputs_of_branches(classifier, planes):
    """The input of the first convolution of each branch, by the name of the branch."""
    found = {}
    for name, branch in classifier.network.branches.items():
        branch.convolutions.register_forward_pre_hook(lambda _, inputs, name=name: found.update({name: inputs[0]}))
    with torch.no_grad():
        classifier.eval()(planes)
    return found


# ---- native resolution


@pytest.mark.parametrize("side", [120, 60, 24])
@pytest.mark.parametrize("bands", ["s2-12", "s2-10", "B11,B02,B09,B8A,B08,B01", "B05,B06"])
def test_each_branch_gets_the_normalised_native_pixels_bit_for_bit(side, bands):
    d = description_for(bands, side)
    classifier = Classifier(d)
    rng = np.random.default_rng(0)
    planes = {
        plane.bands: torch.from_numpy(rng.integers(0, 65535, (2, *plane.shape), dtype=np.uint16))
        for plane in sentinel_planes(side)
    }
    found = inputs_of_branches(classifier, planes)
    expected = {}
    for gsd in sorted({band(name).gsd for name in d.bands}):
        channels = []
        for name in [name for name in d.bands if band(name).gsd == gsd]:
            ((names, plane),) = [(n, p) for n, p in planes.items() if name in n]
            mean, std = (torch.tensor(v, dtype=torch.float32) for v in d.statistics[name])
            channels.append((plane[:, names.index(name)].float() - mean) / std)
        expected[f"{gsd}m"] = torch.stack(channels, 1)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].shape[-1] == side * 10 // int(name[:-1])
        assert torch.equal(found[name], values), name


@pytest.mark.parametrize("k", range(8))
def test_turning_the_input_turns_the_native_pixels_of_every_branch(k):
    network = small_network(12)
    planes = {gsd: torch.randn(1, len(b.channels), 24 // b.ratio, 24 // b.ratio) for gsd, b in network.branches.items()}
    x = torch.empty(1, 12, 24, 24)
    for gsd, b in network.branches.items():
        x[:, b.channels] = planes[gsd].repeat_interleave(b.ratio, 2).repeat_interleave(b.ratio, 3)
    for gsd, b in network.branches.items():
        assert torch.equal(b.native(turn(x, k)), turn(planes[gsd], k))


def test_linear_and_logarithmic_channels_of_a_band_go_to_the_same_branch():
    network = Classifier(description_for("s2-12", 24, scale="both")).network
    assert network.branches["60m"].channels.tolist() == [0, 9, 12, 21]  # B01 and B09: linear, then logarithmic
    assert sorted(c for b in network.branches.values() for c in b.channels.tolist()) == list(range(24))


def test_the_default_resolutions_are_those_of_the_band_sets():
    assert default_gsd(10) == tuple(b.gsd for b in BAND_SETS["s2-10"].bands)
    assert default_gsd(12) == (60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 20, 20)
    assert default_gsd(3) == (10, 10, 10)
    assert list(small_network(10).branches) == ["10m", "20m"]
    assert list(small_network(4).branches) == ["10m"]


# ---- the network


def test_the_layers_have_the_published_sizes():
    network = create_model("k_branch", 12, 43)
    shapes = [tuple(m.weight.shape) for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [
        *((32, 4, 5, 5), (32, 32, 5, 5), (64, 32, 3, 3)),
        *((32, 6, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)),
        *((32, 2, 2, 2), (32, 32, 2, 2), (32, 32, 2, 2)),
    ]
    dense = [tuple(m.weight.shape) for m in network.modules() if isinstance(m, nn.Linear)]
    assert dense == [(128, 30 * 30 * 64), (128, 30 * 30 * 64), (128, 20 * 20 * 32), (128, 384), (43, 128)]
    norms = sum(m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d))
    assert norms == 2 * (32 + 32 + 64) + 3 * 32 + 4 * 128
    count = sum(p.numel() for p in network.parameters())
    assert count == sum(map(np.prod, shapes)) + sum(map(np.prod, dense)) + 2 * norms + 43
    assert describe_model("k_branch", 12, 43)["parameters"] == count
    rates = [m.p for m in network.modules() if isinstance(m, nn.Dropout)]
    assert sorted(rates) == [0.25] * 10 + [0.5] * 4


@given(
    gsd=st.lists(st.sampled_from([10, 20, 60]), min_size=1, max_size=14),
    blocks=st.integers(1, 3),
    classes=st.integers(1, 43),
)
@settings(max_examples=20, deadline=None)
def test_shapes_are_right_for_any_bands_classes_and_side(gsd, blocks, classes):
    side = 12 * blocks
    network = small_network(len(gsd), classes, side, gsd=gsd).eval()
    with torch.no_grad():
        features = network.forward_features(torch.zeros(2, len(gsd), side, side))
        assert features.shape == (2, network.num_features)
        assert network.num_features == 128 * len(set(gsd))
        pooled = network.forward_head(features, pre_logits=True)
        assert pooled.shape == (2, network.head_hidden_size)
        logits = network.forward_head(features)
        assert logits.shape == (2, classes)
        torch.testing.assert_close(network.get_classifier()(pooled), logits)


def test_reset_classifier_replaces_and_removes_the_classifier():
    network, x = small_network().eval(), torch.randn(2, 10, 24, 24)
    pooled = network.forward_head(network.forward_features(x), pre_logits=True)
    network.reset_classifier(7)
    assert (network.num_classes, network(x).shape, network.get_classifier().out_features) == (7, (2, 7), 7)
    network.reset_classifier(0)
    torch.testing.assert_close(network(x), pooled)
    assert small_network(classes=0).eval()(x).shape == (2, 128)
    with pytest.raises(LandscaleError, match="pooling"):
        network.reset_classifier(3, "avg")


def test_every_parameter_gets_a_gradient():
    network = small_network(12).train()
    network(torch.randn(8, 12, 24, 24)).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_outputs_in_eval_mode_do_not_depend_on_batch_or_memory_format():
    network, x = small_network(12).eval(), torch.randn(3, 12, 24, 24)
    with torch.no_grad():
        alone = network(x[1:2])
        torch.testing.assert_close(network(x)[1:2], alone, rtol=1e-4, atol=1e-5)
        last = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last[1:2], alone, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(network(x)[1:2].float(), alone, rtol=0.1, atol=0.1)


def test_weights_saved_as_safetensors_give_the_same_outputs(tmp_path: Path):
    network, copy = small_network(12), small_network(12)
    network.train()(torch.randn(4, 12, 24, 24))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    copy.load_state_dict(load_file(tmp_path / "model.safetensors"))
    x = torch.randn(1, 12, 24, 24)
    assert torch.equal(network.eval()(x), copy.eval()(x))


def test_the_network_compiles_as_one_graph_and_exports():
    network, x = small_network(12).eval(), torch.randn(2, 12, 24, 24)
    expected = network(x)
    explanation = torch._dynamo.explain(network)(x)
    assert explanation.graph_break_count == 0
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), expected)


def test_the_seed_determines_the_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return small_network().state_dict()

    assert all(torch.equal(a, b) for a, b in zip(weights(1).values(), weights(1).values(), strict=True))
    assert not torch.equal(weights(1)["fc.weight"], weights(2)["fc.weight"])


def test_creating_and_running_the_network_gives_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small_network(12)(torch.randn(2, 12, 24, 24))
        assert timm.create_model("k_branch").pretrained_cfg["input_size"] == (10, 120, 120)


@pytest.mark.parametrize(
    "bands,side,options,problem",
    [
        (12, 60, {"gsd": [10] * 11}, "gsd"),
        (3, 60, {"gsd": [10, 20, 30]}, "gsd"),
        (12, 64, {}, "multiple of 12"),
        (12, 0, {"img_size": 0}, "img_size: found 0"),
        (3, 62, {}, "multiple of 4"),
    ],
)
def test_impossible_sides_and_resolutions_are_refused(bands, side, options, problem):
    with pytest.raises(LandscaleError, match=problem):
        create_model("k_branch", bands, 5, side, **options)


# ---- training


def test_a_recipe_gets_nearest_upsampling_and_refuses_options_that_change_pixels(tmp_path):
    store = make_store(tmp_path / "s.h5", planes=sentinel_planes(24), splits={"train": 4})
    d = build_classifier(Recipe(model="k_branch", bands="s2-12"), store).description
    assert (d.upsample, d.side) == ("nearest", 24)
    for changes, problem in (
        ({"upsample": "bicubic"}, "--upsample .*found bicubic, expected nearest"),
        ({"side": 12}, "--side .*found 12, expected the store's 24"),
        ({"progressive": [[0.5, 12]]}, "--progressive"),
        ({"head": "query"}, "--head query with model 'k_branch'"),
    ):
        with pytest.raises(LandscaleError, match=problem):
            build_classifier(Recipe(model="k_branch", bands="s2-12", **changes), store)
    assert build_classifier(Recipe(model="wide_resnet"), store).description.upsample == "bilinear"


def test_the_train_command_learns_and_its_weights_evaluate_to_the_same_counts(tmp_path, capsys):
    make_store(tmp_path / "s.h5", planes=sentinel_planes(24), splits={"train": 96, "val": 32}, signal=4.0)
    args = ["train", f"--store={tmp_path / 's.h5'}", f"--run={tmp_path / 'run'}", "--json", "--model=k_branch"]
    args += ["--bands=s2-12", "--epochs=8", "--batch=12", "--rate=2e-3", "--views=2", "--precision=fp32"]
    assert main(args) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert scores["micro_ap"] > 0.9
    table = np.genfromtxt(tmp_path / "run" / "metrics.csv", delimiter=",", names=True)
    assert table["loss"][-1] < 0.7 * table["loss"][0]
    config = entries(tmp_path / "run" / "weights")
    assert config["upsample"] == "nearest"
    first, second = load_model(tmp_path / "run"), load_model(tmp_path / "run" / "weights")
    store = open_store(tmp_path / "s.h5")
    (batch,) = batches(store, first.description.bands, store.classes, [np.arange(6)], CPU)
    assert torch.equal(first.probabilities(batch.planes), second.probabilities(batch.planes))
    assert main(["evaluate", str(tmp_path / "run"), str(tmp_path / "s.h5"), "--split=val", "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["counts"] == scores["counts"]

    args = [arg for arg in args if "--run" not in arg]
    assert main([*args, "--upsample=stored", f"--run={tmp_path / 'refused'}"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
