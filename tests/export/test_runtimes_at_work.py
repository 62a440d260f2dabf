"""`predict` and `evaluate` with exported networks, and with `--runtime`: the probabilities and scores of PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import landscale
from conftest import Cli
from exports import BANDS, small_classifier
from landscale.inference import exported
from landscale.inference.evaluate import evaluate
from landscale.models.weights import save_weights
from landscale.testing import make_store, sentinel_planes
from mapped import draw_scene, predict, read_map, write_scene

RUNTIMES = ("onnx", pytest.param("openvino", marks=pytest.mark.slow))


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 the third digit of a probability depends on the order of operations."""
    monkeypatch.setattr("landscale.models.classifier.reduced_precision", lambda device: False)
    monkeypatch.setattr("landscale.models.dense.reduced_precision", lambda device: False)
    monkeypatch.setattr(exported, "reduced_precision", lambda device: False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights, exports of them, a store, and a scene whose pixels lie where the network was trained."""
    place = tmp_path_factory.mktemp("work")
    save_weights(place / "weights", small_classifier(), {})
    for runtime in ("onnx", "openvino", "pt2"):
        landscale.export_model(place / "weights", place / runtime, runtime)
    make_store(place / "s.h5", planes=sentinel_planes(24), splits={"train": 4, "test": 11}, seed=5)
    pixels = draw_scene(61, 83, names=BANDS)
    write_scene(place / "scene", {band: (500 + values // 10).astype(np.uint16) for band, values in pixels.items()})
    return place


def probabilities(place: Path, *words: object, out: Path, cli: Cli) -> np.ndarray:
    answer = cli("predict", *words, place / "scene", out, "--probabilities", "float32", "--offset", 0, "--stride", 6)
    assert answer.code == 0, answer.lines
    return read_map(out)[0]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_map_by_an_exported_network_has_the_probabilities_of_pytorch_window_by_window(
    place: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    found = probabilities(place, place / runtime, out=tmp_path / "exported.tif", cli=cli)
    chosen = probabilities(place, place / "weights", "--runtime", runtime, out=tmp_path / "chosen.tif", cli=cli)
    monkeypatch.setattr("landscale.maps.windows.map_side", lambda classifier: None)
    predict(place / "weights", place / "scene", tmp_path / "torch.tif", 6, offset=0)
    expected = read_map(tmp_path / "torch.tif")[0]
    assert expected.shape == found.shape == (4, 61, 83)
    assert np.nanstd(expected, axis=(1, 2)).min() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(chosen, found)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_evaluate_in_a_runtime_has_the_scores_of_pytorch(place: Path, cli: Cli, runtime: str) -> None:
    answer = cli("evaluate", place / "weights", place / "s.h5", "--runtime", runtime, "--json", "--batch", 4)
    assert answer.code == 0, answer.lines
    expected = evaluate(small_classifier(), place / "s.h5", show=False)
    for key in (
        "micro_f1",
        "macro_f1",
    ):  # not average precision, as many probabilities of this noise are 0 or 1 up to rounding
        assert answer.json[key] == pytest.approx(getattr(expected, key), abs=1e-6)


def test_scores_of_another_runtime_do_not_replace_those_of_the_run(place: Path, tmp_path: Path, cli: Cli) -> None:
    save_weights(tmp_path / "run" / "weights", small_classifier(), {})
    (tmp_path / "run" / "run.json").write_text(json.dumps({}))
    assert cli("evaluate", tmp_path / "run", place / "s.h5", "--runtime", "onnx").code == 0
    assert not (tmp_path / "run" / "scores-test.json").exists()
    assert cli("evaluate", tmp_path / "run", place / "s.h5", "--runtime", "torch").code == 0
    assert (tmp_path / "run" / "scores-test.json").exists()


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_what_cannot_be_computed_is_refused_in_one_line(place: Path, tmp_path: Path, cli: Cli, command: str) -> None:
    words = [place / "scene", tmp_path / "map.tif"] if command == "predict" else [place / "s.h5"]
    for model, runtime, message in (
        ("onnx", "openvino", "was exported for another runtime than openvino"),
        ("openvino", "torch", "was exported for another runtime than torch"),
        ("pt2", None, "export it with --format onnx or openvino"),
    ):
        answer = cli(command, place / model, *words, *(["--runtime", runtime] if runtime else []))
        assert (answer.code, len(answer.lines)) == (2, 1), answer.lines
        assert message in answer.lines[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["--runtime", "onnx"]])
def test_a_map_is_not_written_into_the_folder_of_its_network(place: Path, cli: Cli, words: list[str]) -> None:
    model = place / ("weights" if words else "onnx")
    before = sorted(model.iterdir())
    answer = cli("predict", model, place / "scene", model / "map.tif", "--offset", 0, *words)
    assert (answer.code, len(answer.lines)) == (2, 1), answer.lines
    assert "is inside the input" in answer.lines[0]
    assert sorted(model.iterdir()) == before
