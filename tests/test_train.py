"""Training: it learns, it is the same every time, and no kill, signal or second call changes what comes out."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import landscale.train.training as room
from landscale import checkpoint as checkpoint_room
from landscale import progress
from landscale.batches import batches, evaluation_steps
from landscale.cli import main
from landscale.distributed import Ranks
from landscale.errors import BadStore, LandscaleError
from landscale.interrupt import Stopped
from landscale.recipe import Recipe, load_recipe
from landscale.runs import Run
from landscale.store import open_store
from landscale.train import Trainer, planner, train
from landscale.train import learner as learner_room
from landscale.train.build import build_classifier
from landscale.train.learner import Learnt
from landscale.weights import load_model
from stores import CLASSES, make_store, rgbn_plane, sentinel_planes

CPU = torch.device("cpu")
BANDS = "B02,B03,B04,B08"
# A network of 6,000 parameters on 12 px: a step takes a few milliseconds. Everything random is on.
TINY = Recipe(
    name="tiny",
    model="wide_resnet",
    options={"width": 0.5, "drop_rate": 0.2},
    bands=BANDS,
    side=12,
    scale="both",
    epochs=3,
    batch=8,
    rate=1e-2,
    warmup_epochs=0.5,
    turns=True,
    shift=1,
    zoom=0.2,
    jitter=0.05,
    mixup=0.2,
    cutmix=0.5,
    progressive=[[0.5, 8]],
    ema=0.9,
    select="micro_ap",
    precision="fp32",
)
PLAIN = replace(
    TINY,
    options={"width": 0.5},
    shift=0,
    zoom=0.0,
    jitter=0.0,
    mixup=0.0,
    cutmix=0.0,
    progressive=[],
    ema=0.0,
    select="last",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """40 patches to learn from, 5 steps of 8 an epoch."""
    folder = tmp_path_factory.mktemp("stores")
    return make_store(folder / "s.h5", planes=rgbn_plane(12), splits={"train": 40, "val": 16, "test": 16}, seed=1)


def learn(recipe, store, folder, **more):
    return train(recipe, store, Run(Path(folder)), Ranks(), CPU, **more)


def flags(recipe, **changes):
    """A recipe as flags of the command line."""
    default = asdict(Recipe())
    words = []
    for key, value in {**asdict(recipe), **changes}.items():
        if value != default[key]:
            words.append(f"--{key.replace('_', '-')}={json.dumps(value) if isinstance(value, dict | list) else value}")
    return words


def weights_of(folder):
    return hashlib.sha256((Path(folder) / "weights" / "model.safetensors").read_bytes()).hexdigest()


def metrics_of(folder):
    """The metrics table without the columns that are measured by a clock."""
    table = pd.read_csv(Path(folder) / "metrics.csv", dtype=str)
    return table.drop(columns=["seconds", "train_seconds"]).to_csv(index=False)


def outcome(folder):
    scores = json.loads((Path(folder) / "scores.json").read_text())
    config = json.loads((Path(folder) / "weights" / "config.json").read_text())
    return weights_of(folder), metrics_of(folder), scores, config["thresholds"]


@pytest.fixture(scope="module")
def undisturbed(store, tmp_path_factory):
    """What TINY gives when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    learn(TINY, store, folder)
    torch.set_num_threads(threads)
    return outcome(folder)


# ---- it learns


