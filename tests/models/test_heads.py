"""Query heads: attention from class queries to the last feature map or tokens of any network, with timm's interface."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from timm.optim import create_optimizer_v2
from torch import nn

from landscale.cli import main
from landscale.errors import LandscaleError, UnknownName
from landscale.loading import batches
from landscale.models import create_model
from landscale.models.heads import HEADS, QueryHead, QueryNetwork, create_with_head
from landscale.models.weights import load_model
from landscale.store import open_store
from landscale.testing import make_store, rgbn_plane, sentinel_planes
from landscale.training.build import build_classifier
from landscale.training.recipe import Recipe, load_recipe
from weights_folders import entries, write_format_1

pytestmark = pytest.mark.usefixtures("seeded")

SMALL = {"width": 32, "heads": 4}
NETWORKS = {  # network: input side, options; the comments give the layout of its features
    "wide_resnet": (24, {}),  # (N, D, h, w)
    "convnext_atto": (32, {}),  # (N, D, h, w), with a norm between pooling and classifier
    "mobilenetv3_small_050": (32, {}),  # (N, D, h, w), with a convolution after pooling
    "swin_tiny_patch4_window7_224": (56, {"embed_dim": 24, "depths": (1, 1), "num_heads": (2, 2)}),  # (N, h, w, D)
    "vit_tiny_patch16_224": (32, {"depth": 2}),  # (N, T, D), the first is a class token
    "mixer_s32_224": (64, {}),  # (N, T, D), without a class token
}
QUERIES = [name for name in HEADS if name != "linear"]
every_network = pytest.mark.parametrize("model", NETWORKS)
every_head = pytest.mark.parametrize("head", QUERIES)


def network_and_input(model, head, classes=19, bands=10, **changes):
    side, options = NETWORKS[model]
    network = create_with_head(model, bands, classes, side, head, SMALL, **options | changes)
    return network, torch.randn(2, bands, side, side)


# ---- timm's interface


@every_network
@every_head
def test_networks_with_query_heads_have_timms_interface(model, head):
    network, x = network_and_input(model, head)
    network.eval()
    with torch.no_grad():
        features = network.forward_features(x)
        pooled = network.forward_head(features, pre_logits=True)
        assert features.shape[0] == 2
        assert network.num_features in (features.shape[1], features.shape[-1])
        assert pooled.shape == (2, network.num_features) == (2, network.head_hidden_size)
        logits = network.forward_head(features)
        assert logits.shape == (2, 19)
        torch.testing.assert_close(network(x), logits)
        torch.testing.assert_close(network(x[:1]), logits[:1], rtol=1e-4, atol=1e-5)
        last = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last, logits, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(network(x).float(), logits, rtol=0.1, atol=0.1)


@every_network
@every_head
def test_every_parameter_gets_a_gradient(model, head):
    network, x = network_and_input(model, head)
    network.train()
    for norm in network.modules():  # timm starts some layers at 0, which stops the first gradient
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)
    network(x.repeat(2, 1, 1, 1)).square().sum().backward()
    without_gradient = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without_gradient == []


@pytest.mark.parametrize(
    "model,layer", [("convnext_atto", "head.norm"), ("mobilenetv3_small_050", "conv_head"), ("wide_resnet", "head.fc")]
)
def test_layers_that_only_the_networks_own_classifier_uses_are_removed(model, layer):
    side, options = NETWORKS[model]
    assert any(name.startswith(layer) for name in create_model(model, 10, 19, side, **options).state_dict())
    network, _ = network_and_input(model, "query")
    assert not any(name.startswith(f"trunk.{layer}") for name in network.state_dict())


@every_head
def test_the_trunk_has_the_weights_and_features_of_the_network(head):
    """The trunk's weights load into the plain network, which then gives the same features; only its head is missing."""
    network, x = network_and_input("convnext_atto", head)
    plain = create_model("convnext_atto", 10, 0).eval()
    missing, unexpected = plain.load_state_dict(network.trunk.state_dict(), strict=False)
    assert unexpected == []
    assert missing == ["head.norm.weight", "head.norm.bias"]
    torch.testing.assert_close(network.eval().forward_features(x), plain.forward_features(x))


