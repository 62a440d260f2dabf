import json
import warnings
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from landscale.errors import LandscaleError, UnknownName
from landscale.models import ZOO, Scaling, ZooEntry, candidates, create, describe, list_models, register, zoo
from landscale.models.scaling import WIDE_RESNET

NAMES = list_models()
OURS = [name for name in NAMES if name.startswith("wide_resnet")]
every_model = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def patch(n: int, bands: int, side: int, seed: int = 0) -> Tensor:
    return torch.randn(n, bands, side, side, generator=torch.Generator().manual_seed(seed))


# ---- scaling


def test_sides():
    assert [s.side() for s in WIDE_RESNET.values()] == [60, 70, 80, 90, 100, 110, 120]
    assert Scaling(resolution=1.4).side(base=60, step=10) == 90
    assert Scaling(resolution=1.1).side(base=100) == 110  # 110.00000000000001 / 10 is not rounded up to 120


def test_power_and_cost():
    base = Scaling(1.1, 1.2, 1.1)
    assert base.power(0) == Scaling()
    assert base.power(3).cost == pytest.approx(base.cost**3)


def test_candidates_are_all_that_fit():
    found = candidates(cost=2.0, tolerance=0.1, step=0.1)
    assert Scaling(1.1, 1.2, 1.1) in found
    assert all(abs(s.cost - 2) <= 0.1 and min(s.depth, s.width, s.resolution) >= 1 for s in found)
    assert Scaling(2.0, 1.0, 1.0) in found  # the corners of the grid are in it
    assert Scaling(1.0, 1.4, 1.0) in found
    assert len(set(found)) == len(found)


# ---- the contract, over every name


@every_model
def test_features_and_head(name):
    model = create(name, 10, 19).eval()
    x = patch(2, 10, 64)
    with torch.no_grad():
        features = model.forward_features(x)
        pooled = model.forward_head(features, pre_logits=True)
        logits = model.forward_head(features)
        assert features.shape[:2] == (2, model.num_features)
        assert pooled.shape == (2, model.head_hidden_size)
        assert logits.shape == (2, 19)
        torch.testing.assert_close(model(x), logits)
        if name != "trio":  # which averages its members' probabilities
            torch.testing.assert_close(model.get_classifier()(pooled), logits)


@every_model
def test_classifier_is_replaced_and_removed(name):
    model = create(name, 3, 19, drop_rate=0.5).eval()
    assert model.drop_rate == 0.5
    x = patch(2, 3, 32)
    with torch.no_grad():
        pooled = model.forward_head(model.forward_features(x), pre_logits=True)
        model.reset_classifier(7)
        assert (model.num_classes, model(x).shape) == (7, (2, 7))
        assert model.get_classifier().out_features == 7
        model.reset_classifier(0)
        assert model.num_classes == 0
        torch.testing.assert_close(model(x), pooled)
        torch.testing.assert_close(create(name, 3, 0).eval()(x).shape, pooled.shape)


@every_model
@pytest.mark.parametrize("bands,side", [(1, 60), (3, 64), (10, 90), (12, 120)])
def test_any_bands_and_side(name, bands, side):
    with torch.no_grad():
        assert create(name, bands, 5).eval()(patch(1, bands, side)).shape == (1, 5)


@every_model
def test_gradient_reaches_every_parameter(name):
    model = create(name, 10, 19).train()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(
                norm.weight
            )  # timm's ResNets start their blocks' last norm at 0, which stops the first gradient
    model(patch(4, 10, 32)).square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


@every_model
def test_seed_decides_the_weights(name):
    def weights(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return create(name, 10, 19).state_dict()

    first, same, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_model
def test_safetensors_round_trip(name, tmp_path: Path):
    model, copy = create(name, 12, 19), create(name, 12, 19)
    model.train()(patch(4, 12, 32))  # running statistics are part of the state
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    copy.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    x = patch(1, 12, 32, seed=1)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), copy.eval()(x))


@every_model
def test_eval_does_not_depend_on_the_batch(name):
    model = create(name, 10, 19).eval()
    x = patch(3, 10, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-4)


@every_model
def test_channels_last_gives_the_same(name):
    model = create(name, 10, 19).eval()
    x = patch(2, 10, 32)
    with torch.no_grad():
        plain = model(x)
        last = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "trio"])  # whose members have no common maps