def test_a_signal_is_learnt_through_the_command(tmp_path):
    """As a user does it: the command, a shipped recipe, other flags; what it prints and what it leaves."""
    make_store(tmp_path / "s.h5", planes=sentinel_planes(24), splits={"train": 96, "val": 32, "test": 32})
    command = [str(Path(sys.executable).with_name("landscale")), "train", "--recipe", "demo", "--store", "s.h5"]
    command += ["--side=24", "--epochs=6", "--batch=12", "--rate=1e-2", "--ema=0.8", "--run=run", "--json"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert answer["run"] == "run"
    assert answer["scores"]["split"] == "val"
    assert answer["scores"]["patches"] == 32
    assert answer["scores"]["micro_f1"] > 0.95
    assert answer["scores"]["macro_ap"] > 0.95
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
    assert json.loads((run / "scores.json").read_text()) == answer["scores"]
    assert not [path for path in run.rglob("*") if ".partial" in path.name or path.name.endswith(".old")]
    assert load_recipe(str(run / "recipe.yaml"), []).epochs == 6


def test_a_single_label_store_trains_with_softmax(tmp_path):
    store = make_store(
        tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 64, "val": 32}, multi_label=False, signal=4.0
    )
    figures = learn(replace(PLAIN, epochs=10, select="accuracy"), store, tmp_path / "run")
    assert figures["accuracy"] > 0.9
    model = load_model(tmp_path / "run")
    assert not model.description.multi_label
    assert model.description.thresholds == ()
    (batch,) = batches(store, BANDS.split(","), store.classes, [np.arange(8)], CPU)
    assert torch.allclose(model.probabilities(batch.planes).sum(1), torch.ones(8), atol=1e-5)
    assert "val_accuracy" in pd.read_csv(tmp_path / "run" / "metrics.csv")


def test_the_store_says_whether_it_is_multi_label(tmp_path):
    """Whatever the nomenclature: one label of ben19 a patch is a single-label store."""
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


def test_labels_of_a_coarser_nomenclature(tmp_path):
    from landscale.labels import BEN19, CLC43

    store = make_store(
        tmp_path / "s.h5",
        planes=rgbn_plane(12),
        classes=CLC43.names,
        splits={"train": 16, "val": 16},
        nomenclature="clc43",
    )
    figures = learn(replace(PLAIN, epochs=1, labels="ben19"), store, tmp_path / "run")
    assert [row["name"] for row in figures["counts"]] == list(BEN19.names)
    expected = {name: int(store.classes[16:, CLC43.names.index(name)].sum()) for name in ("Pastures", "Mixed forest")}
    assert {row["name"]: row["support"] for row in figures["counts"] if row["name"] in expected} == expected


def test_without_val(store, tmp_path, capsys):
    alone = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 16}, seed=1)
    words = ["train", f"--store={alone.path}", f"--run={tmp_path / 'run'}", *flags(PLAIN, epochs=2, thresholds="one")]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == {}
    assert load_model(tmp_path / "run").description.classes == CLASSES
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert len(table) == 2
    assert not [c for c in table if c.startswith("val")]


# ---- it keeps what was asked for


@pytest.mark.parametrize("select,kept", [("micro_f1", 2), ("macro_ap", 3), ("last", 4)])
def test_the_best_epoch_is_kept(store, tmp_path, monkeypatch, select, kept):
    script = {"micro_f1": [0.1, 0.9, 0.5, 0.9], "macro_ap": [0.1, 0.2, 0.8, 0.3]}
    seen = []
    true = room.evaluate

    def scripted(classifier, *arguments, **options):
        figures = true(classifier, *arguments, **options)
        if options.get("show", True):
            return figures  # the last word, of `finish`
        seen.append({k: v.clone() for k, v in classifier.network.state_dict().items()})
        return figures | {key: values[len(seen) - 1] for key, values in script.items()}

    monkeypatch.setattr(room, "evaluate", scripted)
    learn(replace(TINY, epochs=4, select=select), store, tmp_path / "run")
    assert len(seen) == 4
    found = load_model(tmp_path / "run").network.state_dict()
    same = [all(torch.equal(found[k], v) for k, v in state.items()) for state in seen]
    assert same == [epoch == kept for epoch in (1, 2, 3, 4)]


