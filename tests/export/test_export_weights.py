"""`landscale export`: the folder opens in timm without landscale, its card is complete, and only older exports are replaced."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import landscale
from conftest import Cli
from landscale.errors import BadInput, LandscaleError
from landscale.models.classifier import Classifier, Description
from landscale.models.model_card import PICTURE
from landscale.models.weights import load_model, read_config, save_weights
from landscale.runtime.documents import write_json
from landscale.store import Plane
from landscale.testing import CLASSES, make_store, rgbn_plane
from weights_folders import entries

BANDS = ("B02", "B03", "B04", "B08")
BLOCKED = """
import socket, sys
def refuse(*_, **__): raise OSError("the network is blocked")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.modules["landscale"] = None  # so that importing it fails
"""
LOGITS = (
    BLOCKED
    + """
from pathlib import Path
import timm, torch
from safetensors.torch import load_file, save_file
for folder in sorted(Path(sys.argv[1]).iterdir()):
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    values = load_file(sys.argv[2])["values"]
    with torch.inference_mode():
        found = {"logits": network(values), "mean": torch.tensor(network.pretrained_cfg["mean"])}
    save_file(found, f"{sys.argv[3]}/{folder.name}.safetensors")
try:
    import landscale
except ImportError:
    print("without landscale")
"""
)


def description(model: str = "resnet18", bands: tuple[str, ...] = BANDS, **changes: object) -> Description:
    statistics = {band: (400.0 + 10 * k, 100.0 + k) for k, band in enumerate(bands)}
    d = Description(
        model,
        bands,
        CLASSES,
        "custom",
        True,
        statistics,
        32,
        320,
        units=dict.fromkeys(bands, "digital number"),
        level="L2A",
    )
    return replace(d, **changes)


def classifier(d: Description) -> Classifier:
    torch.manual_seed(0)
    return Classifier(d).eval()


def scores(split: str) -> dict[str, object]:
    return {"split": split, "patches": 7, "micro_f1": 0.5, "macro_f1": 0.25, "micro_ap": 0.625, "macro_ap": 0.375}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small network that timm does not have."""
    run = tmp_path_factory.mktemp("small") / "run"
    d = description("wide_resnet", options={"width": 0.5}, side=12, ground=120, thresholds=(0.25, 0.5, 0.75, 0.5))
    about = {"recipe": "tiny", "seed": 3, "store": {"source": "bigearthnet", "version": "v2"}, "scores": scores("val")}
    save_weights(run / "weights", classifier(d), about)
    write_json(run / "run.json", {"store": "s.h5", "plan": "x", "splits": {"train": 193, "val": 7}})
    return run


def test_timm_gives_the_same_logits_without_landscale(tmp_path: Path) -> None:
    values = torch.randn(2, len(BANDS), 32, 32)
    save_file({"values": values}, tmp_path / "in.safetensors")
    vit = {"embed_dim": 48, "num_heads": 3, "depth": 2}
    for model, options in {
        "resnet18": {"drop_rate": 0.3},
        "convnext_atto": {"drop_path_rate": 0.1},
        "vit_small_patch8_224": vit,
    }.items():
        landscale.export_model(classifier(description(model, options=options)), tmp_path / "w" / model)
    (tmp_path / "out").mkdir()
    words = [tmp_path / "w", tmp_path / "in.safetensors", tmp_path / "out"]
    environment = {"PATH": "/bin"}
    done = subprocess.run(
        [sys.executable, "-c", LOGITS, *words], capture_output=True, text=True, check=False, cwd="/", env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "without landscale" in done.stdout
    for folder in (tmp_path / "w").iterdir():
        found = load_file(tmp_path / "out" / f"{folder.name}.safetensors")
        with torch.inference_mode():
            expected = load_model(folder).network(values)
        torch.testing.assert_close(found["logits"], expected, rtol=1e-4, atol=1e-5)
        assert found["mean"].tolist() == [400, 410, 420, 430]


def test_an_encoder_without_classes_opens_in_timm(tmp_path: Path) -> None:
    import timm

    ours = classifier(description(classes=()))
    network = timm.create_model(f"local-dir:{landscale.export_model(ours, tmp_path / 'w')}", pretrained=True).eval()
    values = torch.randn(1, len(BANDS), 32, 32)
    assert network.num_classes == 0
    torch.testing.assert_close(network(values), ours.network(values))


def test_networks_and_heads_that_timm_lacks_have_no_entries_of_timm(tmp_path: Path) -> None:
    for name, d in {
        "own network": description("wide_resnet", options={"width": 0.5}),
        "own network of timm's class": description("resnet50_sedona2019"),
        "own head": description(head="query"),
    }.items():
        folder = landscale.export_model(classifier(d), tmp_path / name)
        assert list(json.loads((folder / "config.json").read_text())) == ["landscale"], name
        card = (folder / "README.md").read_text()
        assert "cannot be loaded without it" in card
        assert "library_name: landscale" in card
        assert "timm" not in card


def code_blocks(folder: Path) -> list[str]:
    card = (folder / "README.md").read_text()
    return [code.replace("FOLDER", str(folder)) for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"multi_label": False},
        {"classes": ()},
        {"limits": {"B02": (0.0, 300.0), "B08": (500.0, 600.0)}},
        {"scale": "log"},
        {"scale": "both", "temperature": 1.5},
        {"units": dict.fromkeys(BANDS, "8-bit")},
        {"model": "vit_small_patch8_224", "options": {"embed_dim": 48, "num_heads": 3, "depth": 2}},
    ],
    ids=str,
)
def test_the_code_in_the_card_runs_and_both_parts_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    names = [f"log {band}" for band in BANDS] if changes.get("scale") else []
    d = description(**changes)
    d = replace(d, statistics={**d.statistics, **dict.fromkeys(names, (6.0, 0.25))})
    folder = landscale.export_model(classifier(d), tmp_path / "w")
    monkeypatch.setattr("landscale.models.classifier.reduced_precision", lambda device: False)
    found: list[dict[str, torch.Tensor]] = [{}, {}]
    for code, names in zip(code_blocks(folder), found, strict=True):
        exec(code, names)
    ours, theirs = (names["probabilities" if d.classes else "features"] for names in found)
    assert ours.shape == (1, len(d.classes) or 512)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_code_in_the_card_of_an_own_network_runs(small: Path, tmp_path: Path) -> None:
    found: dict[str, torch.Tensor] = {}
    (code,) = code_blocks(landscale.export_model(small, tmp_path / "w"))
    exec(code, found)
    assert found["probabilities"].shape == (1, 4)