@every_network
@every_head
def test_reset_classifier_replaces_and_removes_the_head(model, head):
    network, x = network_and_input(model, head, drop_rate=0.3)
    network.eval()
    assert network.drop_rate == 0.3
    assert network.head.decoded[1].p == 0.3
    pooled = network.forward_head(network.forward_features(x), pre_logits=True)
    network.reset_classifier(7)
    assert (network.num_classes, network(x).shape) == (7, (2, 7))
    assert network.get_classifier() is network.head
    network.reset_classifier(0)
    assert network.num_classes == 0
    torch.testing.assert_close(network(x), pooled)
    with pytest.raises(LandscaleError, match="pool"):
        network.reset_classifier(3, "max")


@every_head
def test_maps_and_tokens_with_the_same_values_give_the_same_logits(head):
    """NCHW, NHWC and tokens are three layouts of the same values."""

    class FixedLayout(nn.Module):
        num_features = 48

        def __init__(self, order):
            super().__init__()
            self.order = order
            self.convolution = nn.Conv2d(3, 48, 1)

        def forward_features(self, x):
            x = self.convolution(x)
            return {"nchw": x, "nhwc": x.permute(0, 2, 3, 1), "tokens": x.flatten(2).transpose(1, 2)}[self.order]

    first = QueryNetwork(FixedLayout("nchw"), 5, (3, 6), **HEADS[head]).eval()
    x = torch.randn(2, 3, 6, 6)
    for order in ("nhwc", "tokens"):
        other = QueryNetwork(FixedLayout(order), 5, (3, 6), **HEADS[head]).eval()
        other.load_state_dict(first.state_dict())
        assert other.num_features == 48
        torch.testing.assert_close(other(x), first(x))
        assert other.channels_last == (order == "nhwc")


@pytest.mark.parametrize("head", HEADS)
def test_the_seed_determines_the_weights(head):
    def weights(seed):
        torch.manual_seed(seed)
        return create_with_head("wide_resnet", 10, 5, 24, head).state_dict()

    first, same, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    if head == "linear":
        torch.manual_seed(1)
        assert all(torch.equal(first[k], v) for k, v in create_model("wide_resnet", 10, 5, 24).state_dict().items())


@every_head
def test_weights_saved_as_safetensors_give_the_same_outputs(head, tmp_path: Path):
    network, x = network_and_input("wide_resnet", head)
    network.train()(x)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    copy, _ = network_and_input("wide_resnet", head)
    copy.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(network.eval()(x), copy.eval()(x))


@every_head
@pytest.mark.parametrize("model", ["wide_resnet", "vit_tiny_patch16_224"])
def test_networks_with_query_heads_compile_as_one_graph_and_export(model, head):
    network, x = network_and_input(model, head)
    network.eval()
    with torch.no_grad():
        expected = network(x)
        assert torch._dynamo.explain(network)(x).graph_break_count == 0
        torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), expected, rtol=1e-4, atol=1e-5)
    assert torch._dynamo.explain(network.train())(x).graph_break_count == 0


def test_adding_a_head_changes_neither_weights_nor_the_random_state():
    state = torch.get_rng_state()
    trunk = create_model("wide_resnet", 10, 0)
    after = torch.get_rng_state()
    assert not torch.equal(state, after)
    before = {k: v.clone() for k, v in trunk.state_dict().items()}
    with torch.no_grad():
        network = QueryNetwork(trunk, 0, (10, 24))
    assert torch.equal(torch.get_rng_state(), after)
    assert all(torch.equal(v, before[k]) for k, v in network.trunk.state_dict().items())
    with torch.inference_mode():
        assert create_with_head("vit_tiny_patch16_224", 3, 4, 32, "query", SMALL)(torch.zeros(1, 3, 32, 32)).shape == (
            1,
            4,
        )


def test_queries_have_no_weight_decay():
    network, _ = network_and_input("vit_tiny_patch16_224", "query")
    groups = create_optimizer_v2(network, opt="adamw", lr=1e-3, weight_decay=0.05).param_groups
    not_decayed = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert id(network.head.queries) in not_decayed
    assert id(network.trunk.pos_embed) in not_decayed  # as in the network without the head
    assert id(network.head.weight) not in not_decayed


# ---- the heads


