"""One contract over every network of the zoo.

Every row meets what torch's meta device can tell. One network of each kind of layer meets the rest with real numbers on a
small input; for the others, deeper or wider or joining the same layers, it is marked slow. What a network cannot do is in
`EXCEPTIONS` and has to fail: a network that has learned it leaves the table.
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
OURS = (
    *("wide_resnet_se", "wide_resnet_cbam", "wide_resnet_coord_ghost", "wide_resnet_eca", "lambda_resnet"),
    *("efficientnet60_eca_ghost", "vgg16_gap", "vit_20", "mlp_mixer_tiny", "k_branch", "trio"),
)
KINDS = (
    *OURS,
    *("resnet18", "densenet121", "efficientnet_b0", "convnextv2_atto", "tf_efficientnetv2_b0", "rdnet_tiny"),
    *("swinv2_tiny_window8_256", "maxvit_tiny_tf_224", "mobilevit_s", "mobilevitv2_100", "mobilenetv4_conv_small"),
    *("vit_small_patch8_224", "vit_small_patch14_reg4_dinov2"),
)
EXPORTED = ("wide_resnet_coord_ghost", "lambda_resnet", "vgg16_gap", "vit_20", "mlp_mixer_tiny", "k_branch", "trio")

NO_MAPS = "its features are vectors"
EXCEPTIONS: dict[str, dict[str, str]] = {
    "maps": {"k_branch": NO_MAPS, "trio": NO_MAPS},
    "classifier": {"trio": "its members have a part of the classifier each, and their probabilities are averaged"},
}

# px: the least input on which every layer has something to do; four tokens of those that have tokens
SIDES = {
    **{"vit_6": 12, "vit_12": 24, "vit_20": 40, "vit_m20": 40, "vit_30": 60, "vit_40": 80, "k_branch": 24},
    **{"mlp_mixer": 24, "mlp_mixer_tiny": 24, "vit_small_patch8_224": 16, "vit_base_patch8_224": 16},
    **{"vit_small_patch14_reg4_dinov2": 28, "swinv2_tiny_window8_256": 64, "swinv2_small_window8_256": 64},
    **{"maxvit_tiny_tf_224": 64, "mobilevit_s": 128, "mobilevitv2_100": 128},
}
LARGER = ("efficientnet", "efficientnetv2", "efficientnet60", "mobilenetv4")  # without one, all is magnified by depth
SHAPES = ((1, 19), (3, 43), (10, 19), (12, 1), (13, 43))  # bands and classes


def over(
    line: str, quick: Collection[str] = KINDS, names: Sequence[str] = NAMES, argument: str = "name"
) -> pytest.MarkDecorator:
    """The networks that a line of the contract is for; slow but for `quick`."""
    rows = []
    for name in names:
        marks = [] if name in quick else [pytest.mark.slow]
        if reason := EXCEPTIONS.get(line, {}).get(name):
            marks.append(pytest.mark.xfail(reason=reason, strict=True))
        rows.append(pytest.param(name, marks=marks, id=name))
    return pytest.mark.parametrize(argument, rows, indirect=argument == "case")


def least_side(name: str) -> int:
    return SIDES.get(name, 64 if ZOO[name].family in LARGER else 32)


def patches(n: int, bands: int, side: int, seed: int = 0) -> Tensor:
    """Noise around a spectrum of its own in every patch."""
    generator = torch.Generator().manual_seed(seed)
    spectra = torch.randn(n, bands, 1, 1, generator=generator)
    return spectra + torch.randn(n, bands, side, side, generator=generator)


def awake(model: nn.Module) -> nn.Module:
    """What starts at 0 (a block's last norm, layer scales, some classifiers) gets a value: it stops the first gradient."""
    for name, p in model.named_parameters():
        if name.endswith(("weight", "gamma")) and p.abs().max() < 1e-3:
            if p.ndim == 1:
                nn.init.constant_(p, 0.25)  # at 1, fifty blocks magnify the last bit of a sum to a thousandth
            else:
                nn.init.normal_(p, std=p.shape[-1] ** -0.5)
    return model


def settled(model: nn.Module, x: Tensor) -> nn.Module:
    """In eval mode, with running statistics of real maps: with fresh ones a deep network gives 1e-10, and all is close."""
    norms = [norm for norm in model.modules() if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            model.train()(x)
    return model.eval()


def deviation(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in units of how much outputs differ from patch to patch; NaN if they do not differ."""
    return float((found.float() - expected).abs().max() / expected.std(0).mean())


def meta(name: str, bands: int, classes: int, side: int, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, bands, classes, side, **options).eval()


def nothing(n: int, bands: int, height: int, width: int | None = None) -> Tensor:
    return torch.empty(n, bands, height, width or height, device="meta")


# ---- without numbers


def shapes() -> list[Any]:
    """Every network with every number of bands and classes; quick: each with one of them, in turn."""
    return [
        pytest.param(name, *shape, marks=[] if i % len(SHAPES) == k else [pytest.mark.slow])
        for i, name in enumerate(NAMES)
        for k, shape in enumerate(SHAPES)
    ]


@pytest.mark.parametrize("name,bands,classes", shapes())
def test_heads(name: str, bands: int, classes: int) -> None:
    side = ZOO[name].side
    model = meta(name, bands, classes, side, drop_rate=0.375)
    assert 0.375 in {getattr(model, "drop_rate", 0), *(m.p for m in model.modules() if isinstance(m, nn.Dropout))}
    features = model.forward_features(nothing(2, bands, side))
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
    without = meta(name, bands, 0, side)
    assert (without.num_classes, without(nothing(2, bands, side)).shape) == (0, (2, model.head_hidden_size))


@over("maps")
def test_maps_are_what_feature_info_tells(name: str) -> None:
    side = ZOO[name].side
    with torch.device("meta"):
        built_for = {"img_size": side} if fixed_side(name) else {}
        backbone = timm.create_model(name, in_chans=4, features_only=True, **built_for).eval()
    told = backbone.feature_info.get_dicts()
    maps = backbone(nothing(1, 4, side))
    assert len(maps) == len(told) > 1
    for info, found in zip(told, maps, strict=True):
        channels, least = info["num_chs"], int(side / info["reduction"])
        assert found.shape[1:] in {  # Swin's maps have their channels last
            shape for s in (least, least + 1) for shape in ((channels, s, s), (s, s, channels))
        }


@over("sides", names=[name for name in NAMES if not fixed_side(name)])
def test_any_side(name: str) -> None:
    model = meta(name, 10, 19, ZOO[name].side)
    for height, width in ((32, 32), (33, 47), (61, 120), (120, 97), (119, 35)):
        assert model(nothing(1, 10, height, width)).shape == (1, 19)


@over("sides", names=[name for name in NAMES if fixed_side(name)])
def test_any_side_it_is_built_for(name: str) -> None:
    for side in (least_side(name), 2 * least_side(name), ZOO[name].side, ZOO[name].side + least_side(name)):
        assert meta(name, 10, 19, side)(nothing(1, 10, side)).shape == (1, 19)


# ---- with numbers


@dataclass(frozen=True)
class Case:
    name: str
    network: nn.Module  # in eval mode; not to be changed
    x: Tensor
    expected: Tensor


@pytest.fixture(scope="module")  # so that the tests of one network follow each other
def case(request: pytest.FixtureRequest) -> Case:
    name = request.param
    side = least_side(name)
    torch.manual_seed(0)
    x = patches(8, 10, side)
    network = settled(awake(create_model(name, 10, 19, side)), x)
    x = x[:4]
    with torch.no_grad():
        expected = network(x)
    assert expected.isfinite().all()
    assert expected.std(0).mean() > 1e-3
    return Case(name, network, x, expected)


def numbers(line: str, quick: Collection[str] = KINDS) -> pytest.MarkDecorator:
    return over(line, quick, argument="case")


@numbers("parts")
@torch.no_grad()
def test_head_after_features_is_the_network(case: Case) -> None:
    features = case.network.forward_features(case.x)
    assert torch.equal(case.network.forward_head(features), case.expected)
    pooled = case.network.forward_head(features, pre_logits=True)
    without = deepcopy(case.network)
    without.reset_classifier(0)
    assert torch.equal(without(case.x), pooled)


@numbers("classifier")
@torch.no_grad()
def test_classifier_is_the_last_layer(case: Case) -> None:
    pooled = case.network.forward_head(case.network.forward_features(case.x), pre_logits=True)
    assert deviation(case.network.get_classifier()(pooled), case.expected) < 1e-3


@numbers("batch")
@torch.no_grad()
def test_eval_does_not_depend_on_the_batch(case: Case) -> None:
    found = torch.cat([case.network(case.x[:1]), case.network(case.x[1:])])
    assert deviation(found, case.expected) < 1e-3


@numbers("channels_last")
@torch.no_grad()
def test_channels_last_gives_the_same(case: Case) -> None:
    last = deepcopy(case.network).to(memory_format=torch.channels_last)
    found = last(case.x.contiguous(memory_format=torch.channels_last))
    assert deviation(found, case.expected) < 1e-3


@numbers("bfloat16")
@torch.no_grad()
def test_bfloat16_is_close(case: Case) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = case.network(case.x).float()
    assert found.isfinite().all()
    assert not torch.equal(found, case.expected)
    if case.name in KINDS:  # deeper ones magnify any rounding, as long as their weights are random
        difference = (found - case.expected).square().mean().sqrt()
        assert difference < 0.3 * case.expected.std(0).mean()


@numbers("compile", (*OURS, "convnextv2_atto", "swinv2_tiny_window8_256", "vit_small_patch8_224"))
@torch.no_grad()
def test_compiles_without_graph_breaks(case: Case) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(case.network, fullgraph=True, backend="eager")
    assert deviation(compiled(case.x), case.expected) < 1e-3


@over("compile in training", ())
def test_compiles_without_graph_breaks_in_training(name: str) -> None:
    torch._dynamo.reset()
    side = least_side(name)
    compiled = torch.compile(create_model(name, 10, 19, side).train(), fullgraph=True, backend="eager")
    compiled(patches(4, 10, side)).sum().backward()


@numbers("onnx", EXPORTED)
def test_onnx_gives_the_same(case: Case, tmp_path: Path) -> None:
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


@numbers("safetensors")
def test_safetensors_round_trip(case: Case, tmp_path: Path) -> None:
    save_file(case.network.state_dict(), tmp_path / "model.safetensors")
    copy = create_model(case.name, 10, 19, least_side(case.name)).eval()
    copy.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    with torch.no_grad():
        assert torch.equal(copy(case.x), case.expected)


@over("seed", OURS)
def test_a_seed_decides_weights_and_dropout(name: str) -> None:
    side = least_side(name)

    def drawn(seed: int) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(seed)
        model = create_model(name, 10, 19, side)
        with torch.no_grad():
            return model, awake(deepcopy(model)).train()(patches(4, 10, side))

    (first, out), (same, same_out), (other, _) = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert torch.equal(out, same_out)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@over("gradient")
def test_gradient_reaches_every_parameter(name: str) -> None:
    side = least_side(name)
    model = awake(create_model(name, 10, 19, side)).train()
    logits = model(patches(4, 10, side))
    F.binary_cross_entropy_with_logits(logits, torch.rand_like(logits)).backward()
    silent = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert silent == set()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


# ---- training


def learners() -> list[Any]:
    """Every network with the bands and classes of both papers; quick: with one of them, in turn."""
    tasks = [(10, 19), (12, 43)]
    quick = {(name, tasks[k % 2]) for k, name in enumerate(NAMES)}
    rows = [(name, task) for name in NAMES for task in tasks]
    return [pytest.param(name, *task, marks=[] if (name, task) in quick else [pytest.mark.slow]) for name, task in rows]


@pytest.mark.parametrize("name,bands,classes", learners())
def test_learns_a_batch(name: str, bands: int, classes: int) -> None:
    """Every class is in half of the patches, so whoever does not look at them stays at log 2."""
    side = least_side(name)
    model = create_model(name, bands, classes, side, drop_rate=0.0).train()
    x = patches(4, bands, side)
    y = torch.stack([torch.randperm(4) % 2 for _ in range(classes)], 1).float()
    rate = {"vgg": 1e-4, "trio": 3e-3}.get(ZOO[name].family, 1e-3)  # no norms; that of its recipe
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(9):
        logits = model(x)
        wanted = y if logits.ndim == 2 else y[:, None].expand_as(logits)  # members that learn side by side
        loss = F.binary_cross_entropy_with_logits(logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.9 * math.log(2)
