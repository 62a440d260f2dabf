"""Recipes: YAML files for `landscale train`.

A recipe has no checksum, so another valid recipe is another training. It is right if the run records every value as it was
given; a value that was dropped or became another one is counted as silent. The models are small, and the training ends after
three seconds at the latest.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

import damage
from landscale.testing import make_store, rgbn_plane
from landscale.training.recipe import Recipe
from outcomes import Case
from trainings import TINY
from watched import Bait

_KEYS = tuple(Recipe.__dataclass_fields__)
_OPTIONS = ("width", "drop_rate", "depth", "patch_size", "checkpoint_path", "pretrained_cfg", "attention", "norm_layer")
BASE = {key: value for key, value in asdict(TINY).items() if value != asdict(Recipe())[key]} | {"epochs": 1}


@dataclass(frozen=True)
class Made:
    store: Path
    bait: Bait


def make(root: Path, bait: Bait) -> Made:
    make_store(root / "store.h5", planes=rgbn_plane(12), splits={"train": 40, "val": 16}, seed=1)
    (bait.folder / "recipe.yaml").write_text("epochs: 2\n")
    (bait.folder / "weights.pth").write_bytes(b"not weights")
    return Made(root / "store.h5", bait)


def alter(rng: random.Random, made: Made, folder: Path) -> Case:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(BASE, allow_unicode=True))
    way = rng.choice(
        (_values, _values, _values, _one_key, _one_key, _one_key, _text, _text, _text, _bytes, _file, _options)
    )
    what, judged = way(rng, file, made)
    words = [
        "train",
        "--recipe",
        "recipe.yaml",
        "--store",
        str(made.store),
        "--run",
        "run",
        "--max-time",
        "3s",
        "--json",
    ]

    def accepted(out: str) -> str:
        try:
            given = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            recorded = yaml.safe_load((folder / "run" / "recipe.yaml").read_text(encoding="utf-8"))
            scores = json.loads(out)["scores"]
        except (OSError, ValueError, yaml.YAMLError):
            return "silent"
        if judged == "refused" or not scores or "NaN" in out:
            return "silent"
        if any(not _equal(value, recorded[str(key).replace("-", "_")]) for key, value in given.items()):
            return "silent"
        return "same" if recorded == asdict(Recipe(**BASE)) else "valid"

    return Case(f"{way.__name__[1:]}: {what}", words, accepted)


def _equal(given: Any, recorded: Any) -> bool:
    """Whether a value was recorded as it was given: as the same number, text or list."""
    if isinstance(given, float) and math.isnan(given):
        return False  # no key can be NaN
    if isinstance(given, bool) != isinstance(recorded, bool):
        return False
    if isinstance(given, str) and isinstance(recorded, int | float):
        return given.strip() == str(recorded) or _number(given) == recorded
    if isinstance(given, dict) and isinstance(recorded, dict):
        return given.keys() == recorded.keys() and all(_equal(given[key], recorded[key]) for key in given)
    if isinstance(given, list) and isinstance(recorded, list):
        return len(given) == len(recorded) and all(map(_equal, given, recorded))
    return bool(given == recorded)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


# Each alters the file; returns what it did, and `refused` if it must be refused, else `recorded`.

Judged = tuple[str, str]


def _write(file: Path, content: Any) -> None:
    try:
        file.write_text(yaml.safe_dump(content, allow_unicode=True))
    except (yaml.YAMLError, UnicodeError, RecursionError):  # YAML cannot hold it, JSON can
        file.write_text(json.dumps(content))


def _values(rng: random.Random, file: Path, made: Made) -> Judged:
    content = json.loads(json.dumps(BASE))
    what = damage.of_values(rng, content)
    _write(file, content)
    return what, "recorded"


def _one_key(rng: random.Random, file: Path, made: Made) -> Judged:
    """Any key of a recipe, with any value but those that make a large network."""
    key = rng.choice([key for key in _KEYS if key != "model"])
    value = rng.choice(damage.ODD)
    _write(file, BASE | {key: value})
    return f"{key}: {str(value)[:60]!r}", "recorded"


def _options(rng: random.Random, file: Path, made: Made) -> Judged:
    bait = made.bait.folder
    offered = (str(bait / "weights.pth"), made.bait.url, {"file": str(bait / "weights.pth")}, {"url": made.bait.url})
    name, value = rng.choice(_OPTIONS), rng.choice((*offered, *damage.ODD))
    where = rng.choice(("options", "options", "head_options", "init"))
    _write(file, BASE | ({"init": str(bait / "weights.pth")} if where == "init" else {where: {name: value}}))
    named = {"checkpoint_path", "pretrained_cfg", "norm_layer"}
    if where == "init":  # the only key that names a file, which is then opened
        _write(file, BASE | {"init": str(file)})
    return f"{where}: {name}: {str(value)[:60]!r}", "refused" if name in named or where == "init" else "recorded"


def _text(rng: random.Random, file: Path, made: Made) -> Judged:
    text = file.read_text()
    ran, lines = (
        made.bait.folder / "ran",
        "\n".join(f"{chr(98 + k)}: &{chr(98 + k)} [{f'*{chr(97 + k)},' * 9}]" for k in range(20)),
    )
    ways = {
        "a tag that runs code": f"model: !!python/object/apply:os.system ['touch {ran}']\n",
        "a tag that makes an object": "model: !!python/object:subprocess.Popen {args: [touch]}\n",
        "a tag that names a module": "model: !!python/name:os.system\n",
        "an anchors bomb": f"a: &a [x]\n{lines}\n",
        "an anchors bomb in a key": f"a: &a [x]\n{lines}\nmilestones: *t\n",
        "an anchors bomb in options": "options: &o {width: 0.5}\nhead_options: *o\n",
        "an alias of itself": "options: &o {width: *o}\n",
        "a list that holds itself": "milestones: &m [*m]\n",
        "merged keys": "base: &b {epochs: 2}\n<<: *b\n",
        "merged keys within options": "options:\n  <<: {width: 0.5}\n  drop_rate: 0.1\n",
        "a repeated key": "epochs: 2\n",
        "a repeated key before": None,
        "deep lists": f"milestones: {'[' * 3000}{']' * 3000}\n",
        "deep keys": "options: " + "{a: " * 3000 + "1" + "}" * 3000 + "\n",
        "a long number": f"seed: {'9' * 5000}\n",
        "a long fraction": f"rate: 0.{'0' * 5000}1\n",
        "a sexagesimal": "epochs: 1:30\n",
        "an octal": "batch: 010\n",
        "a hexadecimal": "batch: 0x8\n",
        "underscores": "batch: 1_0\n",
        "a date": "name: 2020-01-01\n",
        "binary": "name: !!binary aGVsbG8=\n",
        "a set": "bands: !!set {B02, B03}\n",
        "no is false": "model: no\n",
        "yes for a number": "epochs: yes\n",
        "a fraction for an integer": "epochs: 1.5\n",
        "a whole fraction": "epochs: 1.0\n",
        "two documents": "---\nepochs: 2\n",
        "tabs": "\tepochs: 2\n",
        "a key without a value": "epochs:\n",
        "an empty text": 'model: ""\n',
        "a dotted key": "options.width: 1\n",
        "a key that is a number": "1: 2\n",
        "a key that is a list": "[1]: 2\n",
        "a key that is nothing": "~: 2\n",
        "a dash in a key": "weight-decay: 0.01\n",
        "include": "__path__: other.yaml\nconfig: other.yaml\n",
        "class_path": "init: {class_path: os.system, init_args: {command: x}}\n",
    }
    refused = {
        "a repeated key",
        "a repeated key before",
        "yes for a number",
        "a fraction for an integer",
        "two documents",
    }
    name = rng.choice(list(ways))
    addition = ways[name]
    if addition is None:
        text, addition = "epochs: 7\n" + text, ""
    elif name not in ("a repeated key", "two documents"):
        key = addition.split(":")[0].strip()
        text = yaml.safe_dump({k: v for k, v in BASE.items() if k not in (key, "head_options")})
    file.write_text(text + addition)
    return name, "refused" if name in refused or name.startswith("a tag") else "recorded"


def _bytes(rng: random.Random, file: Path, made: Made) -> Judged:
    content, what = damage.of_bytes(rng, file.read_bytes())
    file.write_bytes(content)
    return what, "recorded"


def _file(rng: random.Random, file: Path, made: Made) -> Judged:
    what = damage.of_file(rng, file)
    return what, "recorded" if "empty" in what or "/dev/null" in what else "refused"
