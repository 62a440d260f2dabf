"""Pre-trained weights: their mapping to other bands and classes, their sources, and the errors of unusable sources."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import socketserver
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from conftest import command, outcome
from landscale.errors import LandscaleError
from landscale.models import pretrained, pretrained_files
from landscale.models.classifier import Classifier, Description
from landscale.models.first_convolution import RGB, adapt_weights, channel_names, describe_mapping, map_channels
from landscale.models.input_stage import SCALES
from landscale.models.pretrained_files import find_pretrained
from landscale.models.weights import load_model, save_weights
from landscale.testing import CLASSES, make_store, rgbn_plane
from landscale.vocabulary.bands import BAND_SETS, BANDS
from weights_folders import entries

pytestmark = pytest.mark.usefixtures("seeded")

S2 = BAND_SETS["s2-12"].names


def begin_from(model, init):
    return pretrained.begin_from(model, find_pretrained(init, model.description.model))


def classifier(model="resnet18", bands=S2, classes=CLASSES, scale="linear", side=32, **options):
    statistics = dict.fromkeys(channel_names(bands, scale), (1000.0, 300.0))
    torch.manual_seed(1)
    return Classifier(
        Description(
            model, tuple(bands), tuple(classes), "custom", True, statistics, side, 240, scale=scale, options=options
        )
    )


def rgb_weights(model="resnet18", first="conv1", **options):
    """Weights of an RGB network; the first convolution is near 1, 10 and 100 in R, G and B, so that swapped channels differ."""
    state = timm.create_model(model, pretrained=False, **options).state_dict()
    name = f"{first}.weight"
    state[name] = torch.rand_like(state[name]) + torch.tensor([1.0, 10.0, 100.0])[:, None, None]
    return {k: v + 0.5 if k.endswith("running_mean") else v for k, v in state.items()}


@pytest.fixture(scope="module")
def rgb(tmp_path_factory):
    path = tmp_path_factory.mktemp("rgb") / "resnet18.safetensors"
    save_file(rgb_weights(), path)
    return path


def copied_state(model):
    return {k: v.clone() for k, v in model.network.state_dict().items()}


def loading_error(init, model=None):
    """Load weights that must be refused, check that the network did not change, and return the one-line message."""
    model = model or classifier()
    before = copied_state(model)
    with pytest.raises(LandscaleError) as error:
        begin_from(model, str(init))
    assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- the first convolution


def test_each_band_takes_the_weights_of_the_nearest_colour():
    matrix = map_channels(S2, RGB)
    assert describe_mapping(S2, matrix, RGB) == (
        "B01, B02 from blue; B03 from green; B04, B05, B06, B07, B08, B8A, B09, B11, B12 from red"
    )
    assert torch.allclose(matrix.sum(0), torch.ones(3))
    assert matrix[S2.index("B02")].tolist() == [0, 0, 0.5]


def test_channels_of_the_same_name_keep_their_weights_and_others_begin_with_zeros():
    found = map_channels(("B02", "B11", "B03"), ("B03", "B08", "B02"))
    assert found.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_rgb_weights_in_any_band_order_are_copied_bit_for_bit():
    weight = torch.randn(8, 3, 3, 3)
    assert torch.equal(adapt_weights(weight, map_channels(("B04", "B03", "B02"), RGB)), weight)
    assert torch.equal(adapt_weights(weight, map_channels(("B02", "B03", "B04"), RGB)), weight.flip(1))


def test_radar_channels_take_the_mean_of_the_colours():
    weight = torch.randn(8, 3, 5, 5)
    vv, vh = adapt_weights(weight, map_channels(("VV", "VH"), RGB)).unbind(1)
    assert torch.equal(vv, vh)
    ratio = vv / weight.mean(1)
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-4)
    mixed = map_channels(("VV", "B04", "VH"), RGB)
    assert mixed.tolist()[0] == mixed.tolist()[2] == pytest.approx([1 / 6] * 3)
    assert mixed[1].tolist() == [1, 0, 0]


band_names = st.lists(st.sampled_from(sorted(BANDS)), min_size=1, max_size=15, unique=True)


@given(band_names, st.sampled_from(SCALES), st.integers(0, 99))
def test_adapted_weights_keep_the_variance_of_the_response(bands, scale, seed):
    torch.manual_seed(seed)
    weight = torch.randn(64, 3, 3, 3)
    channels = channel_names(bands, scale)
    adapted = adapt_weights(weight, map_channels(channels, RGB))
    assert adapted.shape == (64, len(channels), 3, 3)
    x = torch.randn(256, max(3, len(channels)), 3, 3)  # channels of mean 0 and variance 1
    before, after = (torch.einsum("nchw,ochw->no", x[:, : w.shape[1]], w).var().item() for w in (weight, adapted))
    assert after == pytest.approx(before, rel=0.15)


@given(band_names)
def test_a_filter_without_response_to_grey_stays_without_it(bands):
    weight = torch.randn(16, 3, 3, 3)
    weight -= weight.mean(1, keepdim=True)  # no response to grey
    bands = list(dict.fromkeys([*bands, "B02", "B03", "B04"]))
    grey = adapt_weights(weight, map_channels(bands, RGB)).sum(1)
    assert grey.abs().max() < 1e-5 * len(bands)


@given(band_names, band_names)
def test_channels_are_copied_by_name_and_new_channels_start_at_zero(source_bands, other_bands):
    target_bands = list(dict.fromkeys([*other_bands, *source_bands]))  # in another order than in the source
    weight = torch.randn(4, len(source_bands), 3, 3)
    adapted = adapt_weights(weight, map_channels(target_bands, source_bands))
    for k, name in enumerate(target_bands):
        expected = weight[:, source_bands.index(name)] if name in source_bands else torch.zeros(4, 3, 3)
        assert torch.equal(adapted[:, k], expected)


def test_pixels_folded_into_channels_keep_their_positions():
    weight = torch.arange(2 * 12.0).reshape(2, 12, 1, 1)  # four pixels, each with all three channels
    adapted = adapt_weights(weight, map_channels(("B02", "B03", "B04"), RGB))
    assert torch.equal(adapted, weight.reshape(2, 4, 3, 1, 1).flip(2).reshape(2, 12, 1, 1))


# ---- files


@pytest.mark.parametrize("scale", SCALES)
def test_rgb_weights_initialise_a_network_of_twelve_bands(rgb, scale):
    model = classifier(scale=scale)
    head = model.network.fc.weight.clone()
    record = begin_from(model, str(rgb))
    source, own = load_file(rgb), model.network.state_dict()
    conv = own.pop("conv1.weight")
    for k, name in enumerate(channel_names(S2, scale)):
        band = name.removeprefix("log ")
        colour = {"B01": 2, "B02": 2, "B03": 1}.get(band, 0)
        ratio = conv[:, k] / source["conv1.weight"][:, colour]
        assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-4), name
    assert conv.square().sum().item() == pytest.approx(source["conv1.weight"].square().sum().item(), rel=1e-4)
    assert torch.equal(model.network.fc.weight, head)
    assert all(torch.equal(v, source[k]) for k, v in own.items() if not k.startswith("fc."))
    assert record["digest"] == hashlib.sha256(rgb.read_bytes()).hexdigest()
    assert any("B03" in line and "from green" in line for line in record["done"])
    assert json.loads(json.dumps(record)) == record


def test_torchvisions_resnet18_has_the_same_weight_names():
    from torchvision.models import resnet18

    assert resnet18().state_dict().keys() == classifier().network.state_dict().keys()


def save_random_weights(folder, **options):
    """Save a classifier with changed weights as landscale does; return it in eval mode."""
    model = classifier(**options)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    save_weights(folder, model, {"recipe": "first", "scores": {"micro_f1": 0.5}, "synthetic": True})
    return model.eval()


def test_landscale_weights_give_the_same_logits_with_more_bands_and_reordered_classes(tmp_path):
    few = ("B08", "B02", "B04")
    source = save_random_weights(tmp_path / "run" / "weights", bands=few)
    classes = (CLASSES[2], CLASSES[0], CLASSES[3], CLASSES[1])
    model = classifier(bands=S2, classes=classes)
    record = begin_from(model, str(tmp_path / "run"))
    x = torch.randn(3, len(S2), 32, 32)
    positions = [S2.index(name) for name in few]
    expected = source.network(x[:, positions])[:, [CLASSES.index(name) for name in classes]]
    assert torch.allclose(model.eval().network(x), expected, atol=1e-4)
    assert record["provenance"] == {"recipe": "first", "synthetic": True}
    assert record["done"][-1] == "last layer: kept, its classes by name"
    other = classifier(bands=S2, classes=("tundra", "ice"))
    assert begin_from(other, str(tmp_path / "run"))["done"][-1] == "last layer: fresh, 2 classes"
    from_file = classifier(bands=S2, classes=classes)
    begin_from(from_file, str(tmp_path / "run" / "weights" / "model.safetensors"))  # config.json is in the same folder
    assert torch.equal(from_file.network.conv1.weight, model.network.conv1.weight)


def test_rows_of_classes_with_the_same_name_are_kept_and_all_others_are_fresh(tmp_path):
    source = save_random_weights(tmp_path / "w")
    classes = ("ice", CLASSES[2], "tundra", CLASSES[0])
    model = classifier(classes=classes)
    fresh = {key: value.clone() for key, value in model.network.fc.state_dict().items()}
    done = begin_from(model, str(tmp_path / "w"))["done"]
    assert done[-1] == f"last layer: kept for {CLASSES[2]}, {CLASSES[0]}, fresh for 2 other classes"
    for key, value in model.network.fc.state_dict().items():
        theirs = source.network.fc.state_dict()[key]
        assert torch.equal(value[[1, 3]], theirs[[2, 0]])
        assert torch.equal(value[[0, 2]], fresh[key][[0, 2]])
    without_head = classifier(classes=())
    save_weights(tmp_path / "encoder", without_head, {})
    assert begin_from(model, str(tmp_path / "encoder"))["done"][-1] == "last layer: fresh, 4 classes"
    assert not any("last layer" in line for line in begin_from(without_head, str(tmp_path / "w"))["done"])


def test_a_query_head_is_kept_for_the_same_classes_and_fresh_otherwise(tmp_path, rgb):
    def with_query_head(classes=CLASSES):
        model = classifier(classes=classes)
        return Classifier(replace(model.description, head="ml_decoder"))

    model = with_query_head()
    head = {k: v.clone() for k, v in model.network.head.state_dict().items()}
    assert begin_from(model, str(rgb))["done"][-1] == "last layer: fresh, 4 classes"
    assert torch.equal(model.network.trunk.layer1[0].conv1.weight, load_file(rgb)["layer1.0.conv1.weight"])
    assert all(torch.equal(v, head[k]) for k, v in model.network.head.state_dict().items())
    save_weights(tmp_path / "w", model, {})
    restored = with_query_head()
    with torch.no_grad():
        restored.network.head.bias.fill_(5)
    assert "kept" in begin_from(restored, str(tmp_path / "w"))["done"][-1]
    state = restored.network.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.network.state_dict().items())
    mixed = with_query_head((*CLASSES[:0:-1], "ice"))  # a query for each class: by name
    done = begin_from(mixed, str(tmp_path / "w"))["done"]
    assert done[-1] == f"last layer: kept for {', '.join(CLASSES[:0:-1])}, fresh for 1 other class"
    kept = model.network.head.state_dict()
    for key, value in mixed.network.head.state_dict().items():
        if key in ("queries", "weight", "bias"):
            assert torch.equal(value[:3], kept[key][[3, 2, 1]])
        else:
            assert torch.equal(value, kept[key])
    one_query = Classifier(replace(model.description, head_options={"groups": 1}))
    assert "fresh" in begin_from(one_query, str(tmp_path / "w"))["done"][-1]  # another head
    save_weights(tmp_path / "one", one_query, {})
    other = Classifier(replace(one_query.description, classes=CLASSES[::-1]))
    assert "fresh" in begin_from(other, str(tmp_path / "one"))["done"][-1]  # one query for all classes
    plain = classifier()  # from a query head back to the network's own classifier
    begin_from(plain, str(tmp_path / "w"))
    assert torch.equal(plain.network.conv1.weight, model.network.trunk.conv1.weight)


def test_a_network_without_a_known_first_convolution_accepts_only_weights_of_the_same_bands(tmp_path):
    source = save_random_weights(tmp_path / "w", model="trio", bands=("B02", "B03"), scale="both", parts=2)
    same = classifier("trio", ("B02", "B03"), scale="both", parts=2)
    begin_from(same, str(tmp_path / "w"))
    assert all(torch.equal(v, same.network.state_dict()[k]) for k, v in source.network.state_dict().items())
    line = loading_error(tmp_path / "w", classifier("trio", ("B03", "B02"), scale="both", parts=2))
    assert "same bands" in line


def test_position_embeddings_are_resampled_to_the_input_side(tmp_path):
    state = rgb_weights("vit_tiny_patch16_224", "patch_embed.proj")
    save_file(state, tmp_path / "vit.safetensors")
    model = classifier("vit_tiny_patch16_224", side=96)
    record = begin_from(model, str(tmp_path / "vit.safetensors"))
    expected = timm.layers.resample_abs_pos_embed(state["pos_embed"], (6, 6), (14, 14))
    assert torch.allclose(model.network.pos_embed, expected, atol=1e-6)
    assert "resampled: pos_embed" in record["done"]
    assert model.network.patch_embed.proj.weight.square().sum().item() == pytest.approx(
        state["patch_embed.proj.weight"].square().sum().item(), rel=1e-4
    )


def test_a_network_that_fits_one_side_says_which(tmp_path):
    save_random_weights(tmp_path / "w", model="vit_20", side=60)
    line = loading_error(tmp_path / "w", classifier("vit_20", side=80))
    assert (
        "differs in shape in pos_embed, dense.2.weight; it was trained at 60 px, expected 80 px; use --side 60" in line
    )


def test_names_of_encoders_are_found_like_everywhere(tmp_path, monkeypatch):
    source = save_random_weights(tmp_path / "w")
    monkeypatch.setattr(pretrained_files, "find_encoder", {"torchgeo:X": tmp_path / "w"}.__getitem__)
    model = classifier()
    assert begin_from(model, "torchgeo:X")["init"] == "torchgeo:X"
    assert torch.equal(model.network.conv1.weight, source.network.conv1.weight)


@pytest.mark.parametrize("name", ["convnext_atto", "swin_tiny_patch4_window7_224"])
def test_first_convolutions_of_other_families_are_adapted(name, tmp_path):
    save_file({k: v.contiguous() for k, v in timm.create_model(name).state_dict().items()}, tmp_path / "w.safetensors")
    side = 64 if name.startswith("conv") else 112
    model = classifier(name, BAND_SETS["s1+s2"].names, side=side)
    record = begin_from(model, str(tmp_path / "w.safetensors"))
    assert any("VV, VH from the mean of all" in line for line in record["done"])
    assert model.network(torch.randn(2, 14, side, side)).isfinite().all()


# ---- unusable weights: one error line, the network unchanged


def changed_file(tmp_path, rgb, change):
    """A copy of the RGB weights on which `change` was called."""
    state = load_file(rgb)
    change(state)
    save_file(state, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_weights_that_do_not_match_are_named_in_the_error(tmp_path, rgb):
    def remove_two(state):
        for k in range(1, 3):
            del state[f"layer{k}.0.conv1.weight"]

    assert "lacks layer1.0.conv1.weight, layer2.0.conv1.weight" in loading_error(
        changed_file(tmp_path, rgb, remove_two)
    )
    surplus = loading_error(
        changed_file(tmp_path, rgb, lambda s: s.update({f"x{k}": torch.zeros(1) for k in range(5)}))
    )
    assert "has the unexpected x0, x1, x2 and 2 more" in surplus
    wide = loading_error(
        changed_file(tmp_path, rgb, lambda s: s.update({"layer1.0.conv1.weight": torch.zeros(65, 64, 3, 3)}))
    )
    assert "differs in shape in layer1.0.conv1.weight" in wide
    nan = loading_error(changed_file(tmp_path, rgb, lambda s: s["bn1.weight"].fill_(torch.nan)))
    assert "not finite in bn1.weight" in nan
    assert "lacks" in loading_error(rgb, classifier("resnet34"))
    five = loading_error(changed_file(tmp_path, rgb, lambda s: s.update({"conv1.weight": torch.zeros(64, 5, 7, 7)})))
    assert "sees 5 channels of unknown bands" in five


def test_unnamed_channels_are_taken_for_the_models_bands_if_their_number_matches(tmp_path, rgb):
    conv = torch.randn(64, 12, 7, 7)
    model = classifier()
    record = begin_from(model, str(changed_file(tmp_path, rgb, lambda s: s.update({"conv1.weight": conv}))))
    assert torch.equal(model.network.conv1.weight, conv)
    assert any("no names: taken for B01, B02" in line for line in record["done"])


class FolderMaker:
    """Creates a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.safetensors"])
