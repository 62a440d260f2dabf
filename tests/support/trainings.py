"""A tiny training, called as a function or as a command in a process that can be killed, and its results."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch

from landscale.cli import main
from landscale.testing import make_store, rgbn_plane
from landscale.training import checkpoint as checkpoint_module
from landscale.training.recipe import Recipe
from landscale.training.trainer import Trainer
from landscale.training.training import train
from launchers import fork_context, write_output_to
from weights_folders import entries

CPU = torch.device("cpu")
BANDS = "B02,B03,B04,B08"
# A network of 6,000 parameters on 12 px: a step takes a few milliseconds. All random augmentations are on.
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


def tiny_store(folder):
    """A store with 40 patches to train on: 5 steps of 8 an epoch."""
    return make_store(folder / "s.h5", planes=rgbn_plane(12), splits={"train": 40, "val": 16, "test": 16}, seed=1)


def learn(recipe, store, folder, **more):
    return train(recipe, store, folder, device=CPU, **more)


def flags(recipe, **changes):
    """A recipe as options of the command line."""
    default = asdict(Recipe())
    words = []
    for key, value in {**asdict(recipe), **changes}.items():
        if value != default[key]:
            words.append(f"--{key.replace('_', '-')}={json.dumps(value) if isinstance(value, dict | list) else value}")
    return words


def weights_of(folder):
    return hashlib.sha256((Path(folder) / "weights" / "model.safetensors").read_bytes()).hexdigest()


def metrics_of(folder):
    """The table of metrics without the columns that hold times."""
    table = pd.read_csv(Path(folder) / "metrics.csv", dtype=str)
    return table.drop(columns=["seconds", "train_seconds"]).to_csv(index=False)


def outcome(folder):
    scores = json.loads((Path(folder) / "scores.json").read_text())
    return weights_of(folder), metrics_of(folder), scores, entries(Path(folder) / "weights")["thresholds"]


def undisturbed(store, folder):
    """Outcome of TINY without an interruption."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    learn(TINY, store, folder)
    torch.set_num_threads(threads)
    return outcome(folder)


def interrupted_learning(monkeypatch, at):
    """Replace `Trainer.step` by one that sends SIGINT in the steps, counted from 1, for which `at(step)` is true."""
    original = Trainer.step

    def learn_and_interrupt(self, *arguments):
        loss = original(self, *arguments)
        if at(self.state.step + 1):
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(Trainer, "step", learn_and_interrupt)


# Processes are forked from a server that has imported everything, so that each starts in a fraction of a second.


def _command(words, output, deadly):
    """Run a command here, output to a file. `deadly`: the process kills itself at this file-system change, 0: never."""
    write_output_to(output)
    torch.set_num_threads(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the fork server of `prepare` blocks it
    if deadly:
        _die_at(deadly)
    code = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _die_at(number):
    """Send SIGKILL at the n-th fsync, rename, new folder or checkpoint, counted from 1; a checkpoint is truncated to half."""
    left = [number]

    def now():
        left[0] -= 1
        return left[0] == 0

    def counted(original):
        def call(*arguments, **options):
            if now():
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return call

    def half(tensors, path, **options):
        save_whole(tensors, path, **options)
        if now():
            os.truncate(path, Path(path).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    save_whole, checkpoint_module.save_file = checkpoint_module.save_file, half

    for name in ("fsync", "replace", "rename", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))


def starter():
    """A function that starts a command in a process; `deadly` as for `_command`."""
    context = fork_context()

    def begin(words, output, deadly=0):
        process = context.Process(target=_command, args=([str(w) for w in words], str(output), deadly))
        process.start()
        return process

    return begin


def ended(process, seconds=60):
    process.join(seconds)
    assert process.exitcode is not None, "the process did not end"
    return process.exitcode
