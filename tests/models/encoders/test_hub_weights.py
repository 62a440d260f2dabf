"""Weights on the hub by name: reBEN's classifiers, landscale's own folders, and timm's; and those that come with landscale."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save
from torch.nn.functional import interpolate

import landscale
from conftest import Cli
from hub import COMMIT, Hub
from landscale.errors import LandscaleError
from landscale.models.classifier import Classifier, Description
from landscale.models.encoders import bundled, find_encoder, load_encoder, timm_weights
from landscale.models.input_units import compare_units, store_source
from landscale.models.weights import check_weights, read_config, save_weights
from landscale.store import Plane
from landscale.testing import make_store

REBEN = "BIFOLD-BigEarthNetv2-0"
SMALL = "test_efficientnet"  # of timm, in place of the networks that are published
# Copied from the published classifiers: order of the bands, and mean and standard deviation of each.
S2_ORDER = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
S2_MEANS = (438.372, 614.056, 588.410, 942.843, 1769.932, 2049.552, 2193.292, 2235.557, 1568.227, 997.732)
S2_DEVIATIONS = (607.027, 603.297, 684.569, 738.433, 1100.456, 1275.805, 1369.372, 1356.544, 1070.161, 813.528)
FIRST_CLASSES = ("Agro-forestry areas", "Arable land", "Beaches, dunes, sands", "Broad-leaved forest")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDSCALE_CACHE", str(tmp_path / "converted"))


def publish_reben(
    hub: Hub, network: str = SMALL, bands: str = "s2", prefix: str = "model.vision_encoder.", **stated: Any
) -> torch.nn.Module:
    """A classifier of reBEN on the hub, of a small network; returns timm's network in it."""
    torch.manual_seed(5)
    channels = {"s1": 2, "s2": 10, "all": 12}[bands]
    module = timm.create_model(network, in_chans=channels, num_classes=19).eval()
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.add_(0.1 * torch.rand(buffer.shape))
    repository = f"{REBEN}/{network}-{bands}-v0.2.0"
    hub.files[f"{repository}/model.safetensors"] = save({f"{prefix}{k}": t for k, t in module.state_dict().items()})
    config = {"config": {"timm_model_name": network, "channels": channels, "classes": 19, "image_size": 120} | stated}
    hub.files[f"{repository}/config.json"] = json.dumps(config).encode()
    return module


@pytest.mark.parametrize("prefix", ["model.vision_encoder.", "vision_encoder.", ""])
def test_a_classifier_of_reben_gives_the_probabilities_of_the_original_pipeline(hub: Hub, prefix: str) -> None:
    """Nearest upsampling to 120 px, mean and standard deviation, timm's network, sigmoid."""
    module = publish_reben(hub, prefix=prefix)
    classifier = load_encoder(f"hf-hub:{REBEN}/{SMALL}-s2-v0.2.0")
    d = classifier.description
    assert d.classes[:4] == FIRST_CLASSES
    assert d.classes == tuple(sorted(d.classes))
    assert (len(d.classes), d.nomenclature, d.multi_label, d.level, d.ground) == (19, "ben19", True, "L2A", 1200)

    numbers = {b: np.random.default_rng(k).integers(0, 9000, (2, n, n)) for k, (b, n) in enumerate(sides().items())}
    groups = [tuple(b for b, n in sides().items() if n == side) for side in (60, 120)]
    planes = {key: torch.from_numpy(np.stack([numbers[b] for b in key], 1).astype(np.uint16)) for key in groups}
    raw = [torch.from_numpy(numbers[band][:, None].astype(np.float32)) for band in S2_ORDER]
    image = torch.cat([interpolate(pixels, (120, 120), mode="nearest") for pixels in raw], 1)
    image = (image - torch.tensor(S2_MEANS)[:, None, None]) / torch.tensor(S2_DEVIATIONS)[:, None, None]
    with torch.no_grad():
        expected = torch.sigmoid(module(image))
        found = classifier.activate(classifier(planes))
    assert torch.allclose(found, expected, atol=1e-5)
    assert expected.std() > 1e-3


def sides() -> dict[str, int]:
    return {band: 120 if band in ("B02", "B03", "B04", "B08") else 60 for band in S2_ORDER}


def test_the_other_instruments_have_their_bands_first(hub: Hub) -> None:
    publish_reben(hub, bands="all")
    publish_reben(hub, bands="s1")
    both = load_encoder(f"hf-hub:{REBEN}/{SMALL}-all-v0.2.0").description
    assert both.bands == ("VV", "VH", *S2_ORDER)
    assert (both.units["VV"], both.units["B02"]) == ("dB", "digital number")
    radar = load_encoder(f"hf-hub:{REBEN}/{SMALL}-s1-v0.2.0").description
    assert (radar.bands, radar.statistics["VH"], radar.level) == (("VV", "VH"), (-19.353, 5.591), "not applicable")


