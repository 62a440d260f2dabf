"""Options of networks are typed: nothing that names a file, a URL or a factory reaches timm."""

from __future__ import annotations

import json

import pytest

from landscale.errors import LandscaleError, UnknownName
from landscale.models import ZOO, create_model
from landscale.models.heads import create_with_head
from landscale.models.options import NETWORK_OPTIONS, check_options
from landscale.training.recipe import load_recipe, shipped

READ_BY_TIMM = {
    "checkpoint_path": "other.pth",
    "pretrained_cfg": {"file": "other.pth"},
    "pretrained_cfg_overlay": {"url": "http://127.0.0.1/x.pth"},
    "cache_dir": "/tmp",
    "features_only": True,
    "norm_layer": "batchnorm2d",
    "act_layer": "relu",
    "scriptable": True,
    "kwargs_filter": [],
    "pretrained_strict": False,
    "pretrained": True,
    "in_chans": 3,
    "num_classes": 5,
}


@pytest.mark.parametrize("option", READ_BY_TIMM)
@pytest.mark.parametrize("model", ["resnet18", "wide_resnet_eca"])
def test_arguments_of_timm_that_are_not_options_are_refused(model, option, monkeypatch):
    monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("timm was called"))
    with pytest.raises(LandscaleError, match=option):
        create_model(model, 4, 5, **{option: READ_BY_TIMM[option]})


@pytest.mark.parametrize(
    "option,value",
    [
        ("drop_rate", 2),
        ("drop_rate", "0.1"),
        ("drop_rate", float("nan")),
        ("drop_path_rate", -0.1),
        ("width", 1e9),
        ("width", 0),
        ("depth", 10**9),
        ("depth", None),
        ("strides", [1] * 100),
        ("strides", "12"),
        ("attention", "../eca"),
        ("global_pool", "median"),
    ],
)
def test_values_of_another_type_or_out_of_range_are_refused(option, value):
    with pytest.raises(LandscaleError, match=option):
        create_model("wide_resnet", 4, 5, **{option: value})


def test_a_network_refuses_the_options_of_others():
    with pytest.raises(LandscaleError, match="takes no option 'token'"):
        create_model("resnet18", 4, 5, token=6)
    with pytest.raises(LandscaleError, match="not a multiple of the token side, 7 px"):
        create_model("vit_20", 4, 5, token=7)


@pytest.mark.parametrize(
    "model,options",
    [
        ("wide_resnet_eca", {"depth": 16, "width": 2.5, "drop_rate": 0.1}),
        ("efficientnet60_eca", {"depth": 1.4, "width": 1.2}),
        ("vit_20", {"dense": [64], "heads": 2, "width": 32, "token": 16}),
        ("resnet50", {"drop_path_rate": 0.1, "output_stride": 16}),
        ("vit_small_patch8_224", {"reg_tokens": 2, "init_values": None, "img_size": [32, 32]}),
        ("swinv2_tiny_window8_256", {"depths": [1, 1, 1, 1], "window_size": 4}),
    ],
)
def test_options_that_change_the_shape_are_taken(model, options):
    assert create_model(model, 4, 5, 64, **options).num_classes == 5


def test_options_of_heads_are_typed():
    with pytest.raises(LandscaleError, match="layers"):
        create_with_head("resnet18", 4, 5, 32, "query", {"layers": 10**6})


def test_shipped_recipes_have_known_options():
    for name in shipped():
        recipe = load_recipe(name, [])
        check_options(f"model '{recipe.model}'", recipe.options, NETWORK_OPTIONS)
    assert all(json.dumps(name) for name in NETWORK_OPTIONS)
    assert "wide_resnet" in ZOO


def test_an_unknown_option_names_similar_ones():
    with pytest.raises(UnknownName, match="did you mean drop_rate"):
        check_options("model 'x'", {"droprate": 0.1}, NETWORK_OPTIONS)
