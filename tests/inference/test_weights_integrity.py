"""Weights whose config.json or tensors were altered are refused before a network is built."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from landscale.errors import BadInput
from landscale.inference.predict import predict
from landscale.models.classifier import Classifier, Description
from landscale.models.weights import load_model, read_config, save_weights
from landscale.runtime.sealed_config import write_sealed

DESCRIPTION = Description(
    model="wide_resnet",
    bands=("B02", "B03"),
    classes=("forest", "lake", "town"),
    nomenclature="custom",
    multi_label=True,
    statistics={"B02": (430.5, 200.25), "B03": (600.0, 250.0)},
    side=12,
    ground=120.0,
    options={"width": 0.5},
    thresholds=(0.25, 0.5, 0.75),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "w"
    torch.manual_seed(0)
    save_weights(folder, Classifier(DESCRIPTION), {"recipe": "tiny", "scores": {}})
    return folder


@pytest.fixture
def copy(weights, tmp_path) -> Path:
    shutil.copytree(weights, tmp_path / "w")
    return tmp_path / "w"


def old_format(folder: Path, **changes: object) -> None:
    """Make config.json one of format 1, which has no digest of itself."""
    config = json.loads((folder / "config.json").read_text())
    del config["config_digest"]
    (folder / "config.json").write_text(json.dumps(config | {"landscale_format": 1} | changes))


@settings(max_examples=60)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_config_json_is_found(weights, tmp_path_factory, position, bit):
    content = (weights / "config.json").read_bytes()
    altered = bytearray(content)
    altered[int(position * len(content))] ^= 1 << bit
    try:
        same = json.loads(altered) == json.loads(content)
    except ValueError:
        same = False
    folder = tmp_path_factory.mktemp("flipped")
    shutil.copy(weights / "model.safetensors", folder)
    (folder / "config.json").write_bytes(altered)
    if same:  # white space
        load_model(folder)
        return
    for read in (load_model, read_config):
        with pytest.raises(BadInput):
            read(folder)


@pytest.mark.parametrize("offset", [0, 9, 200, -1])
def test_a_flipped_bit_in_the_tensors_is_found_by_info_too(copy, offset, cli):
    file = copy / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[offset] ^= 4
    file.write_bytes(content)
    answer = cli("info", copy)
    assert answer.code == 2
    assert answer.lines == [f"landscale: {file}: is damaged: its digest is not the one in config.json"]


def test_weights_of_format_1_open(copy):
    old_format(copy)
    assert load_model(copy).description == DESCRIPTION


@pytest.mark.parametrize(
    "changes",
    [
        {"side": None},
        {"side": "12"},
        {"side": 0},
        {"side": 10**9},
        {"ground": None},
        {"ground": -1},
        {"model": None},
        {"model": ["wide_resnet"]},
        {"model": "no_such_network"},
        {"bands": []},
        {"bands": ["B02", "B02"]},
        {"bands": "B02"},
        {"classes": ["a", "a", "b"]},
        {"classes": {"a": 1}},
        {"statistics": {}},
        {"statistics": {"B02": [1, -1], "B03": [1, 1]}},
        {"statistics": {"B02": [1], "B03": [1, 1]}},
        {"statistics": {"B02": [1e999, 1], "B03": [1, 1]}},
        {"thresholds": [0.5]},
        {"thresholds": [0.5, 0.5, 7]},
        {"multi_label": 1},
        {"multi_label": False},
        {"views": 3},
        {"views": True},
        {"upsample": "magic"},
        {"scale": 5},
        {"options": {"checkpoint_path": "evil.pth"}},
        {"options": {"width": 64}},
        {"options": []},
        {"head": "query"},
        {"head": 1},
        {"head_options": {"layers": 10**9}},
        {"landscale_format": "1"},
        {"landscale_format": True},
        {"landscale_format": 99},
        {"digest": None},
    ],
    ids=json.dumps,
)
def test_a_config_with_wrong_values_is_refused_in_one_line(copy, changes, cli):
    old_format(copy, **changes)
    with pytest.raises(BadInput) as caught:
        load_model(copy)
    assert "\n" not in str(caught.value)


def test_tensors_that_do_not_fit_are_found_before_memory_is_allocated(copy):
    """The described network would take 100 GB."""
    old_format(copy, options={"width": 512})
    with pytest.raises(BadInput, match=r"does not fit config\.json"):
        load_model(copy)


def seal(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Replace the tensors, with a digest that fits."""
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    write_sealed(folder, {key: config[key] for key in config if not key.endswith("digest")})