def test_a_reben_classifier_is_fetched_once_evaluated_and_shown(hub: Hub, tmp_path: Path, cli: Cli) -> None:
    publish_reben(hub)
    name = f"hf-hub:{REBEN}/{SMALL}-s2-v0.2.0"
    groups = {side: tuple(b for b in S2_ORDER if sides()[b] == side) for side in (120, 60)}
    planes = [Plane(f"data_{1200 // k}m", bands, k, 1200 // k, unit="digital number") for k, bands in groups.items()]
    classes = load_encoder(name).description.classes
    store = make_store(tmp_path / "s.h5", planes=tuple(planes), splits={"test": 3}, classes=classes[::-1])
    scores = cli("evaluate", name, store.path, "--json").json
    assert scores["patches"] == 3
    assert hub.fetched.count("model.safetensors") == 1
    about = read_config(find_encoder(name))["provenance"]
    assert (about["encoder"], about["licence"], about["revision"]) == (name, "mit", COMMIT)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"timm_model_name": "resnet34"}, "timm_model_name is 'resnet34', expected 'test_efficientnet'"),
        ({"channels": 12}, "channels is 12, expected 10"),
        ({"classes": 43}, "classes is 43, expected 19"),
    ],
)
def test_a_classifier_that_says_something_else_than_its_name_is_refused(
    hub: Hub, stated: dict[str, Any], message: str
) -> None:
    publish_reben(hub, **stated)
    with pytest.raises(LandscaleError, match=message):
        find_encoder(f"hf-hub:{REBEN}/{SMALL}-s2-v0.2.0")


def test_a_classifier_of_other_tensors_is_refused(hub: Hub) -> None:
    publish_reben(hub)
    publish_reben(hub, "test_resnet")
    files = hub.files
    files[f"{REBEN}/{SMALL}-s2-v0.2.0/model.safetensors"] = files[f"{REBEN}/test_resnet-s2-v0.2.0/model.safetensors"]
    with pytest.raises(LandscaleError, match="does not fit test_efficientnet: lacks tensor"):
        find_encoder(f"hf-hub:{REBEN}/{SMALL}-s2-v0.2.0")


def small_weights(folder: Path, classes: tuple[str, ...] = ("a", "b")) -> Classifier:
    statistics = {"B04": (10.0, 2.0), "B03": (9.0, 3.0)}
    torch.manual_seed(7)
    classifier = Classifier(
        Description("wide_resnet", ("B04", "B03"), classes, "custom", False, statistics, 8, 80, options={"width": 0.5})
    )
    save_weights(folder, classifier, {"source": "tests"})
    return classifier


def test_weights_of_landscale_on_the_hub_are_taken_at_their_revision(hub: Hub, tmp_path: Path, cli: Cli) -> None:
    classifier = small_weights(tmp_path / "w")
    for path in (tmp_path / "w").iterdir():
        hub.files[f"me/mine/{path.name}"] = path.read_bytes()
    loaded = load_encoder(f"hf-hub:me/mine@{COMMIT}")
    assert loaded.digest() == classifier.digest()
    content = bytearray(hub.files["me/mine/model.safetensors"])
    content[-1] ^= 1
    hub.files["me/altered/model.safetensors"] = bytes(content)
    hub.files |= {f"me/altered/{n}": hub.files[f"me/mine/{n}"] for n in ("config.json", "README.md")}
    refused = cli("info", "hf-hub:me/altered")
    assert refused.code == 2
    assert "is damaged" in refused.lines[0]
    hub.files["me/timms/config.json"] = json.dumps({"architecture": "resnet18"}).encode()
    with pytest.raises(LandscaleError, match="holds no weights of landscale"):
        find_encoder("hf-hub:me/timms")
    with pytest.raises(LandscaleError, match="expected hf-hub:owner/name or"):
        find_encoder("hf-hub:nobody")
    listed = {"landscale": {"landscale_format": 3, "files": {"../../evil": "0"}}}
    hub.files["me/evil/config.json"] = json.dumps(listed).encode()
    with pytest.raises(LandscaleError, match="expected a plain name"):
        find_encoder("hf-hub:me/evil")


def add_timm(hub: Hub) -> dict[str, torch.Tensor]:
    torch.manual_seed(9)
    state: dict[str, torch.Tensor] = timm.create_model(SMALL).state_dict()
    hub.files["timm/test_efficientnet.r160_in1k/model.safetensors"] = save(state)
    hub.files["timm/test_efficientnet.r160_in1k/config.json"] = b'{"architecture": "test_efficientnet"}'
    return state


