"""`landscale benchmark learning`, its page, and its section in docs/zoo.md."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conftest import Cli
from landscale.models import ZOO, describe_model
from landscale.studies.zoo import learning
from landscale.studies.zoo.learning import TASKS
from landscale.studies.zoo.learning_page import learning_page, learning_rows, learning_section, learning_summary
from landscale.studies.zoo.page import zoo_page
from landscale.testing import make_store, sentinel_planes
from landscale.vocabulary.nomenclatures import CLC43

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
TINY = ["vit_30", "vit_40"]
SIZES = [(10, 19), (12, 43)]
WRONG_SIDE = "halonet26t"  # a network of timm that does not accept the side of a patch


def trained(monkeypatch: pytest.MonkeyPatch, stop: int | None = None) -> list[str]:
    """Record which networks are trained, and interrupt before training number `stop`."""
    names: list[str] = []
    train = learning.train_on_repeated_batch

    def noted(entry, *rest):
        if len(names) == stop:
            raise KeyboardInterrupt
        names.append(entry.name)
        return train(entry, *rest)

    monkeypatch.setattr(learning, "train_on_repeated_batch", noted)
    return names


# ---- the command


def test_networks_learn_and_an_interrupted_command_is_resumed(cli: Cli, tmp_path: Path, monkeypatch):
    out = tmp_path / "learning.json"
    words = ["benchmark", "learning", *TINY, "--steps", 12, "--out", out]
    with monkeypatch.context() as patched:
        names = trained(patched, stop=3)
        assert cli(*words).code == 130
        assert names == [TINY[0], TINY[0], TINY[1]]
    begun = json.loads(out.read_text())["models"]
    assert len(begun) == 3

    names = trained(monkeypatch)
    answer = cli(*words, "--json")
    assert (answer.code, answer.lines, names) == (0, [], [TINY[1]])
    content = answer.json
    assert content == json.loads(out.read_text())
    assert content["models"][:3] == begun
    settings = {"device": content["settings"]["device"], "steps": 12, "batch": 8, "store": "synthetic"}
    assert content["settings"] == settings
    assert [(row["name"], row["bands"], row["classes"]) for row in content["models"]] == [
        (name, *sizes) for name in TINY for sizes in SIZES
    ]
    for row in content["models"]:
        described = describe_model(row["name"], row["bands"], row["classes"])
        assert (row["family"], row["parameters"]) == (described["family"], described["parameters"])
        assert row["side"] == ZOO[row["name"]].side
        assert len(row["losses"]) == 12
        assert (row["first"], row["last"]) == (np.mean(row["losses"][:3]), np.mean(row["losses"][-3:]))
        assert row["learns"]
        assert row["last"] < 0.9 * row["constant"]
        assert 0 < row["constant"] < np.log(2)  # because the classes differ between patches
        assert row["seconds"] > 0

    assert "12 bands, 43 classes: 2 of 2 networks learn" in cli(*words).out
    refused = cli(*words[:-4], "--steps", 8, "--out", out)
    assert (refused.code, refused.lines) == (
        2,
        [f"landscale: {out}: contains results with steps 12, not 8; choose another --out"],
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of 43 classes with patches of 24 px, on which networks are small and fast."""
    path = tmp_path / "clc43.h5"
    make_store(path, planes=sentinel_planes(), classes=CLC43.names, nomenclature="clc43")
    return path


def test_networks_that_fail_or_do_not_learn_are_reported(cli: Cli, store: Path, tmp_path: Path, monkeypatch):
    rates = {"mlp_mixer": 0.0, "vit": 1e30}
    monkeypatch.setattr(learning, "RATES", rates)
    names = ["mlp_mixer_tiny", WRONG_SIDE, "vit_12", "wide_resnet"]
    out = tmp_path / "learning.json"
    words = ["benchmark", "learning", *names, "--store", store, "--batch", 4, "--steps", 8, "--out", out]
    answer = cli(*words, "--json")
    assert answer.code == 1
    assert [line.split(":")[1] for line in answer.lines] == [
        f" {name} failed, {bands} bands, {classes} classes" for name in names[:3] for bands, classes in SIZES
    ]
    rows = {row["name"]: row for row in answer.json["models"]}
    still, diverged, learnt = rows["mlp_mixer_tiny"], rows["vit_12"], rows["wide_resnet"]
    assert not still["learns"]
    assert still["losses"][0] == pytest.approx(still["losses"][-1], abs=1e-3)
    assert f"times the {still['constant']:.3f} of a constant prediction" in answer.lines[1]
    assert "of step" in diverged["failed"]
    assert learnt["learns"]
    assert learnt["side"] == 12

    # networks that failed are trained again; those that did not learn would give the same result
    rates["vit"] = 1e-3
    again = trained(monkeypatch)
    assert cli(*words).code == 1
    assert again == [WRONG_SIDE, WRONG_SIDE, "vit_12", "vit_12"]
    rows = {row["name"]: row for row in json.loads(out.read_text())["models"]}
    assert rows["vit_12"]["learns"]


