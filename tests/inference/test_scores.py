"""Scores as an object and as JSON, the headline metrics, and metrics added by users."""

import json
from dataclasses import FrozenInstanceError, replace
from typing import get_args, get_type_hints

import numpy as np
import pytest

from landscale.errors import BadInput
from landscale.inference import added_metrics
from landscale.inference.added_metrics import register_metric
from landscale.inference.metrics import HEADLINE, Scores, compute_scores
from landscale.inference.scores import read_scores
from landscale.inference.scores_table import show_scores
from landscale.training.recipe import Recipe
from landscale.vocabulary.headline import HEADLINE_NAMES, headline, support_note
from trainings import PLAIN, learn, tiny_store

PROBABILITIES = np.array([[0.9, 0.2], [0.4, 0.7], [0.8, 0.6]])
TARGETS = np.array([[1, 0], [1, 1], [0, 1]])

# Keys of scores.json and their order, as in all versions; other programs read them.
BEGIN = ["split", "patches", "micro_f1", "macro_f1", "micro_f1_at_half", "macro_f1_at_half", "micro_ap", "macro_ap"]
END = ["subset_accuracy", "hamming_loss", "averages", "counts", "classes_with_support"]
CLASS = [
    *("name", "tp", "fp", "fn", "tn", "support"),
    *("precision", "recall", "f1", "f2", "jaccard", "ap", "threshold"),
]


@pytest.fixture
def scores() -> Scores:
    return compute_scores(PROBABILITIES, TARGETS, ("lake", "ice"), (0.3, 0.65), multi_label=True, split="val")


@pytest.fixture
def single_label() -> Scores:
    targets = np.array([[1, 0], [0, 1], [0, 1]])
    return compute_scores(PROBABILITIES, targets, ("lake", "ice"), 0.5, multi_label=False, split="test")


@pytest.fixture
def without_added_metrics(monkeypatch):
    monkeypatch.setattr(added_metrics, "_METRICS", {})


def test_the_json_has_the_documented_keys_in_order(scores, single_label):
    content = scores.to_json()
    assert list(content) == BEGIN + END
    assert list(single_label.to_json()) == [*BEGIN, "accuracy", *END]
    assert [list(row) for row in content["counts"]] == [CLASS, CLASS]
    assert list(content["averages"]) == ["micro", "macro", "weighted", "samples"]


def test_scores_from_json_equal_the_original(scores, single_label):
    for one in (scores, single_label, replace(scores, extra={"brier": 0.2})):
        assert Scores.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert scores.accuracy is None
    assert single_label.accuracy == pytest.approx(2 / 3)


def test_the_classes_with_support_are_counted_and_shown(capsys):
    targets = np.array([[1, 0, 0], [1, 0, 1], [0, 0, 1]])
    probabilities = np.hstack([PROBABILITIES, PROBABILITIES[:, :1]])
    scores = compute_scores(probabilities, targets, ("lake", "ice", "wood"), 0.5, multi_label=True, split="val")
    assert scores.to_json()["classes_with_support"] == 2
    show_scores(scores)
    assert "macro averages: over the 2 of 3 classes that occur in the split" in capsys.readouterr().out
    old = {key: value for key, value in scores.to_json().items() if key != "classes_with_support"}
    assert Scores.from_json(old) == scores  # files of earlier versions do not have it
    assert support_note(old) == ""


def test_scores_cannot_be_changed(scores):
    with pytest.raises(FrozenInstanceError):
        scores.micro_f1 = 1.0


def test_scores_are_read_from_a_file(scores, tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(scores.to_json()))
    assert read_scores(path) == scores
    path.write_text("{}")
    assert read_scores(path) is None  # as written for a store without a val split


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda content: content.pop("micro_ap"), "found scores without micro_ap"),
        (lambda content: content.update(kappa=1), "found scores unknown kappa"),
    ],
)
def test_a_file_with_missing_or_unknown_scores_is_refused(scores, tmp_path, change, problem):
    content = scores.to_json()
    change(content)
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=rf"other\.json: holds no scores \({problem}\)"):
        read_scores(tmp_path / "other.json")


def test_headline_lists_the_same_metrics_everywhere(scores, single_label):
    """The same list is used in history, tables, report, model card, studies and for `select` of recipes."""
    assert HEADLINE == tuple(HEADLINE_NAMES) == ("micro_f1", "macro_f1", "micro_ap", "macro_ap", "accuracy", "mean_iou")
    assert tuple(scores.headline()) == HEADLINE[:4]
    assert tuple(single_label.headline()) == HEADLINE[:5]
    assert all(value == getattr(single_label, key) for key, value in single_label.headline().items())
    assert headline({"micro_f1": 0.5, "accuracy": None, "patches": 3}) == {"micro_f1": 0.5}
    assert set(get_args(get_type_hints(Recipe)["select"])) == {*HEADLINE, "last"}


def mean_error(probabilities, targets):
    return np.abs(probabilities - targets).mean()


def test_an_added_metric_is_in_the_scores_and_the_headline(without_added_metrics, capsys):
    register_metric("mean_error", mean_error)
    found = compute_scores(PROBABILITIES, TARGETS, ("lake", "ice"), 0.5, multi_label=True, split="val")
    assert found.extra == {"mean_error": pytest.approx(2.4 / 6)}
    assert tuple(found.headline()) == (*HEADLINE[:4], "mean_error")
    assert headline(found.to_json()) == found.headline()
    show_scores(found)
    assert "mean_error: 0.4000" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["micro_f1", "counts", "mean_error"])
def test_a_metric_cannot_take_the_name_of_another(without_added_metrics, name):
    register_metric("mean_error", mean_error)
    with pytest.raises(ValueError, match=f"metric '{name}' exists already"):
        register_metric(name, mean_error)


def test_an_added_metric_is_in_all_files_of_a_training(without_added_metrics, tmp_path):
    register_metric("mean_error", mean_error)
    store = tiny_store(tmp_path)
    scores = learn(replace(PLAIN, epochs=1), store, tmp_path / "run")
    assert 0 < scores.extra["mean_error"] < 1
    assert read_scores(tmp_path / "run" / "scores.json") == scores
    assert "val_mean_error" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    card = (tmp_path / "run" / "weights" / "README.md").read_text()
    assert f"| mean_error | {scores.extra['mean_error']:.4f} |" in card


def test_the_tables_show_every_average_and_class(scores, capsys):
    show_scores(scores)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    rows = {row[0]: row[1:] for row in cells if row}
    for name, average in scores.averages.items():
        expected = [f"{average[key]:.4f}" for key in ("precision", "recall", "f1", "f2", "jaccard")]
        assert rows[name] == [*expected, f"{scores.headline()[f'{name}_ap']:.4f}" if name in ("micro", "macro") else ""]
    for counts in scores.counts:
        figures = [f"{counts[key]:.3f}" for key in ("precision", "recall", "f1", "f2", "ap", "threshold")]
        assert rows[counts["name"]] == [str(counts["support"]), *figures]