def test_evaluate_every(store, tmp_path):
    learn(replace(PLAIN, epochs=5, evaluate_every=2), store, tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert list(table["epoch"]) == [1, 2, 3, 4, 5]
    assert list(table["val_micro_f1"].notna()) == [False, True, False, True, True]


def test_averaged_weights_are_what_is_kept(store, tmp_path):
    """An average that never moves keeps the initial weights; one that forgets at once is the last ones."""
    states = {}
    for ema in (0.0, 1e-9, 0.9999):
        learn(replace(PLAIN, ema=ema), store, tmp_path / str(ema))
        states[ema] = load_model(tmp_path / str(ema)).network.state_dict()
    name = next(k for k in states[0.0] if k.endswith("conv1.weight"))
    assert torch.allclose(states[0.0][name], states[1e-9][name], atol=1e-6)
    assert not torch.allclose(states[0.0][name], states[0.9999][name], atol=1e-3)


def test_patches_grow(store, tmp_path, monkeypatch):
    """`progressive`: 6 px for the first fifth of the training, 8 px up to its half, then the whole 12."""
    sides = []
    true = learner_room.Augmentation.__call__

    def looked_at(self, values, *others):
        sides.append(values.shape[-1])
        return true(self, values, *others)

    monkeypatch.setattr(learner_room.Augmentation, "__call__", looked_at)
    learn(replace(PLAIN, epochs=2, progressive=[[0.2, 6], [0.5, 8]]), store, tmp_path / "run")
    assert sides == [6, 6, 8, 8, 8, 12, 12, 12, 12, 12]
    assert load_model(tmp_path / "run").description.side == 12


@pytest.mark.parametrize("patches", [24, 40, 56])
def test_milestones_fall_exactly_after_their_epochs(tmp_path, monkeypatch, patches):
    """Paper 1: a tenth after 30 epochs, a hundredth after 60, a thousandth after 80, to the step."""
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(2), splits={"train": patches})
    recipe = replace(PLAIN, epochs=100, schedule="step", milestones=[30, 60, 80], warmup_epochs=0, side=2)
    rates = []

    def pretend(self, *_):
        rates.append(room.rate_factor(self.recipe, self.state.progress))
        return Learnt(0.0, 0)

    monkeypatch.setattr(Trainer, "learn", pretend)
    monkeypatch.setattr(Trainer, "save", lambda self: None)
    monkeypatch.setattr(Trainer, "end_epoch", lambda self, epoch: None)
    run = Run(tmp_path / "run")
    trainer = Trainer(recipe, store, run, Ranks(), build_classifier(recipe, store), CPU, None)
    trainer.fit()
    an_epoch = patches // 8
    assert len(rates) == 100 * an_epoch
    levels = np.round(np.log10(rates)).astype(int)
    falls = np.flatnonzero(np.diff(levels)) + 1
    assert list(falls) == [30 * an_epoch, 60 * an_epoch, 80 * an_epoch]
    assert trainer.state.progress == pytest.approx(1)


# ---- the same every time


def test_same_seed_same_bytes(store, tmp_path, undisturbed):
    learn(TINY, store, tmp_path / "again")
    assert outcome(tmp_path / "again") == undisturbed
    learn(replace(TINY, seed=1), store, tmp_path / "other")
    assert weights_of(tmp_path / "other") != undisturbed[0]


def test_what_was_drawn_before_does_not_matter(store, tmp_path, undisturbed):
    torch.manual_seed(99)
    torch.rand(17)
    np.random.default_rng().random(3)
    learn(replace(TINY, save_minutes=0.0), store, tmp_path / "run")  # nor how often it is saved
    assert outcome(tmp_path / "run") == undisturbed


# ---- signals


def interrupted_learning(monkeypatch, at):
    """`Trainer.learn` that gets a Ctrl-C in the steps for which `at(step)` holds, counted from 1."""
    true = Trainer.learn

    def learn_and_interrupt(self, *about):
        loss = true(self, *about)
        if at(self.state.step + 1):
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(Trainer, "learn", learn_and_interrupt)


def test_stopped_after_every_single_step(store, tmp_path, monkeypatch, undisturbed):
    """Also after the last step of an epoch and of the training, whose evaluation and row must not be lost."""
    interrupted_learning(monkeypatch, lambda step: True)
    stops = []
    for _ in range(40):
        try:
            learn(TINY, store, tmp_path / "run")
        except Stopped as stopped:
            stops.append(str(stopped))
            assert not (tmp_path / "run" / "scores.json").exists()
        else:
            break
    assert len(stops) >= 12  # of 15 steps; the ends of epochs may wait for the next step
    assert "after step 1 of 15" in stops[0]
    assert outcome(tmp_path / "run") == undisturbed