@pytest.mark.parametrize("how", ["nan", "infinite", "more"])
def test_sealed_tensors_that_are_no_numbers_or_left_over_are_refused_by_info_too(copy, how, cli):
    tensors = load_file(copy / "model.safetensors")
    name = next(name for name in tensors if name.endswith("running_mean"))
    tensors["more" if how == "more" else name] = torch.full_like(tensors[name], float("nan" if how == "nan" else "inf"))
    seal(copy, tensors)
    answer = cli("info", copy)
    assert (answer.code, len(answer.lines)) == (2, 1)
    expected = "has an unexpected tensor more" if how == "more" else f"not finite, in tensor {name}"
    assert expected in answer.lines[0]


def test_a_file_far_larger_than_the_network_is_not_read(copy):
    os.truncate(copy / "model.safetensors", 1 << 36)
    with pytest.raises(BadInput, match=r"has 68,719,476,736 bytes, expected at most"):
        load_model(copy)


def test_half_a_character_is_no_text(copy, cli):
    old_format(copy, statistics={"B02": [1, "\ud800"], "B03": [1, 1]})
    answer = cli("info", copy)
    assert (answer.code, len(answer.lines)) == (2, 1)


def test_an_edited_config_is_refused_although_its_values_are_valid(copy):
    config = json.loads((copy / "config.json").read_text())
    config["classes"] = ["lake", "forest", "town"]
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="damaged or was edited"):
        load_model(copy)


def test_a_pipe_is_no_config(copy, cli):
    (copy / "config.json").unlink()
    os.mkfifo(copy / "config.json")
    answer = cli("info", copy)
    assert (answer.code, len(answer.lines)) == (2, 1)


def test_digests_are_those_of_the_files(weights):
    config = read_config(weights)
    assert config["digest"] == hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest()
    assert config["landscale_format"] == 2


def test_names_are_text_in_the_model_card(tmp_path):
    names = ("<script>alert(1)</script>", "a|b [link](x)", "two\nlines")
    save_weights(tmp_path / "w", Classifier(replace(DESCRIPTION, classes=names)), {"recipe": "<b>", "scores": {}})
    card = (tmp_path / "w" / "README.md").read_text()
    assert "<" not in card
    last = card.strip().splitlines()[-1]
    assert last == r"Classes: &lt;script&gt;alert(1)&lt;/script&gt;, a\|b \[link\](x), two lines."


def test_a_map_may_lie_in_a_run_but_not_in_its_weights(copy, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    copy.rename(run / "weights")
    with pytest.raises(BadInput, match="no such scene"):  # the output is accepted
        predict(run, tmp_path / "scene", run / "map.tif")
    with pytest.raises(BadInput, match="is inside the input"):
        predict(run, tmp_path / "scene", run / "weights" / "map.tif")


@pytest.mark.parametrize(
    "provenance", [[1], True, 7, "text", {"scores": []}, {"steps": 3}, {"steps": {"trained": "x"}}]
)
def test_provenance_of_another_type_is_refused(copy: Path, provenance: object) -> None:
    old_format(copy, provenance=provenance)
    for read in (read_config, load_model):
        with pytest.raises(BadInput, match="is not a description of landscale weights: Expected"):
            read(copy)