def test_a_pickle_file_is_refused_without_unpickling(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(pickle.dumps(FolderMaker()))
    line = loading_error(name)
    assert ("can run any code; not read" in line) == (not name.endswith(".safetensors"))
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("nested", [False, True])
def test_a_pickled_file_that_the_user_names_becomes_safetensors(tmp_path, rgb, monkeypatch, nested):
    monkeypatch.setenv("LANDSCALE_CACHE", str(tmp_path / "cache"))
    state = load_file(rgb)
    torch.save({"state_dict": state, "epoch": 3} if nested else state, tmp_path / "w.pth")
    model, other = classifier(), classifier()
    begin_from(model, str(tmp_path / "w.pth"))
    begin_from(other, str(rgb))
    assert all(torch.equal(v, other.network.state_dict()[k]) for k, v in model.network.state_dict().items())
    (converted,) = (tmp_path / "cache" / "files").iterdir()
    assert load_file(converted).keys() == state.keys()


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    assert "holds no tensors by name" in loading_error(tmp_path / "w.pth")
    (tmp_path / "w.pt").write_bytes(b"not a pickle")
    assert loading_error(tmp_path / "w.pt")


def test_incomplete_missing_and_damaged_files_are_refused(tmp_path, rgb):
    (tmp_path / "cut.safetensors").write_bytes(rgb.read_bytes()[:-100])
    assert "not a complete safetensors" in loading_error(tmp_path / "cut.safetensors")
    assert "neither a file" in loading_error(tmp_path / "none.safetensors")
    assert "holds no weights" in loading_error(tmp_path)
    save_random_weights(tmp_path / "w")
    assert "not of 'resnet34'" in loading_error(tmp_path / "w", classifier("resnet34"))
    content = bytearray((tmp_path / "w" / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "w" / "model.safetensors").write_bytes(content)
    assert "is damaged" in loading_error(tmp_path / "w")
    (tmp_path / "w" / "config.json").write_text("[]")
    assert "describes neither" in loading_error(tmp_path / "w")


def test_networks_without_imagenet_weights_are_refused():
    assert "no such weights of model 'wide_resnet'" in loading_error("imagenet", classifier("wide_resnet"))
    assert "gcvit_xxtiny_224_nvidia" in (line := loading_error("imagenet", classifier("gcvit_xxtiny", side=224)))
    assert "not fetched by name" in line


# ---- the hub


def add_repository(hub, repository="timm/resnet18.a1_in1k", architecture="resnet18"):
    state = rgb_weights()
    hub.files[f"{repository}/model.safetensors"] = save(state)
    hub.files[f"{repository}/config.json"] = json.dumps({"architecture": architecture, "num_classes": 1000}).encode()
    return state


@pytest.mark.parametrize("init", ["imagenet", "timm/resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k@main"])
def test_weights_are_fetched_from_the_hub_only_once(hub, init):
    state = add_repository(hub)
    for _ in range(2):
        model = classifier(bands=("B02", "B03", "B04"))
        begin_from(model, init)
        assert torch.equal(model.network.conv1.weight, state["conv1.weight"].flip(1))
    assert hub.fetched.count("model.safetensors") == 1


@pytest.mark.parametrize(
    "spoil,message",
    [
        ("drop", "could not be fetched"),
        ("size", "could not be fetched"),
        ("bytes", "SHA-256"),
        ("cut", "not a complete safetensors"),
    ],
)
def test_a_failed_download_gives_one_error_line(hub, spoil, message):
    add_repository(hub)
    if spoil == "cut":  # truncated on the hub itself
        hub.files["timm/resnet18.a1_in1k/model.safetensors"] = hub.files["timm/resnet18.a1_in1k/model.safetensors"][:-9]
    hub.spoil["model.safetensors"] = spoil
    assert message in loading_error("imagenet")


def test_missing_and_unusable_repositories_of_the_hub_are_refused(hub):
    assert "nor a repository of the hub" in loading_error("timm/nothing")
    add_repository(hub, "me/pickled")
    del hub.files["me/pickled/model.safetensors"]
    hub.files["me/pickled/pytorch_model.bin"] = pickle.dumps(FolderMaker())
    line = loading_error("me/pickled")
    assert "has no model.safetensors" in line
    assert "not fetched by name" in line
    assert "pytorch_model.bin" not in hub.fetched
    add_repository(hub, "me/other", "resnet50")
    assert "'resnet50', not of 'resnet18'" in loading_error("me/other")
    assert "could not be fetched" in loading_error("hf-hub:me/.." + "x" * 100)


def test_offline_mode_gives_an_error_without_a_request(hub, monkeypatch):
    add_repository(hub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "cannot be reached" in loading_error("imagenet")
    assert not hub.fetched


def test_an_unreachable_hub_gives_an_error(hub, monkeypatch):
    with socketserver.TCPServer(("127.0.0.1", 0), None) as closed:
        url = f"http://127.0.0.1:{closed.server_address[1]}"
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert "cannot be reached" in loading_error("imagenet")


# ---- the command line


def test_training_starts_from_a_file_records_it_and_resumes_without_it(cli, tmp_path, rgb):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 16, "val": 8}, seed=1)
    file = tmp_path / "w.safetensors"
    file.write_bytes(rgb.read_bytes())
    args = [
        "train",
        "--store",
        store.path,
        "--run",
        tmp_path / "run",
        "--model",
        "resnet18",
        "--bands",
        "B02,B03,B04,B08",
    ]
    args += ["--side", 32, "--batch", 8, "--epochs", 1, "--rate", 0, "--weight-decay", 0, "--precision", "fp32"]
    args += ["--init", file]
    result = cli(*args)
    assert result.code == 0, result.lines
    assert "first convolution: B02 from blue; B03 from green; B04, B08 from red" in result.lines
    config = entries(tmp_path / "run" / "weights")
    assert config["provenance"]["init"]["digest"] == hashlib.sha256(rgb.read_bytes()).hexdigest()
    adapted = load_model(tmp_path / "run").network.state_dict()
    assert torch.equal(adapted["layer1.0.conv1.weight"], load_file(file)["layer1.0.conv1.weight"])

    file.unlink()  # resuming reads the checkpoint, not this file
    (tmp_path / "run" / "scores.json").unlink()
    resumed = cli(*args)
    assert resumed.code == 0, resumed.lines
    assert not any("first convolution" in line for line in resumed.lines)
    config = entries(tmp_path / "run" / "weights")
    assert config["provenance"]["init"]["init"] == str(file)
    other = cli(*args[:-1], "imagenet")
    assert other.code == 2
    assert "holds a run with init" in other.lines[0]


def test_unusable_weights_give_one_error_line_and_create_no_run(cli, tmp_path):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 8}, seed=1)
    args = ["train", "--store", store.path, "--run", tmp_path / "run", "--model", "resnet18", "--bands", "B02,B03"]
    (tmp_path / "w.pth").write_bytes(b"")
    result = cli(*args, "--batch", 8, "--init", tmp_path / "w.pth")
    assert result.code == 2
    assert len(result.lines) == 1
    assert "is not a file of tensors" in result.lines[0]
    assert not (tmp_path / "run").exists()


def test_the_train_command_uses_the_hub_set_in_the_environment(hub, tmp_path):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 8}, seed=1)
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    args = ["train", "--store", store.path, "--run", tmp_path / "run", "--model", "resnet18", "--bands", "B02,B03"]
    args += ["--batch", 8, "--epochs", 1, "--side", 32, "--init", "imagenet"]
    add_repository(hub)
    done = outcome(command(*args, env=environment))
    assert done.code == 0, done.lines
    assert "begins from timm/resnet18.a1_in1k" in done.lines
    assert any((tmp_path / "home").rglob("model.safetensors"))
