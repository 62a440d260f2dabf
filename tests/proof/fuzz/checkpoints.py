"""Runs that were stopped: the checkpoint and the other files of the run folder, before the training is resumed.

A resumed training must end with the weights of one that was not stopped, or be refused. Cases that renew the checksum stand for
a checkpoint that somebody else made: they may lead to other weights, but not to any that are not finite.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

import damage
from landscale.runtime.signals import Stopped
from landscale.testing import make_store, rgbn_plane
from landscale.training.checkpoint import _checksum, load_checkpoint
from landscale.training.recipe import as_yaml
from landscale.training.trainer import Trainer
from outcomes import Case
from trainings import CPU, TINY, learn
from watched import Bait
from weights import _Bomb

RECIPE = replace(TINY, epochs=2, select="micro_ap", keep=2)
_STOP = 7  # finished steps when the training is stopped


@dataclass(frozen=True)
class Made:
    store: Path
    recipe: Path
    run: Path  # stopped
    ended: Path
    weights: str  # digest of what the training ends with
    pickled: bytes


def make(root: Path, bait: Bait) -> Made:
    make_store(root / "store.h5", planes=rgbn_plane(12), splits={"train": 40, "val": 16}, seed=1)
    (root / "recipe.yaml").write_text(as_yaml(RECIPE))
    learn(RECIPE, root / "store.h5", root / "ended")
    learned = Trainer.step

    def step(self: Trainer, *arguments: Any) -> Any:
        loss = learned(self, *arguments)
        if self.state.step + 1 == _STOP:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    Trainer.step = step  # type: ignore[method-assign]
    try:
        learn(RECIPE, root / "store.h5", root / "stopped")
    except Stopped:
        Trainer.step = learned  # type: ignore[method-assign]
    import pickle

    pickled = pickle.dumps(_Bomb(bait.folder / "ran"))
    return Made(
        root / "store.h5", root / "recipe.yaml", root / "stopped", root / "ended", _weights(root / "ended"), pickled
    )


def _weights(run: Path) -> str:
    """A digest of the tensors and of the thresholds."""
    config = json.loads((run / "weights" / "config.json").read_text())["landscale"]
    content = (run / "weights" / "model.safetensors").read_bytes()
    return hashlib.sha256(content + json.dumps(config["thresholds"]).encode()).hexdigest()


def alter(rng: random.Random, made: Made, folder: Path) -> Case:
    run = folder / "run"
    ended = rng.random() < 0.1
    shutil.copytree(made.ended if ended else made.run, run)
    ways = (
        (_bytes,) * 4
        + (_state,) * 4
        + (_sealed_state,) * 5
        + (_tensors,) * 4
        + (_header, _file, _other_file, _other_file)
    )
    way = rng.choice(ways if not ended else (_ended_run,))
    what, judged = way(rng, run, made)
    words = ["train", "--recipe", str(made.recipe), "--store", str(made.store), "--run", "run", "--json"]

    def accepted(out: str) -> str:
        try:
            file = run / "weights" / "model.safetensors"
            same = _weights(run) == made.weights
            finite = all(t.isfinite().all() for t in load_file(file).values())
            json.loads(out)
        except (OSError, ValueError, KeyError):
            return "silent"
        if judged == "refused" or not finite:
            return "silent"
        return "same" if same else "valid" if judged == "allowed" else "silent"

    return Case(f"{way.__name__[1:]}: {what}", words, accepted)


Judged = tuple[str, str]  # what was done; `forbidden`: the same weights or a refusal; `allowed`: others too; `refused`


def _file_of(rng: random.Random, run: Path) -> Path:
    return run / "checkpoints" / rng.choice(("last.safetensors",) * 4 + ("best.safetensors",))


def _bytes(rng: random.Random, run: Path, made: Made) -> Judged:
    file = _file_of(rng, run)
    content, what = damage.of_bytes(rng, file.read_bytes())
    file.write_bytes(content)
    return f"{file.name}: {what}", "forbidden"


def _altered_state(rng: random.Random, file: Path, *, sealed: bool) -> str:
    tensors, state = load_checkpoint(file, CPU)
    checksum = _checksum(tensors, json.dumps(state))
    what = damage.of_values(rng, state)
    text = json.dumps(state)
    if sealed:
        checksum = _checksum(tensors, text.encode(errors="replace").decode())
    save_file(tensors, file, metadata={"state": text.encode(errors="replace").decode(), "checksum": checksum})
    return f"{file.name}: {what}"


def _state(rng: random.Random, run: Path, made: Made) -> Judged:
    return _altered_state(rng, _file_of(rng, run), sealed=False), "forbidden"


def _sealed_state(rng: random.Random, run: Path, made: Made) -> Judged:
    return _altered_state(rng, _file_of(rng, run), sealed=True), "allowed"


def _tensors(rng: random.Random, run: Path, made: Made) -> Judged:
    file = _file_of(rng, run)
    tensors, state = load_checkpoint(file, CPU)
    checksum, judged = _checksum(tensors, json.dumps(state)), "refused"
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    kind = rng.choice(("swap", "rename", "remove", "add", "type", "shape", "nan", "empty"))
    if kind == "swap":
        others = [n for n in sorted(tensors) if n != name and tensors[n].shape == tensor.shape]
        other = rng.choice(others or [name])
        tensors[name], tensors[other] = tensors[other], tensor
        judged = "allowed"
    elif kind == "rename":
        tensors[f"{name}x"] = tensors.pop(name)
    elif kind == "remove":
        del tensors[name]
    elif kind == "add":
        tensors["more"] = torch.zeros(3)
        judged = "forbidden"
    elif kind == "type":
        tensors[name] = tensor.to(rng.choice((torch.float64, torch.float16, torch.int8, torch.bool, torch.int64)))
        judged = "allowed"
    elif kind == "shape":
        tensors[name] = torch.zeros(rng.choice(([*tensor.shape, 2], [2, *tensor.shape], [tensor.numel() + 1])))
    elif kind == "nan":
        flat = tensor.clone().reshape(-1)
        flat[rng.randrange(len(flat))] = float("nan") if flat.is_floating_point() else -(2**62)
        tensors[name] = flat.reshape(tensor.shape)
        judged = "allowed" if not tensor.is_floating_point() else "refused"
    else:
        tensors[name] = tensor.reshape(-1)[:0]
    sealed = rng.random() < 0.8
    text = json.dumps(state)
    packed: dict[str, Tensor] = {n: t.contiguous().clone() for n, t in tensors.items()}
    save_file(packed, file, metadata={"state": text, "checksum": _checksum(packed, text) if sealed else checksum})
    if file.name.startswith("best"):  # may be replaced before it is used
        judged = "allowed" if sealed else "forbidden"
    return f"{file.name}: {kind} {name}{' and sealed' if sealed else ''}", judged if sealed else "forbidden"


def _header(rng: random.Random, run: Path, made: Made) -> Judged:
    file = _file_of(rng, run)
    content = file.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    what = damage.of_values(rng, header)
    text = json.dumps(header).encode(errors="replace")
    length = rng.choice((len(text),) * 5 + (0, 1, len(text) * 2, 2**40, 2**63, 2**64 - 1))
    file.write_bytes(struct.pack("<Q", length) + text + content[8 + size :])
    return f"{file.name}: {what}, length {length}", "forbidden"


def _file(rng: random.Random, run: Path, made: Made) -> Judged:
    file = _file_of(rng, run)
    if rng.random() < 0.2:
        file.write_bytes(made.pickled)
        return f"{file.name} is a pickle", "forbidden"
    return damage.of_file(rng, file), "forbidden"


def _other_file(rng: random.Random, run: Path, made: Made) -> Judged:
    """recipe.yaml and run.json: without a checksum, but they must be those of this training."""
    name = rng.choice(("recipe.yaml", "run.json", "metrics.csv", "environment.json"))
    file = run / name
    if rng.random() < 0.3 and file.exists():
        return damage.of_file(rng, file), "forbidden"
    if name.endswith((".yaml", ".json")) and file.exists():
        content = yaml.safe_load(file.read_text())
        what = damage.of_values(rng, content)
        text = json.dumps(content) if name.endswith("json") else ""
        try:
            text = text or yaml.safe_dump(content)
        except (yaml.YAMLError, RecursionError, UnicodeError):
            text = json.dumps(content)
        file.write_text(text, errors="replace")
        return f"{name}: {what}", "forbidden"
    content, what = damage.of_bytes(rng, file.read_bytes() if file.exists() else b"x")
    file.write_bytes(content)
    return f"{name}: {what}", "forbidden"


def _ended_run(rng: random.Random, run: Path, made: Made) -> Judged:
    """A finished run, whose scores and weights are shown again."""
    name = rng.choice(("scores.json", "recipe.yaml", "run.json"))
    content, what = damage.of_bytes(rng, (run / name).read_bytes())
    (run / name).write_bytes(content)
    return f"{name}: {what}", "forbidden"