def test_timms_weights_see_reflectance_as_a_photograph(hub: Hub, tmp_path: Path) -> None:
    state = add_timm(hub)
    classifier = load_encoder(f"timm:{SMALL}")
    d = classifier.description
    assert (d.bands, d.side, d.units["B02"]) == (("B04", "B03", "B02"), 160, "8-bit")
    assert torch.equal(classifier.network.conv_stem.weight, state["conv_stem.weight"])
    numbers = np.random.default_rng(0).integers(0, 5000, (2, 3, 8, 8)).astype(np.uint16)
    plane = Plane("data_10m", d.bands, 8, 10, unit="digital number")
    store = make_store(tmp_path / "s.h5", planes=(plane,), splits={"train": 2}, pixels={"data_10m": numbers})
    factors = compare_units(d, store_source(store, d.bands, np.arange(2), stored=False)).factors
    assert factors == pytest.approx(dict.fromkeys(d.bands, 255 / 3000))
    values = torch.from_numpy(numbers.astype(np.float32)) * (255 / 3000)
    photograph = torch.from_numpy(numbers.astype(np.float32) / 3000).clamp(0, 1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (photograph - mean[:, None, None]) / std[:, None, None]
    classifier.inputs.side = None
    assert torch.allclose(classifier.inputs({d.bands: values}), expected, atol=1e-5)
    entry = timm_weights.find("timm:vit_base_patch16_224.augreg_in21k")  # timm once read these by code of its own
    assert (entry.inputs.side, entry.inputs.statistics["B02"], entry.licence) == (224, (127.5, 127.5), "apache-2.0")
    with pytest.raises(LandscaleError, match="timm has no weights of this network"):
        find_encoder("timm:wide_resnet")
    with pytest.raises(LandscaleError, match="did you mean"):
        find_encoder("timm:resnet181")


def test_a_training_begins_from_weights_by_name(hub: Hub, tmp_path: Path, cli: Cli) -> None:
    """It takes their network, normalisation and unit, and digital numbers are converted into that."""
    state = add_timm(hub)
    bands = ("B02", "B03", "B04")
    plane = Plane("data_10m", bands, 8, 10, unit="digital number")
    store = make_store(tmp_path / "s.h5", planes=(plane,), splits={"train": 4, "val": 2}, level="L2A")
    settings = ("--bands", "rgb", "--side", "32", "--epochs", "1", "--batch", "2", "--rate", "0", "--weight-decay", "0")
    trained = cli("train", "--store", store.path, "--run", tmp_path / "run", "--init", f"timm:{SMALL}", *settings)
    assert trained.code == 0, trained.lines
    model = load_encoder(tmp_path / "run")
    d = model.description
    assert (d.model, d.units["B04"], d.stretches["B04"]) == (SMALL, "8-bit", 3000)
    assert torch.equal(model.network.conv_stem.weight, state["conv_stem.weight"])
    about = read_config(tmp_path / "run")["provenance"]["init"]["provenance"]
    assert about["encoder"] == f"timm:{SMALL}"
    card = (tmp_path / "run" / "weights" / "README.md").read_text()
    assert f"- Began from timm:{SMALL} (source https://huggingface.co/timm/{SMALL}" in card


def test_bundled_weights_are_listed_and_taken_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    monkeypatch.setattr(bundled, "PLACE", tmp_path / "bundled")
    classifier = small_weights(tmp_path / "bundled" / "tiny")
    assert load_encoder("bundled:tiny").digest() == classifier.digest()
    (row,) = cli("models", "--bundled", "--json").json
    assert (row["name"], row["model"], row["bands"], row["classes"]) == (
        "bundled:tiny",
        "wide_resnet",
        ["B04", "B03"],
        ["a", "b"],
    )
    assert "bundled:tiny" in cli("models", "--bundled").out
    assert cli("info", "bundled:tiny", "--json").json["model"] == "wide_resnet"
    with pytest.raises(LandscaleError, match="unknown bundled weights 'bundled:tini'; did you mean bundled:tiny"):
        find_encoder("bundled:tini")
    for outside in ("bundled:../bundled/tiny", "bundled:", "bundled:."):
        with pytest.raises(LandscaleError, match="unknown bundled weights"):
            find_encoder(outside)


def test_the_bundled_weights_are_whole_and_small() -> None:
    folders = [bundled.find(name) for name in bundled.bundled_names()]
    assert all(check_weights(folder)["provenance"] for folder in folders)
    in_wheel = sum(len(zlib.compress(file.read_bytes())) for folder in folders for file in folder.iterdir())
    assert in_wheel <= 6_000_000  # bytes


def test_every_data_file_of_the_package_is_in_the_wheel() -> None:
    package = Path(landscale.__file__).parent
    settings = tomllib.loads((package.parents[1] / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["landscale"]
    assert "models/encoders/bundled/*/*" in patterns
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    there = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert there == {path for path in shipped if path.is_file()}


def test_the_list_needs_no_torch() -> None:
    program = (
        "import sys; from landscale.models.encoders.listing import bundled_rows, published_rows;"
        "published_rows(); bundled_rows(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_all_trained_networks_are_listed(cli: Cli) -> None:
    rows = {row["name"]: row for row in cli("models", "--encoders", "--json").json}
    row = rows["torchgeo:ResNet50_Weights.SENTINEL2_ALL_MOCO"]
    assert (row["model"], len(row["bands"]), row["licence"]) == ("resnet50", 13, "cc-by-4.0")
    assert row["citation"] == "https://arxiv.org/abs/2211.07044"
    assert len(rows[f"hf-hub:{REBEN}/resnet50-s2-v0.2.0"]["classes"]) == 19
    shown = cli("models", "SOFTCON", "--encoders").out
    assert "torchgeo:ResNet50_Weights.SENTINEL2_ALL_SOFTCON=FILE" in shown
    assert "MOCO" not in shown