@pytest.mark.parametrize("step", [5, 15])
def test_stopped_at_the_end_of_an_epoch(store, tmp_path, monkeypatch, undisturbed, step):
    interrupted_learning(monkeypatch, lambda k: k == step)
    with contextlib.suppress(Stopped):
        learn(TINY, store, tmp_path / "run")
    monkeypatch.undo()
    learn(TINY, store, tmp_path / "run")
    assert outcome(tmp_path / "run") == undisturbed


OPTIMIZERS = (
    "sgd",
    "momentum",
    "adam",
    "adamw",
    "nadamw",
    "radam",
    "lamb",
    "lars",
    "lion",
    "adafactor",
    "adopt",
    "lookahead_adamw",
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_resumes_exactly(store, tmp_path, monkeypatch, optimizer):
    recipe = replace(TINY, optimizer=optimizer, rate=1e-3, epochs=2, ema=0.0, select="last", evaluate_every=2)
    learn(recipe, store, tmp_path / "whole")
    interrupted_learning(monkeypatch, lambda step: step in (4, 7))
    for _ in range(2):
        with pytest.raises(Stopped):
            learn(recipe, store, tmp_path / "parts")
        monkeypatch.undo()
        interrupted_learning(monkeypatch, lambda step: step == 7)
    monkeypatch.undo()
    learn(recipe, store, tmp_path / "parts")
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


# ---- kills. Processes come from a server that has everything imported, so that one costs a fraction of a second.


def _command(words, output, deadly):
    """In a child: the command line. `deadly`: kill the process at so many a change of the file system."""
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), line_buffering=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), line_buffering=True)
    progress.console.file = sys.stderr
    torch.set_num_threads(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # a fork server begun for `prepare` is deaf to it
    if deadly:
        _die_at(deadly)
    code = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _die_at(number):
    """SIGKILL at the given one of all fsyncs, renames and new folders, or with half a checkpoint written; from 1."""
    left = [number]

    def now():
        left[0] -= 1
        return left[0] == 0

    def counted(true):
        def call(*arguments, **options):
            if now():
                os.kill(os.getpid(), signal.SIGKILL)
            return true(*arguments, **options)

        return call

    def half(tensors, path, **options):
        checkpoint_room_save(tensors, path, **options)
        if now():
            os.truncate(path, Path(path).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint_room_save, checkpoint_room.save_file = checkpoint_room.save_file, half

    for name in ("fsync", "replace", "rename", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))


@pytest.fixture(scope="module")
def start():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_train", "torch.utils.tensorboard", "torch._dynamo"])

    def begin(words, output, deadly=0):
        process = context.Process(target=_command, args=([str(w) for w in words], str(output), deadly))
        process.start()
        return process

    return begin


def ended(process, seconds=60):
    process.join(seconds)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def killed_often(start, store, folder, kills, save_minutes, seed):
    """Run the same command until it ends, killed at random moments; returns its output."""
    words = ["train", "--store", store.path, "--run", folder / "run", *flags(TINY, save_minutes=save_minutes)]
    output = folder / "output.txt"
    begun = time.monotonic()
    assert ended(start([*words[:4], folder / "first", *words[5:]], output)) == 0  # how long one takes, here and now
    usual = time.monotonic() - begun
    rng = random.Random(seed)
    for _ in range(kills):
        process = start(words, output)
        process.join(usual * rng.uniform(0.05, 0.9))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
        assert ended(process) in (0, -signal.SIGKILL), output.read_text()
    assert ended(start(words, output)) == 0, output.read_text()
    return output.read_text()


@pytest.mark.parametrize("save_minutes", [0.0, 5.0])
def test_four_kills(start, store, tmp_path, undisturbed, save_minutes):
    killed_often(start, store, tmp_path, 4, save_minutes, seed=int(save_minutes))
    assert outcome(tmp_path / "first") == undisturbed
    assert outcome(tmp_path / "run") == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("save_minutes", [0.0, 5.0])
def test_twenty_kills(start, store, tmp_path, undisturbed, save_minutes):
    killed_often(start, store, tmp_path, 20, save_minutes, seed=100)
    assert outcome(tmp_path / "run") == undisturbed


def test_killed_in_every_kind_of_write(start, store, tmp_path, undisturbed):
    """The first call dies at its first change of the file system, the second at its second …"""
    words = ["train", "--store", store.path, "--run", tmp_path / "run", *flags(TINY)]
    for k in range(1, 11):
        code = ended(start(words, tmp_path / "output.txt", k))
        assert code in (0, -signal.SIGKILL), (k, (tmp_path / "output.txt").read_text())
    assert ended(start(words, tmp_path / "output.txt")) == 0, (tmp_path / "output.txt").read_text()
    assert outcome(tmp_path / "run") == undisturbed


@pytest.mark.slow
def test_killed_in_every_single_write(start, store, tmp_path, undisturbed):
    for k in range(1, 200):
        words = ["train", "--store", store.path, "--run", tmp_path / f"run{k}", *flags(TINY)]
        if ended(start(words, tmp_path / "output.txt", k)) == 0:
            break
        assert ended(start(words, tmp_path / "output.txt")) == 0, (k, (tmp_path / "output.txt").read_text())
        assert outcome(tmp_path / f"run{k}") == undisturbed, k
    assert k > 30


def test_ctrl_c_finishes_the_step(start, store, tmp_path, undisturbed):
    words = ["train", "--store", store.path, "--run", tmp_path / "run", *flags(TINY, save_minutes=0.0)]
    process = start(words, tmp_path / "output.txt")
    for _ in range(600):
        if (tmp_path / "run" / "checkpoints" / "last.safetensors").exists() or process.exitcode is not None:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    assert ended(process) == 130, (tmp_path / "output.txt").read_text()
    said = (tmp_path / "output.txt").read_text()
    assert "Traceback" not in said
    assert "stopped after step" in said
    assert not (tmp_path / "run" / "scores.json").exists()
    assert ended(start(words, tmp_path / "output.txt")) == 0
    assert "goes on at step" in (tmp_path / "output.txt").read_text()
    assert outcome(tmp_path / "run") == undisturbed


def test_half_a_checkpoint_does_not_count(store, tmp_path, monkeypatch, undisturbed):
    """What a kill inside a save leaves: the old file, and a part of the new one under another name."""
    interrupted_learning(monkeypatch, lambda step: step == 8)
    with pytest.raises(Stopped):
        learn(TINY, store, tmp_path / "run")
    monkeypatch.undo()
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    half = last.read_bytes()[:999]
    (last.parent / ".last.safetensors.4711.partial").write_bytes(half)
    (last.parent / ".best.safetensors.4711.partial").write_bytes(half)
    (tmp_path / "run" / ".metrics.csv.4711.partial").write_text("epoch,st")
    (tmp_path / "run" / ".weights.4711.partial").mkdir()
    learn(TINY, store, tmp_path / "run")
    assert outcome(tmp_path / "run") == undisturbed


def test_a_damaged_checkpoint_is_named(store, tmp_path, monkeypatch, capsys):
    interrupted_learning(monkeypatch, lambda step: step == 3)
    with pytest.raises(Stopped):
        learn(TINY, store, tmp_path / "run")
    monkeypatch.undo()
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    assert main(["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(TINY)]) == 2
    line = [word for word in capsys.readouterr().err.splitlines() if word.startswith("landscale:")]
    assert len(line) == 1
    assert str(last) in line[0]


# ---- the folder of a run


def test_a_finished_run_called_again_is_left_as_it_is(store, tmp_path, capsys, monkeypatch):
    words = ["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(TINY), "--json"]
    assert main(words) == 0
    first, said = outcome(tmp_path / "run"), capsys.readouterr().out
    monkeypatch.setattr(Trainer, "learn", lambda *_: pytest.fail("it trains again"))
    monkeypatch.setattr(room, "evaluate", lambda *_, **__: pytest.fail("it evaluates again"))
    assert main(words) == 0
    assert outcome(tmp_path / "run") == first
    assert json.loads(capsys.readouterr().out) == json.loads(said)


@pytest.mark.parametrize("key,value", [("rate", 0.5), ("model", "wide_resnet_eca"), ("seed", 3), ("epochs", 9)])
def test_a_run_of_another_recipe_is_refused(store, tmp_path, capsys, key, value):
    folder = tmp_path / "run"
    Run(folder).begin(PLAIN, store)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main(["train", f"--store={store.path}", f"--run={folder}", *flags(PLAIN, **{key: value})]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{key} {getattr(PLAIN, key)}, not {value}" in err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_run_on_another_store_or_in_a_foreign_folder_is_refused(store, tmp_path):
    Run(tmp_path / "run").begin(PLAIN, store)
    other = make_store(tmp_path / "o.h5", planes=rgbn_plane(12), splits={"train": 8}, seed=9)
    with pytest.raises(LandscaleError, match=r"another store than .*o\.h5"):
        learn(PLAIN, other, tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(LandscaleError, match="neither empty nor a run"):
        learn(PLAIN, store, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_the_same_store_under_another_name_is_the_same(store, tmp_path):
    Run(tmp_path / "run").begin(PLAIN, store)
    (tmp_path / "moved.h5").write_bytes(store.path.read_bytes())

    Run(tmp_path / "run").begin(PLAIN, open_store(tmp_path / "moved.h5"))
    with pytest.raises(LandscaleError, match="seed"):
        Run(tmp_path / "run").begin(replace(PLAIN, seed=5), open_store(tmp_path / "moved.h5"))


@pytest.mark.parametrize("left", [("recipe.yaml",), ("recipe.yaml", "environment.json"), (".recipe.yaml.7.partial",)])
def test_a_run_that_was_killed_while_it_began_begins_again(store, tmp_path, left):
    Run(tmp_path / "whole").begin(PLAIN, store)
    (tmp_path / "run").mkdir()
    for name in left:
        source = tmp_path / "whole" / name
        (tmp_path / "run" / name).write_bytes(source.read_bytes() if source.exists() else b"model: wi")
    for _ in range(2):
        Run(tmp_path / "run").begin(PLAIN, store)
        assert (tmp_path / "run" / "recipe.yaml").read_bytes() == (tmp_path / "whole" / "recipe.yaml").read_bytes()
        assert (tmp_path / "run" / "run.json").read_bytes() == (tmp_path / "whole" / "run.json").read_bytes()
    with pytest.raises(LandscaleError, match="seed 0, not 1"):
        Run(tmp_path / "run").begin(replace(PLAIN, seed=1), store)


# ---- what cannot be


def refused(words, capsys):
    """Exit code 2 and one line on stderr, which is returned."""
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("landscale: ")]
    assert code == 2
    assert out == ""
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


IMPOSSIBLE = {
    "rate": (["--rate=1e30"], "diverged.*rate 9.9e\\+29"),
    "optimizer": (["--optimizer=adamx"], "adamx"),
    "option": (["--options={nope: 1}"], "nope"),
    "shift": (["--shift=500"], "shift"),
    "band": (["--bands=B02,B11"], "lacks B11"),
    "band twice": (["--bands=B02,B02"], "B02"),
    "band set": (["--bands=rgbx"], "did you mean rgb"),
    "model": (["--model=resnet5"], "did you mean resnet50"),
    "labels": (["--labels=ben19"], "Urban fabric"),
    "accuracy": (["--select=accuracy"], "accuracy"),
    "time": (["--max-time=45"], "45m"),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_refused_in_one_line(what, store, tmp_path, capsys):
    import re

    words, pattern = IMPOSSIBLE[what]
    plain = flags(replace(PLAIN, warmup_epochs=0.0, mixup=0.0))
    line = refused(["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *plain, *words], capsys)
    assert re.search(pattern, line), line
    if what != "rate":  # nothing has begun, so the command put right works in the same folder
        assert not (tmp_path / "run").exists()


def test_selecting_needs_val_and_the_folder_stays_free(tmp_path, capsys):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 16})
    words = ["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(PLAIN, epochs=1)]
    line = refused([*words, "--select=macro_ap"], capsys)
    assert "val" in line
    assert "--select last" in line
    assert main(words) == 0


def test_no_train_split(tmp_path, capsys):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"test": 16})
    line = refused(["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(PLAIN)], capsys)
    assert "'train'" in line or "train split" in line


def test_a_band_without_statistics_is_named(tmp_path):
    """All zero in the train split, as a band that a product lacks."""
    pixels = np.random.default_rng(0).integers(1, 999, (16, 4, 12, 12)).astype(np.uint16)
    pixels[:, 2] = 0
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 16}, pixels={"data_10m": pixels})
    with pytest.raises(BadStore, match="B04"):
        build_classifier(PLAIN, store)
    assert build_classifier(replace(PLAIN, bands="B02,B03"), store)


def test_fewer_patches_than_processes_are_refused(tmp_path, monkeypatch):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 3})
    monkeypatch.setattr(learner_room, "over_ranks", lambda network, *_, **__: network)
    with pytest.raises(LandscaleError, match=r"3 .*4"):
        Trainer(PLAIN, store, Run(tmp_path / "run"), Ranks(0, 4), build_classifier(PLAIN, store), CPU, None)


def test_divergence_in_the_last_step_is_noticed(tmp_path, monkeypatch):
    """A finite loss whose gradient is not; without val nothing else would look at the weights."""
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 8})
    monkeypatch.setattr(room, "build_loss", lambda *_, **__: lambda logits, wanted: (0 * logits).sqrt().sum())
    with pytest.raises(LandscaleError, match=r"diverged|not finite"):
        learn(replace(PLAIN, epochs=1), store, tmp_path / "run")
    assert not (tmp_path / "run" / "weights").exists()


# ---- time


def test_max_time(store, tmp_path):
    """It uses its time, ends within it, and the rate has fallen to nothing by then."""
    begun = time.monotonic()
    learn(replace(PLAIN, epochs=100_000, batch=4), store, tmp_path / "run", max_time=8.0)
    took = time.monotonic() - begun
    assert 3 < took < 8
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert table["rate"].iloc[-1] < 1e-3 * table["rate"].max()
    assert table["rate"].max() > 0.9 * PLAIN.rate


class Clock:
    """Time that passes only when someone works."""

    now = 1000.0

    def monotonic(self):
        return self.now

    def work(self, seconds, result=None):
        self.now += seconds
        return result


@given(
    limit=st.floats(60, 6000),
    share_of_a_step=st.floats(1 / 1500, 1 / 50),
    share_of_first=st.floats(0, 0.4),
    share_of_an_evaluation=st.floats(0, 0.02),
    waiting=st.floats(0, 3),
    slower=st.floats(1, 1.25),
    batch=st.sampled_from([1, 4, 8, 40]),
    views=st.sampled_from([1, 4]),
    every=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(600, 1 / 1000, 0.3, 0.0, 0, 1, 8, 1, 1)  # the first step is slow, as GPUs' and oneDNN's are
@example(600, 1 / 1000, 0.0, 0.02, 0, 1, 8, 4, 1)  # mostly evaluation
@example(600, 1 / 1000, 0.01, 0.0, 3, 1, 8, 1, 1)  # mostly waiting for the disk
@example(600, 1 / 100, 0.1, 0.01, 0, 1.25, 40, 1, 1)  # an epoch is one step
@example(600, 1 / 1500, 0.0, 0.0, 0, 1.25, 1, 1, 1)  # slower and slower within long epochs
def test_planned_time(
    store,
    tmp_path,
    limit,
    share_of_a_step,
    share_of_first,
    share_of_an_evaluation,
    waiting,
    slower,
    batch,
    views,
    every,
):
    """Whatever steps and evaluations cost: it ends within its time, and makes use of most of it."""
    clock = Clock()
    step, one_evaluation = limit * share_of_a_step / (1 + waiting), limit * share_of_an_evaluation
    done = []

    def learn_slowly(self, _parts, incoming, _signalled):
        next(incoming)
        done.append(room.rate_factor(self.recipe, self.state.progress))
        pace = step * (1 + (slower - 1) * (clock.now - 1000) / limit)
        return clock.work(pace + (limit * share_of_first if len(done) == 1 else 0), Learnt(0.5, 0))

    def wait(*arguments, **_):
        for rows in arguments[3]:
            clock.work(waiting * step)
            yield SimpleNamespace(rows=rows)

    def infer_slowly(classifier, store, patches, *_, **__):
        cost = classifier.description.views * one_evaluation * len(patches) / 16
        return clock.work(cost, np.full((len(patches), 4), 0.5))

    def evaluate_slowly(classifier, *_, **__):
        return clock.work(classifier.description.views * one_evaluation, {"micro_ap": 0.5})

    with pytest.MonkeyPatch.context() as patch:
        for name, stand_in in (
            ("time", clock),
            ("batches", wait),
            ("infer", infer_slowly),
            ("evaluate", evaluate_slowly),
            ("save_weights", lambda *_: None),
            ("write_json", lambda *_: None),
        ):
            patch.setattr(room, name, stand_in)
        patch.setattr(planner, "time", clock)
        patch.setattr(planner, "infer", infer_slowly)
        patch.setattr(Trainer, "learn", learn_slowly)
        patch.setattr(Trainer, "save", lambda self: None)
        patch.setattr(Run, "write_history", lambda self, history: clock.work(0.01))
        patch.setattr(Run, "events", lambda self, epoch: lambda row: None)
        recipe = replace(PLAIN, epochs=100_000, batch=batch, views=views, evaluate_every=every, rate_batch=None)
        run = Run(tmp_path / "run")
        trainer = Trainer(recipe, store, run, Ranks(), build_classifier(recipe, store), CPU, limit)
        trainer.fit()
        trainer.finish()
    used = (clock.now - 1000) / limit
    assert used <= 1
    assert used > 0.6
    assert done[-1] < 0.02 or len(done) < 60  # the schedule was gone through to its end


@pytest.mark.slow
def test_max_time_through_the_command(tmp_path):
    """All of it: also starting Python and importing torch."""
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 400, "val": 100})
    command = [str(Path(sys.executable).with_name("landscale")), "train", "--store", str(store.path), "--max-time=20s"]
    command += ["--run", str(tmp_path / "run"), *flags(TINY, epochs=100_000)]
    begun = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.monotonic() - begun
    assert ended.returncode == 0, ended.stderr
    assert 10 < took < 20


def test_more_time_than_needed_changes_nothing(store, tmp_path, undisturbed):
    learn(TINY, store, tmp_path / "run", max_time=3600.0)
    weights, *_ = outcome(tmp_path / "run")
    assert weights == undisturbed[0]


# ---- odds and ends


def test_the_last_thread_is_gone(store, tmp_path):
    before = threading.active_count()
    learn(replace(PLAIN, epochs=1), store, tmp_path / "run")
    assert threading.active_count() <= before + 1  # TensorBoard's may end a moment later


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps(store, tmp_path, monkeypatch):
    losses = []
    true = Trainer.learn
    monkeypatch.setattr(Trainer, "learn", lambda *about: losses.append(true(*about)) or losses[-1])
    learn(replace(PLAIN, epochs=2), store, tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert list(table["loss"]) == pytest.approx(
        [np.mean([step.loss for step in part]) for part in (losses[:5], losses[5:])]
    )


def test_weights_score_as_the_run_says(store, tmp_path):
    from landscale.evaluate import evaluate

    figures = learn(replace(TINY, views=4, thresholds="per_class"), store, tmp_path / "run")
    model = load_model(tmp_path / "run")
    assert model.description.views == 4
    assert evaluate(model, store, "val", show=False) == figures
    assert len(evaluation_steps(store.patches("val"), 64)) == 1
