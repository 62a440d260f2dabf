"""Wide ResNets with attention, Ghost convolutions or lambda layers: counts, shapes, and each layer against its paper."""

import re

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.ghostnet import GhostModule
from torch import Tensor, nn

from landscale.errors import LandscaleError, UnknownName
from landscale.models import ZOO, create_model, describe_model, list_models
from landscale.models.compound import WIDE_RESNET
from landscale.models.lambda_resnet import LambdaLayer, LambdaResNet
from landscale.models.layers import ATTENTION, CONVOLUTIONS, Eca, SpatialAttention, attention_layer, convolution_layer
from landscale.models.wide_resnet import WideBlock, WideResNet, blocks_per_stage

pytestmark = pytest.mark.usefixtures("seeded")

WIDE_RESNETS = [name for name in list_models() if name.startswith("wide_resnet") or name == "lambda_resnet"]
UNSCALED = [name for name in WIDE_RESNETS if not re.search(r"_b\d$", name)]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def random_patches(n: int, bands: int, side: int, seed: int = 0) -> Tensor:
    return torch.randn(n, bands, side, side, generator=torch.Generator().manual_seed(seed))


# ---- names, counts and scaling

COUNTS = {  # 10 bands, 19 classes
    "wide_resnet": 305_875,
    "wide_resnet_se": 308_801,
    "wide_resnet_cbam": 309_095,
    "wide_resnet_coord": 311_771,
    "wide_resnet_eca": 305_889,
    "wide_resnet_eca_b1": 372_357,
    "wide_resnet_eca_b2": 432_105,
    "wide_resnet_eca_b3": 589_053,
    "wide_resnet_eca_b4": 984_313,
    "wide_resnet_eca_b5": 3_301_067,
    "wide_resnet_eca_b6": 4_653_431,
    "wide_resnet_eca_b7": 6_606_647,
    "wide_resnet_ghost": 159_715,
    "wide_resnet_se_ghost": 162_641,
    "wide_resnet_cbam_ghost": 162_935,
    "wide_resnet_coord_ghost": 165_611,
    "wide_resnet_eca_ghost": 159_729,
    "lambda_resnet": 527_987,
}


@pytest.mark.parametrize("name,count", COUNTS.items())
def test_networks_have_the_exact_number_of_parameters(name, count):
    assert parameters(timm.create_model(name, in_chans=10, num_classes=19)) == count
    assert describe_model(name, bands=10, classes=19)["parameters"] == count


def test_counts_list_every_wide_resnet_of_the_zoo():
    assert set(WIDE_RESNETS) == set(COUNTS)


