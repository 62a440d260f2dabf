"""TorchGeo's weights by name: the table, files as TorchGeo publishes them, digests, and the cache."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torchvision.models import swin_transformer

import landscale
from badserver import QUICK, Server, drop, status
from conftest import Cli
from landscale.errors import LandscaleError
from landscale.models.encoders import cache, find_encoder, load_encoder, named, torchgeo
from landscale.models.encoders.conversion import describe, load_tensors
from landscale.models.weights import read_config
from landscale.testing import make_store
from landscale.vocabulary.bands import BANDS

MOCO = "torchgeo:ResNet18_Weights.SENTINEL2_ALL_MOCO"
SMALL = "test_efficientnet"  # of timm, in place of the published ResNet-18
NO_DIGEST = "torchgeo:ViTSmall16_Weights.SENTINEL2_ALL_MAE"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LANDSCALE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def published(model: str, channels: int, classes: int = 0, **options: int) -> tuple[dict[str, torch.Tensor], bytes]:
    """A network's tensors, as timm names them and TorchGeo publishes them, and the bytes of their file."""
    torch.manual_seed(3)
    state = timm.create_model(model, in_chans=channels, num_classes=classes, **options).state_dict()
    state = {k: t + 0.1 * torch.rand(t.shape) if t.is_floating_point() else t for k, t in state.items()}
    file = io.BytesIO()
    torch.save(state, file)
    return state, file.getvalue()


