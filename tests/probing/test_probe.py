"""`landscale probe`: scores equal an independent computation, labels are those that were asked for, and it resumes."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from conftest import Cli
from landscale.errors import LandscaleError
from landscale.inference import embed as embed_module
from landscale.inference.features_file import read_features
from landscale.models.weights import load_model
from landscale.probing import linear, probe, study, training
from landscale.probing.cells import Amount, Cell
from landscale.probing.linear import STRENGTHS
from landscale.probing.training import cell_recipe, probe_recipe
from landscale.store import PatchStore
from landscale.testing import make_store, rgbn_plane
from launchers import run_until_killed
from small_networks import save_small_encoder

BANDS = ("B04", "B03", "B02", "B08")
SPLITS = {"train": 60, "val": 30, "test": 50}


def store_in(folder: Path, *, multi_label: bool) -> PatchStore:
    return make_store(folder / "s.h5", planes=rgbn_plane(12), splits=SPLITS, multi_label=multi_label, signal=1.0)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> PatchStore:
    return store_in(tmp_path_factory.mktemp("single"), multi_label=False)


@pytest.fixture(scope="module")
def multi(tmp_path_factory: pytest.TempPathFactory) -> PatchStore:
    return store_in(tmp_path_factory.mktemp("multi"), multi_label=True)


@pytest.fixture(scope="module")
def weights(single: PatchStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_encoder(tmp_path_factory.mktemp("weights") / "encoder", single, BANDS)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "STRENGTHS", STRENGTHS[15::6])
    monkeypatch.setattr(training, "LEAST_STEPS", 2)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_frozen_scores_are_those_of_scikit_learn(kind: str, weights: Path, request, tmp_path: Path):
    """The whole protocol again: features, nearest neighbours, the search of C, the fit to train and val, the score."""
    store: PatchStore = request.getfixturevalue(kind)
    found = probe(weights, store, tmp_path / "out")
    features = read_features(tmp_path / "out" / "features.parquet")
    x = {split: features.values[features.splits == split].astype(np.float64) for split in SPLITS}
    y = {split: store.classes[store.patches(split)] for split in SPLITS}
    one = not store.layout.multi_label
    labels = {split: t.argmax(1) if one else t for split, t in y.items()}

    def score(p: np.ndarray, split: str) -> float:
        if one:
            return float((p.argmax(1) == labels[split]).mean())
        return float(average_precision_score(y[split], p, average="micro"))

    def regression(c: float, given: list[str], test: str) -> np.ndarray:
        a, t = (np.concatenate([part[split] for split in given]) for part in (x, labels))
        how = {"C": c, "tol": 1e-10, "max_iter": 10_000}
        if one:
            return LogisticRegression(**how).fit(a, t).predict_proba(x[test])
        return np.stack([LogisticRegression(**how).fit(a, v).predict_proba(x[test])[:, 1] for v in t.T], axis=1)

    neighbours = KNeighborsClassifier(5, algorithm="brute").fit(x["train"], labels["train"]).predict_proba(x["test"])
    neighbours = neighbours if one else np.stack([p[:, 1] for p in neighbours], axis=1)
    by_strength = [score(regression(c, ["train"], "val"), "val") for c in linear.STRENGTHS]
    best = linear.STRENGTHS[int(np.argmax(by_strength))]
    main = found.figures[0]
    rows = {row["protocol"]: row for row in found.seeds}
    assert rows["knn"][main] == pytest.approx(score(neighbours, "test"), abs=1e-6)
    assert rows["linear"]["c"] == best
    assert rows["linear"][main] == pytest.approx(score(regression(best, ["train", "val"], "test"), "test"), abs=0.021)
    assert (rows["knn"]["fitted"], rows["linear"]["fitted"]) == (60, 90)
    for row in found.summary:
        assert row[f"{main}_low"] < row[main] < row[f"{main}_high"]


def test_files_and_table(cli: Cli, weights: Path, single: PatchStore, tmp_path: Path):
    out = tmp_path / "out"
    words = ("probe", weights, single.path, "--out", out, "--fraction", "0.1,1", "--shots", "2", "--seeds", "2")
    answer = cli(*words, "--json")
    assert answer.code == 0, answer.lines
    seeds, summary = pd.read_csv(out / "seeds.csv"), pd.read_csv(out / "probe.csv")
    amounts = [(0.1, 0), (0.1, 1), (1, 0), (None, 0), (None, 1)]  # without a draw, the seed makes no difference
    assert len(seeds) == 2 * len(amounts)
    assert len(summary) == 6
    pd.testing.assert_frame_equal(
        pd.read_parquet(out / "probe.parquet").astype({"shots": "float64"}), summary, check_dtype=False
    )
    assert answer.json["summary"][0]["accuracy"] == summary["accuracy"][0]
    drawn = summary[summary["protocol"] == "linear"].set_index("fraction")
    assert drawn["drawn"].loc[0.1] == drawn["fitted"].loc[0.1] < 10  # val is not joined to few labels
    assert drawn["fitted"].loc[1] == 90
    assert summary["drawn"].iloc[0] == 8
    with Image.open(out / "label_efficiency.png") as chart:
        assert min(chart.size) > 300
    table = cli(*words)
    assert "accuracy [95%]" in table.out
    assert "10%" in table.out
    assert "2 a class" in table.out


def test_a_second_call_computes_nothing_and_more_seeds_only_the_new_ones(
    weights: Path, single: PatchStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = probe(weights, single, tmp_path / "out", ["knn"], fractions=[0.2], seeds=2)
    monkeypatch.setattr(embed_module, "part_features", None)  # no encoder pass
    computed = []
    true = study._compute
    monkeypatch.setattr(
        study, "_compute", lambda cell, *more, **how: (computed.append(cell.name), true(cell, *more, **how))[1]
    )
    assert probe(weights, single, tmp_path / "out", ["knn"], fractions=[0.2], seeds=2) == first
    assert computed == []
    more = probe(weights, single, tmp_path / "out", ["knn"], fractions=[0.2, 0.5], seeds=3)
    assert computed == ["knn-0.2-2", "knn-0.5-0", "knn-0.5-1", "knn-0.5-2"]
    assert more.seeds[:2] == first.seeds


@pytest.mark.parametrize("call", [1, 3])
def test_a_kill_in_the_middle_changes_nothing(call: int, weights: Path, single: PatchStore, tmp_path: Path):
    words = ["probe", weights, single.path, "--protocol", "knn", "--fraction", "0.2", "--seeds", 3]
    code = run_until_killed([*words, "--out", tmp_path / "a"], "landscale.probing.study:Resampling.samples", call, {})
    assert code == -signal.SIGKILL
    assert len(list((tmp_path / "a" / "cells").glob("*.json")) if call > 1 else []) == call - 1
    a, b = (probe(weights, single, tmp_path / name, ["knn"], fractions=[0.2], seeds=3) for name in "ab")
    assert a.summary == b.summary
    for name in ("probe.csv", "seeds.csv", "features.parquet", "label_efficiency.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_training_protocols(cli: Cli, weights: Path, multi: PatchStore, tmp_path: Path):
    out = tmp_path / "out"
    words = ["probe", weights, multi.path, "--out", out, "--protocol", "fine-tune,scratch", "--shots", "2"]
    keys = ["--epochs", "1", "--batch", "4", "--warmup-epochs", "0", "--precision", "fp32", "--rate", "0.01"]
    answer = cli(*words, *keys, "--json")
    assert answer.code == 0, answer.lines
    rows = {row["protocol"]: row for row in answer.json["seeds"]}
    assert rows.keys() == {"fine-tune", "scratch"}
    assert all(0 < row["micro_ap"] < 1 and row["fitted"] == row["drawn"] < 9 for row in rows.values())
    cells = {name: json.loads((out / "cells" / f"{name}-2-shots-0.json").read_text()) for name in rows}
    assert cells["fine-tune"]["recipe"]["init"] == str(weights)
    assert cells["scratch"]["recipe"]["init"] is None
    assert cells["fine-tune"]["recipe"]["rate"] == pytest.approx(0.003)
    assert not (out / "features.parquet").exists()  # no frozen protocol needs them
    assert not (out / "runs").exists()
    again = cli(*words, *keys, "--json")
    assert again.json == answer.json
    other = cli(*words, *keys, "--weight-decay", "0.2")
    assert (other.code, len(other.lines)) == (2, 1)
    assert "training with weight_decay 0.05, not 0.2" in other.lines[0]


def test_recipes_of_few_patches(weights: Path):
    d = load_model(weights).description
    recipe = probe_recipe(d)
    assert (recipe.model, recipe.bands, recipe.side) == ("wide_resnet", "B04,B03,B02,B08", 12)
    assert recipe.options == {"width": 0.5}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "LEAST_STEPS", 300)
        cell = Cell("fine-tune", Amount(shots=5), 7)
        few = cell_recipe(recipe, cell, weights, 50)
        assert (few.epochs, few.seed) == (300, 7)  # a step of 32 each
        assert few.warmup_epochs / few.epochs == pytest.approx(recipe.warmup_epochs / recipe.epochs)
        many = cell_recipe(recipe, cell, weights, 5000)
        assert (many.epochs, many.warmup_epochs) == (recipe.epochs, recipe.warmup_epochs)
    named = probe_recipe(d, "papoutsis2022", ["--epochs", "3"])
    assert (named.model, named.epochs, named.bands) == ("wide_resnet", 3, "B04,B03,B02,B08")


def test_lora_and_scratch_differ_from_fine_tuning_in_their_keys(weights: Path):
    recipe = replace(probe_recipe(load_model(weights).description), layer_decay=0.7)
    cells = {name: Cell(name, Amount(shots=5), 0) for name in ("fine-tune", "lora", "scratch")}
    tuned, lora, scratch = (cell_recipe(recipe, cell, weights, 50) for cell in cells.values())
    assert (tuned.init, tuned.lora, tuned.layer_decay) == (str(weights), 0, 0.7)
    assert (lora.init, lora.lora, lora.rate) == (str(weights), training.LORA_RANK, recipe.rate)
    assert (scratch.init, scratch.lora, scratch.layer_decay) == (None, 0, 1.0)
    other = cell_recipe(replace(recipe, lora=4), cells["lora"], weights, 50)
    assert other.lora == 4
    assert cell_recipe(replace(recipe, lora=4), cells["fine-tune"], weights, 50).lora == 0
    assert cell_recipe(replace(recipe, lora=4), cells["scratch"], weights, 50).lora == 0


def test_lora_without_its_package_is_refused_at_once(
    weights: Path, single: PatchStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(LandscaleError, match="needs peft"):
        probe(weights, single, tmp_path / "out", ["knn", "lora"])
    assert not (tmp_path / "out").exists()


def test_lora(weights: Path, single: PatchStore, tmp_path: Path):
    pytest.importorskip("peft")
    recipe = probe_recipe(load_model(weights).description, None, ["--epochs=1", "--batch=4", "--warmup-epochs=0"])
    found = probe(weights, single, tmp_path / "out", ["lora"], shots=[2], recipe=recipe)
    assert found.seeds[0]["fitted"] == 8


def test_wrong_input_is_refused_in_one_line(cli: Cli, weights: Path, single: PatchStore, tmp_path: Path):
    no_val = make_store(tmp_path / "v.h5", planes=rgbn_plane(12), splits={"train": 8, "test": 4}, multi_label=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    done = tmp_path / "done"
    probe(weights, single, done, ["knn"])
    other = save_small_encoder(tmp_path / "other", single, BANDS, seed=1)
    new = ["--out", tmp_path / "new"]
    for words, problem in (
        ([weights, single.path, *new, "--fraction", "0"], "--fraction: found 0, expected above 0"),
        ([weights, single.path, *new, "--fraction", "1.5"], "expected above 0 and at most 1"),
        ([weights, single.path, *new, "--shots", "0"], "--shots: found 0"),
        ([weights, single.path, *new, "--shots", "few"], "argument --shots"),
        ([weights, single.path, *new, "--seeds", "0"], "--seeds: found 0"),
        ([weights, single.path, *new, "--protocol", "linaer"], "unknown protocol 'linaer'"),
        ([weights, single.path, *new, "--epoch", "3"], "unknown recipe key 'epoch'"),
        ([weights, no_val.path, *new], "holds no patch of the split 'val'"),
        ([weights, single.path, "--out", tmp_path / "mine"], "is neither an empty folder nor a probe"),
        ([other, single.path, "--out", done], "holds a probe of other weights"),
        ([tmp_path, single.path, *new], "holds no weights"),
        ([weights, tmp_path / "none.h5", *new], "no such store"),
    ):
        answer = cli("probe", *words)
        assert answer.code == 2, words
        assert len(answer.lines) == 1, answer.lines
        assert problem in answer.lines[0]
        assert not (tmp_path / "new").exists(), words
