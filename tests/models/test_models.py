"""The zoo: names, scaling, descriptions, and networks that are built for one input side."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from landscale.cli import main
from landscale.errors import LandscaleError, UnknownName
from landscale.loading import batches
from landscale.models import (
    ZOO,
    Scaling,
    ZooEntry,
    candidates,
    create_model,
    describe_model,
    list_models,
    register,
    zoo,
)
from landscale.models.compound import WIDE_RESNET
from landscale.models.weights import load_model
from landscale.store import open_store
from landscale.testing import make_store, rgbn_plane

pytestmark = pytest.mark.usefixtures("seeded")

NAMES = list_models()
OWN_NETWORKS = [name for name in NAMES if timm.model_entrypoint(name).__module__.startswith("landscale.")]
FIRST_OF_FAMILY = {entry.family: entry.name for entry in reversed(zoo())}.values()


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def random_patches(n: int, bands: int, side: int, seed: int = 0) -> Tensor:
    return torch.randn(n, bands, side, side, generator=torch.Generator().manual_seed(seed))


# ---- scaling


def test_scaling_gives_input_sides_rounded_up_to_the_step():
    assert [s.side() for s in WIDE_RESNET.values()] == [60, 70, 80, 90, 100, 110, 120]
    assert Scaling(resolution=1.4).side(base=60, step=10) == 90
    assert Scaling(resolution=1.1).side(base=100) == 110  # 110.00000000000001 / 10 is not rounded up to 120


def test_the_power_of_a_scaling_has_the_power_of_its_cost():
    base = Scaling(1.1, 1.2, 1.1)
    assert base.power(0) == Scaling()
    assert base.power(3).cost == pytest.approx(base.cost**3)


def test_candidates_are_all_scalings_within_the_cost_tolerance():
    found = candidates(cost=2.0, tolerance=0.1, step=0.1)
    assert Scaling(1.1, 1.2, 1.1) in found
    assert all(abs(s.cost - 2) <= 0.1 and min(s.depth, s.width, s.resolution) >= 1 for s in found)
    assert Scaling(2.0, 1.0, 1.0) in found  # the ends of the grid are included
    assert Scaling(1.0, 1.4, 1.0) in found
    assert len(set(found)) == len(found)


# ---- the zoo


def test_all_names_of_the_zoo_are_registered_with_timm():
    assert all(timm.is_model(name) for name in NAMES)
    assert [entry.name for entry in zoo()] == NAMES
    assert zoo("resnet50") == [ZOO["resnet50"]]


def test_registering_a_known_name_or_one_unknown_to_timm_raises():
    with pytest.raises(ValueError, match="already"):
        register(ZooEntry("wide_resnet", "wide_resnet", "nobody"))
    with pytest.raises(ValueError, match="not registered"):
        register(ZooEntry("no_such_network", "none", "nobody"))


@pytest.mark.parametrize(
    "wrong,nearest",
    [("wide_resnet_eca_b9", "wide_resnet_eca_b"), ("resnet5", "resnet50"), ("vit_tini_patch16_224", "vit_tiny")],
)
def test_an_unknown_name_gives_the_nearest_names(wrong, nearest):
    for call in (lambda: create_model(wrong, 10, 19), lambda: describe_model(wrong), lambda: zoo(wrong)):
        with pytest.raises(UnknownName, match=f"unknown model '{wrong}'; did you mean .*{nearest}"):
            call()


def test_suggested_names_are_distinct():
    with pytest.raises(UnknownName) as caught:
        create_model("wide_resnt", 10, 19)
    near = str(caught.value).split("did you mean ")[1].rstrip("?").split(" or ")
    assert len(set(near)) == len(near) == 3


def test_a_name_without_similar_names_gives_a_list_that_starts_with_the_zoo():
    with pytest.raises(UnknownName, match="known: resnet18, resnet50,"):
        create_model("§§§", 10, 19)


@pytest.mark.parametrize("name", ["wide_resnet_eca_b4", "resnet18", "vgg11"])
def test_an_unknown_option_gives_one_error_line(name):
    with pytest.raises(LandscaleError, match=f"^unknown option of model '{name}' 'colour'; "):
        create_model(name, 10, 19, colour="red")


@pytest.mark.parametrize("option", ["pretrained", "in_chans", "num_classes"])
def test_options_reserved_for_create_model_are_refused(option):
    with pytest.raises(LandscaleError, match=f"takes no option '{option}'"):
        create_model("resnet18", 3, 10, **{option: True})


@pytest.mark.parametrize("bands,classes", [(0, 19), (10, -1)])
def test_too_few_bands_or_classes_are_refused(bands, classes):
    with pytest.raises(LandscaleError, match="at least"):
        create_model("resnet18", bands, classes)


def test_timm_models_outside_the_zoo_can_be_created_and_described():
    model = create_model("mobilenetv3_small_050", 12, 19).eval()
    assert model(random_patches(1, 12, 64)).shape == (1, 19)
    described = describe_model("vit_tiny_patch16_224", side=112)
    assert described["input"] == [12, 112, 112]
    assert described["family"] == "vision_transformer"
    assert describe_model("vit_tiny_patch16_224")["input"] == [12, 224, 224]


@pytest.mark.parametrize(
    "name", [n if n in FIRST_OF_FAMILY else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_describe_model_matches_the_network_and_leaves_the_random_state(name):
    with torch.device("meta"):
        model = create_model(name, 12, 19)
    state = torch.get_rng_state()
    described = describe_model(name)
    assert torch.equal(state, torch.get_rng_state())
    assert json.loads(json.dumps(described)) == described
    assert set(described) == {"name", "family", "parameters", "flops", "input", "source", "published"}
    assert described["input"] == [12, ZOO[name].side, ZOO[name].side]
    assert described["parameters"] == parameters(model)
    assert described["source"]


def test_flops_count_a_multiply_add_as_two():
    # WRN-10-2 by hand: stem, then for each stage two 3×3 and a 1×1 convolution at its resolution, then the classifier
    macs = 60**2 * 9 * 12 * 16 + 128 * 19
    for inputs, outputs, side in ((16, 32, 60), (32, 64, 30), (64, 128, 15)):
        macs += side**2 * (9 * inputs * outputs + 9 * outputs * outputs + inputs * outputs)
    assert describe_model("wide_resnet")["flops"] == 2 * macs
    assert describe_model("wide_resnet", side=120)["flops"] == pytest.approx(8 * macs, rel=1e-3)
    assert describe_model("resnet50")["flops"] == pytest.approx(2.72e9, rel=0.01)


@pytest.mark.parametrize("name", OWN_NETWORKS)
def test_creating_a_network_gives_no_warnings(name):
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("error")
        create_model(name, 10, 19)


# ---- networks built for one side


def train_mixer(folder: Path, side: int, *args: str) -> int:
    """Run the train command with `mlp_mixer_tiny` on a new store of this side; return the exit code."""
    make_store(folder / "s.h5", planes=rgbn_plane(side), splits={"train": 24, "val": 8})
    paths = [f"--store={folder / 's.h5'}", f"--run={folder / 'run'}", "--bands=B02,B03,B04,B08"]
    return main(["train", *paths, "--model=mlp_mixer_tiny", "--epochs=2", "--batch=8", "--views=1", *args])


def test_a_fixed_side_network_is_built_for_the_side_of_the_store(tmp_path, capsys):
    assert train_mixer(tmp_path, 60) == 0
    classifier = load_model(tmp_path / "run")
    assert classifier.description.side == 60
    assert classifier.network.stem.num_patches == 25  # tokens of 12 px
    store = open_store(tmp_path / "s.h5")
    (batch,) = batches(store, classifier.description.bands, store.classes, [np.arange(3)], torch.device("cpu"))
    assert classifier.probabilities(batch.planes).shape == (3, len(store.layout.classes))


def test_a_fixed_side_network_is_built_for_the_given_side(tmp_path):
    assert train_mixer(tmp_path, 60, "--side=36") == 0
    assert load_model(tmp_path / "run" / "weights").network.stem.num_patches == 9


@pytest.mark.parametrize("side,args,problem", [(60, ["--side=50"], "multiple"), (50, [], "multiple")])
def test_a_side_that_tokens_do_not_divide_gives_one_error_line(tmp_path, capsys, side, args, problem):
    assert train_mixer(tmp_path, side, *args) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert problem in line
    assert not (tmp_path / "run").exists()


def test_progressive_training_of_a_fixed_side_network_is_refused_before_it_begins(tmp_path, capsys):
    assert train_mixer(tmp_path, 60, "--progressive=[[0.5,36]]") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--progressive with model 'mlp_mixer_tiny'" in line
    assert not (tmp_path / "run").exists()
