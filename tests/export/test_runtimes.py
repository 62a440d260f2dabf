"""`landscale export --format onnx|openvino|pt2`: the file alone has the probabilities of PyTorch, and describes itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import landscale
from conftest import Cli
from exports import BANDS, RUN, SIDES, metadata, small_classifier
from landscale.distributed import Ranks
from landscale.errors import BadInput, LandscaleError, UnknownName
from landscale.export import runtimes
from landscale.inference import exported
from landscale.inference.evaluate import evaluate, infer
from landscale.inference.exported import open_exported
from landscale.models.classifier import Classifier
from landscale.models.weights import save_weights
from landscale.store import Plane
from landscale.testing import CLASSES, make_store, sentinel_planes

CHANGES = {"onnx": {"views": 4}, "openvino": {"scale": "both"}, "pt2": {"multi_label": False, "thresholds": ()}}
FORMATS = tuple(CHANGES)


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 the third digit of a probability depends on the order of operations."""
    monkeypatch.setattr("landscale.models.classifier.reduced_precision", lambda device: False)
    monkeypatch.setattr(exported, "reduced_precision", lambda device: False)


def classifier_for(runtime: str) -> Classifier:
    changes = dict(CHANGES[runtime])
    if changes.get("scale"):
        both = {band: (700.0 + 50 * k, 100.0 + 10 * k) for k, band in enumerate(BANDS)}
        changes["statistics"] = both | {f"log {band}": (6.8 + 0.1 * k, 0.2) for k, band in enumerate(BANDS)}
        changes["limits"] = {"B02": (100.0, 900.0), "B8A": (500.0, 1100.0)}
    return small_classifier(**changes)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder of each format, exported from the folder of a run."""
    place = tmp_path_factory.mktemp("exports")
    found = {}
    for runtime in FORMATS:
        save_weights(place / "runs" / runtime / "weights", classifier_for(runtime), {})
        found[runtime] = landscale.export_model(place / "runs" / runtime, place / runtime, runtime, licence="mit")
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    sizes = {"train": 4, "test": 11}
    return make_store(tmp_path_factory.mktemp("stores") / "s.h5", planes=sentinel_planes(24), splits=sizes, seed=5)


def planes(n: int) -> dict[str, np.ndarray]:
    """Digital numbers by the name of an input, with their bands in the order of the classifier."""
    rng = np.random.default_rng(n)
    bands = {"data_10m": 2, "data_20m": 2, "data_60m": 1}
    return {
        name: np.rint(900 + 200 * rng.standard_normal((n, bands[name], side, side))).astype(np.float32)
        for name, side in SIDES.items()
    }


@pytest.mark.parametrize("runtime", FORMATS)
def test_the_file_alone_has_the_probabilities_of_pytorch_for_any_number_of_patches(
    folders: dict[str, Path], runtime: str
) -> None:
    for n in (1, 5):
        pixels = planes(n)
        names = (("B02", "B03"), ("B05", "B8A"), ("B01",))
        native = dict(zip(names, map(torch.from_numpy, pixels.values()), strict=True))
        expected = classifier_for(runtime).probabilities(native).numpy()
        found = RUN[runtime](folders[runtime], pixels)
        assert found.shape == (n, len(CLASSES))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        if n > 1:
            assert expected.std(0).mean() > 0.01


@pytest.mark.parametrize("runtime", FORMATS)
def test_the_file_has_everything_that_its_user_needs_and_no_path_of_this_machine(
    folders: dict[str, Path], runtime: str
) -> None:
    found = metadata(folders[runtime], runtime)
    assert found["classes"] == list(CLASSES)
    assert found["inputs"] == {
        "data_10m": {"bands": ["B02", "B03"], "side": 24},
        "data_20m": {"bands": ["B05", "B8A"], "side": 12},
        "data_60m": {"bands": ["B01"], "side": 4},
    }
    assert found["units"] == dict.fromkeys(BANDS, "digital number")
    assert found["statistics"]["B05"] == [750.0, 110.0]
    assert (found["level"], found["licence"], found["multi_label"]) == ("L2A", "mit", runtime != "pt2")
    assert found["thresholds"] == ([] if runtime == "pt2" else [0.3, 0.5, 0.6, 0.45])
    source = folders[runtime].parent / "runs" / runtime / "weights" / "config.json"
    assert found["digest"] == json.loads(source.read_text())["landscale"]["digest"]
    for file in folders[runtime].iterdir():
        assert b"site-packages" not in file.read_bytes()
        assert str(Path(landscale.__file__).parent).encode() not in file.read_bytes()


# ---- the STAC item


@pytest.mark.parametrize("runtime", FORMATS)
def test_the_item_has_the_required_fields_of_stac_and_of_its_extension_for_models(
    folders: dict[str, Path], runtime: str
) -> None:
    item = json.loads((folders[runtime] / "model.json").read_text())
    assert {"type", "stac_version", "id", "geometry", "properties", "links", "assets"} <= item.keys()
    assert (item["type"], item["stac_version"], item["geometry"], "bbox" in item) == ("Feature", "1.1.0", None, False)
    assert all(
        re.fullmatch(r"https://stac-extensions\.github\.io/\w+/v[\d.]+/schema\.json", u)
        for u in item["stac_extensions"]
    )
    p = item["properties"]
    assert p["datetime"] is None
    assert p["start_datetime"] < p["end_datetime"]
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", p["mlm:name"])
    assert p["mlm:architecture"] == "wide_resnet"
    assert {"scene-classification", "classification"} == set(p["mlm:tasks"])
    assert re.match(r"\d+\.\d+\.\d+", p["mlm:framework_version"])
    described = {band["name"]: band for band in p["bands"]}
    assert described["B05"]["gsd"] == 20
    assert described["B05"]["statistics"] == {"mean": 750.0, "stddev": 110.0}
    for plane in p["mlm:input"]:
        assert set(plane["bands"]) <= described.keys()
        side = SIDES[plane["name"]]
        assert plane["input"] == {
            "shape": [-1, len(plane["bands"]), side, side],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        }
    (output,) = p["mlm:output"]
    assert output["result"] == {"shape": [-1, 4], "dim_order": ["batch", "class"], "data_type": "float32"}
    assert [c["title"] for c in output["classification:classes"]] == list(CLASSES)
    assert [c["value"] for c in output["classification:classes"]] == [0, 1, 2, 3]
    assert all(re.fullmatch(r"[0-9A-Za-z_-]+", c["name"]) for c in output["classification:classes"])
    roles = [role for asset in item["assets"].values() for role in asset["roles"]]
    assert roles.count("mlm:model") == 1
    assert all(asset["mlm:artifact_type"] for asset in item["assets"].values())
    assert {asset["href"] for asset in item["assets"].values()} == {
        f"./{file.name}" for file in folders[runtime].iterdir() if file.name != "model.json"
    }


# ---- used by landscale


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_evaluate_takes_the_folder_and_has_the_scores_of_pytorch(
    folders: dict[str, Path], store, cli: Cli, runtime: str
) -> None:
    answer = cli("evaluate", folders[runtime], store.path, "--json", "--batch", 4)
    assert answer.code == 0, answer.lines
    classifier = classifier_for(runtime)
    expected = evaluate(classifier, store, show=False)
    for key in ("micro_f1", "macro_f1", "micro_ap"):
        assert answer.json[key] == pytest.approx(getattr(expected, key), abs=1e-6)
    patches = store.patches("test")
    both = [
        infer(model, store, patches, Ranks(), show=False) for model in (classifier, open_exported(folders[runtime]))
    ]
    np.testing.assert_allclose(*both, atol=1e-4)


def test_a_store_of_other_resolutions_needs_another_export(folders: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
    bands = tuple(band for plane in sentinel_planes() for band in plane.bands)
    finer = make_store(
        tmp_path / "f.h5", planes=(Plane("data_10m", bands, 24, 10, unit="digital number"),), splits={"test": 3}
    )
    answer = cli("evaluate", folders["onnx"], finer.path)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "was exported for patches with 12 px a side in B05, found 24 px" in answer.lines[0]
    run = folders["onnx"].parent / "runs" / "onnx"
    answer = cli("export", run, tmp_path / "w", "--format", "onnx", "--store", finer.path, "--json")
    assert answer.code == 0, answer.lines
    assert answer.json["largest_difference"] < 1e-4
    assert answer.json["files"] == ["model.onnx"]
    again = cli("evaluate", tmp_path / "w", finer.path)
    assert again.code == 0, again.lines


def test_the_planes_of_the_training_are_the_inputs_where_weights_record_them(tmp_path: Path) -> None:
    recorded = {"data_10m": {"bands": list(BANDS[1:]), "side": 24}, "data_x": {"bands": ["B02"], "side": 6}}
    save_weights(tmp_path / "w", small_classifier(), {"planes": recorded})
    folder = landscale.export_model(tmp_path / "w", tmp_path / "e", "pt2")
    assert metadata(folder, "pt2")["inputs"] == {
        "data_10m": {"bands": ["B05", "B8A", "B03", "B01"], "side": 24},
        "data_x": {"bands": ["B02"], "side": 6},
    }


@pytest.mark.parametrize("what", ["network", "description", "missing"])
def test_a_damaged_folder_is_refused(folders: dict[str, Path], tmp_path: Path, store, cli: Cli, what: str) -> None:
    folder = tmp_path / "e"
    folder.mkdir()
    for file in folders["onnx"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    if what == "network":
        content = bytearray((folder / "model.onnx").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "model.onnx").write_bytes(content)
    elif what == "missing":
        (folder / "model.onnx").unlink()
    else:
        item = json.loads((folder / "model.json").read_text())
        item["properties"]["landscale:description"]["side"] = "wide"
        (folder / "model.json").write_text(json.dumps(item))
    answer = cli("evaluate", folder, store.path)
    assert (answer.code, len(answer.lines)) == (2, 1), answer.lines
    assert {"network": "is damaged", "missing": "cannot be read", "description": "is not a"}[what] in answer.lines[0]


def test_a_pt2_file_is_not_loaded(folders: dict[str, Path], store, cli: Cli) -> None:
    answer = cli("evaluate", folders["pt2"], store.path)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "export it with --format onnx or openvino" in answer.lines[0]


# ---- what is refused


def test_a_network_with_other_probabilities_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = runtimes._WRITE["pt2"]

    def write_wrong(*words):
        run = write(*words)
        return lambda values: run(values) + np.float32(2e-4)

    monkeypatch.setitem(runtimes._WRITE, "pt2", write_wrong)
    with pytest.raises(LandscaleError, match=r"differ by 0\.0002 from those of PyTorch, expected at most 0\.0001"):
        landscale.export_model(small_classifier(), tmp_path / "e", "pt2")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(LandscaleError, match="an encoder without classes"):
        landscale.export_model(small_classifier_without_classes(), tmp_path / "e", "onnx")
    with pytest.raises(UnknownName, match="unknown format 'onx'"):
        landscale.export_model(small_classifier(), tmp_path / "e", "onx")
    with pytest.raises(LandscaleError, match="250 m is not a whole number of pixels of 20 m, at which B05"):
        landscale.export_model(small_classifier(ground=250), tmp_path / "e", "onnx")
    assert list(tmp_path.iterdir()) == []


def small_classifier_without_classes() -> Classifier:
    d = small_classifier().description
    from dataclasses import replace

    return Classifier(replace(d, classes=(), thresholds=())).eval()


def test_an_export_is_replaced_by_one_of_another_format_and_nothing_else_is(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "e"
    out.mkdir()
    for file in folders["pt2"].iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    (out / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="neither empty nor an older export"):
        landscale.export_model(small_classifier(), out)
    (out / "notes.txt").unlink()
    landscale.export_model(small_classifier(), out)
    assert {file.name for file in out.iterdir()} == {"README.md", "config.json", "model.safetensors"}


def test_the_code_in_the_documentation_runs(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "onnxruntime" in block]
    names: dict[str, object] = {}
    exec(code.replace("eca-onnx", str(folders["onnx"])), names)
    assert names["probabilities"].shape == (2, len(CLASSES))
    assert set(names["likely"]) <= set(CLASSES)
