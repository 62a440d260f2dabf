"""Command lines: the real flags of every command, in random combinations, with odd values.

The flags are read from the parsers, so a new one is tried without a change here. A command line must be refused if a number is
negative, not finite or no number, or a word is none of the choices. No command may change its inputs. `demo`, `download` and
the benchmarks take minutes or the network when they are right, so they are only called with something that is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from archives import write_eurosat
from landscale.cli import _command_line
from landscale.models.classifier import Classifier
from landscale.models.weights import save_weights
from landscale.testing import make_store, rgbn_plane
from outcomes import Case
from products import noise
from sharpening import save_random, write_scene
from trainings import TINY, flags, learn
from watched import Bait
from weights import DESCRIPTION

SLOW = ("demo", "download", "benchmark", "scale", "superres train")  # when nothing is wrong
WRONG_NUMBERS = ("-1", "-0.5", "nan", "inf", "-inf", "x", "", "1e400", "1;2", "0x", "--", "[1]", "1.5.2", "½")
BORDER_NUMBERS = ("0", "1", "2", "1.5", "1e3", "10000000000000000000000", "1_0", " 7 ", "٣", "1e-300", "99999")
WRONG_WORDS = ("", "x", "nan", "-1", "all", "TRAIN", "train ", "../train", "[red]", "\udcff", "a" * 5000)
RECIPE_KEYS = (
    "epochs",
    "batch",
    "rate",
    "seed",
    "warmup-epochs",
    "mixup",
    "weight-decay",
    "zoom",
    "jitter",
    "ema",
    "balance",
)
PLACES = (
    *("nothing", "", ".", "empty", "folder", "pipe", "link", "loop", "text", "noise", "/dev/null", "/dev/zero"),
    *("/dev/full", "/sys/kernel", "n" * 300, "a/b/c/d", "text/inside", "x\ny", "\udcff"),
    *("store.h5", "run", "weights", "networks", "scene", "scene/B02.tif", "archive", "map.tif", "http://127.0.0.1:1/x"),
)


@dataclass(frozen=True)
class Made:
    files: Path
    commands: dict[str, argparse.ArgumentParser]


def make(root: Path, bait: Bait) -> Made:
    files = root / "files"
    files.mkdir()
    torch.manual_seed(0)
    make_store(files / "store.h5", planes=rgbn_plane(12), splits={"train": 24, "val": 8, "test": 8}, seed=1)
    save_weights(files / "weights", Classifier(DESCRIPTION), {"recipe": "tiny", "scores": {}})
    save_random(files / "networks", tail=0.02)
    write_scene(files / "scene", noise(60))
    write_eurosat(files / "archive")
    shutil.rmtree(files / "archive" / "events", ignore_errors=True)
    learn(TINY, files / "store.h5", files / "run")
    (files / "folder").mkdir()
    (files / "folder" / "file").write_text("x")
    (files / "empty").mkdir()
    (files / "text").write_text("not what was expected\n")
    (files / "noise").write_bytes(random.Random(0).randbytes(3000))
    (files / "recipe.yaml").write_text("epochs: 1\n")
    (files / "map.tif").write_bytes((files / "scene" / "B02.tif").read_bytes())
    (files / "link").symlink_to("store.h5")
    (files / "loop").symlink_to("loop")
    parser = _command_line()
    return Made(files, dict(_commands(parser, "")))


def _commands(parser: argparse.ArgumentParser, name: str) -> list[tuple[str, argparse.ArgumentParser]]:
    """All commands below a parser, such as `superres train`."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return [
                found for key, child in action.choices.items() for found in _commands(child, f"{name} {key}".strip())
            ]
    return [(name, parser)]


def alter(rng: random.Random, made: Made, folder: Path) -> Case:
    shutil.copytree(made.files, folder, symlinks=True, dirs_exist_ok=True)
    os.mkfifo(folder / "pipe")
    name = rng.choice([*made.commands, "train", "evaluate", "predict", "prepare"])
    words, wrong, known = _words(rng, name, made.commands[name])
    before = _inputs(folder)

    def accepted(out: str) -> str:
        return "silent" if wrong or _inputs(folder) != before else "same" if "NaN" not in out else "silent"

    return Case(f"{name}: {', '.join(wrong) or known}", words, accepted)


