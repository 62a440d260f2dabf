"""Interrupted trainings: divergence, signals, a changed number of ranks or placement, kept and failing checkpoints."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import landscale.training.trainer as trainer_module
from landscale.cli import main
from landscale.distributed import Ranks
from landscale.errors import Diverged
from landscale.runtime.signals import Stopped, deferred_signals
from landscale.testing import make_store, rgbn_plane
from landscale.training import checkpoint as checkpoint_module
from landscale.training import trainable_model
from landscale.training.build import build_classifier
from landscale.training.checkpoint import CheckpointWriter, load_checkpoint
from landscale.training.runs import Run
from landscale.training.trainable_model import StepResult, TrainableModel
from landscale.training.trainer import Trainer
from trainings import CPU, PLAIN, TINY, flags, interrupted_learning, learn, outcome

SGD = replace(PLAIN, optimizer="sgd", weight_decay=0.0, warmup_epochs=0.0, turns=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return make_store(folder / "s.h5", planes=rgbn_plane(12), splits={"train": 40, "val": 16, "test": 16}, seed=1)


# ---- steps


def test_accumulating_two_batches_equals_one_batch_of_twice_the_size(store, tmp_path):
    """With a network without batch statistics. Of 40 patches in batches of 16, the last step has 8."""
    recipe = replace(SGD, model="test_convnext", options={}, side=32, epochs=2)
    learn(replace(recipe, batch=16), store, tmp_path / "one")
    learn(replace(recipe, batch=8, accumulate=2), store, tmp_path / "two")
    one, two = (load_checkpoint(tmp_path / name / "checkpoints/last.safetensors", CPU) for name in ("one", "two"))
    assert one[1]["state"]["step"] == two[1]["state"]["step"] == 4
    for name, value in one[0].items():
        assert torch.allclose(value, two[0][name], rtol=1e-3, atol=1e-5), name
    initial = build_classifier(recipe, store).network.state_dict()
    assert any(not torch.allclose(one[0][f"network.{name}"], value, atol=1e-3) for name, value in initial.items())


def test_a_split_smaller_than_a_step_gives_one_step_an_epoch(tmp_path):
    small = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 7})
    learn(replace(PLAIN, batch=4, accumulate=3, epochs=2), small, tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert list(table["step"]) == [1, 2]


def test_the_log_shows_how_the_rate_is_computed(store, tmp_path, capsys):
    args = flags(PLAIN, rate=0.1, rate_batch=256, accumulate=2, epochs=1, optimizer="sgd", warmup_epochs=0.5)
    assert main(["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *args]) == 0
    log = " ".join(capsys.readouterr().err.split())
    assert "1×8×2 a step" in log
    assert "rate 0.1·16/256 = 0.00625 after 0.5 epochs of warm-up" in log


# ---- resuming with another number of ranks


@given(
    patches=st.integers(8, 60),
    batch=st.integers(1, 5),
    accumulate=st.integers(1, 2),
    sessions=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=4),
)
@settings(max_examples=20, deadline=None)
def test_no_epoch_repeats_a_patch_when_the_number_of_ranks_changes(
    tmp_path_factory, patches, batch, accumulate, sessions
):
    """Each session has its own number of ranks and is stopped after some steps; the last session runs to the end."""
    folder = tmp_path_factory.mktemp("ranks")
    store = make_store(folder / "s.h5", planes=rgbn_plane(2), splits={"train": patches})
    recipe = replace(SGD, side=2, batch=batch, accumulate=accumulate, epochs=3)
    seen: dict[int, list[int]] = {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainable_model, "over_ranks", lambda network, *_, **__: network)
        patch.setattr(Ranks, "broadcast", lambda self, value: value)
        patch.setattr(Ranks, "gather", lambda self, value: [value])
        patch.setattr(Trainer, "batches", lambda self, parts: iter(parts))
        patch.setattr(Trainer, "_announce", lambda self: None)
        patch.setattr(trainer_module, "ignore_scheduler_signals", lambda: None)  # would change this process's handlers
        patch.setattr(Run, "events", lambda self, epoch: None)
        steps_left = [0]
        for world, step_limit in [*sessions, (sessions[0][0], 10**6)]:
            steps_left[0] = step_limit

            def count(self, parts, incoming, signalled):
                rows = np.concatenate(parts)
                seen.setdefault(self.state.epoch, []).extend(rows.tolist())
                steps_left[0] -= 1
                return StepResult(0.5, int(steps_left[0] == 0))

            patch.setattr(Trainer, "step", count)
            patch.setattr(Trainer, "end_epoch", lambda self, epoch: 0.0)
            patch.setattr(trainer_module, "deferred_signals", lambda alone: StoppedAfterSteps(steps_left))
            trainer = Trainer(recipe, store, Run(folder / "run"), Ranks(0, world), build_classifier(recipe, store), CPU)
            if trainer.run.last.exists():
                trainer.load()
            try:
                trainer.fit()
            except Stopped:
                continue
            finally:
                trainer.writer.wait()
            break
    assert trainer.state.epoch == 3
    assert sorted(seen) == [0, 1, 2]
    for epoch, rows in seen.items():
        order = trainer_module.epoch_order(store.patches("train"), recipe.seed, epoch).tolist()
        assert rows == order[: len(rows)]  # each patch once, in the order of the epoch
        size = batch * accumulate * max(world for world, _ in sessions)  # a smaller rest is dropped
        assert len(rows) > patches - size or len(rows) == patches
    assert trainer.state.progress == pytest.approx(1, abs=0.35)


class StoppedAfterSteps:
    """Replaces `deferred_signals`: reports SIGTERM once a session has made all its steps."""

    def __init__(self, steps_left):
        self.steps_left = steps_left

    def __enter__(self):
        return lambda: signal.SIGTERM if self.steps_left[0] == 0 else 0

    def __exit__(self, *_):
        return None


# ---- divergence


def explode_at(monkeypatch, steps, factor=math.inf):
    """Multiply the loss of these steps, counted from 1, by `factor` while the rate is above 0.004."""
    original = TrainableModel._loss

    def loss(self, batch, generator):
        value = original(self, batch, generator)
        return value * factor if self.explodes else value

    def step(self, parts, batches, number, rate, *arguments):
        self.explodes = number + 1 in steps and rate > 0.004
        return original_step(self, parts, batches, number, rate, *arguments)

    original_step = TrainableModel.step
    monkeypatch.setattr(TrainableModel, "_loss", loss)
    monkeypatch.setattr(TrainableModel, "step", step)


CONSTANT = replace(SGD, schedule="constant", rate=8e-3, epochs=2, save_minutes=0.0)


@pytest.mark.parametrize("factor", [math.inf, math.nan, 1e4])
def test_a_divergence_leaves_a_finite_checkpoint_and_prints_advice(factor, store, tmp_path, monkeypatch, capsys):
    explode_at(monkeypatch, {7}, factor)
    args = ["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(CONSTANT)]
    assert main(args) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("landscale: ")]
    assert len(lines) == 1
    assert "diverged, the loss of step 7" in lines[0]
    for word in ("rate 0.008", "--rate", "--warmup-epochs", "--on-divergence backoff"):
        assert word in lines[0]
    tensors, saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors", CPU)
    assert all(value.isfinite().all() for value in tensors.values())
    assert saved["state"]["step"] == 6
    assert not (tmp_path / "run" / "weights").exists()
    # with backoff, the same training resumes from that checkpoint
    assert main([*args, "--on-divergence=backoff"]) == 0
    assert pd.read_csv(tmp_path / "run" / "metrics.csv")["rate"].tolist() == [0.008, 0.004]


def test_backoff_restores_the_checkpoint_and_halves_the_rate(store, tmp_path, monkeypatch, capsys):
    explode_at(monkeypatch, {3, 7})
    recipe = replace(CONSTANT, rate=0.03, on_divergence="backoff")
    learn(recipe, store, tmp_path / "run")
    log = " ".join(capsys.readouterr().err.split())
    assert log.count("at half the rate") == 3  # 0.03, 0.015 and 0.0075 explode in step 3
    assert "back to step 2" in log
    rates = pd.read_csv(tmp_path / "run" / "metrics.csv")["rate"]
    assert list(rates) == pytest.approx([0.00375, 0.00375])


def test_backoff_stops_after_the_largest_number_of_halvings(store, tmp_path, monkeypatch):
    monkeypatch.setattr(
        TrainableModel, "_loss", lambda self, *_: sum(p.sum() for p in self.network.parameters()) * math.nan
    )
    with pytest.raises(Diverged, match="diverged"):
        learn(replace(CONSTANT, on_divergence="backoff"), store, tmp_path / "run")
    _, saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors", CPU)
    assert saved["state"]["halved"] == trainer_module.MOST_HALVED
    assert saved["state"]["step"] == 0


def test_a_far_too_large_rate_leaves_a_finite_checkpoint(store, tmp_path):
    with pytest.raises(Diverged):
        learn(replace(CONSTANT, rate=1e38), store, tmp_path / "run")
    tensors, _ = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors", CPU)
    assert all(value.isfinite().all() for value in tensors.values())


def test_gradients_are_clipped_to_the_given_norm(store, tmp_path, monkeypatch):
    norms = []
    original = torch.optim.SGD.step

    def step(self, *_):
        norms.append(sum(float(p.grad.square().sum()) for g in self.param_groups for p in g["params"]) ** 0.5)
        return original(self)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    learn(replace(CONSTANT, clip_grad=0.01), store, tmp_path / "run")
    assert len(norms) == 10
    assert max(norms) <= 0.01 * (1 + 1e-4)


# ---- what may change on resuming


def test_resuming_accepts_other_saving_options_but_not_other_learning_options(store, tmp_path, monkeypatch, capsys):
    interrupted_learning(monkeypatch, lambda step: step == 3)
    with pytest.raises(Stopped):
        learn(TINY, store, tmp_path / "run")
    monkeypatch.undo()
    args = ["train", f"--store={store.path}", f"--run={tmp_path / 'run'}"]
    assert main([*args, *flags(TINY, accumulate=2)]) == 2
    assert "accumulate 1, not 2" in capsys.readouterr().err
    assert main([*args, *flags(TINY, keep=3, placement="memory", save_minutes=0.0, on_divergence="backoff")]) == 0
    learn(TINY, store, tmp_path / "uninterrupted")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "uninterrupted")


@pytest.mark.parametrize("placement", ["disk", "memory", "device"])
def test_the_placement_of_the_data_does_not_change_the_result(placement, store, tmp_path):
    learn(replace(TINY, placement="disk"), store, tmp_path / "disk")
    learn(replace(TINY, placement=placement), store, tmp_path / placement / "run")
    assert outcome(tmp_path / placement / "run") == outcome(tmp_path / "disk")


def test_oversampling_draws_patches_of_rare_classes_more_often(tmp_path, monkeypatch):
    labels = np.zeros((80, 4), np.uint8)
    labels[:, 0] = 1
    labels[:5, 3] = 1
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 80}, labels=labels)
    seen = []
    original = Trainer.step

    def record_patches(self, parts, *arguments):
        seen.extend(np.concatenate(parts).tolist())
        return original(self, parts, *arguments)

    monkeypatch.setattr(Trainer, "step", record_patches)
    fractions = {}
    for power in (0.0, 0.5, 1.0):
        seen.clear()
        learn(replace(PLAIN, epochs=2, oversample=power), store, tmp_path / str(power))
        assert len(seen) == 160
        fractions[power] = np.mean(np.array(seen) < 5)
    assert fractions[0.0] == 5 / 80
    assert fractions[0.5] == pytest.approx(20 / 95, abs=0.02)  # drawn four times as often
    assert fractions[1.0] == pytest.approx(80 / 155, abs=0.02)  # drawn sixteen times as often


# ---- checkpoints


def test_keep_retains_the_last_checkpoints_by_step(store, tmp_path):
    learn(replace(PLAIN, epochs=6, keep=3), store, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == [
        "last.safetensors",
        *(f"step-{step:09d}.safetensors" for step in (20, 25, 30)),
    ]
    assert (folder / "step-000000030.safetensors").read_bytes() == (folder / "last.safetensors").read_bytes()
    assert load_checkpoint(folder / "step-000000020.safetensors", CPU)[1]["state"]["step"] == 20


def test_writing_a_checkpoint_does_not_block_and_saves_a_snapshot(tmp_path, monkeypatch):
    """`write` returns at once; weights and state changed afterwards do not change the file, however slow the disk is."""
    gate = threading.Event()
    original = checkpoint_module.save_file

    def save_slowly(*arguments, **options):
        assert gate.wait(20)
        return original(*arguments, **options)

    monkeypatch.setattr(checkpoint_module, "save_file", save_slowly)
    writer, weights = CheckpointWriter(), torch.arange(12.0).reshape(3, 4).T
    state = {"state": {"step": 3}}
    started = time.monotonic()
    writer.write(tmp_path / "a.safetensors", {"w": weights}, state)
    assert time.monotonic() - started < 5
    expected = weights.clone()
    weights.mul_(7)
    state["state"]["step"] = 4
    assert not (tmp_path / "a.safetensors").exists()
    gate.set()
    writer.wait()
    tensors, saved = load_checkpoint(tmp_path / "a.safetensors", CPU)
    assert torch.equal(tensors["w"], expected)
    assert saved == {"state": {"step": 3}}
    writer.write(tmp_path / "a.safetensors", {"w": weights}, state)  # reuses the buffers of the first write
    writer.wait()
    assert torch.equal(load_checkpoint(tmp_path / "a.safetensors", CPU)[0]["w"], expected * 7)
    writer.close()


def test_a_full_disk_ends_the_training_with_one_error_line(store, tmp_path, monkeypatch, capsys):
    calls = []

    def save_on_full_disk(*arguments, **options):
        calls.append(0)
        if len(calls) > 2:
            raise OSError(28, "No space left on device", "last.safetensors")
        return original(*arguments, **options)

    original = checkpoint_module.save_file
    monkeypatch.setattr(checkpoint_module, "save_file", save_on_full_disk)
    args = ["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(PLAIN)]
    assert main(args) == 2
    stderr = capsys.readouterr().err
    assert "landscale: last.safetensors: No space left on device" in stderr
    assert "Traceback" not in stderr
    monkeypatch.undo()
    assert main(args) == 0
    learn(PLAIN, store, tmp_path / "uninterrupted")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "uninterrupted")


def test_a_checkpoint_of_an_earlier_version_is_refused(store, tmp_path, capsys):
    run = Run(tmp_path / "run")
    run.begin(PLAIN, store)
    checkpoint_module.save_checkpoint(run.last, {"x": torch.zeros(1)}, {"state": {"total": 1, "loss": 0.0}})
    assert main(["train", f"--store={store.path}", f"--run={run.folder}", *flags(PLAIN)]) == 2
    assert "is not a checkpoint of this version" in capsys.readouterr().err


# ---- signals


@pytest.mark.parametrize("number,code", [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_signals_stop_the_training_with_their_exit_codes(number, code, store, tmp_path, monkeypatch, capsys):
    original = Trainer.step

    def learn_and_signal(self, *arguments):
        if self.state.step == 6:
            os.kill(os.getpid(), number)
        return original(self, *arguments)

    monkeypatch.setattr(Trainer, "step", learn_and_signal)
    args = ["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(TINY)]
    assert main(args) == code
    assert "stopped after step 7 of 15" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(args) == 0
    learn(TINY, store, tmp_path / "uninterrupted")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "uninterrupted")


def test_on_a_rank_a_repeated_signal_within_a_moment_counts_once(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    with deferred_signals(alone=False) as caught:
        assert caught() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert caught() == signal.SIGTERM
        later = time.monotonic() + 60
        monkeypatch.setattr("landscale.runtime.signals.time.monotonic", lambda: later)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_norm_statistics_are_broadcast_in_the_same_order_on_every_rank(store, tmp_path, monkeypatch):
    """First those of the network, then those of the averaged weights; ranks match broadcasts by their order alone."""
    trainer = Trainer(TINY, store, Run(tmp_path / "run"), Ranks(), build_classifier(TINY, store), CPU)
    broadcast = []
    monkeypatch.setattr(
        Ranks, "broadcast_tensors", lambda self, tensors: broadcast.extend(t.data_ptr() for t in tensors)
    )
    trainer.model.share_norm_statistics()
    expected = [*trainer.model.network.buffers(), *trainer.model.averaged.buffers()]
    assert broadcast == [t.data_ptr() for t in expected]
    assert len(set(broadcast)) == len(broadcast)
