"""The families of Papoutsis et al. 2022 except the wide ResNets, the ResNet-50 of Sedona et al. 2019, and recent networks."""

import math
from functools import cache

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from landscale.errors import LandscaleError, UnknownName
from landscale.models import ZOO, Scaling, create_model
from landscale.models.compound import EFFICIENTNET
from landscale.models.efficientnet60 import EfficientNet60, scale_efficientnet60
from landscale.models.mixer import Mixer
from landscale.models.registry import AUTHORS
from landscale.models.rivals import _ROWS
from landscale.models.vit import FlatViT, check_sides

pytestmark = pytest.mark.usefixtures("seeded")

COUNTS = {  # parameters of landscale's networks with 10 bands and 19 classes
    "resnet50": 23_568_915,
    "resnet101": 42_561_043,
    "resnet152": 58_204_691,
    "resnet50_sedona2019": 23_568_915,
    "densenet121": 6_995_283,
    "densenet169": 12_538_067,
    "densenet201": 18_151_379,
    "efficientnet_b0": 4_033_903,
    "efficientnet_b1": 6_539_539,
    "efficientnet_b2": 7_729_781,
    "efficientnet_b3": 10_727_955,
    "efficientnet_b4": 17_585_707,
    "efficientnet_b5": 28_382_739,
    "efficientnet_b6": 40_783_027,
    "efficientnet_b7": 63_839_651,
    "vgg16_gap": 14_728_467,
    "vgg19_gap": 20_038_163,
    "vit_6": 55_262_931,
    "vit_12": 15_984_915 - 64 + 64 * 100,
    "vit_20": 7_760_147 - 64 + 64 * 36,
    "vit_30": 5_459_667,
    "vit_40": 4_989_715,
    "vit_m20": 16_036_755,
    "mlp_mixer": 447_171,
    "mlp_mixer_tiny": 136_667,
    "efficientnet60": 3_397_363,
    "efficientnet60_se": 4_347_043,
    "efficientnet60_cbam": 4_348_611,
    "efficientnet60_coord": 4_127_159,
    "efficientnet60_eca": 3_397_455,
    "efficientnet60_ghost": 2_077_419,
    "efficientnet60_se_ghost": 3_027_099,
    "efficientnet60_cbam_ghost": 3_028_667,
    "efficientnet60_coord_ghost": 2_807_215,
    "efficientnet60_eca_ghost": 2_077_511,
    "efficientnet60_eca_b1": 5_417_031,
    "efficientnet60_eca_b2": 6_400_777,
    "efficientnet60_eca_b3": 8_848_381,
    "efficientnet60_eca_b4": 14_439_449,
    "efficientnet60_eca_b5": 23_191_099,
    "efficientnet60_eca_b6": 33_249_533,
    "efficientnet60_eca_b7": 51_866_901,
}
SAME_AS_AUTHORS = (  # the same number of parameters as the authors' code
    *("densenet121", "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b1", "efficientnet_b7"),
    *("vgg16_gap", "vgg19_gap"),
)
RECENT_NETWORKS = [row[0] for row in _ROWS]
SIZES = [f"efficientnet60_eca_{size}" for size in EFFICIENTNET]
OWN_NETWORKS = [
    name for name in COUNTS if name.startswith(("vgg", "vit", "mlp", "efficientnet60")) and name not in SIZES
]
FIXED_SIDE = [name for name in OWN_NETWORKS if name.startswith(("vit", "mlp"))]
ANY_SIDE = [name for name in OWN_NETWORKS if name not in FIXED_SIDE]

each_own_network = pytest.mark.parametrize("name", OWN_NETWORKS)
each_fixed_side_network = pytest.mark.parametrize("name", FIXED_SIDE)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def random_patches(n: int, bands: int, side: int, seed: int = 0) -> Tensor:
    return torch.randn(n, bands, side, side, generator=torch.Generator().manual_seed(seed))


def meta_network(name: str, bands: int = 10, classes: int = 19, side: int | None = None, **options) -> nn.Module:
    """A network on the meta device, which has shapes but no data."""
    try:
        with torch.device("meta"):
            return create_model(name, bands, classes, side, **options)
    except RuntimeError:
        return create_model(name, bands, classes, side, **options).to("meta")