@pytest.fixture
def moco(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The tensors of a small network, which a local server has in place of the MoCo ResNet-18."""
    state, content = published(SMALL, 13, 1000)  # with a last layer, which the encoder does not have
    return serve(server, monkeypatch, content) or state


def serve(server: Server, monkeypatch: pytest.MonkeyPatch, content: bytes, digest: str = "") -> None:
    server.content = content
    digest = digest or hashlib.sha256(content).hexdigest()[:8]
    entry = replace(
        torchgeo.entries()[MOCO], model=SMALL, url=f"{server.url}/file-{digest}.pth", digest=f"sha256:{digest}"
    )
    known = {**torchgeo.entries(), MOCO: entry}
    monkeypatch.setattr(torchgeo, "entries", lambda: known)
    monkeypatch.setattr(named, "RETRIES", QUICK)


def test_every_entry_has_an_input_for_each_channel_and_a_network_of_timm() -> None:
    entries = torchgeo.entries()
    assert len(entries) == 59
    for entry in entries.values():
        d = describe(entry)
        d.check()
        assert timm.is_model(d.model)
        assert {*d.statistics} == {*d.units} == {*d.bands} <= {*BANDS}
        assert entry.url.startswith("https://huggingface.co/")
        assert entry.digest == "" or entry.digest.removeprefix("sha256:") in entry.url
    assert entries["torchgeo:ResNet50_Weights.SENTINEL2_ALL_MOCO"].digest == "sha256:df8b932e"
    assert entries[MOCO].inputs.bands[7:11] == ("B08", "B8A", "B09", "B10")


def test_satlas_sees_true_colour_pictures_and_clipped_digital_numbers() -> None:
    d = describe(torchgeo.entries()["torchgeo:ResNet50_Weights.SENTINEL2_SI_MS_SATLAS"])
    assert d.bands == ("B04", "B03", "B02", "B05", "B06", "B07", "B08", "B11", "B12")
    assert (d.units["B04"], d.stretches["B04"], d.statistics["B04"]) == ("8-bit", 3558, (0, 255))
    assert (d.units["B05"], d.limits["B05"], d.statistics["B05"]) == ("digital number", (0, 8160), (0, 8160))


def test_seco_is_normalised_as_by_its_authors() -> None:
    """Reflectance 0…1 → 0…255, a range of each band → 0…1 with clipping, ImageNet's statistics."""
    inputs = torchgeo.entries()["torchgeo:ResNet18_Weights.SENTINEL2_RGB_SECO"].inputs
    for band, (low, high), mean, std in (("B04", (0, 129), 0.485, 0.229), ("B02", (3, 88), 0.406, 0.225)):
        for number in (0.0, 1500.0, 9000.0):
            theirs = (np.clip((number / 10_000 * 255 - low) / (high - low), 0, 1) - mean) / std
            clipped = np.clip(number, *inputs.limits[band])
            assert (clipped - inputs.statistics[band][0]) / inputs.statistics[band][1] == pytest.approx(theirs)


def test_weights_are_fetched_and_converted_once(
    moco: dict[str, torch.Tensor], server: Server, own_cache: Path, tmp_path: Path, cli: Cli
) -> None:
    server.plan = [drop(100_000)]
    classifier = landscale.load_model(MOCO)
    assert server.received() == [None, "bytes=100000-"]
    state = classifier.network.state_dict()
    assert state.keys() == moco.keys() - {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(tensor, moco[name]) for name, tensor in state.items())
    requests = len(server.received())
    folder = find_encoder(MOCO)
    assert len(server.received()) == requests
    about = read_config(folder)["provenance"]
    assert about["encoder"] == MOCO
    assert about["licence"] == "cc-by-4.0"
    assert about["digest"] == hashlib.sha256(server.content).hexdigest()
    assert about["citation"].endswith("2211.07044")
    card = (folder / "README.md").read_text()
    assert f"- Trained by others and published as {MOCO} (source https://github.com/zhu-xlab/SSL4EO-S12" in card
    assert [path.name for path in (own_cache / "downloads").iterdir()] == []
    planes = {("B02",): torch.rand(1, 1, 8, 8) * 4000} | {
        (b,): torch.rand(1, 1, 4, 4) for b in BANDS if b[0] == "B" and b != "B02"
    }
    assert classifier.features(planes).shape == (1, 256)
    info = cli("info", MOCO, "--json").json
    assert (info["model"], info["classes"], info["level"]) == (SMALL, [], "L1C")


def test_a_file_of_another_digest_is_never_unpickled(
    server: Server, monkeypatch: pytest.MonkeyPatch, own_cache: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    _, content = published(SMALL, 13)
    serve(server, monkeypatch, content, digest="0123abcd")
    with pytest.raises(LandscaleError, match="expected 0123abcd; it was removed"):
        find_encoder(MOCO)
    (tmp_path / "mine.pth").write_bytes(content)
    with pytest.raises(LandscaleError, match="its publisher gives 0123abcd; not read"):
        find_encoder(f"{MOCO}={tmp_path / 'mine.pth'}")
    assert list(own_cache.rglob("model.safetensors")) == []


def test_a_mirror_of_the_hub_is_used_and_a_failure_names_the_way_without_a_network(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, content = published(SMALL, 13)
    serve(server, monkeypatch, content)
    entry = torchgeo.entries()[MOCO]
    torchgeo.entries()[MOCO] = replace(entry, url=entry.url.replace(server.url, "https://huggingface.co"))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.plan = [status(404)]
    with pytest.raises(LandscaleError, match=r"answers 404 .*; or download it elsewhere and give torchgeo:\S+=FILE"):
        find_encoder(MOCO)
    assert torch.equal(load_encoder(MOCO).network.conv_stem.weight, state["conv_stem.weight"])


def test_tensors_that_are_not_dense_are_refused(tmp_path: Path) -> None:
    for tensor in (torch.eye(3).to_sparse(), torch.empty(2, device="meta")):
        torch.save({"conv1.weight": tensor}, tmp_path / "enc.pth")
        with pytest.raises(LandscaleError, match=r"enc.pth: .*"):
            find_encoder(f"{NO_DIGEST}={tmp_path / 'enc.pth'}")


class FolderMaker:
    """Creates a folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


def test_a_file_with_the_right_digest_that_runs_code_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_cache: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    file = io.BytesIO()
    torch.save({"conv1.weight": FolderMaker()}, file)
    for content in (file.getvalue(), pickle.dumps(FolderMaker())):
        serve(server, monkeypatch, content)
        with pytest.raises(LandscaleError, match="can run any code; not read"):
            find_encoder(MOCO)
    assert not Path("unpickled").exists()


def test_a_file_that_was_downloaded_before_is_used_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a socket is opened"))
    state, content = published("test_vit", 13, img_size=224)
    (tmp_path / "enc.pth").write_bytes(content)
    small = replace(torchgeo.entries()[NO_DIGEST], model="test_vit")
    monkeypatch.setitem(torchgeo.entries(), NO_DIGEST, small)
    encoder = load_encoder(f"{NO_DIGEST}={tmp_path / 'enc.pth'}")
    assert torch.equal(encoder.network.state_dict()["pos_embed"], state["pos_embed"])
    with pytest.raises(LandscaleError, match=r"no digest of it; download https://huggingface\.co/wangyi") as caught:
        find_encoder(NO_DIGEST)
    assert "\n" not in str(caught.value)


def test_a_transformer_published_without_its_last_norm_keeps_the_initial_one() -> None:
    state, _ = published("test_vit", 3, 10)
    network = timm.create_model("test_vit", num_classes=0)
    del state["norm.weight"], state["norm.bias"]
    load_tensors(network, state, Path("f"), "test_vit", headless=True)
    assert torch.equal(network.norm.weight, torch.ones(64))
    with pytest.raises(LandscaleError, match=r"f: does not fit m: lacks tensor norm.weight"):
        load_tensors(timm.create_model("test_vit", num_classes=10), state, Path("f"), "m")
    with pytest.raises(LandscaleError, match="has an unexpected tensor extra"):
        load_tensors(network, state | {"extra": torch.zeros(1)}, Path("f"), "m", headless=True)
    with pytest.raises(LandscaleError, match=r"cls_token has shape \(1, 1, 9\), expected \(1, 1, 64\)"):
        load_tensors(network, state | {"cls_token": torch.zeros(1, 1, 9)}, Path("f"), "m", headless=True)


def test_a_prefix_is_found_also_without_the_counters_of_batch_norms() -> None:
    state, _ = published("test_resnet", 3, 10)
    older = {f"encoder.{k}": t for k, t in state.items() if not k.endswith("num_batches_tracked")}
    network = timm.create_model("test_resnet", num_classes=0)
    load_tensors(network, older | {"projector.weight": torch.zeros(2)}, Path("f"), "resnet18", headless=True)
    assert torch.equal(network.layer4[0].bn1.weight, state["layer4.0.bn1.weight"])


def test_torchvisions_swin_gives_the_same_features_under_timms_names() -> None:
    """A small one, whose first stage shifts its windows."""
    torch.manual_seed(0)
    parts = {"block": swin_transformer.SwinTransformerBlockV2, "downsample_layer": swin_transformer.PatchMergingV2}
    theirs = swin_transformer.SwinTransformer([4, 4], 24, [2, 2], [3, 6], [8, 8], **parts).eval()
    for parameter in theirs.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    shape = {"img_size": 64, "embed_dim": 24, "depths": (2, 2), "num_heads": (3, 6)}
    ours = timm.create_model("swinv2_tiny_window8_256", num_classes=0, **shape).eval()
    load_tensors(ours, theirs.state_dict(), Path("f"), "swinv2", headless=True)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs.norm(theirs.features(pixels)).mean((1, 2))
        assert torch.allclose(ours(pixels), expected, atol=1e-5)
        assert expected.std() > 0.1


def test_a_damaged_cache_is_made_again(moco: dict[str, torch.Tensor], server: Server) -> None:
    folder = find_encoder(MOCO)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert torch.equal(load_encoder(MOCO).network.conv_stem.weight, moco["conv_stem.weight"])
    (folder / "config.json").unlink()
    assert torch.equal(load_encoder(MOCO).network.conv_stem.weight, moco["conv_stem.weight"])


def test_two_at_once_convert_once(
    moco: dict[str, torch.Tensor], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads, which lock files as two processes do."""
    (tmp_path / "enc.pth").write_bytes(server.content)
    converted = []

    def convert(*arguments: object) -> None:
        converted.append(arguments)
        time.sleep(0.2)
        save(*arguments)

    save = named.save_converted
    monkeypatch.setattr(named, "save_converted", convert)
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(find_encoder, 2 * [f"{MOCO}={tmp_path / 'enc.pth'}"]))
    assert folders[0] == folders[1]
    assert len(converted) == 1


def test_an_unwritable_cache_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LANDSCALE_CACHE", str(tmp_path / "file"))
    (tmp_path / "enc.pth").write_bytes(published(SMALL, 13)[1])
    with pytest.raises(LandscaleError, match="LANDSCALE_CACHE names another place"):
        cache.cached_weights("a:b", "", lambda _: None)


def test_unknown_names_suggest_near_ones(cli: Cli, tmp_path: Path) -> None:
    refused = cli("info", "torchgeo:ResNet50_Weights.SENTINEL2_MOCO")
    assert refused.code == 2
    assert "did you mean torchgeo:ResNet50_Weights.SENTINEL2_" in refused.lines[0]
    with pytest.raises(LandscaleError, match="unknown kind of weights 'torchgoe:'; did you mean torchgeo:"):
        find_encoder("torchgoe:ResNet50_Weights.SENTINEL2_ALL_MOCO")
    with pytest.raises(LandscaleError, match=r"did you mean hf-hub:BIFOLD-BigEarthNetv2-0/resnet50-s2-v0\.2\.0"):
        find_encoder("hf-hub:BIFOLD-BigEarthNetv2-0/resnet50-s2-v0.1.1")


def test_no_socket_is_opened_for_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a socket is opened"))
    with pytest.raises(LandscaleError, match="holds no weights"):
        find_encoder(tmp_path)
    with pytest.raises(LandscaleError, match="holds no weights"):
        find_encoder("owner/name")


def test_an_encoder_without_classes_is_refused_by_evaluate_and_predict(
    moco: dict[str, torch.Tensor], tmp_path: Path, cli: Cli
) -> None:
    store = make_store(tmp_path / "s.h5", splits={"test": 2})
    (tmp_path / "scene").mkdir()
    for command in (("evaluate", MOCO, store.path), ("predict", MOCO, tmp_path / "scene", tmp_path / "map.tif")):
        refused = cli(*command)
        assert refused.code == 2
        assert "test_efficientnet are an encoder without classes" in refused.lines[-1]


def test_all_of_torchgeos_own_entries_are_in_the_table() -> None:
    """Where TorchGeo is installed: address, network, bands and their order."""
    models = pytest.importorskip("torchgeo.models")
    ours = torchgeo.entries()
    names = [
        f"{kind}_Weights" for kind in ("ResNet18", "ResNet50", "ResNet152", "ViTSmall16", "ViTBase16", "ViTLarge16")
    ]
    names += ["ViTHuge14_Weights", "ViTSmall14_DINOv2_Weights", "ViTBase14_DINOv2_Weights"]
    for weights in [w for name in [*names, "Swin_V2_T_Weights", "Swin_V2_B_Weights"] for w in getattr(models, name)]:
        bands = weights.meta.get("bands", ())
        if (
            not weights.name.startswith("SENTINEL")
            or "NDVI" in bands
            or ("SENTINEL1" in weights.name and "SATLAS" in weights.name)
        ):
            continue
        entry = ours[f"torchgeo:{weights}"]
        assert entry.url == weights.url.replace("https://hf.co/", "https://huggingface.co/")
        assert [b.lstrip("B").lstrip("0").upper() for b in bands] == [
            b.lstrip("B").lstrip("0") for b in entry.inputs.bands
        ]
        assert entry.model.startswith(weights.meta["model"].split("_v2")[0]) or "ResNet152" in str(weights)
