"""Training: learns a signal, keeps the weights that the recipe selects, and gives identical results with the same seed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import landscale.training.augmentation as augmentation_module
import landscale.training.results as results_module
import landscale.training.trainer as trainer_module
from landscale.cli import main
from landscale.distributed import Ranks
from landscale.loading import batches, evaluation_steps
from landscale.models.weights import load_model
from landscale.testing import CLASSES, make_store, rgbn_plane, sentinel_planes
from landscale.training.build import build_classifier
from landscale.training.recipe import load_recipe
from landscale.training.runs import Run
from landscale.training.trainable_model import StepResult
from landscale.training.trainer import Trainer
from landscale.vocabulary.nomenclatures import BEN19, CLC43
from trainings import BANDS, CPU, PLAIN, TINY, flags, learn, outcome, weights_of

# ---- learning


def test_the_train_command_learns_a_signal_and_writes_all_files_of_a_run(tmp_path):
    """The installed command with a shipped recipe and flags: exit code, printed scores, files in the run folder."""
    make_store(tmp_path / "s.h5", planes=sentinel_planes(24), splits={"train": 96, "val": 32, "test": 32})
    command = [str(Path(sys.executable).with_name("landscale")), "train", "--recipe", "demo", "--store", "s.h5"]
    command += ["--side=24", "--epochs=6", "--batch=12", "--rate=1e-2", "--ema=0.8", "--run=run", "--json"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    printed = json.loads(process.stdout)
    assert printed["run"] == "run"
    assert printed["scores"]["split"] == "val"
    assert printed["scores"]["patches"] == 32
    assert printed["scores"]["micro_f1"] > 0.95
    assert printed["scores"]["macro_ap"] > 0.95
    run = tmp_path / "run"
    table = pd.read_csv(run / "metrics.csv")
    assert list(table["epoch"]) == list(range(1, 7))
    assert list(table["step"]) == [8 * k for k in range(1, 7)]
    assert table["loss"].iloc[-1] < table["loss"].iloc[0] / 2
    assert table["val_macro_ap"].iloc[-1] > 0.95
    assert (run / "recipe.yaml").is_file()
    versions = json.loads((run / "environment.json").read_text())["packages"]
    assert torch.__version__.startswith(versions["torch"])
    assert list((run / "events").glob("events.out.tfevents*"))
    assert json.loads((run / "scores.json").read_text()) == printed["scores"]
    assert not [path for path in run.rglob("*") if ".partial" in path.name or path.name.endswith(".old")]
    assert load_recipe(str(run / "recipe.yaml"), []).epochs == 6


def test_a_single_label_store_is_trained_with_softmax(tmp_path):
    store = make_store(
        tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 64, "val": 32}, multi_label=False, signal=4.0
    )
    scores = learn(replace(PLAIN, epochs=10, select="accuracy"), store, tmp_path / "run")
    assert scores.accuracy > 0.9
    model = load_model(tmp_path / "run")
    assert not model.description.multi_label
    assert model.description.thresholds == ()
    (batch,) = batches(store, BANDS.split(","), store.classes, [np.arange(8)], CPU)
    assert torch.allclose(model.probabilities(batch.planes).sum(1), torch.ones(8), atol=1e-5)
    assert "val_accuracy" in pd.read_csv(tmp_path / "run" / "metrics.csv")


def test_the_store_attribute_decides_whether_the_model_is_multi_label(tmp_path):
    """The nomenclature has no influence: a store of ben19 classes may hold one label per patch."""
    names = ("Urban fabric", "Arable land", "Pastures", "Inland waters")
    for flag in (False, True):
        store = make_store(
            tmp_path / f"{flag}.h5",
            planes=rgbn_plane(12),
            classes=names,
            splits={"train": 8},
            nomenclature="ben19",
            multi_label=flag,
        )
        assert build_classifier(PLAIN, store).description.multi_label == flag


def test_labels_are_converted_to_a_coarser_nomenclature(tmp_path):
    from landscale.vocabulary.nomenclatures import BEN19, CLC43

    store = make_store(
        tmp_path / "s.h5",
        planes=rgbn_plane(12),
        classes=CLC43.names,
        splits={"train": 16, "val": 16},
        nomenclature="clc43",
    )
    scores = learn(replace(PLAIN, epochs=1, labels="ben19"), store, tmp_path / "run")
    assert [row["name"] for row in scores.to_json()["counts"]] == list(BEN19.names)
    expected = {name: int(store.classes[16:, CLC43.names.index(name)].sum()) for name in ("Pastures", "Mixed forest")}
    assert {row["name"]: row["support"] for row in scores.to_json()["counts"] if row["name"] in expected} == expected


def test_training_without_a_val_split_gives_no_scores(store, tmp_path, capsys):
    only_train = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 16}, seed=1)
    args = [
        "train",
        f"--store={only_train.path}",
        f"--run={tmp_path / 'run'}",
        *flags(PLAIN, epochs=2, thresholds="one"),
    ]
    assert main([*args, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == {}
    assert load_model(tmp_path / "run").description.classes == CLASSES
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert len(table) == 2
    assert not [c for c in table if c.startswith("val")]


# ---- which weights are kept


@pytest.mark.parametrize("select,selected_epoch", [("micro_f1", 2), ("macro_ap", 3), ("last", 4)])
def test_the_weights_of_the_selected_epoch_are_kept(store, tmp_path, monkeypatch, select, selected_epoch):
    values_by_metric = {"micro_f1": [0.1, 0.9, 0.5, 0.9], "macro_ap": [0.1, 0.2, 0.8, 0.3]}
    evaluated_states = []
    original = trainer_module.evaluate

    def scripted(classifier, *arguments, **options):
        scores = original(classifier, *arguments, **options)
        if options.get("show", True):
            return scores  # the final evaluation, by `finish`
        evaluated_states.append({k: v.clone() for k, v in classifier.network.state_dict().items()})
        return replace(scores, **{key: values[len(evaluated_states) - 1] for key, values in values_by_metric.items()})

    monkeypatch.setattr(trainer_module, "evaluate", scripted)
    learn(replace(TINY, epochs=4, select=select), store, tmp_path / "run")
    assert len(evaluated_states) == 4
    found = load_model(tmp_path / "run").network.state_dict()
    same = [all(torch.equal(found[k], v) for k, v in state.items()) for state in evaluated_states]
    assert same == [epoch == selected_epoch for epoch in (1, 2, 3, 4)]


def test_evaluate_every_counts_from_the_first_epoch_and_includes_the_last(store, tmp_path):
    """As Papoutsis et al. 2022 evaluate: of 30 epochs, numbers 0, 10, 20 and 29, counted from 0."""
    learn(replace(PLAIN, epochs=6, evaluate_every=2), store, tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert list(table["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert list(table["val_micro_f1"].notna()) == [True, False, True, False, True, True]


def test_papoutsis2022_learns_the_19_classes_from_a_store_of_43(cli, tmp_path):
    """Labels are merged, patches with none of the 19 classes are left out, and the input is bicubic, through the commands."""
    labels = (np.random.default_rng(0).random((24, 43)) < 0.2).astype(np.uint8)
    labels[:, CLC43.names.index("Pastures")] = 1
    for row in (2, 20):  # of train and of test
        labels[row] = 0
        labels[row, CLC43.names.index("Airports")] = 1
    splits, store = {"train": 12, "val": 6, "test": 6}, tmp_path / "s.h5"
    make_store(
        store, planes=sentinel_planes(24), classes=CLC43.names, nomenclature="clc43", labels=labels, splits=splits
    )
    words = ["train", "--recipe=papoutsis2022", "--store", store, "--run", tmp_path / "run", "--json"]
    small = ["--model=wide_resnet", "--side=18", "--batch=4", "--epochs=2"]
    answer = cli(*words, *small)
    assert answer.code == 0, answer.lines
    assert "1 patches have none of the 19 classes and are left out" in " ".join(answer.lines)
    description = load_model(tmp_path / "run").description
    assert (description.classes, description.nomenclature) == (BEN19.names, "ben19")
    assert (description.upsample, len(description.bands)) == ("bicubic", 10)
    assert list(pd.read_csv(tmp_path / "run" / "metrics.csv")["step"]) == [2, 4]  # 11 patches in steps of 4
    answer = cli("evaluate", tmp_path / "run", store, "--json")
    assert answer.json["patches"] == 5
    assert "test: 1 patches have none of the 19 classes and are left out" in " ".join(answer.lines)


def test_labels_that_a_store_cannot_give_are_refused_with_the_remedy(cli, tmp_path):
    make_store(tmp_path / "s.h5", planes=sentinel_planes(24), splits={"train": 8, "val": 4})
    answer = cli("train", "--recipe=papoutsis2022", "--store", tmp_path / "s.h5", "--run", tmp_path / "run")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "the classes of ben19 cannot be made from its own, use --labels null" in answer.lines[0]
    assert not (tmp_path / "run").exists()


def test_averaged_weights_are_saved(store, tmp_path):
    """A decay near 0 gives the last weights; a decay near 1 stays near the initial weights."""
    states = {}
    for ema in (0.0, 1e-9, 0.9999):
        learn(replace(PLAIN, ema=ema), store, tmp_path / str(ema))
        states[ema] = load_model(tmp_path / str(ema)).network.state_dict()
    name = next(k for k in states[0.0] if k.endswith("conv1.weight"))
    assert torch.allclose(states[0.0][name], states[1e-9][name], atol=1e-6)
    assert not torch.allclose(states[0.0][name], states[0.9999][name], atol=1e-3)


def test_progressive_training_enlarges_the_patches(store, tmp_path, monkeypatch):
    """`progressive`: 6 px for the first fifth of the training, 8 px up to its half, then the full 12 px."""
    sides = []
    original = augmentation_module.Augmentation.__call__

    def recorded(self, values, *arguments, **options):
        sides.append(values.shape[-1])
        return original(self, values, *arguments, **options)

    monkeypatch.setattr(augmentation_module.Augmentation, "__call__", recorded)
    evaluated = []
    evaluate = trainer_module.evaluate
    for module in (trainer_module, results_module):
        monkeypatch.setattr(
            module, "evaluate", lambda c, *a, **k: evaluated.append(c.inputs.side) or evaluate(c, *a, **k)
        )
    learn(replace(PLAIN, epochs=2, progressive=[[0.2, 6], [0.5, 8]]), store, tmp_path / "run")
    assert sides == [6, 6, 8, 8, 8, 12, 12, 12, 12, 12]
    assert evaluated == [8, 12, 12]  # after each epoch at the side of its last step; at the end at the full side
    assert load_model(tmp_path / "run").description.side == 12


@pytest.mark.parametrize("patches", [24, 40, 56])
def test_the_rate_falls_exactly_at_the_milestone_epochs(tmp_path, monkeypatch, patches):
    """Schedule of Sedona et al. 2019: a tenth after 30 epochs, a hundredth after 60, a thousandth after 80."""
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(2), splits={"train": patches})
    recipe = replace(PLAIN, epochs=100, schedule="step", milestones=[30, 60, 80], warmup_epochs=0, side=2)
    rates = []

    def record_rate(self, *_):
        rates.append(trainer_module.rate_factor(self.recipe, self.state.progress))
        return StepResult(0.0, 0)

    monkeypatch.setattr(Trainer, "step", record_rate)
    monkeypatch.setattr(Trainer, "save", lambda self: None)
    monkeypatch.setattr(Trainer, "end_epoch", lambda self, epoch: None)
    run = Run(tmp_path / "run")
    trainer = Trainer(recipe, store, run, Ranks(), build_classifier(recipe, store), CPU, None)
    trainer.fit()
    steps_per_epoch = patches // 8
    assert len(rates) == 100 * steps_per_epoch
    levels = np.round(np.log10(rates)).astype(int)
    falls = np.flatnonzero(np.diff(levels)) + 1
    assert list(falls) == [30 * steps_per_epoch, 60 * steps_per_epoch, 80 * steps_per_epoch]
    assert trainer.state.progress == pytest.approx(1)


# ---- reproducibility


def test_the_same_seed_gives_the_same_bytes(store, tmp_path, undisturbed):
    learn(TINY, store, tmp_path / "again")
    assert outcome(tmp_path / "again") == undisturbed
    learn(replace(TINY, seed=1), store, tmp_path / "other")
    assert weights_of(tmp_path / "other") != undisturbed[0]


def test_the_state_of_global_generators_does_not_change_the_result(store, tmp_path, undisturbed):
    torch.manual_seed(99)
    torch.rand(17)
    np.random.default_rng(5).random(3)
    learn(replace(TINY, save_minutes=0.0), store, tmp_path / "run")  # saving after every step does not change it either
    assert outcome(tmp_path / "run") == undisturbed


# ---- threads, loss, scores


def test_training_leaves_no_thread_behind(store, tmp_path):
    before = threading.active_count()
    learn(replace(PLAIN, epochs=1), store, tmp_path / "run")
    assert threading.active_count() <= before + 1  # TensorBoard's thread may end a moment later


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps(store, tmp_path, monkeypatch):
    losses = []
    original = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda *arguments: losses.append(original(*arguments)) or losses[-1])
    learn(replace(PLAIN, epochs=2), store, tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert list(table["loss"]) == pytest.approx(
        [np.mean([step.loss for step in part]) for part in (losses[:5], losses[5:])]
    )


def test_saved_weights_score_as_recorded_in_the_run(store, tmp_path):
    from landscale.inference.evaluate import evaluate

    scores = learn(replace(TINY, views=4, thresholds="per_class"), store, tmp_path / "run")
    model = load_model(tmp_path / "run")
    assert model.description.views == 4
    assert evaluate(model, store, "val", show=False) == scores
    assert len(evaluation_steps(store.patches("val"), 64)) == 1