def _inputs(folder: Path) -> dict[str, str]:
    """Digests of the files that no command may change."""
    files = [
        folder / "store.h5",
        folder / "text",
        *(folder / "scene").glob("*.tif"),
        *(folder / "archive").rglob("*.jpg"),
    ]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "gone" for file in files}


def _words(rng: random.Random, name: str, parser: argparse.ArgumentParser) -> tuple[list[str], list[str], str]:
    """The words of a command, what is certainly wrong in them, and what else is odd."""
    words, wrong, odd = name.split(), [], []
    slow = name.startswith(SLOW)
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    given = []
    for action in actions:
        if not action.option_strings and action.nargs != 0:
            given += _positional(rng, name, action, odd)
        elif action.required or rng.random() < 0.3:
            given += _option(rng, action, wrong, odd)
    if name == "train":
        given += [*flags(TINY, epochs=1), "--max-time=3s"]
        if rng.random() < 0.5:
            key, value = rng.choice(RECIPE_KEYS), rng.choice(WRONG_NUMBERS)
            given += [f"--{key}", value]
            wrong.append(f"--{key} {value!r}")
    if name == "prepare":
        given += ["--workers=1"]
    if (slow and not wrong) or rng.random() < 0.1:
        extra = rng.choice(("--no-such-flag", "--jso", "--no-such-flag=1", "-x", "--=1"))
        given.append(extra)
        wrong.append(extra)
    return [*words, *given], wrong, ", ".join(odd)


def _positional(rng: random.Random, name: str, action: argparse.Action, odd: list[str]) -> list[str]:
    right = {
        "model": "run",
        "scene": "scene",
        "scenes": "scene",
        "store": "store.h5",
        "runs": "run",
        "weights": "networks" if name in ("superres apply", "superres evaluate") else "new",
        "out": "new.tif" if name == "predict" else "new",
        "path": rng.choice(("store.h5", "run", "weights", "networks", "scene")),
        "dataset": rng.choice(("eurosat", "folder")),
        "inputs": "archive",
        "base": "wide_resnet",
        "files": "noise",
        "archive": "nothing",
    }
    inputs = name == "prepare" and action.dest == "inputs"
    value = ["archive", "new.h5"] if inputs else [right.get(action.dest, "resnet18")]
    if rng.random() < 0.35:
        value[rng.randrange(len(value))] = place = rng.choice(PLACES)
        odd.append(f"{action.dest} {place[:40]!r}")
    return value


def _option(rng: random.Random, action: argparse.Action, wrong: list[str], odd: list[str]) -> list[str]:
    flag = rng.choice(action.option_strings)
    if action.nargs == 0:
        return [flag] if flag not in ("--version", "--keys", "--recount") else []  # the last one takes minutes
    if action.choices or action.dest == "split":
        value = rng.choice((*(action.choices or ("train", "val", "test")), *WRONG_WORDS))
        wrong += [f"{flag} {value[:40]!r}"] if value in WRONG_WORDS else []
    elif action.type in (int, float) or action.dest in ("max_time", "ranks", "phi"):
        bad = rng.random() < 0.6
        value = rng.choice(WRONG_NUMBERS if bad else BORDER_NUMBERS)
        if action.dest == "max_time" and not bad:
            value = rng.choice(("3s", "0s", "1m"))
        wrong += [f"{flag} {value!r}"] if bad else []
    elif action.dest == "store":
        value = rng.choice(("store.h5", "store.h5", *PLACES))
    elif action.dest == "recipe":
        value = rng.choice(("recipe.yaml", "landscale", *PLACES))
    else:
        value = rng.choice(PLACES)
    odd.append(f"{flag} {value[:40]!r}")
    return [flag, value] if rng.random() < 0.5 else [f"{flag}={value}"]