def with_running_statistics(model: nn.Module, bands: int, side: int) -> nn.Module:
    """Set running statistics from random input, then eval mode: with initial ones outputs are near 1e-10, and any are close."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        model.train()(random_patches(8, bands, side, seed=1))
    return model.eval()


@cache
def small_network(name: str) -> nn.Module:
    """A network in eval mode for a small input side; shared, so tests must not change it."""
    torch.manual_seed(0)
    return with_running_statistics(create_model(name, 10, 19, side=cheap_side(name)), 10, cheap_side(name))


def cheap_side(name: str) -> int:
    """A side of four tokens, the smallest for VGG, or the 60 px for which EfficientNet60 is designed."""
    token = {"vit_6": 6, "vit_12": 12, "vit_20": 20, "vit_m20": 20, "vit_30": 30, "vit_40": 40}
    return 2 * token.get(name, 12) if name in FIXED_SIDE else 32 if name.startswith("vgg") else 60


def authors_parameters(name: str) -> int:
    return int(ZOO[name].published[AUTHORS]["parameters"])


# ---- all networks


@pytest.mark.parametrize("name,count", COUNTS.items())
def test_networks_have_the_exact_number_of_parameters(name, count):
    assert parameters(meta_network(name)) == count


@pytest.mark.parametrize("name", SAME_AS_AUTHORS)
def test_parameter_counts_equal_those_of_the_authors_code(name):
    assert authors_parameters(name) == COUNTS[name]


def test_recent_networks_have_their_published_scores():
    figures = {name: f for name in RECENT_NETWORKS for f in ZOO[name].published.values()}
    assert figures == {
        "mobilevit_s": {"macro_ap": 0.703, "micro_ap": 0.864, "macro_f1": 0.638, "micro_f1": 0.763},
        "convnextv2_base": {"macro_ap": 0.692, "micro_ap": 0.857, "macro_f1": 0.627, "micro_f1": 0.760},
        "vit_base_patch8_224": {"macro_ap": 0.668, "micro_ap": 0.842, "macro_f1": 0.603, "micro_f1": 0.746},
        "mixer_b16_224": {"macro_ap": 0.678, "micro_ap": 0.844, "macro_f1": 0.616, "micro_f1": 0.744},
        "rdnet_base": {"macro_ap": 0.689, "micro_ap": 0.854, "macro_f1": 0.623, "micro_f1": 0.755},
    }


@pytest.mark.parametrize(
    "name", ["convnextv2_atto", "mobilenetv4_conv_small", "mobilevit_s", "swinv2_tiny_window8_256"]
)
def test_recent_networks_give_finite_logits(name):
    side = ZOO[name].side
    logits = create_model(name, 12, 19).eval()(random_patches(1, 12, side))
    assert logits.shape == (1, 19)
    assert logits.isfinite().all()


# ---- differences from the authors' counts, layer by layer


def convolutions_before_norms(model: nn.Module) -> list[nn.Conv2d]:
    """The convolutions followed by a batch norm: in landscale's networks, those without a bias."""
    return [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.bias is None]


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152"])
def test_resnets_differ_from_the_authors_count_by_the_biases(name):
    biases = sum(conv.out_channels for conv in convolutions_before_norms(meta_network(name)))
    assert authors_parameters(name) - biases == COUNTS[name]


@pytest.mark.parametrize("name", ["efficientnet60_se", "efficientnet60_coord", "efficientnet60_eca"])
def test_efficientnets_differ_from_the_authors_count_by_biases_and_the_first_expansion(name):
    model = meta_network(name)
    biases = sum(conv.out_channels for conv in convolutions_before_norms(model))
    channels = model.conv_stem.out_channels
    expansion = channels * channels + channels + 2 * channels  # 1×1 convolution, its bias, batch norm
    assert (biases, expansion) == (21_008, 1_120)
    assert authors_parameters(name) - biases - expansion == COUNTS[name]


@pytest.mark.parametrize("name", ["vit_6", "vit_12", "vit_20"])
def test_vits_differ_from_the_authors_count_by_one_position_per_token(name):
    _, tokens, width = meta_network(name).pos_embed.shape
    assert authors_parameters(name) - width + tokens * width == COUNTS[name]