def test_the_card_is_one_of_the_hub_with_all_scores(small: Path, tmp_path: Path, cli: Cli) -> None:
    answer = cli("export", small, tmp_path / "w", "--format", "weights", "--licence", "cc-by-4.0", "--json")
    assert answer.code == 0, answer.lines
    assert answer.json["files"] == ["README.md", "model.safetensors"]
    card = huggingface_hub.ModelCard.load(tmp_path / "w" / "README.md")
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        "cc-by-4.0",
        "landscale",
        "image-classification",
    )
    assert {"sentinel-2", "remote-sensing", "multi-label"} <= set(card.data.tags)
    results = {(r.dataset_split, r.metric_type, r.metric_name): r.metric_value for r in card.data.eval_results}
    assert results[("val", "f1", "micro F1")] == 0.5
    assert results[("val", "average_precision", "macro AP")] == 0.375
    assert {r.dataset_name for r in card.data.eval_results} == {"bigearthnet v2"}
    for text in (
        "Split `val`, 7 patches",
        "| macro_ap | 0.3750 |",
        "bigearthnet v2; patches: 193 train, 7 val",
        "trained on only 193 patches",
        "they are optimistic",
        "chosen on the split `val`",
        "| B03 | 410 | 101 | digital number |",
        "level: L2A",
        "120 m × 120 m",
        "| 2 | town | 0.750 |",
        "cc-by-4.0",
    ):
        assert text in card.text, text


def test_test_scores_of_the_run_are_in_the_card_and_stay_when_the_export_is_exported(
    small: Path, tmp_path: Path
) -> None:
    from landscale.inference.metrics import compute_scores

    targets = np.eye(4, dtype=np.uint8)[[0, 1, 2, 3, 0]]
    found = compute_scores(targets * 0.9, targets, CLASSES, np.full(4, 0.5), multi_label=True, split="test")
    run = tmp_path / "run"
    save_weights(run / "weights", load_model(small), read_config(small)["provenance"])
    write_json(run / "run.json", {"splits": {"train": 10_000}})
    write_json(run / "scores-test.json", found.to_json())
    first = landscale.export_model(run, tmp_path / "first")
    second = landscale.export_model(first, tmp_path / "second")
    for folder in (first, second):
        card = huggingface_hub.ModelCard.load(folder / "README.md")
        assert [r.metric_value for r in card.data.eval_results if r.dataset_split == "test"][:2] == [1.0, 1.0]
        assert "Split `test`, 5 patches" in card.text
        assert "optimistic" not in card.text
        assert "only" not in card.text


def test_the_picture_shows_patches_with_labels_and_predictions(
    small: Path, tmp_path: Path, cli: Cli, monkeypatch
) -> None:
    drawn = []
    from landscale.export import examples

    monkeypatch.setattr(examples, "picture_sheet", lambda pictures: drawn.extend(pictures) or picture_sheet(pictures))
    from landscale.report.charts import picture_sheet

    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 4, "test": 20})
    assert cli("export", small, tmp_path / "w", "--store", store.path).code == 0
    assert len(drawn) == 8
    expected = [name for k, name in enumerate(CLASSES) if store.classes[4][k]]
    assert drawn[0].lines[0] == f"label: {', '.join(expected) or 'none'}"
    assert drawn[0].lines[1].startswith("predicted: ")
    assert drawn[0].pixels.shape == (12, 12, 3)
    red = store.pixels("data_10m", [4])[0, 2].astype(float)
    assert np.corrcoef(red.ravel(), drawn[0].pixels[:, :, 0].ravel())[0, 1] > 0.9
    with Image.open(tmp_path / "w" / PICTURE) as image:
        assert image.format == "PNG"
        assert min(image.size) > 200
    assert f"({PICTURE})" in (tmp_path / "w" / "README.md").read_text()
    again = landscale.export_model(small, tmp_path / "again", store=store)
    assert (again / "config.json").read_bytes() == (tmp_path / "w" / "config.json").read_bytes()


