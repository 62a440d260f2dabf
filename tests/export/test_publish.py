"""`landscale publish` with the real client of the hub and a local server: a repository holds exactly the exported bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch

import landscale
from conftest import Cli, command, outcome
from landscale.export.publish import publish_weights
from landscale.models.classifier import Classifier, Description
from landscale.models.encoders import load_encoder
from landscale.models.weights import load_model, save_weights
from local_hub import LocalHub

DESCRIPTION = Description(
    "wide_resnet",
    ("B02", "B03"),
    ("forest", "lake"),
    "custom",
    True,
    dict.fromkeys(("B02", "B03"), (400.0, 100.0)),
    12,
    120,
)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(DESCRIPTION).eval()


@pytest.fixture
def folder(classifier: Classifier, tmp_path: Path) -> Path:
    return landscale.export_model(classifier, tmp_path / "w")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_published_folder_is_downloaded_and_loaded_as_it_was(
    folder: Path, local_hub: LocalHub, cli: Cli, classifier: Classifier, tmp_path: Path
) -> None:
    answer = cli("publish", folder, "me/model", "--json")
    assert answer.code == 0, answer.lines
    number = local_hub.branches["me/model"]["main"]
    assert answer.json["name"] == f"hf-hub:me/model@{number}"
    published = dict(local_hub.files("me/model"))
    assert published.pop(".gitattributes")
    assert published == content(folder)
    assert not local_hub.private["me/model"]
    for how in ({}, {"local_dir": tmp_path / "local"}):
        downloaded = huggingface_hub.snapshot_download("me/model", revision=number, **how)
        assert load_model(downloaded).digest() == classifier.digest()
    assert load_encoder(answer.json["name"]).digest() == classifier.digest()


def test_timm_loads_a_published_network_by_its_name(local_hub: LocalHub, tmp_path: Path) -> None:
    import timm

    options = {"embed_dim": 12, "num_heads": 1, "depth": 1}
    d = replace(DESCRIPTION, model="vit_small_patch8_224", options=options, side=32, ground=320)
    ours = Classifier(d).eval()
    done = publish_weights(landscale.export_model(ours, tmp_path / "w"), "me/vit")
    network = timm.create_model(done.name, pretrained=True).eval()
    values = torch.randn(1, 2, 32, 32)
    torch.testing.assert_close(network(values), ours.network(values))


def test_a_second_publication_removes_files_of_the_first(
    folder: Path, local_hub: LocalHub, cli: Cli, classifier: Classifier
) -> None:
    first = cli("publish", folder, "me/model", "--json").json["commit"]
    local_hub.files("me/model")["example.png"] = b"of an older export"
    landscale.export_model(classifier, folder, licence="mit")
    second = cli("publish", folder, "me/model", "--json").json["commit"]
    assert second == local_hub.branches["me/model"]["main"] != first
    assert set(local_hub.files("me/model")) == {".gitattributes", *content(folder)}
    assert local_hub.files("me/model")["README.md"] == (folder / "README.md").read_bytes()
    assert local_hub.files("me/model", first)["README.md"] != (folder / "README.md").read_bytes()


def test_publishing_the_same_again_gives_the_same_commit_name_or_a_new_one_with_the_same_files(
    folder: Path, local_hub: LocalHub, cli: Cli
) -> None:
    names = {
        cli("publish", folder, "me/model", "--private", "--revision", "v1", "--json").json["name"] for _ in range(2)
    }
    assert local_hub.private["me/model"]
    assert set(local_hub.files("me/model", "main")) == {".gitattributes"}
    for name in names:
        assert set(local_hub.files("me/model", name.partition("@")[2])) == {".gitattributes", *content(folder)}


@pytest.mark.slow  # it imports torch
def test_the_installed_command_asks_the_endpoint_of_the_environment(folder: Path, local_hub: LocalHub) -> None:
    answer = outcome(command("publish", folder, "me/model"))
    assert answer.code == 0, answer.lines
    assert answer.out.splitlines()[-1] == f"to load it: hf-hub:me/model@{local_hub.branches['me/model']['main']}"


@pytest.mark.parametrize("how", ["byte", "missing", "left over"])
def test_a_damaged_folder_is_refused_before_the_hub_is_asked(
    folder: Path, local_hub: LocalHub, cli: Cli, how: str
) -> None:
    if how == "byte":
        (folder / "README.md").write_bytes((folder / "README.md").read_bytes().replace(b"forest", b"forost"))
    elif how == "missing":
        (folder / "README.md").unlink()
    else:
        (folder / "token.txt").write_text("secret")
    answer = cli("publish", folder, "me/model")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert local_hub.requests == []


def test_what_export_did_not_write_is_refused(
    classifier: Classifier, local_hub: LocalHub, cli: Cli, tmp_path: Path
) -> None:
    save_weights(tmp_path / "run" / "weights", classifier, {})
    for folder, expected in (
        (tmp_path / "run", "was not written by landscale export"),
        (tmp_path / "run" / "weights", "was not written by landscale export"),
        (tmp_path / "none", "holds no weights"),
    ):
        answer = cli("publish", folder, "me/model")
        assert (answer.code, len(answer.lines)) == (2, 1)
        assert expected in answer.lines[0]
    assert local_hub.requests == []


@pytest.mark.parametrize("repository", ["model", "me/a/b", "me/mo del", "/model", "https://x/y"])
def test_names_that_are_no_repository_are_refused(folder: Path, local_hub: LocalHub, cli: Cli, repository: str) -> None:
    answer = cli("publish", folder, repository)
    assert (answer.code, answer.lines) == (2, [f"landscale: publish: found '{repository}', expected owner/name"])
    assert local_hub.requests == []


def test_a_refused_token_and_an_absent_hub_are_reported_in_one_line(
    folder: Path, local_hub: LocalHub, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    answer = cli("publish", folder, "me/model")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "no valid token" in answer.lines[0]
    assert local_hub.branches == {}
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    answer = cli("publish", folder, "me/model")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "could not be reached" in answer.lines[0]