def test_the_same_command_gives_the_same_losses(cli: Cli, store: Path, tmp_path: Path):
    """Weights and dropout do not depend on the networks that were trained before."""
    words = ["--store", store, "--batch", 4, "--steps", 4, "--json"]
    first = cli("benchmark", "learning", "wide_resnet", "k_branch", *words, "--out", tmp_path / "a.json").json
    second = cli("benchmark", "learning", "k_branch", *words, "--out", tmp_path / "b.json").json
    assert [r["losses"] for r in first["models"][2:]] == [r["losses"] for r in second["models"]]


@pytest.mark.parametrize(
    "words,line",
    [
        (["resnt50"], "unknown model 'resnt50'; did you mean resnet50"),
        (["--family", "vitt"], "unknown family 'vitt'; did you mean vit"),
        (["resnet50", "--family", "vit"], "--family: found together with names of networks"),
        (["--batch", "1"], "--batch: found 1, expected at least 2"),
        (["--steps", "3"], "--steps: found 3, expected at least 4"),
        (["wide_resnet", "--store", "no.h5"], "no.h5: no such store"),
        (["--markdown", "page.md"], "learning.json: cannot be read"),
    ],
)
def test_the_command_refuses(cli: Cli, tmp_path: Path, monkeypatch, words: list[str], line: str):
    monkeypatch.chdir(tmp_path)
    answer = cli("benchmark", "learning", *words)
    assert (answer.code, answer.out, len(answer.lines)) == (2, "", 1)
    assert line in answer.lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_enough_patches_classes_or_bands_is_refused(cli: Cli, store: Path, tmp_path: Path):
    words = ["benchmark", "learning", "wide_resnet", "--out", tmp_path / "l.json", "--store"]
    few = cli(*words, store, "--batch", 64)
    assert (few.code, few.lines) == (
        2,
        [f"landscale: {store}: holds 48 patches to train on, expected at least a batch of 64"],
    )
    other = make_store(tmp_path / "other.h5", planes=sentinel_planes())
    assert "lacks some of the requested classes" in cli(*words, other.path).lines[0]
    rgbn = make_store(tmp_path / "rgbn.h5", classes=CLC43.names)
    assert "lacks B05" in cli(*words, rgbn.path).lines[0]
    assert not (tmp_path / "l.json").exists()


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 6)), elements=st.integers(0, 1)), st.data())
def test_no_constant_prediction_has_a_lower_loss(targets, data):
    least = learning._entropy(targets)
    p = data.draw(arrays(np.float64, targets.shape[1], elements=st.floats(1e-3, 1 - 1e-3)))
    loss = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean()
    frequency = targets.mean(0).clip(1e-9, 1 - 1e-9)
    best = -(targets * np.log(frequency) + (1 - targets) * np.log(1 - frequency)).mean()
    assert least <= loss + 1e-12
    assert least == pytest.approx(best, abs=1e-6)


# ---- the page


def figures(name: str, sizes: tuple[int, int], first: float, last: float, constant: float) -> dict[str, Any]:
    row = {"name": name, "family": "f", "bands": sizes[0], "classes": sizes[1], "rate": 1e-3, "seconds": 1.25}
    row |= {"first": first, "last": last, "constant": constant}
    return row | {"learns": learning.learnt(last, constant)}