@pytest.mark.parametrize("name", ["mlp_mixer", "mlp_mixer_tiny"])
def test_mixers_differ_from_the_authors_count_by_norms_over_channels(name):
    model = meta_network(name)
    norms = [m for block in model.blocks for m in block.modules() if isinstance(m, nn.LayerNorm)]
    tokens, width = model.stem.num_patches, model.embed_dim
    assert all(norm.normalized_shape == (width,) for norm in norms)
    assert authors_parameters(name) - 2 * tokens * len(norms) + 2 * width * len(norms) == COUNTS[name]


def test_ghost_convolutions_save_the_computed_number_of_parameters():
    saved = 0
    for block in (block for stage in meta_network("efficientnet60").blocks for block in stage):
        for conv in (m for m in block.children() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)):
            half = conv.out_channels // 2
            ghost = conv.in_channels * half + 2 * half + 9 * half + 2 * half
            saved += conv.weight.numel() + 2 * conv.out_channels - ghost
    assert COUNTS["efficientnet60"] - saved == COUNTS["efficientnet60_ghost"]


# ---- feature maps


@pytest.mark.parametrize("name", ANY_SIDE)
def test_feature_maps_have_the_sizes_of_feature_info(name):
    backbone = timm.create_model(name, in_chans=4, features_only=True).eval()
    with torch.no_grad():
        maps = backbone(random_patches(1, 4, 64))
    expected = [(i["num_chs"], 64 // i["reduction"]) for i in backbone.feature_info.get_dicts()]
    assert [(m.shape[1], m.shape[2]) for m in maps] == expected
    assert len(expected) == 5


@each_fixed_side_network
def test_feature_maps_of_token_networks_have_the_sizes_of_feature_info(name):
    side = cheap_side(name)
    backbone = timm.create_model(name, in_chans=4, img_size=side, features_only=True).eval()
    with torch.no_grad():
        maps = backbone(random_patches(1, 4, side))
    assert [m.shape[1:] for m in maps] == [(i["num_chs"], 2, 2) for i in backbone.feature_info.get_dicts()]
    assert maps


@pytest.mark.parametrize("name", ["vgg16_gap", "vit_20", "mlp_mixer", "efficientnet60_eca"])
def test_the_timm_config_states_input_size_first_convolution_and_classifier(name):
    side = ZOO[name].side
    model = meta_network(name, 12, 19)
    assert model.default_cfg["input_size"] == (12, side, side)
    assert dict(model.named_modules())[model.default_cfg["first_conv"]].in_channels == 12
    assert dict(model.named_modules())[model.default_cfg["classifier"]] is model.get_classifier()


# ---- networks built for one side


@given(side=st.integers(1, 400), token=st.integers(1, 50))
def test_sides_that_are_no_multiple_of_the_token_side_are_refused(side, token):
    if side >= token and side == side // token * token:
        check_sides(side, token)
    else:
        with pytest.raises(
            LandscaleError, match=f"^input side {side} px is not a multiple of the token side, {token} px$"
        ):
            check_sides(side, token)


@each_fixed_side_network
def test_creating_a_network_for_a_side_that_tokens_do_not_divide_is_refused(name):
    with pytest.raises(LandscaleError, match=r"^input side 121 px is not a multiple"):
        create_model(name, 10, 19, side=121)


@each_fixed_side_network
def test_token_networks_accept_different_height_and_width(name):
    model = meta_network(name, img_size=(120, 240))
    assert model(torch.empty(2, 10, 120, 240, device="meta")).shape == (2, 19)


@each_own_network
def test_timm_creates_each_network_without_options(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert parameters(model) == COUNTS[name]


@each_fixed_side_network
def test_an_input_of_another_side_than_the_networks_is_refused(name):
    with pytest.raises(AssertionError, match=r"^Input height \(\d+\) doesn't match model \(\d+\)\.$"):
        small_network(name)(random_patches(1, 10, 2 * cheap_side(name)))


# ---- ViT


def test_vit_has_the_published_tokens_blocks_and_dense_layers():
    model = small_network("vit_20")
    with torch.no_grad():
        tokens = model.forward_features(random_patches(2, 10, 40))
        assert tokens.shape == (2, 4, 64)
        assert model.forward_head(tokens, pre_logits=True).shape == (2, 1024)
    assert [(m.in_features, m.out_features) for m in model.dense if isinstance(m, nn.Linear)] == [
        (256, 2048),
        (2048, 1024),
    ]
    assert model.blocks[0].attn.qkv.out_features == 3 * 4 * 64
    assert model.blocks[0].mlp.fc1.out_features == 128
    assert len(model.blocks) == 8


@given(
    token=st.sampled_from([4, 5, 8]),
    tokens_per_side=st.integers(1, 6),
    bands=st.integers(1, 13),
    width=st.sampled_from([16, 48]),
)
@settings(max_examples=10, deadline=None)
def test_vit_has_one_position_per_token_for_any_side(token, tokens_per_side, bands, width):
    side = token * tokens_per_side
    with torch.device("meta"):
        model = FlatViT(5, bands, img_size=side, token=token, width=width, depth=1, dense=(8,))
        assert model.pos_embed.shape == (1, tokens_per_side**2, width)
        assert model.forward_features(torch.empty(2, bands, side, side)).shape == (2, tokens_per_side**2, width)
        assert model(torch.empty(2, bands, side, side)).shape == (2, 5)


def test_vit_distinguishes_the_order_of_tokens_by_its_positions_only():
    torch.manual_seed(0)
    model = create_model("vit_20", 3, 5, side=40).eval()
    x = random_patches(1, 3, 40)
    turned = x.roll(20, dims=-1)  # tokens 0 1 / 2 3 → 1 0 / 3 2
    order = [1, 0, 3, 2]
    with torch.no_grad():
        assert not torch.allclose(model.forward_features(turned), model.forward_features(x)[:, order], atol=1e-3)
        model.pos_embed.zero_()
        torch.testing.assert_close(model.forward_features(turned), model.forward_features(x)[:, order])


def test_vit_refuses_another_side_and_pooling():
    model = meta_network("vit_40")
    with pytest.raises(LandscaleError, match="keeps its input side"):
        model.set_input_size(240)
    with pytest.raises(LandscaleError, match="no pooling 'avg'"):
        model.reset_classifier(19, "avg")
    assert model(torch.empty(1, 10, 120, 120, device="meta")).shape == (1, 19)


def test_vit_has_the_published_dropout_rates():
    model = meta_network("vit_40")
    rates = [m.p for m in model.modules() if isinstance(m, nn.Dropout) and m.p]
    assert rates == [0.1] * 4 * 8 + [0.5] * 3


# ---- Mixer


@given(
    width=st.integers(1, 300), token_mlp=st.integers(1, 300), channel_mlp=st.integers(1, 300), depth=st.integers(1, 3)
)
@settings(max_examples=30, deadline=None)
def test_mixer_has_the_requested_widths_and_depth(width, token_mlp, channel_mlp, depth):
    with torch.device("meta"):
        model = Mixer(3, 2, width=width, token_mlp=token_mlp, channel_mlp=channel_mlp, depth=depth, img_size=24)
    assert [block.mlp_tokens.fc1.out_features for block in model.blocks] == [token_mlp] * depth
    assert [block.mlp_channels.fc1.out_features for block in model.blocks] == [channel_mlp] * depth
    assert model.num_features == width


# ---- EfficientNet on 60 px


def test_efficientnet60_has_the_published_stages():
    model = meta_network("efficientnet60")
    blocks = [[block.conv_dw for block in stage] for stage in model.blocks]
    assert [len(stage) for stage in blocks] == [1, 2, 2, 3, 3, 4, 1]
    assert [stage[0].kernel_size[0] for stage in blocks] == [3, 3, 5, 3, 5, 5, 3]
    assert [stage[0].stride[0] for stage in blocks] == [1, 2, 2, 2, 1, 2, 1]
    assert all(conv.stride == (1, 1) for stage in blocks for conv in stage[1:])
    assert model.conv_head.out_channels == 1280
    activations = {type(m.act) for m in model.modules() if hasattr(m, "act")}
    assert activations == {nn.SiLU, nn.Identity}


@pytest.mark.parametrize("name", ["efficientnet60_se", "efficientnet60_cbam_ghost"])
def test_efficientnet60_attention_acts_on_the_expanded_channels(name):
    model = meta_network(name)
    channel_pairs: list[tuple[int, int]] = []
    for block in (block for stage in model.blocks for block in stage):
        block.se.register_forward_hook(
            lambda m, x, y, b=block: channel_pairs.append((x[0].shape[1], b.conv_dw.out_channels))
        )
    model(torch.empty(1, 10, 60, 60, device="meta"))
    assert len(channel_pairs) == 16
    assert all(channels == expanded for channels, expanded in channel_pairs)


def test_efficientnet60_attention_gates_start_near_one_half():
    model = create_model("efficientnet60_se", 10, 19).train()
    gates: list[Tensor] = []
    for block in (block for stage in model.blocks for block in stage):
        block.se.gate.register_forward_hook(lambda m, x, y: gates.append(y))
    with torch.no_grad():
        model(random_patches(4, 10, 60))
    assert len(gates) == 16
    assert all(((gate > 0.3) & (gate < 0.7)).all() for gate in gates)


def test_ghost_convolutions_are_followed_by_an_activation_without_a_further_norm():
    for block in (block for stage in meta_network("efficientnet60_ghost").blocks[1:] for block in stage):
        assert isinstance(block.bn1, nn.SiLU)
        assert isinstance(block.bn3, nn.Identity)
        assert isinstance(block.bn2, nn.BatchNorm2d)


def test_efficientnet60_sizes_have_the_published_coefficients():
    rows = {size: scale_efficientnet60(scaling) for size, scaling in EFFICIENTNET.items()}
    assert {size: (o["width"], o["depth"], side, o["drop_rate"]) for size, (o, side) in rows.items()} == {
        "b1": (1.0, 1.1, 70, 0.2),
        "b2": (1.1, 1.2, 70, 0.3),
        "b3": (1.2, 1.4, 90, 0.3),
        "b4": (1.4, 1.8, 110, 0.4),
        "b5": (1.6, 2.2, 130, 0.4),
        "b6": (1.8, 2.6, 150, 0.5),
        "b7": (2.0, 3.1, 170, 0.5),
    }
    assert scale_efficientnet60(Scaling()) == ({"depth": 1.0, "width": 1.0, "drop_rate": 0.2}, 60)
    assert [ZOO[name].side for name in SIZES] == [side for _, side in rows.values()]
    assert meta_network("efficientnet60_eca_b4").drop_rate == 0.4


@given(
    attention=st.sampled_from(["none", "se", "cbam", "coord", "eca"]),
    conv=st.sampled_from(["plain", "ghost"]),
    width=st.floats(0.3, 1.5),
    depth=st.floats(0.4, 1.5),
    bands=st.integers(1, 13),
    classes=st.integers(1, 45),
    side=st.integers(1, 200),
)
@settings(max_examples=12, deadline=None)
def test_efficientnet60_of_any_options_has_the_expected_shapes(attention, conv, width, depth, bands, classes, side):
    with torch.device("meta"):
        model = EfficientNet60(classes, bands, attention=attention, conv=conv, width=width, depth=depth).eval()
        features = model.forward_features(torch.empty(2, bands, side, side))
        assert features.shape == (2, model.num_features, math.ceil(side / 32), math.ceil(side / 32))
        assert model.forward_head(features).shape == (2, classes)
    assert sum(len(stage) for stage in model.blocks) == sum(math.ceil(r * depth) for r in (1, 2, 2, 3, 3, 4, 1))


@pytest.mark.parametrize("option", ["attention", "conv"])
def test_unknown_attention_and_convolution_names_are_refused(option):
    with pytest.raises(UnknownName, match="unknown"):
        create_model("efficientnet60", 10, 19, **{option: "ecaa"})


# ---- ResNet-50 of Sedona et al. 2019


def test_sedona_resnet50_has_the_papers_bands_classes_and_dropout():
    model = timm.create_model("resnet50_sedona2019")
    assert (model.conv1.in_channels, model.num_classes, model.drop_rate) == (12, 43, 0.5)
    assert model.default_cfg["num_classes"] == 43
    assert model.default_cfg["input_size"] == (12, 120, 120)
    x = torch.ones(1, 2048, 4, 4)
    zeros = (model.train().forward_head(x, pre_logits=True) == 0).float().mean()
    assert 0.4 < zeros < 0.6
    assert (model.eval().forward_head(x, pre_logits=True) == 1).all()


def test_sedona_resnet50_has_the_same_weights_as_resnet50():
    plain, sedona = (meta_network(name, 12, 43) for name in ("resnet50", "resnet50_sedona2019"))
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in sedona.state_dict().items()}