@given(
    classes=st.integers(1, 45),
    groups=st.integers(1, 50),
    tokens=st.integers(1, 9),
    among=st.booleans(),
    layers=st.integers(1, 2),
)
@settings(max_examples=25, deadline=None)
def test_queries_cover_all_classes_for_any_number_of_groups(classes, groups, tokens, among, layers):
    head = QueryHead(8, classes, groups=groups, among=among, layers=layers, width=16, heads=2)
    queries, width, classes_per_query = head.weight.shape
    assert (width, head.queries.shape) == (16, (queries, 16))
    assert queries <= min(groups, classes)
    assert queries * classes_per_query >= classes > (queries - 1) * classes_per_query  # no query without a class
    logits = head(torch.randn(2, tokens, 8))
    assert logits.shape == (2, classes)
    logits.sum().backward()
    assert head.queries.grad.abs().sum(1).gt(0).all()


def changed_logits(found, expected):
    """For each logit of a single patch, whether it differs by more than rounding."""
    return ((found - expected).abs() > 1e-5)[0].tolist()


def test_a_query_affects_only_the_logits_of_its_classes():
    """Seven classes in three groups of 3, 3 and 1."""
    head = QueryHead(8, 7, groups=3, width=16, heads=2).eval()
    tokens = torch.randn(1, 5, 8)
    before = head(tokens)
    with torch.no_grad():
        head.queries[1] += torch.randn(16)  # random: layer norms would remove a constant
    assert changed_logits(head(tokens), before) == [False] * 3 + [True] * 3 + [False]


def test_queries_attend_to_each_other_in_the_query_head_but_not_in_ml_decoder():
    tokens = torch.randn(1, 5, 8)
    for name, others_change in (("ml_decoder", False), ("query", True)):
        head = QueryHead(8, 4, width=16, heads=2, **HEADS[name]).eval()
        before = head(tokens)
        with torch.no_grad():
            head.queries[0] += torch.randn(16)
        changed = changed_logits(head(tokens), before)
        assert changed == [True, others_change, others_change, others_change], name


@every_head
def test_the_order_of_tokens_does_not_change_the_logits(head):
    module = QueryHead(8, 4, **HEADS[head]).eval()
    tokens = torch.randn(2, 12, 8)
    torch.testing.assert_close(module(tokens[:, torch.randperm(12)]), module(tokens))