ATTENTION_BY_HAND = {  # parameters of the layer on c channels, from its paper
    "none": lambda c: 0,
    "se": lambda c: (c * (c // 16) + c // 16) + (c // 16 * c + c),
    "cbam": lambda c: (c * (c // 16) + c // 16) + (c // 16 * c + c) + 7 * 7 * 2,
    "coord": lambda c: (c * 8 + 8) + 2 * 8 + 2 * (8 * c + c),  # 8 inner channels, the minimum, because c / 32 < 8
    "eca": lambda c: {32: 3, 64: 3, 128: 5}[c] + 1,
}


def conv_by_hand(kind: str, inputs: int, outputs: int, kernel: int) -> int:
    if kind == "plain":
        return kernel**2 * inputs * outputs
    half = outputs // 2
    return (kernel**2 * inputs * half + 2 * half) + (9 * half + 2 * half)  # convolution, BN; depthwise, BN


@pytest.mark.parametrize("kind", ["plain", "ghost"])
@pytest.mark.parametrize("name", ["none", "se", "cbam", "coord", "eca"])
def test_parameter_counts_equal_those_computed_by_hand(name, kind):
    total = 9 * 10 * 16 + 2 * 16  # stem and its BN
    for inputs, outputs in ((16, 32), (32, 64), (64, 128)):
        total += conv_by_hand(kind, inputs, outputs, 3) + 2 * outputs + conv_by_hand(kind, outputs, outputs, 3)
        total += conv_by_hand(kind, inputs, outputs, 1) + ATTENTION_BY_HAND[name](outputs) + 2 * outputs
    total += 128 * 19 + 19
    full_name = "_".join(["wide_resnet", *([name] if name != "none" else []), *(["ghost"] if kind == "ghost" else [])])
    assert total == COUNTS[full_name]


def test_the_lambda_resnets_parameter_count_equals_that_computed_by_hand():
    total = 9 * 10 * 16 + 2 * 16
    for inputs, c in ((16, 32), (32, 64), (64, 128)):
        total += 9 * inputs * c + 2 * c + 9 * c * c + inputs * c  # the projecting block
        total += 2 * c + 9 * c * c + 2 * c  # the other block, up to its lambda layer
        total += c * (4 * 16 + 16 + c // 4) + 2 * 4 * 16 + 2 * (c // 4)  # queries, keys, values; their BN
        total += 9 * 9 * 16  # positions
        total += 2 * c  # the stage's BN
    total += 128 * 19 + 19
    assert total == COUNTS["lambda_resnet"]


def test_parameter_counts_equal_the_published_ones():
    published = {
        name: figures["parameters"]
        for name in WIDE_RESNETS
        for figures in ZOO[name].published.values()
        if "parameters" in figures
    }
    assert published.pop("wide_resnet_eca_ghost") == 156_033
    same = ("wide_resnet", "wide_resnet_se", "wide_resnet_eca", "wide_resnet_eca_b4")
    assert published == {name: COUNTS[name] for name in same}


def test_the_authors_ghost_count_lacks_exactly_the_cheap_operations():
    model = create_model("wide_resnet_eca_ghost", 10, 19)
    ghosts = {name: module for name, module in model.named_modules() if isinstance(module, GhostModule)}
    places = [f"stages.{i}.0.{place}" for i in range(3) for place in ("shortcut", "conv1", "conv2")]
    assert list(ghosts) == places
    cheap_parameters = [parameters(module.cheap_operation) for module in ghosts.values()]
    assert cheap_parameters == [11 * half for half in (16, 16, 16, 32, 32, 32, 64, 64, 64)]
    assert parameters(model) - sum(cheap_parameters) == 156_033


def test_blocks_per_stage_follow_the_depth_coefficient():
    assert [blocks_per_stage(s.depth) for s in WIDE_RESNET.values()] == [1, 1, 1, 1, 2, 2, 2]
    assert blocks_per_stage(1.0) == 1
    assert blocks_per_stage(2.2) == 3


# ---- the whole network


def test_feature_maps_follow_the_given_strides():
    strides = [2, 2, 2, 2]
    backbone = timm.create_model(
        "wide_resnet", in_chans=4, strides=strides, depth=12, features_only=True, out_indices=range(4)
    )
    assert [m.shape[2] for m in backbone(random_patches(1, 4, 64))] == [32, 16, 8, 4]


@pytest.mark.parametrize("name", WIDE_RESNETS)
def test_the_timm_config_states_input_size_first_convolution_and_classifier(name):
    side = ZOO[name].side
    assert timm.create_model(name).pretrained_cfg["input_size"] == (10, side, side)
    model = create_model(name, 12, 19)
    assert model.default_cfg["input_size"] == (12, side, side)
    assert model.default_cfg["num_classes"] == 19
    assert isinstance(model, WideResNet)
    assert dict(model.named_modules())[model.default_cfg["first_conv"]].in_channels == 12
    assert dict(model.named_modules())[model.default_cfg["classifier"]] is model.get_classifier()


@given(
    network=st.sampled_from(["wide_resnet", "lambda_resnet"]),
    n=st.integers(2, 3),
    width=st.sampled_from([0.25, 1.0, 1.3, 2.0]),
    strides=st.lists(st.sampled_from([1, 2]), min_size=1, max_size=4),
    conv=st.sampled_from(sorted(CONVOLUTIONS)),
    name=st.sampled_from(sorted(ATTENTION)),
    bands=st.integers(1, 13),
    classes=st.integers(1, 45),
    height=st.integers(8, 40),
    width_px=st.integers(8, 40),
)
@settings(max_examples=25, deadline=None)
def test_wide_resnets_of_any_options_have_the_expected_shapes(
    network, n, width, strides, conv, name, bands, classes, height, width_px
):
    n -= network == "wide_resnet"  # a lambda ResNet has two blocks a stage or more
    model = create_model(
        network,
        bands,
        classes,
        depth=2 * n * len(strides) + 4,
        width=width,
        strides=strides,
        conv=conv,
        attention=name,
        drop_path_rate=0.1,
        conv_drop_rate=0.1,
    ).eval()
    x = torch.zeros(2, bands, height, width_px)
    features = model.forward_features(x)
    for stride in strides:
        height, width_px = -(-height // stride), -(-width_px // stride)
    assert features.shape == (2, model.num_features, height, width_px)
    assert model(x).shape == (2, classes)
    assert all(info["num_chs"] % 4 == 0 for info in model.feature_info)


def test_every_corner_of_the_patch_affects_the_output():
    """The authors' 8×8 pooling uses the top left corner only; landscale pools the whole map."""
    model = create_model("wide_resnet", 10, 19).eval()
    for corner in ((0, 0), (0, 59), (59, 0), (59, 59)):
        x = random_patches(1, 10, 60).requires_grad_()
        model(x).sum().backward()
        assert x.grad[0, :, corner[0], corner[1]].abs().sum() > 0


def test_dropout_and_stochastic_depth_act_in_training_mode_only():
    for option in ("drop_rate", "conv_drop_rate", "drop_path_rate"):
        model = create_model("wide_resnet", 3, 5, depth=16, **{option: 0.5})
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = 0.0
        x = random_patches(4, 3, 16)
        with torch.no_grad():
            assert not torch.equal(model.train()(x), model(x)), option
            assert torch.equal(model.eval()(x), model(x)), option


def test_a_network_without_stages_is_refused():
    with pytest.raises(LandscaleError, match="strides"):
        create_model("wide_resnet", 10, 19, strides=[])


@pytest.mark.parametrize("depth", [4, 3, 11, 0, -2])
def test_a_depth_that_gives_no_whole_number_of_blocks_is_refused(depth):
    with pytest.raises(LandscaleError, match="depth"):
        create_model("wide_resnet", 10, 19, depth=depth)


# ---- attention


def test_eca_mixes_neighbouring_channels():
    layer = Eca(64)
    assert layer.conv.kernel_size == (3,)
    nn.init.ones_(layer.conv.weight)
    x = torch.ones(1, 64, 4, 4)
    changed_input = x.clone()
    changed_input[:, 20] += 1
    changed = (layer(changed_input) - layer(x)).abs().amax((0, 2, 3)).nonzero().flatten().tolist()
    assert changed == [19, 20, 21]  # the channel and its neighbours within the kernel


def test_eca_weights_equal_the_sigmoid_of_convolved_channel_means():
    layer = Eca(128)
    x = random_patches(2, 128, 6)
    scale = layer(x) / x
    torch.testing.assert_close(scale, scale[:, :, :1, :1].expand_as(x), rtol=1e-3, atol=1e-3)
    assert ((scale > 0) & (scale < 1)).all()
    kernel, bias = layer.conv.weight[0, 0], layer.conv.bias
    means = nn.functional.pad(x.mean((2, 3)), (2, 2))
    expected = torch.sigmoid(sum(kernel[i] * means[:, i : i + 128] for i in range(5)) + bias)
    torch.testing.assert_close(scale[:, :, 0, 0], expected, rtol=1e-3, atol=1e-3)


@given(channels=st.integers(1, 2048))
@settings(max_examples=30, deadline=None)
def test_eca_kernel_is_odd_and_keeps_the_shape(channels):
    layer = Eca(channels)
    assert layer.conv.kernel_size[0] % 2 == 1
    assert layer(torch.ones(1, channels, 2, 3)).shape == (1, channels, 2, 3)


class ZeroAttention(nn.Module):
    """An attention layer that multiplies every channel by 0."""

    def forward(self, x):
        return 0 * x


@pytest.mark.parametrize("first", [True, False])
def test_attention_acts_on_the_residual_before_the_sum(first):
    """With zero attention, the output is the shortcut; attention after the sum would give 0."""
    block = WideBlock(8, 8, 1, first=first, conv="plain", attention="none", drop_rate=0.0, drop_path_rate=0.0).eval()
    block.attention = ZeroAttention()
    x = random_patches(2, 8, 6)
    assert torch.equal(block(x), block.shortcut(x))
    assert block.shortcut(x).abs().min() > 0


@pytest.mark.parametrize("channels", [16, 64, 100])
def test_squeeze_and_excitation_equals_its_equation(channels):
    """Hu et al. 2018, eq. 3 and 4, at reduction 16, with SiLU instead of ReLU as in Papoutsis et al. 2022."""
    layer = attention_layer("se", channels)
    x = random_patches(3, channels, 5) - 1
    (w1, b1), (w2, b2) = ((fc.weight.flatten(1), fc.bias) for fc in (layer.fc1, layer.fc2))
    inner = F.linear(x.mean((2, 3)), w1, b1)
    expected = x * torch.sigmoid(F.linear(inner * torch.sigmoid(inner), w2, b2))[:, :, None, None]
    torch.testing.assert_close(layer(x), expected)
    assert w1.shape == (channels // 16, channels)


@pytest.mark.parametrize(
    "name, activations",
    [
        ("wide_resnet", {nn.ReLU}),
        ("wide_resnet_se", {nn.ReLU, nn.SiLU}),  # SiLU inside the attention only
        ("wide_resnet_cbam", {nn.ReLU}),
        ("wide_resnet_coord", {nn.ReLU, nn.Hardswish}),
        ("efficientnet60", {nn.SiLU}),
        ("efficientnet60_se", {nn.SiLU}),
    ],
)
def test_networks_have_the_activations_of_their_papers(name, activations):
    network = create_model(name, 4, 5)
    known = (nn.ReLU, nn.SiLU, nn.Hardswish, nn.GELU, nn.Hardtanh)
    found = {next(k for k in known if isinstance(m, k)) for m in network.modules() if isinstance(m, known)}
    assert found == activations
    if name.startswith("wide_resnet"):
        outside = [m for n, m in network.named_modules() if isinstance(m, known) and ".attention." not in n]
        assert all(isinstance(m, nn.ReLU) for m in outside)


def test_an_unknown_attention_gives_the_nearest_name():
    with pytest.raises(UnknownName, match="did you mean eca"):
        attention_layer("ecaa", 16)


def test_cbams_channel_attention_equals_its_equation():
    channel, space = layer = attention_layer("cbam", 32)
    x = random_patches(2, 32, 9)
    nn.init.zeros_(space.conv.weight)  # σ(0) = 1/2 everywhere
    (w1, b1), (w2, b2) = ((fc.weight.flatten(1), fc.bias) for fc in (channel.fc1, channel.fc2))
    hidden = [F.linear(F.relu(F.linear(pooled, w1, b1)), w2, b2) for pooled in (x.mean((2, 3)), x.amax((2, 3)))]
    torch.testing.assert_close(layer(x), x * torch.sigmoid(sum(hidden))[:, :, None, None] / 2)
    assert w1.shape == (2, 32)


def test_cbams_spatial_attention_equals_its_equation():
    channel, space = layer = attention_layer("cbam", 32)
    assert isinstance(space, SpatialAttention)
    for parameter in channel.fc2.parameters():
        nn.init.zeros_(parameter)
    x = random_patches(1, 32, 17)
    halved = x / 2  # the channel attention is σ(0) = 1/2
    maps = F.pad(torch.stack([halved.mean(1), halved.amax(1)], 1), (3, 3, 3, 3))
    for row, column in ((0, 0), (8, 3), (16, 11)):
        response = (maps[:, :, row : row + 7, column : column + 7] * space.conv.weight).sum()
        torch.testing.assert_close(layer(x)[..., row, column], halved[..., row, column] * torch.sigmoid(response))


def test_coordinate_attention_weights_are_a_product_of_row_and_column_weights():
    layer = attention_layer("coord", 64).eval()
    x = torch.ones(1, 64, 6, 9)
    x[:, :, 2] += 3  # one row
    x[:, :, :, 7] += 5  # and one column
    scale = (layer(x) / x)[0]
    torch.testing.assert_close(scale, scale[:, :, :1] * scale[:, :1] / scale[:, :1, :1])  # row weight · column weight
    rows, columns = scale[:, :, 0], scale[:, 0]
    assert ((rows[:, 2] - rows[:, 0]).abs() > 1e-4).any()
    assert ((columns[:, 7] - columns[:, 0]).abs() > 1e-4).any()
    others = [row for row in range(6) if row != 2]
    torch.testing.assert_close(rows[:, others], rows[:, :1].expand(-1, 5))


def test_coordinate_attention_has_separate_layers_for_height_and_width():
    layer = attention_layer("coord", 64).eval()
    x = random_patches(1, 64, 8)
    swapped = layer(x.mT).mT
    assert not torch.allclose(swapped, layer(x), atol=1e-3)
    layer.conv_h, layer.conv_w = layer.conv_w, layer.conv_h
    torch.testing.assert_close(layer(x), swapped)


@pytest.mark.parametrize("name", ["se", "eca"])
def test_channel_attention_does_not_depend_on_positions(name):
    layer = attention_layer(name, 64).eval()
    x = random_patches(1, 64, 8)
    torch.testing.assert_close(layer(x.mT).mT, layer(x))


@pytest.mark.parametrize("channels,inner", [(32, 8), (256, 8), (320, 10), (1024, 32)])
def test_coordinate_attention_has_at_least_eight_inner_channels(channels, inner):
    assert attention_layer("coord", channels).conv1.out_channels == inner


@given(
    name=st.sampled_from(sorted(ATTENTION)),
    channels=st.integers(1, 300),
    height=st.integers(1, 12),
    width_px=st.integers(1, 12),
)
@settings(max_examples=40, deadline=None)
def test_attention_keeps_shape_and_sign(name, channels, height, width_px):
    x = torch.randn(2, channels, height, width_px)
    y = attention_layer(name, channels).eval()(x)
    assert y.shape == x.shape
    assert (x * y >= 0).all()  # channels are scaled, not mixed
    assert (y.abs() <= x.abs() * (1 + 1e-6)).all()


# ---- Ghost convolutions


def test_both_halves_of_a_ghost_convolution_reach_the_output():
    layer = convolution_layer("ghost", 6, 8, 3, 2).eval()
    depthwise = layer.cheap_operation[0]
    assert (depthwise.groups, depthwise.kernel_size) == (4, (3, 3))
    x = random_patches(2, 6, 9)
    y = layer(x)
    torch.testing.assert_close(y[:, :4], layer.primary_conv(x))
    torch.testing.assert_close(y[:, 4:], layer.cheap_operation(y[:, :4]))
    y[:, 4:].square().sum().backward()
    assert depthwise.weight.grad.abs().amin() > 0
    assert layer.primary_conv[0].weight.grad.abs().amin() > 0  # gradient through the cheap operation


@pytest.mark.parametrize("name", [name for name in UNSCALED if name.endswith("_ghost")])
def test_every_cheap_operation_of_a_ghost_network_affects_the_output(name):
    model = create_model(name, 4, 5).eval()
    ghosts = [module for module in model.modules() if isinstance(module, GhostModule)]
    assert len(ghosts) == 9
    x = random_patches(1, 4, 20)
    for ghost in ghosts:
        before, weights = model(x), ghost.cheap_operation[0].weight.detach().clone()
        nn.init.zeros_(ghost.cheap_operation[0].weight)
        assert not torch.allclose(model(x), before, rtol=1e-4, atol=1e-6)
        with torch.no_grad():
            ghost.cheap_operation[0].weight.copy_(weights)


def test_a_ghost_convolution_is_linear():
    layer = convolution_layer("ghost", 6, 8, 3).eval()
    x = random_patches(2, 6, 9)
    torch.testing.assert_close(layer(-2 * x), -2 * layer(x), rtol=1e-4, atol=1e-5)


@given(
    kind=st.sampled_from(sorted(CONVOLUTIONS)),
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
    height=st.integers(1, 12),
    width_px=st.integers(1, 12),
)
@settings(max_examples=40, deadline=None)
def test_convolution_layers_have_output_shapes_of_same_padding(kind, inputs, outputs, kernel, stride, height, width_px):
    layer = convolution_layer(kind, inputs, outputs, kernel, stride).eval()
    out = layer(torch.ones(2, inputs, height, width_px))
    assert out.shape == (2, outputs, -(-height // stride), -(-width_px // stride))


def test_an_unknown_convolution_gives_the_nearest_name():
    with pytest.raises(UnknownName, match="did you mean ghost"):
        create_model("wide_resnet", 10, 19, conv="gost")


# ---- lambda layers


def test_a_lambda_layer_equals_its_equation():
    """y_n = (λᶜ + λᵖ_n)ᵀ q_n, written out pixel by pixel (Bello 2021, eq. 1 and 2)."""
    layer = LambdaLayer(8).eval()
    x = random_patches(1, 8, 6)[:, :, :5]
    q, k, v = torch.split(layer.qkv(x), [4 * 16, 16, 2], dim=1)
    q, k, v = layer.norm_q(q)[0].unflatten(0, (4, 16)), k[0].flatten(1).softmax(1), layer.norm_v(v)[0]
    content = k @ v.flatten(1).T
    padded = F.pad(v, (4, 4, 4, 4))
    positions = layer.position.weight[:, 0]
    for row in range(5):
        for column in range(6):
            window = padded[:, row : row + 9, column : column + 9]
            position = torch.einsum("kij,vij->kv", positions, window)
            expected = torch.einsum("hk,kv->hv", q[:, :, row, column], content + position).flatten()
            torch.testing.assert_close(layer(x)[0, :, row, column], expected, rtol=1e-4, atol=1e-5)


def test_a_lambda_layer_initially_gives_unit_variance():
    deviation = LambdaLayer(64)(random_patches(4, 64, 30)).std()
    assert 0.7 < deviation < 1.5


def test_lambda_layers_replace_the_second_convolution_of_every_second_block():
    model = create_model("lambda_resnet", 10, 19)
    assert isinstance(model, LambdaResNet)
    second_layers = [type(block.conv2) for block in model.modules() if isinstance(block, WideBlock)]
    assert second_layers == [nn.Conv2d, LambdaLayer] * 3


def test_a_lambda_layers_output_depends_on_distant_pixels():
    layer = LambdaLayer(8)
    x = random_patches(1, 8, 40).requires_grad_()
    layer.eval()(x)[0, :, 0, 0].sum().backward()
    assert x.grad[0, :, 39, 39].abs().sum() > 0


def test_a_lambda_resnet_too_shallow_for_a_lambda_layer_is_refused():
    with pytest.raises(LandscaleError, match="depth 10"):
        create_model("lambda_resnet", 10, 19, depth=10)