def test_feature_info_tells_the_maps(name):
    backbone = timm.create_model(name, in_chans=4, features_only=True).eval()
    x = patch(1, 4, 64)
    with torch.no_grad():
        maps = backbone(x)
    told = [(i["num_chs"], 64 // i["reduction"]) for i in backbone.feature_info.get_dicts()]
    assert [(m.shape[1], m.shape[2]) for m in maps] == told


# ---- the zoo


def test_names_are_registered_with_timm():
    assert all(timm.is_model(name) for name in NAMES)
    assert [entry.name for entry in zoo()] == NAMES
    assert zoo("resnet50") == [ZOO["resnet50"]]


def test_a_second_registration_raises():
    with pytest.raises(ValueError, match="already"):
        register(ZooEntry("wide_resnet", "wide_resnet", "nobody"))
    with pytest.raises(ValueError, match="not registered"):
        register(ZooEntry("no_such_network", "none", "nobody"))


@pytest.mark.parametrize(
    "wrong,nearest",
    [("wide_resnet_eca_b9", "wide_resnet_eca_b"), ("resnet5", "resnet50"), ("vit_tini_patch16_224", "vit_tiny")],
)
def test_unknown_name_suggests_the_nearest(wrong, nearest):
    for call in (lambda: create(wrong, 10, 19), lambda: describe(wrong), lambda: zoo(wrong)):
        with pytest.raises(UnknownName, match=f"unknown model '{wrong}'; did you mean .*{nearest}"):
            call()


def test_no_name_is_suggested_twice():
    with pytest.raises(UnknownName) as caught:
        create("wide_resnt", 10, 19)
    near = str(caught.value).split("did you mean ")[1].rstrip("?").split(" or ")
    assert len(set(near)) == len(near) == 3


def test_unlike_anything_lists_the_zoo_first():
    with pytest.raises(UnknownName, match="known: resnet18, resnet50,"):
        create("§§§", 10, 19)


@pytest.mark.parametrize("name", ["wide_resnet_eca_b4", "resnet18", "vgg11"])
def test_an_option_it_does_not_take_is_one_line(name):
    with pytest.raises(LandscaleError, match=f"^model '{name}' takes no option 'colour'$"):
        create(name, 10, 19, colour="red")


@pytest.mark.parametrize("option", ["pretrained", "in_chans", "num_classes"])
def test_nothing_pretrained_is_fetched(option):
    with pytest.raises(LandscaleError, match=f"takes no option '{option}'"):
        create("resnet18", 3, 10, **{option: True})


@pytest.mark.parametrize("bands,classes", [(0, 19), (10, -1)])
def test_impossible_shapes(bands, classes):
    with pytest.raises(LandscaleError, match="at least"):
        create("resnet18", bands, classes)


def test_other_timm_models_work():
    model = create("mobilenetv3_small_050", 12, 19).eval()
    assert model(patch(1, 12, 64)).shape == (1, 19)
    described = describe("vit_tiny_patch16_224", side=112)
    assert described["input"] == [12, 112, 112]
    assert described["family"] == "vision_transformer"
    assert describe("vit_tiny_patch16_224")["input"] == [12, 224, 224]


@every_model
def test_describe(name):
    state = torch.get_rng_state()
    described = describe(name)
    assert torch.equal(state, torch.get_rng_state())
    assert json.loads(json.dumps(described)) == described
    assert set(described) == {"name", "family", "parameters", "flops", "input", "source", "published"}
    assert described["input"] == [12, ZOO[name].side, ZOO[name].side]
    assert described["parameters"] == parameters(create(name, 12, 19))
    assert described["source"]


def test_flops_count_a_multiply_add_as_two():
    # WRN-10-2 by hand: stem, then for each stage two 3×3 and a 1×1 convolution at its resolution, then the classifier
    macs = 60**2 * 9 * 12 * 16 + 128 * 19
    for inputs, outputs, side in ((16, 32, 60), (32, 64, 30), (64, 128, 15)):
        macs += side**2 * (9 * inputs * outputs + 9 * outputs * outputs + inputs * outputs)
    assert describe("wide_resnet")["flops"] == 2 * macs
    assert describe("wide_resnet", side=120)["flops"] == pytest.approx(8 * macs, rel=1e-3)
    assert describe("resnet50")["flops"] == pytest.approx(2.72e9, rel=0.01)


def test_creating_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in OURS:
            create(name, 10, 19)
