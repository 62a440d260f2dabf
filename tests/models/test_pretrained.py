"""Pre-trained beginnings: which weights go where, that responses keep their scale, and that a bad source is one line."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import socketserver
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import huggingface_hub.utils._http as hub_http
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from conftest import command, outcome
from landscale.errors import LandscaleError
from landscale.models.classifier import Classifier, Description
from landscale.models.first_convolution import RGB, adapt_weights, channel_names, describe_mapping, map_channels
from landscale.models.input_stage import SCALES
from landscale.models.pretrained import begin_from
from landscale.models.weights import load_model, save_weights
from landscale.testing import CLASSES, make_store, rgbn_plane
from landscale.vocabulary.bands import BAND_SETS, BANDS

pytestmark = pytest.mark.usefixtures("seeded")

S2 = BAND_SETS["s2-12"].names
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def classifier(model="resnet18", bands=S2, classes=CLASSES, scale="linear", side=32, **options):
    statistics = dict.fromkeys(channel_names(bands, scale), (1000.0, 300.0))
    torch.manual_seed(1)
    return Classifier(
        Description(
            model, tuple(bands), tuple(classes), "custom", True, statistics, side, 240, scale=scale, options=options
        )
    )


def rgb_weights(model="resnet18", first="conv1", **options):
    """Weights of an RGB network, their channels near 1, 10 and 100, so that a swap shows."""
    state = timm.create_model(model, pretrained=False, **options).state_dict()
    name = f"{first}.weight"
    state[name] = torch.rand_like(state[name]) + torch.tensor([1.0, 10.0, 100.0])[:, None, None]
    return {k: v + 0.5 if k.endswith("running_mean") else v for k, v in state.items()}


@pytest.fixture(scope="module")
def rgb(tmp_path_factory):
    path = tmp_path_factory.mktemp("rgb") / "resnet18.safetensors"
    save_file(rgb_weights(), path)
    return path


def untouched(model):
    return {k: v.clone() for k, v in model.network.state_dict().items()}


def refused(init, model=None):
    """The line that refuses; the network is what it was."""
    model = model or classifier()
    before = untouched(model)
    with pytest.raises(LandscaleError) as error:
        begin_from(model, str(init))
    assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- the first convolution


def test_each_band_takes_the_nearest_colour():
    matrix = map_channels(S2, RGB)
    assert describe_mapping(S2, matrix, RGB) == (
        "B01, B02 from blue; B03 from green; B04, B05, B06, B07, B08, B8A, B09, B11, B12 from red"
    )
    assert torch.allclose(matrix.sum(0), torch.ones(3))
    assert matrix[S2.index("B02")].tolist() == [0, 0, 0.5]


def test_rgb_in_any_order_is_copied_to_the_bit():
    weight = torch.randn(8, 3, 3, 3)
    assert torch.equal(adapt_weights(weight, map_channels(("B04", "B03", "B02"), RGB)), weight)
    assert torch.equal(adapt_weights(weight, map_channels(("B02", "B03", "B04"), RGB)), weight.flip(1))


def test_radar_takes_the_mean():
    weight = torch.randn(8, 3, 5, 5)
    vv, vh = adapt_weights(weight, map_channels(("VV", "VH"), RGB)).unbind(1)
    assert torch.equal(vv, vh)
    ratio = vv / weight.mean(1)
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-4)
    mixed = map_channels(("VV", "B04", "VH"), RGB)
    assert mixed.tolist()[0] == mixed.tolist()[2] == pytest.approx([1 / 6] * 3)
    assert mixed[1].tolist() == [1, 0, 0]


names = st.lists(st.sampled_from(sorted(BANDS)), min_size=1, max_size=15, unique=True)


@given(names, st.sampled_from(SCALES), st.integers(0, 99))
def test_the_response_keeps_its_variance(bands, scale, seed):
    torch.manual_seed(seed)
    weight = torch.randn(64, 3, 3, 3)
    ours = channel_names(bands, scale)
    made = adapt_weights(weight, map_channels(ours, RGB))
    assert made.shape == (64, len(ours), 3, 3)
    x = torch.randn(256, max(3, len(ours)), 3, 3)  # channels of mean 0 and variance 1
    before, after = (torch.einsum("nchw,ochw->no", x[:, : w.shape[1]], w).var().item() for w in (weight, made))
    assert after == pytest.approx(before, rel=0.15)


@given(names)
def test_a_filter_for_differences_of_colour_stays_one(bands):
    weight = torch.randn(16, 3, 3, 3)
    weight -= weight.mean(1, keepdim=True)  # 0 for grey
    bands = list(dict.fromkeys([*bands, "B02", "B03", "B04"]))
    grey = adapt_weights(weight, map_channels(bands, RGB)).sum(1)
    assert grey.abs().max() < 1e-5 * len(bands)


@given(names, names)
def test_channels_known_by_name_are_copied_and_new_ones_start_at_nothing(theirs, more):
    ours = list(dict.fromkeys([*more, *theirs]))  # all of theirs, others, another order
    weight = torch.randn(4, len(theirs), 3, 3)
    made = adapt_weights(weight, map_channels(ours, theirs))
    for k, name in enumerate(ours):
        wanted = weight[:, theirs.index(name)] if name in theirs else torch.zeros(4, 3, 3)
        assert torch.equal(made[:, k], wanted)


def test_pixels_folded_into_channels_keep_their_places():
    weight = torch.arange(2 * 12.0).reshape(2, 12, 1, 1)  # four pixels, each with all three channels
    made = adapt_weights(weight, map_channels(("B02", "B03", "B04"), RGB))
    assert torch.equal(made, weight.reshape(2, 4, 3, 1, 1).flip(2).reshape(2, 12, 1, 1))


# ---- files


@pytest.mark.parametrize("scale", SCALES)
def test_rgb_weights_reach_twelve_bands(rgb, scale):
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


def test_torchvisions_file_fits():
    from torchvision.models import resnet18

    assert resnet18().state_dict().keys() == classifier().network.state_dict().keys()


def ours(folder, **how):
    model = classifier(**how)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    save_weights(folder, model, {"recipe": "first", "scores": {"micro_f1": 0.5}, "synthetic": True})
    return model.eval()


def test_weights_of_ours_answer_as_they_did_with_more_bands_and_another_order_of_classes(tmp_path):
    few = ("B08", "B02", "B04")
    source = ours(tmp_path / "run" / "weights", bands=few)
    classes = (CLASSES[2], CLASSES[0], CLASSES[3], CLASSES[1])
    model = classifier(bands=S2, classes=classes)
    record = begin_from(model, str(tmp_path / "run"))
    x = torch.randn(3, len(S2), 32, 32)
    there = [S2.index(name) for name in few]
    expected = source.network(x[:, there])[:, [CLASSES.index(name) for name in classes]]
    assert torch.allclose(model.eval().network(x), expected, atol=1e-4)
    assert record["provenance"] == {"recipe": "first", "synthetic": True}
    assert record["done"][-1] == "last layer: kept, its classes by name"
    other = classifier(bands=S2, classes=("forest", "ice"))
    assert begin_from(other, str(tmp_path / "run"))["done"][-1] == "last layer: fresh, 2 classes"
    beside = classifier(bands=S2, classes=classes)
    begin_from(beside, str(tmp_path / "run" / "weights" / "model.safetensors"))  # config.json is beside it
    assert torch.equal(beside.network.conv1.weight, model.network.conv1.weight)


def test_a_head_of_queries(tmp_path, rgb):
    def headed(classes=CLASSES):
        model = classifier(classes=classes)
        return Classifier(replace(model.description, head="ml_decoder"))

    model = headed()
    head = {k: v.clone() for k, v in model.network.head.state_dict().items()}
    assert begin_from(model, str(rgb))["done"][-1] == "last layer: fresh, 4 classes"
    assert torch.equal(model.network.trunk.layer1[0].conv1.weight, load_file(rgb)["layer1.0.conv1.weight"])
    assert all(torch.equal(v, head[k]) for k, v in model.network.head.state_dict().items())
    save_weights(tmp_path / "w", model, {})
    again = headed()
    with torch.no_grad():
        again.network.head.bias.fill_(5)
    assert "kept" in begin_from(again, str(tmp_path / "w"))["done"][-1]
    state = again.network.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.network.state_dict().items())
    assert "fresh" in begin_from(headed(CLASSES[::-1]), str(tmp_path / "w"))["done"][-1]
    plain = classifier()  # and back to a layer of its own
    begin_from(plain, str(tmp_path / "w"))
    assert torch.equal(plain.network.conv1.weight, model.network.trunk.conv1.weight)


def test_a_network_that_tells_no_first_layer_takes_the_same_bands_only(tmp_path):
    source = ours(tmp_path / "w", model="trio", bands=("B02", "B03"), scale="both", parts=2)
    same = classifier("trio", ("B02", "B03"), scale="both", parts=2)
    begin_from(same, str(tmp_path / "w"))
    assert all(torch.equal(v, same.network.state_dict()[k]) for k, v in source.network.state_dict().items())
    line = refused(tmp_path / "w", classifier("trio", ("B03", "B02"), scale="both", parts=2))
    assert "same bands" in line


def test_positions_of_tokens_are_resampled(tmp_path):
    state = rgb_weights("vit_tiny_patch16_224", "patch_embed.proj")
    save_file(state, tmp_path / "vit.safetensors")
    model = classifier("vit_tiny_patch16_224", side=96)
    record = begin_from(model, str(tmp_path / "vit.safetensors"))
    there = timm.layers.resample_abs_pos_embed(state["pos_embed"], (6, 6), (14, 14))
    assert torch.allclose(model.network.pos_embed, there, atol=1e-6)
    assert "resampled: pos_embed" in record["done"]
    assert model.network.patch_embed.proj.weight.square().sum().item() == pytest.approx(
        state["patch_embed.proj.weight"].square().sum().item(), rel=1e-4
    )


@pytest.mark.parametrize("name", ["convnext_atto", "swin_tiny_patch4_window7_224"])
def test_other_stems(name, tmp_path):
    save_file({k: v.contiguous() for k, v in timm.create_model(name).state_dict().items()}, tmp_path / "w.safetensors")
    side = 64 if name.startswith("conv") else 112
    model = classifier(name, BAND_SETS["s1+s2"].names, side=side)
    record = begin_from(model, str(tmp_path / "w.safetensors"))
    assert any("VV, VH from the mean of all" in line for line in record["done"])
    assert model.network(torch.randn(2, 14, side, side)).isfinite().all()


# ---- refusals: one line, nothing half loaded


def damaged(tmp_path, rgb, change):
    state = load_file(rgb)
    change(state)
    save_file(state, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_what_does_not_match_is_named(tmp_path, rgb):
    def lose(state):
        for k in range(1, 3):
            del state[f"layer{k}.0.conv1.weight"]

    assert "lacks layer1.0.conv1.weight, layer2.0.conv1.weight" in refused(damaged(tmp_path, rgb, lose))
    more = refused(damaged(tmp_path, rgb, lambda s: s.update({f"x{k}": torch.zeros(1) for k in range(5)})))
    assert "has besides x0, x1, x2 and 2 more" in more
    wide = refused(damaged(tmp_path, rgb, lambda s: s.update({"layer1.0.conv1.weight": torch.zeros(65, 64, 3, 3)})))
    assert "differs in shape in layer1.0.conv1.weight" in wide
    nan = refused(damaged(tmp_path, rgb, lambda s: s["bn1.weight"].fill_(torch.nan)))
    assert "not finite in bn1.weight" in nan
    assert "lacks" in refused(rgb, classifier("resnet34"))
    five = refused(damaged(tmp_path, rgb, lambda s: s.update({"conv1.weight": torch.zeros(64, 5, 7, 7)})))
    assert "sees 5 channels of unknown bands" in five


def test_channels_without_names_are_ours_if_their_number_is(tmp_path, rgb):
    conv = torch.randn(64, 12, 7, 7)
    model = classifier()
    record = begin_from(model, str(damaged(tmp_path, rgb, lambda s: s.update({"conv1.weight": conv}))))
    assert torch.equal(model.network.conv1.weight, conv)
    assert any("no names: taken for B01, B02" in line for line in record["done"])


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.safetensors"])
def test_a_pickle_is_never_opened(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(pickle.dumps(Trap()))
    line = refused(name)
    assert ("convert" in line) == (not name.endswith(".safetensors"))
    assert not Path("trapped").exists()


def test_files_that_are_not_whole_or_not_there(tmp_path, rgb):
    (tmp_path / "cut.safetensors").write_bytes(rgb.read_bytes()[:-100])
    assert "no whole safetensors" in refused(tmp_path / "cut.safetensors")
    assert "neither a file" in refused(tmp_path / "none.safetensors")
    assert "holds no weights" in refused(tmp_path)
    ours(tmp_path / "w")
    assert "not of 'resnet34'" in refused(tmp_path / "w", classifier("resnet34"))
    content = bytearray((tmp_path / "w" / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "w" / "model.safetensors").write_bytes(content)
    assert "is damaged" in refused(tmp_path / "w")
    (tmp_path / "w" / "config.json").write_text("[]")
    assert "describes neither" in refused(tmp_path / "w")


def test_networks_without_weights_of_imagenet():
    assert "there are none of model 'wide_resnet'" in refused("imagenet", classifier("wide_resnet"))
    assert "gcvit_xxtiny_224_nvidia" in (line := refused("imagenet", classifier("gcvit_xxtiny", side=224)))
    assert "convert" in line


# ---- the hub


class Hub(ThreadingHTTPServer):
    """Repositories as the Hugging Face hub serves them; some files are spoilt."""

    daemon_threads = True

    def __init__(self):
        self.files, self.spoil, self.fetched = {}, {}, []
        super().__init__(("127.0.0.1", 0), Answers)

    def handle_error(self, request, address):
        pass  # a client that gives up

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        file = rest.partition("/")[2]
        content = self.server.files.get(f"{repository}/{file}")
        if content is None:
            known = any(name.startswith(f"{repository}/") for name in self.server.files)
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        spoil = self.server.spoil.get(file)
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(content) + (7 if spoil == "size" else 0)))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not body:
            return
        self.server.fetched.append(file)
        if spoil == "drop":
            content = content[: len(content) // 2] if self.server.fetched.count(file) == 1 else b""
            self.close_connection = True
        if spoil == "bytes":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with Hub() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hub_http.time, "sleep", lambda _: None)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
        yield server
        server.shutdown()


def offer(hub, repository="timm/resnet18.a1_in1k", architecture="resnet18"):
    state = rgb_weights()
    hub.files[f"{repository}/model.safetensors"] = save(state)
    hub.files[f"{repository}/config.json"] = json.dumps({"architecture": architecture, "num_classes": 1000}).encode()
    return state


@pytest.mark.parametrize("init", ["imagenet", "timm/resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k@main"])
def test_weights_come_from_the_hub_once(hub, init):
    state = offer(hub)
    for _ in range(2):
        model = classifier(bands=("B02", "B03", "B04"))
        begin_from(model, init)
        assert torch.equal(model.network.conv1.weight, state["conv1.weight"].flip(1))
    assert hub.fetched.count("model.safetensors") == 1


@pytest.mark.parametrize(
    "spoil,said",
    [
        ("drop", "could not be fetched"),
        ("size", "could not be fetched"),
        ("bytes", "SHA-256"),
        ("cut", "no whole safetensors"),
    ],
)
def test_a_bad_line_is_one_line(hub, spoil, said):
    offer(hub)
    if spoil == "cut":  # on the hub itself
        hub.files["timm/resnet18.a1_in1k/model.safetensors"] = hub.files["timm/resnet18.a1_in1k/model.safetensors"][:-9]
    hub.spoil["model.safetensors"] = spoil
    assert said in refused("imagenet")


def test_what_the_hub_does_not_have(hub):
    assert "no such repository" in refused("timm/nothing")
    offer(hub, "me/pickled")
    del hub.files["me/pickled/model.safetensors"]
    hub.files["me/pickled/pytorch_model.bin"] = pickle.dumps(Trap())
    line = refused("me/pickled")
    assert "has no model.safetensors" in line
    assert "never read" in line
    assert "pytorch_model.bin" not in hub.fetched
    offer(hub, "me/other", "resnet50")
    assert "'resnet50', not of 'resnet18'" in refused("me/other")
    assert "could not be fetched" in refused("hf-hub:me/.." + "x" * 100)


def test_without_a_network(hub, monkeypatch):
    offer(hub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "cannot be reached" in refused("imagenet")
    assert not hub.fetched


def test_a_hub_that_does_not_answer(hub, monkeypatch):
    with socketserver.TCPServer(("127.0.0.1", 0), None) as closed:
        url = f"http://127.0.0.1:{closed.server_address[1]}"
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert "cannot be reached" in refused("imagenet")


# ---- the command line


def test_a_training_begins_from_a_file_says_so_and_resumes_without_it(cli, tmp_path, rgb):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 16, "val": 8}, seed=1)
    file = tmp_path / "w.safetensors"
    file.write_bytes(rgb.read_bytes())
    words = [
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
    words += ["--side", 32, "--batch", 8, "--epochs", 1, "--rate", 0, "--weight-decay", 0, "--precision", "fp32"]
    words += ["--init", file]
    answer = cli(*words)
    assert answer.code == 0, answer.lines
    assert "first convolution: B02 from blue; B03 from green; B04, B08 from red" in answer.lines
    config = json.loads((tmp_path / "run" / "weights" / "config.json").read_text())
    assert config["provenance"]["init"]["digest"] == hashlib.sha256(rgb.read_bytes()).hexdigest()
    made = load_model(tmp_path / "run").network.state_dict()
    assert torch.equal(made["layer1.0.conv1.weight"], load_file(file)["layer1.0.conv1.weight"])

    file.unlink()  # what follows is the checkpoint's
    (tmp_path / "run" / "scores.json").unlink()
    again = cli(*words)
    assert again.code == 0, again.lines
    assert not any("first convolution" in line for line in again.lines)
    config = json.loads((tmp_path / "run" / "weights" / "config.json").read_text())
    assert config["provenance"]["init"]["init"] == str(file)
    other = cli(*words[:-1], "imagenet")
    assert other.code == 2
    assert "holds a run with init" in other.lines[0]


def test_a_bad_beginning_is_one_line_and_leaves_no_run(cli, tmp_path):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 8}, seed=1)
    words = ["train", "--store", store.path, "--run", tmp_path / "run", "--model", "resnet18", "--bands", "B02,B03"]
    (tmp_path / "w.pth").write_bytes(b"")
    answer = cli(*words, "--batch", 8, "--init", tmp_path / "w.pth")
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert "convert" in answer.lines[0]
    assert not (tmp_path / "run").exists()


def test_the_hub_of_the_environment_is_asked(hub, tmp_path):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 8}, seed=1)
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    words = ["train", "--store", store.path, "--run", tmp_path / "run", "--model", "resnet18", "--bands", "B02,B03"]
    words += ["--batch", 8, "--epochs", 1, "--side", 32, "--init", "imagenet"]
    missing = outcome(command(*words, env=environment))
    assert missing.code == 2
    assert "no such repository" in missing.lines[-1]
    offer(hub)
    done = outcome(command(*words, env=environment))
    assert done.code == 0, done.lines
    assert "begins from timm/resnet18.a1_in1k" in done.lines
    assert any((tmp_path / "home").rglob("model.safetensors"))
