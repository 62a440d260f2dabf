"""One contract for every network of the zoo.

Shapes are tested for every network, on torch's meta device. The rest is tested with real numbers on a small input: for one
network of each kind of layer always, for the others, which are deeper or wider or combine the same layers, in slow tests.
A requirement that a network cannot meet is listed in `EXCEPTIONS`; its test must then fail (strict xfail).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from landscale.models import ZOO, create_model, list_models
from landscale.models.registry import fixed_side

pytestmark = pytest.mark.usefixtures("seeded")

NAMES = list_models()
OWN_NETWORKS = (
    *("wide_resnet_se", "wide_resnet_cbam", "wide_resnet_coord_ghost", "wide_resnet_eca", "lambda_resnet"),
    *("efficientnet60_eca_ghost", "vgg16_gap", "vit_20", "mlp_mixer_tiny", "k_branch", "trio"),
)
QUICK = (
    *OWN_NETWORKS,
    *("resnet18", "densenet121", "efficientnet_b0", "convnextv2_atto", "tf_efficientnetv2_b0", "rdnet_tiny"),
    *("swinv2_tiny_window8_256", "maxvit_tiny_tf_224", "mobilevit_s", "mobilevitv2_100", "mobilenetv4_conv_small"),
    *("vit_small_patch8_224", "vit_small_patch14_reg4_dinov2"),
)
# The other networks of QUICK are timm's, and take seconds; that each of their parameters gets a gradient is tested quickly.
LEARNING = (*OWN_NETWORKS, "resnet18", "convnextv2_atto", "mobilenetv4_conv_small", "vit_small_patch8_224")
EXPORTED = ("wide_resnet_coord_ghost", "vit_20", "k_branch")  # of each kind of own network one

NO_MAPS = "the features are vectors, not maps"
EXCEPTIONS: dict[str, dict[str, str]] = {
    "maps": {"k_branch": NO_MAPS, "trio": NO_MAPS},
    "classifier": {"trio": "each member has a part of the classifier, and the members' probabilities are averaged"},
}

# px: the smallest input that no layer reduces to nothing; four tokens for networks of tokens
SIDES = {
    **{"vit_6": 12, "vit_12": 24, "vit_20": 40, "vit_m20": 40, "vit_30": 60, "vit_40": 80, "k_branch": 24},
    **{"mlp_mixer": 24, "mlp_mixer_tiny": 24, "vit_small_patch8_224": 16, "vit_base_patch8_224": 16},
    **{"vit_small_patch14_reg4_dinov2": 28, "swinv2_tiny_window8_256": 64, "swinv2_small_window8_256": 64},
    **{"maxvit_tiny_tf_224": 64, "mobilevit_s": 128, "mobilevitv2_100": 128},
}
# Families that are tested on 64 px: on 32 px, depth magnifies rounding errors.
LARGER = ("efficientnet", "efficientnetv2", "efficientnet60", "mobilenetv4")
SHAPES = ((1, 19), (3, 43), (10, 19), (12, 1), (13, 43))  # bands and classes


def networks(
    requirement: str, quick: Collection[str] = QUICK, names: Sequence[str] = NAMES, argument: str = "name"
) -> pytest.MarkDecorator:
    """Parametrise a test over the networks; those outside `quick` are slow, those in `EXCEPTIONS[requirement]` must fail."""
    rows = []
    for name in names:
        marks = [] if name in quick else [pytest.mark.slow]
        if reason := EXCEPTIONS.get(requirement, {}).get(name):
            marks.append(pytest.mark.xfail(reason=reason, strict=True))
        rows.append(pytest.param(name, marks=marks, id=name))
    return pytest.mark.parametrize(argument, rows, indirect=argument == "case")


def smallest_side(name: str) -> int:
    return SIDES.get(name, 64 if ZOO[name].family in LARGER else 32)


def patches(n: int, bands: int, side: int, seed: int = 0) -> Tensor:
    """Random patches: noise around a spectrum that differs from patch to patch."""
    generator = torch.Generator().manual_seed(seed)
    spectra = torch.randn(n, bands, 1, 1, generator=generator)
    return spectra + torch.randn(n, bands, side, side, generator=generator)


def with_nonzero_weights(model: nn.Module) -> nn.Module:
    """Replace weights that start at 0 (last norm of a block, layer scales, some classifiers): they stop the first gradient."""
    for name, p in model.named_parameters():
        if name.endswith(("weight", "gamma")) and p.abs().max() < 1e-3:
            if p.ndim == 1:
                nn.init.constant_(p, 0.25)  # with 1, fifty blocks would magnify rounding errors to a thousandth
            else:
                nn.init.normal_(p, std=p.shape[-1] ** -0.5)
    return model


def with_running_statistics(model: nn.Module, x: Tensor) -> nn.Module:
    """Set running statistics from `x`, then eval mode: with initial statistics outputs are near 1e-10, and any are close."""
    norms = [norm for norm in model.modules() if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            model.train()(x)
    return model.eval()


def deviation(found: Tensor, expected: Tensor) -> float:
    """The largest difference divided by the standard deviation between patches; NaN if all patches have the same output."""
    return float((found.float() - expected).abs().max() / expected.std(0).mean())


def meta_network(name: str, bands: int, classes: int, side: int, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, bands, classes, side, **options).eval()


def meta_input(n: int, bands: int, height: int, width: int | None = None) -> Tensor:
    return torch.empty(n, bands, height, width or height, device="meta")


# ---- shapes, on the meta device


def shape_cases() -> list[Any]:
    """Every network with every number of bands and classes; one combination for each network of QUICK is quick."""
    return [
        pytest.param(name, *shape, marks=[] if name in QUICK and i % len(SHAPES) == k else [pytest.mark.slow])
        for i, name in enumerate(NAMES)
        for k, shape in enumerate(SHAPES)
    ]


@pytest.mark.parametrize("name,bands,classes", shape_cases())
def test_heads_have_the_declared_shapes_and_can_be_replaced(name: str, bands: int, classes: int) -> None:
    side = ZOO[name].side
    model = meta_network(name, bands, classes, side, drop_rate=0.375)
    assert 0.375 in {getattr(model, "drop_rate", 0), *(m.p for m in model.modules() if isinstance(m, nn.Dropout))}
    features = model.forward_features(meta_input(2, bands, side))
    assert features.shape[0] == 2
    assert model.num_features in features.shape[1:]
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size)
    assert model.forward_head(features).shape == (2, classes)
    assert model.num_classes == classes
    assert model.get_classifier().in_features == model.head_hidden_size
    for n in (7, 0, 5):
        model.reset_classifier(n)
        assert model.num_classes == n
        assert model.forward_head(features).shape == (2, n or model.head_hidden_size)
        if n:
            assert model.get_classifier().out_features == n
    without = meta_network(name, bands, 0, side)
    assert (without.num_classes, without(meta_input(2, bands, side)).shape) == (0, (2, model.head_hidden_size))


@networks("maps")
def test_feature_maps_have_the_channels_and_reductions_of_feature_info(name: str) -> None:
    side = ZOO[name].side
    with torch.device("meta"):
        size_option = {"img_size": side} if fixed_side(name) else {}
        backbone = timm.create_model(name, in_chans=4, features_only=True, **size_option).eval()
    infos = backbone.feature_info.get_dicts()
    maps = backbone(meta_input(1, 4, side))
    assert len(maps) == len(infos) > 1
    for info, found in zip(infos, maps, strict=True):
        channels, smallest = info["num_chs"], int(side / info["reduction"])
        assert found.shape[1:] in {  # Swin's maps are channels-last
            shape for s in (smallest, smallest + 1) for shape in ((channels, s, s), (s, s, channels))
        }


@networks("sides", names=[name for name in NAMES if not fixed_side(name)])
def test_networks_without_a_fixed_side_accept_any_height_and_width(name: str) -> None:
    model = meta_network(name, 10, 19, ZOO[name].side)
    for height, width in ((32, 32), (33, 47), (61, 120), (120, 97), (119, 35)):
        assert model(meta_input(1, 10, height, width)).shape == (1, 19)


@networks("sides", names=[name for name in NAMES if fixed_side(name)])
def test_networks_with_a_fixed_side_can_be_built_for_several_sides(name: str) -> None:
    for side in (smallest_side(name), 2 * smallest_side(name), ZOO[name].side, ZOO[name].side + smallest_side(name)):
        assert meta_network(name, 10, 19, side)(meta_input(1, 10, side)).shape == (1, 19)


# ---- outputs


@dataclass(frozen=True)
class Case:
    """A network with an input and its output, shared by several tests."""

    name: str
    network: nn.Module  # in eval mode; tests must not change it
    x: Tensor
    expected: Tensor


@pytest.fixture(scope="module")  # groups the tests of one network
def case(request: pytest.FixtureRequest) -> Case:
    name = request.param
    side = smallest_side(name)
    torch.manual_seed(0)
    x = patches(8, 10, side)
    network = with_running_statistics(with_nonzero_weights(create_model(name, 10, 19, side)), x)
    x = x[:4]
    with torch.no_grad():
        expected = network(x)
    assert expected.isfinite().all()
    assert expected.std(0).mean() > 1e-3
    return Case(name, network, x, expected)


def cases(requirement: str, quick: Collection[str] = QUICK) -> pytest.MarkDecorator:
    return networks(requirement, quick, argument="case")


@cases("parts")
@torch.no_grad()
def test_forward_head_after_forward_features_equals_forward(case: Case) -> None:
    features = case.network.forward_features(case.x)
    assert torch.equal(case.network.forward_head(features), case.expected)
    pooled = case.network.forward_head(features, pre_logits=True)
    without = deepcopy(case.network)
    without.reset_classifier(0)
    assert torch.equal(without(case.x), pooled)


@cases("classifier")
@torch.no_grad()
def test_get_classifier_returns_the_last_layer(case: Case) -> None:
    pooled = case.network.forward_head(case.network.forward_features(case.x), pre_logits=True)
    assert deviation(case.network.get_classifier()(pooled), case.expected) < 1e-3


@cases("batch")
@torch.no_grad()
def test_outputs_in_eval_mode_do_not_depend_on_the_batch(case: Case) -> None:
    found = torch.cat([case.network(case.x[:1]), case.network(case.x[1:])])
    assert deviation(found, case.expected) < 1e-3


@cases("channels_last")
@torch.no_grad()
def test_channels_last_inputs_give_the_same_outputs(case: Case) -> None:
    last = deepcopy(case.network).to(memory_format=torch.channels_last)
    found = last(case.x.contiguous(memory_format=torch.channels_last))
    assert deviation(found, case.expected) < 1e-3


@cases("bfloat16")
@torch.no_grad()
def test_outputs_under_bfloat16_autocast_are_close(case: Case) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = case.network(case.x).float()
    assert found.isfinite().all()
    assert not torch.equal(found, case.expected)
    if case.name in QUICK:  # with random weights, deeper networks magnify rounding errors
        difference = (found - case.expected).square().mean().sqrt()
        assert difference < 0.3 * case.expected.std(0).mean()


@cases(
    "compile",
    ("wide_resnet_eca", "lambda_resnet", "efficientnet60_eca_ghost", "vit_20", "k_branch", "trio", "convnextv2_atto"),
)
@torch.no_grad()
def test_networks_compile_without_graph_breaks_in_eval_mode(case: Case) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(case.network, fullgraph=True, backend="eager")
    assert deviation(compiled(case.x), case.expected) < 1e-3


@networks("compile in training", ())
def test_networks_compile_without_graph_breaks_in_training_mode(name: str) -> None:
    torch._dynamo.reset()
    side = smallest_side(name)
    compiled = torch.compile(create_model(name, 10, 19, side).train(), fullgraph=True, backend="eager")
    compiled(patches(4, 10, side)).sum().backward()


@cases("onnx", EXPORTED)
def test_exported_onnx_models_give_the_same_outputs(case: Case, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        batch = {0: torch.export.Dim("batch", min=1, max=64)}
        program = torch.onnx.export(
            case.network, (case.x[:2],), dynamo=True, dynamic_shapes=(batch,), input_names=["x"], verbose=False
        )
    program.save(tmp_path / "network.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", options)
    for part in (slice(0, 1), slice(0, 4)):
        (found,) = session.run(None, {"x": case.x[part].numpy()})
        assert float((torch.from_numpy(found) - case.expected[part]).abs().max() / case.expected.std(0).mean()) < 1e-3


@cases("safetensors")
def test_weights_saved_as_safetensors_give_the_same_outputs(case: Case, tmp_path: Path) -> None:
    save_file(case.network.state_dict(), tmp_path / "model.safetensors")
    copy = create_model(case.name, 10, 19, smallest_side(case.name)).eval()
    copy.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    with torch.no_grad():
        assert torch.equal(copy(case.x), case.expected)


@networks("seed", OWN_NETWORKS)
def test_the_seed_determines_weights_and_dropout(name: str) -> None:
    side = smallest_side(name)

    def network_and_output(seed: int) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(seed)
        model = create_model(name, 10, 19, side)
        with torch.no_grad():
            return model, with_nonzero_weights(deepcopy(model)).train()(patches(4, 10, side))

    (first, out), (same, same_out), (other, _) = network_and_output(1), network_and_output(1), network_and_output(2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert torch.equal(out, same_out)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@networks("gradient")
def test_every_parameter_gets_a_gradient(name: str) -> None:
    side = smallest_side(name)
    model = with_nonzero_weights(create_model(name, 10, 19, side)).train()
    logits = model(patches(4, 10, side))
    F.binary_cross_entropy_with_logits(logits, torch.rand_like(logits)).backward()
    without_gradient = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert without_gradient == set()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


# ---- training


def learning_cases() -> list[Any]:
    """Every network with the bands and classes of both papers; for each network of LEARNING, one of the two is quick."""
    tasks = [(10, 19), (12, 43)]
    quick = {(name, tasks[k % 2]) for k, name in enumerate(LEARNING)}
    rows = [(name, task) for name in NAMES for task in tasks]
    return [pytest.param(name, *task, marks=[] if (name, task) in quick else [pytest.mark.slow]) for name, task in rows]


@pytest.mark.parametrize("name,bands,classes", learning_cases())
def test_a_network_learns_one_batch(name: str, bands: int, classes: int) -> None:
    """Every class is in half of the patches, so a network that ignores its input has a loss of log 2 or more."""
    side = smallest_side(name)
    model = create_model(name, bands, classes, side, drop_rate=0.0).train()
    x = patches(4, bands, side)
    y = torch.stack([torch.randperm(4) % 2 for _ in range(classes)], 1).float()
    rate = {"vgg": 1e-4, "trio": 3e-3}.get(ZOO[name].family, 1e-3)  # VGG has no norms; trio: the rate of its recipe
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(9):
        logits = model(x)
        # All members of an ensemble learn the same targets.
        targets = y if logits.ndim == 2 else y[:, None].expand_as(logits)
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.9 * math.log(2)
