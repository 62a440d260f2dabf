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
from landscale.maps.predict import predict
from landscale.models.classifier import Classifier, Description
from landscale.models.weights import load_model, read_config, save_weights
from landscale.runtime.sealed_config import FORMAT
from weights_folders import entries, seal, write_format_1, write_format_2

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


@settings(max_examples=60)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_config_json_is_found(weights, tmp_path_factory, position, bit):
    """Even where the JSON stays the same, as in white space."""
    folder = tmp_path_factory.mktemp("flipped") / "w"
    shutil.copytree(weights, folder)
    altered = bytearray((weights / "config.json").read_bytes())
    altered[int(position * len(altered))] ^= 1 << bit
    (folder / "config.json").write_bytes(altered)
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


@pytest.mark.parametrize("write", [write_format_1, write_format_2])
def test_weights_of_older_formats_open(copy, write):
    write(copy)
    (copy / "notes.txt").touch()  # their digests do not cover other files
    assert load_model(copy).description == DESCRIPTION
    assert read_config(copy)["landscale_format"] == (1 if write is write_format_1 else 2)


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
        {"licence": 3},
        {"exported": "yes"},
        {"temperature": 0},
        {"temperature": "1"},
        {"temperature": 1e999},
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
    write_format_1(copy, **changes)
    with pytest.raises(BadInput) as caught:
        load_model(copy)
    assert "\n" not in str(caught.value)


def test_tensors_that_do_not_fit_are_found_before_memory_is_allocated(copy):
    """The described network would take 100 GB."""
    write_format_1(copy, options={"width": 512})
    with pytest.raises(BadInput, match=r"does not fit config\.json"):
        load_model(copy)


@pytest.mark.parametrize("how", ["nan", "infinite", "more"])
def test_sealed_tensors_that_are_no_numbers_or_left_over_are_refused_by_info_too(copy, how, cli):
    tensors = load_file(copy / "model.safetensors")
    name = next(name for name in tensors if name.endswith("running_mean"))
    tensors["more" if how == "more" else name] = torch.full_like(tensors[name], float("nan" if how == "nan" else "inf"))
    save_file(tensors, copy / "model.safetensors")
    seal(copy)
    answer = cli("info", copy)
    assert (answer.code, len(answer.lines)) == (2, 1)
    expected = "has an unexpected tensor more" if how == "more" else f"not finite, in tensor {name}"
    assert expected in answer.lines[0]


def test_a_file_far_larger_than_the_network_is_not_read(copy):
    os.truncate(copy / "model.safetensors", 1 << 36)
    with pytest.raises(BadInput, match=r"has 68,719,476,736 bytes, expected at most"):
        load_model(copy)


def test_half_a_character_is_no_text(copy, cli):
    write_format_1(copy, statistics={"B02": [1, "\ud800"], "B03": [1, 1]})
    answer = cli("info", copy)
    assert (answer.code, len(answer.lines)) == (2, 1)


def test_an_edited_config_is_refused_although_its_values_are_valid(copy):
    config = json.loads((copy / "config.json").read_text())
    config["landscale"]["classes"] = ["lake", "forest", "town"]
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
    found = {
        name: hashlib.sha256((weights / name).read_bytes()).hexdigest() for name in ("model.safetensors", "README.md")
    }
    assert config["files"] == found
    text = (weights / "config.json").read_text()
    assert hashlib.sha256(text.replace(config["digest"], "0" * 64).encode()).hexdigest() == config["digest"]
    assert config["landscale_format"] == FORMAT == 3
    assert entries(weights) == {key: config[key] for key in entries(weights)} | {"units": {}}


@pytest.mark.parametrize(
    "name,content,expected",
    [
        ("README.md", b"a card of another network", "README.md: is damaged: its digest is not the one in config.json"),
        ("README.md", None, "README.md: is missing: config.json lists it"),
        ("model.safetensors", None, "model.safetensors: is missing: config.json lists it"),
        ("model.pth", b"", "model.pth: is not part of these weights: config.json does not list it; move it away"),
        (".hidden", b"", ".hidden: is not part of these weights: config.json does not list it; move it away"),
    ],
)
def test_every_file_of_the_folder_is_covered(copy, cli, name, content, expected):
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content)
    answer = cli("info", copy)
    assert (answer.code, answer.lines) == (2, [f"landscale: {copy}/{expected}"])


def test_a_folder_inside_and_a_pipe_instead_of_the_card_are_refused(copy):
    (copy / "more").mkdir()
    with pytest.raises(BadInput, match="more: is not part of these weights"):
        load_model(copy)
    (copy / "more").rmdir()
    (copy / "README.md").unlink()
    os.mkfifo(copy / "README.md")
    with pytest.raises(BadInput, match="not a regular file"):
        load_model(copy)


def test_what_git_and_the_client_of_the_hub_add_is_accepted(copy):
    (copy / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text")
    (copy / ".cache" / "huggingface").mkdir(parents=True)
    assert load_model(copy).description == DESCRIPTION


def test_names_of_files_in_config_json_do_not_lead_out_of_the_folder(copy):
    (copy.parent / "secret").write_text("x")
    files = entries(copy)["files"] | {"../secret": hashlib.sha256(b"x").hexdigest()}
    text = (copy / "config.json").read_text()
    config = json.loads(text)
    config["landscale"] |= {"files": files, "digest": "0" * 64}
    zeros = json.dumps(config)
    digest = hashlib.sha256(zeros.encode()).hexdigest()
    (copy / "config.json").write_text(zeros.replace("0" * 64, digest))
    with pytest.raises(BadInput, match=r"is missing: config\.json lists it"):
        load_model(copy)


def test_all_files_may_be_read_by_the_same_people(weights):
    assert len({path.stat().st_mode for path in weights.iterdir()}) == 1


def test_names_are_text_in_the_model_card(tmp_path):
    names = ("<script>alert(1)</script>", "a|b [link](x)", "two\nlines")
    save_weights(tmp_path / "w", Classifier(replace(DESCRIPTION, classes=names)), {"recipe": "<b>", "scores": {}})
    card = (tmp_path / "w" / "README.md").read_text()
    assert "<" not in card
    assert card.strip().splitlines()[-3:] == [
        r"| 0 | &lt;script&gt;alert(1)&lt;/script&gt; | 0.250 |",
        r"| 1 | a\|b \[link\](x) | 0.500 |",
        "| 2 | two lines | 0.750 |",
    ]


def test_a_map_may_lie_in_a_run_but_not_in_its_weights(copy, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    copy.rename(run / "weights")
    with pytest.raises(BadInput, match="no such scene"):  # the output is accepted
        predict(run, tmp_path / "scene", run / "map.tif")
    with pytest.raises(BadInput, match="is inside the input"):
        predict(run, tmp_path / "scene", run / "weights" / "map.tif")


@pytest.mark.parametrize(
    "provenance",
    [
        [1],
        True,
        7,
        "text",
        {"scores": []},
        {"steps": 3},
        {"steps": {"trained": "x"}},
        {"splits": {"train": "many"}},
        {"test_scores": 1},
        {"scores": {"micro_f1": "x"}},
        {"scores": {"extra": {"kappa": []}}},
        {"scores": {"counts": 3, "classes_with_support": 1}},
    ],
)
def test_provenance_of_another_type_is_refused(copy: Path, provenance: object) -> None:
    write_format_1(copy, provenance=provenance)
    for read in (read_config, load_model):
        with pytest.raises(BadInput, match="is not a description of landscale weights: Expected"):
            read(copy)