def accuracy_after_training(module):
    """Train `module` on two classes, each visible at one of 36 positions; return its accuracy in the last steps."""
    optimizer = torch.optim.AdamW(module.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    accuracies = []
    for _ in range(150):
        tokens = torch.randn(64, 36, 8, generator=generator)
        targets = torch.randint(0, 2, (64, 2), generator=generator).float()
        for k in range(2):
            positions = torch.randint(0, 36, (64,), generator=generator)
            tokens[torch.arange(64), positions, k] += 8 * targets[:, k]
        logits = module(tokens)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(logits, targets).backward()
        optimizer.step()
        accuracies.append(((logits > 0) == (targets > 0)).float().mean().item())
    return np.mean(accuracies[-20:])


class MeanPoolingHead(nn.Linear):
    """Mean pooling over the positions, then a linear layer."""

    def forward(self, tokens):
        return super().forward(tokens.mean(1))


@every_head
def test_query_heads_detect_a_class_at_one_position_better_than_mean_pooling(head):
    assert accuracy_after_training(MeanPoolingHead(8, 2)) < 0.8
    assert accuracy_after_training(QueryHead(8, 2, **{**HEADS[head], **SMALL})) > 0.85


# ---- errors


@every_head
@pytest.mark.parametrize("model", ["trio", "k_branch"])
def test_a_network_without_feature_maps_is_refused(model, head):
    with pytest.raises(LandscaleError, match=rf"^--head {head} with model '{model}': .*map or tokens.*\(1, \d+\)$"):
        create_with_head(model, 12, 19, 24, head)


def test_unknown_heads_and_invalid_options_are_refused():
    with pytest.raises(UnknownName, match="did you mean query"):
        create_with_head("wide_resnet", 3, 4, 24, "queries")
    for head, options, problem in (
        ("linear", {"width": 8}, "head 'linear' takes no option 'width'"),
        ("query", {"groups": 8}, "head 'query' takes no option 'groups'"),
        ("ml_decoder", {"among": True}, "head 'ml_decoder' takes no option 'among'"),
        ("query", {"width": 30}, "width that heads divide"),
        ("ml_decoder", {"groups": 0}, "groups: found 0: Expected int >= 1"),
    ):
        with pytest.raises(LandscaleError, match=problem):
            create_with_head("wide_resnet", 3, 4, 24, head, options)


def test_changing_the_head_drops_the_options_of_the_old_head(tmp_path):
    (tmp_path / "r.yaml").write_text("head: ml_decoder\nhead_options: {groups: 3}\n")
    assert load_recipe(str(tmp_path / "r.yaml"), []).head_options == {"groups": 3}
    other = load_recipe(str(tmp_path / "r.yaml"), ["--head", "query"])
    assert (other.head, other.head_options) == ("query", {})
    assert load_recipe(None, ["--head=query", '--head-options={"layers": 1}']).head_options == {"layers": 1}


# ---- training


@every_head
def test_the_train_command_learns_with_each_head_and_saves_it(tmp_path, capsys, head):
    path, run = tmp_path / "s.h5", tmp_path / "run"
    store = make_store(path, planes=sentinel_planes(24), splits={"train": 96, "val": 32}, signal=4.0)
    options = {"width": 32, "heads": 4, "layers": 1} | ({"groups": 2} if head == "ml_decoder" else {})
    args = ["train", f"--store={path}", f"--run={run}", "--json", "--model=wide_resnet", '--options={"width": 0.5}']
    args += [f"--head={head}", f"--head-options={json.dumps(options)}", "--side=12", "--epochs=8", "--batch=12"]
    assert main([*args, "--rate=3e-3", "--ema=0.8", "--mixup=0.1", "--precision=fp32"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert scores["micro_ap"] > 0.9
    table = np.genfromtxt(run / "metrics.csv", delimiter=",", names=True)
    assert table["loss"][-1] < 0.7 * table["loss"][0]

    config = entries(run / "weights")
    assert (config["head"], config["head_options"]) == (head, options)
    first, second = load_model(run), load_model(run / "weights")
    assert isinstance(first.network, QueryNetwork)
    assert first.network.head.queries.shape == ((2 if head == "ml_decoder" else 4), 32)
    (batch,) = batches(store, first.description.bands, store.classes, [np.arange(6)], torch.device("cpu"))
    assert torch.equal(first.probabilities(batch.planes), second.probabilities(batch.planes))
    assert main(["evaluate", str(run), str(path), "--split=val", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == scores["counts"]


def test_weights_without_a_head_in_their_config_load_with_the_linear_head(tmp_path, capsys):
    path, run = tmp_path / "s.h5", tmp_path / "run"
    store = make_store(path, planes=rgbn_plane(12), splits={"train": 16})
    args = ["train", f"--store={path}", f"--run={run}", "--model=wide_resnet", "--bands=B02,B03", "--epochs=1"]
    assert main([*args, "--side=12", "--batch=8", "--precision=fp32"]) == 0
    (batch,) = batches(store, ("B02", "B03"), store.classes, [np.arange(4)], torch.device("cpu"))
    expected = load_model(run).probabilities(batch.planes)
    write_format_1(run / "weights")  # older weights
    config = run / "weights" / "config.json"
    content = json.loads(config.read_text())
    del content["head"], content["head_options"]
    config.write_text(json.dumps(content))
    assert torch.equal(load_model(run).probabilities(batch.planes), expected)
    assert load_model(run).description.head == "linear"


def test_an_invalid_head_gives_one_error_line_and_creates_no_run(tmp_path, capsys):
    path = tmp_path / "s.h5"
    make_store(path, planes=sentinel_planes(24), splits={"train": 8})
    for args in (["--model=trio", "--head=query"], ["--head=query", '--head-options={"depth": 2}'], ["--head=mean"]):
        assert main(["train", f"--store={path}", f"--run={tmp_path / 'run'}", *args]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert "head" in lines[0]
    assert not (tmp_path / "run").exists()
    store = open_store(path)
    assert build_classifier(Recipe(model="wide_resnet", head="query"), store).description.head == "query"