CONTENT: dict[str, Any] = {
    "benchmark": "learning",
    "settings": {"device": "cpu", "steps": 12, "batch": 8, "store": "synthetic"},
    "environment": {"processor": "a processor", "threads": 1, "gpu": None, "packages": {"torch": "2", "timm": "1"}},
    "models": [
        figures("one", SIZES[0], 0.7, 0.3, 0.4),
        figures("one", SIZES[1], 0.7, 0.3, 0.2),
        figures("two", SIZES[0], 0.7, 0.35, 0.4),
        {"name": "two", "family": "f", "bands": 12, "classes": 43, "failed": "out of memory"},
        figures("three", SIZES[0], 0.7, 0.37, 0.4),  # better than a constant prediction, but not by the margin
        figures("three", SIZES[1], 0.7, 0.17, 0.2),
        figures("four", SIZES[0], 0.7, 0.35, 0.4),
        figures("four", SIZES[1], 0.15, 0.17, 0.2),
    ],
}


def test_the_page_of_given_results(cli: Cli, tmp_path: Path):
    assert learning_rows(CONTENT) == [
        ["`one`", "0.700 → **0.300**", "0.700 → 0.300", "0.001", "2.5", "no"],
        ["`two`", "0.700 → **0.350**", "out of memory", "0.001", "1.2", "no"],
        ["`three`", "0.700 → 0.370", "0.700 → **0.170**", "0.001", "2.5", "no"],
        ["`four`", "0.700 → **0.350**", "0.150 → **0.170**", "0.001", "2.5", "yes"],
    ]
    assert learning_summary(CONTENT) == [
        "10 bands, 19 classes: 3 of 4 networks learn;"
        " the best prediction that is the same for all patches has a loss of 0.400.",
        "12 bands, 43 classes: 2 of 4 networks learn;"
        " the best prediction that is the same for all patches has a loss of 0.200.",
    ]
    results, written = tmp_path / "learning.json", tmp_path / "page.md"
    results.write_text(json.dumps(CONTENT))
    answer = cli("benchmark", "learning", "--out", results, "--markdown", written, "--json")
    assert (answer.code, answer.json) == (0, {"page": str(written), "results": str(results)})
    text = written.read_text()
    command = f"landscale benchmark learning --out {results} --markdown {written}"
    assert text == learning_page(CONTENT, command)
    assert command in text
    assert learning_section(CONTENT) in text
    assert "| `one` | 0.700 → **0.300** | 0.700 → 0.300 | 0.001 | 2.5 | no |" in text


@given(st.permutations(range(8)))
def test_the_order_of_the_rows_does_not_matter(order):
    """The row of a network that failed and was trained again is the last one."""
    shuffled = copy.copy(CONTENT) | {"models": [CONTENT["models"][k] for k in order]}
    assert sorted(learning_summary(shuffled)) == learning_summary(CONTENT)
    assert {cells[0] for cells in learning_rows(shuffled)} == {"`one`", "`two`", "`three`", "`four`"}


def test_the_page_of_the_zoo_has_a_section_about_learning(cli: Cli, tmp_path: Path, monkeypatch):
    from landscale.models.catalogue import zoo_rows
    from landscale.studies.zoo import page as zoo_pages

    few = zoo_rows("mlp_mixer_tiny")
    monkeypatch.setattr(zoo_pages, "zoo_rows", lambda **_: few)  # because counting all networks takes long
    results, written = tmp_path / "learning.json", tmp_path / "zoo.md"
    results.write_text(json.dumps(CONTENT))
    words = ["benchmark", "zoo", "--out", RESULTS / "zoo.json"]
    assert cli(*words, "--learning", results, "--markdown", written).code == 0
    text = written.read_text()
    assert learning_section(CONTENT) in text
    assert f"--learning {results} --markdown {written}" in text
    assert cli(*words, "--learning", results).lines == [
        "landscale: --learning: found without --markdown, expected both: it adds a section to that page"
    ]
    assert "learn" not in zoo_page(json.loads((RESULTS / "zoo.json").read_text()), "command").split("## ")[-1]


def test_the_documented_section_is_made_from_the_committed_results():
    content = json.loads((RESULTS / "learning.json").read_text())
    assert learning_section(content) in (DOCS / "zoo.md").read_text(encoding="utf-8")
    assert {(row["name"], row["bands"], row["classes"]) for row in content["models"]} == {
        (name, *sizes) for name in ZOO for sizes in SIZES
    }
    assert len(TASKS) == len(SIZES)
    for row in content["models"]:
        assert row["learns"] == learning.learnt(row["last"], row["constant"])