def test_the_picture_of_an_encoder_has_labels_only_and_coarser_bands_are_enlarged(tmp_path: Path) -> None:
    planes = (Plane("data_10m", ("B04", "B03"), 12, 10), Plane("data_20m", ("B02",), 6, 20))
    store = make_store(tmp_path / "s.h5", planes=planes, splits={"val": 3})
    d = description("wide_resnet", bands=("B02", "B03"), options={"width": 0.5}, classes=(), side=12)
    folder = landscale.export_model(classifier(d), tmp_path / "w", store=store.path)
    assert PICTURE in read_config(folder)["files"]


@pytest.mark.parametrize("why", ["no red", "no store"])
def test_a_store_without_a_picture_leaves_no_folder(small: Path, tmp_path: Path, cli: Cli, why: str) -> None:
    store = tmp_path / "s.h5"
    if why == "no red":
        make_store(store, planes=(Plane("data_10m", ("B02", "B03", "B08"), 12, 10),), splits={"test": 3})
    answer = cli("export", small, tmp_path / "w", "--store", store)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert ("lacks B04" if why == "no red" else "no such store") in answer.lines[0]
    assert not (tmp_path / "w").exists()


# ---- the output


def test_an_older_export_is_replaced_and_nothing_else(small: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "w"
    assert cli("export", small, out).code == 0
    assert cli("export", small, out, "--licence", "mit").code == 0
    assert entries(out)["licence"] == "mit"
    (out / "notes.txt").write_text("mine")
    answer = cli("export", small, out)
    assert (answer.code, answer.lines) == (
        2,
        [f"landscale: {out}: is neither empty nor an older export; choose another folder or remove it"],
    )
    assert (out / "notes.txt").read_text() == "mine"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert cli("export", small, empty).code == 0


def test_weights_that_a_training_wrote_and_other_files_stay(small: Path, tmp_path: Path, cli: Cli) -> None:
    other = tmp_path / "other"
    save_weights(other, load_model(small), {})
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("x")
    link.symlink_to(tmp_path / "nowhere")
    before = (small / "weights" / "config.json").read_bytes()
    for target in (other, file, link, small, small / "weights", small / "inside", tmp_path):
        answer = cli("export", small, target)
        assert (answer.code, len(answer.lines)) == (2, 1), target
    assert (small / "weights" / "config.json").read_bytes() == before
    assert file.read_text() == "x"
    assert not (small / "inside").exists()


def test_the_licence_of_other_people_stays_and_none_is_invented(small: Path, tmp_path: Path, cli: Cli) -> None:
    about = {"encoder": "torchgeo:X", "citation": "Wang et al. 2023", "source": "https://example.org"}
    save_weights(tmp_path / "known", load_model(small), about, licence="cc-by-4.0")
    save_weights(tmp_path / "unknown", load_model(small), about)
    folder = landscale.export_model(tmp_path / "known", tmp_path / "a")
    assert entries(folder)["licence"] == "cc-by-4.0"
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert "citation Wang et al. 2023" in card.text
    answer = cli("export", tmp_path / "unknown", tmp_path / "b")
    assert (answer.code, answer.lines) == (
        2,
        ["landscale: export: the licence of torchgeo:X is not known; give it with --licence"],
    )
    assert not (tmp_path / "b").exists()
    assert entries(landscale.export_model(tmp_path / "unknown", tmp_path / "b", licence="mit"))["licence"] == "mit"
    assert entries(landscale.export_model(small, tmp_path / "c"))["licence"] == "apache-2.0"


def test_damaged_weights_and_strange_licences_are_refused(small: Path, tmp_path: Path, cli: Cli) -> None:
    damaged = tmp_path / "damaged"
    save_weights(damaged, load_model(small), {})
    (damaged / "README.md").write_text("another card")
    answer = cli("export", damaged, tmp_path / "w")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "README.md: is damaged" in answer.lines[0]
    with pytest.raises(LandscaleError, match="licence: found 'All rights\nreserved'"):
        landscale.export_model(small, tmp_path / "w", licence="All rights\nreserved")
    with pytest.raises(BadInput, match="holds no weights"):
        landscale.export_model(tmp_path / "none", tmp_path / "w")
    assert not (tmp_path / "w").exists()
