"""Folders of weights, of classifiers and of super-resolution networks.

Both files have digests. What is altered without renewing them must be refused, or mean the same. Cases that renew the digests
stand for weights that somebody else made: they may be other weights, but not such that contradict themselves.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import shutil
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import damage
from landscale.models.classifier import Classifier, Description
from landscale.models.weights import save_weights
from landscale.runtime.sealed_config import _digest
from landscale.testing import make_store, rgbn_plane
from outcomes import Case
from products import noise
from sharpening import save_random, write_scene
from watched import Bait, run

DESCRIPTION = Description(
    model="wide_resnet",
    bands=("B02", "B03", "B04", "B08"),
    classes=("forest", "lake", "town", "wheat"),
    nomenclature="custom",
    multi_label=True,
    statistics={"B02": (900.5, 150.25), "B03": (900.0, 150.0), "B04": (700.0, 150.0), "B08": (800.0, 140.0)},
    side=12,
    ground=120,
    options={"width": 0.5},
    thresholds=(0.25, 0.5, 0.75, 0.5),
)


@dataclass(frozen=True)
class Made:
    """The unaltered folders, by kind; what commands print about them; a file that runs code when it is unpickled."""

    folders: dict[str, Path]
    commands: dict[str, list[list[str]]]
    printed: dict[str, str]
    bait: Bait
    pickled: bytes


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.target)!r}, 'w').close()",))


def make(root: Path, bait: Bait) -> Made:
    torch.manual_seed(0)
    save_weights(root / "classifier", Classifier(DESCRIPTION), {"recipe": "tiny", "scores": {}})
    save_random(root / "networks", tail=0.02)
    store, scene = root / "store.h5", write_scene(root / "scene", noise(60))
    make_store(store, planes=rgbn_plane(12), splits={"test": 16})
    shutil.copy(store, bait.folder / "store.h5")
    shutil.copy(root / "classifier" / "model.safetensors", bait.folder)
    pickled = pickle.dumps(_Bomb(bait.folder / "ran"))
    (bait.folder / "weights.pth").write_bytes(pickled)
    commands = {
        "classifier": [
            *[["evaluate", "w", str(store), "--json"]] * 5,
            ["info", "w", "--json"],
            ["predict", "w", str(scene), "map.tif", "--json"],
        ],
        "networks": [["superres", "apply", "w", str(scene), "out", "--json"], ["info", "w", "--json"]],
    }
    folders = {kind: root / kind for kind in commands}
    printed = {}
    for kind, some in commands.items():
        for words in some:
            if (name := f"{kind} {' '.join(words)}") not in printed:
                here = root / "first"
                shutil.copytree(folders[kind], here / "w")
                ended = run(words, here, bait)
                assert ended.code == 0, ended
                printed[name] = _without_times(ended.out)
                shutil.rmtree(here)
    return Made(folders, commands, printed, bait, pickled)


def _without_times(text: str) -> str:
    content = json.loads(text)
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if "second" not in key}
    return json.dumps(content, sort_keys=True)


def alter(rng: random.Random, made: Made, folder: Path) -> Case:
    kind = rng.choice(("classifier",) * 4 + ("networks",))
    words = rng.choice(made.commands[kind])
    weights = folder / "w"
    shutil.copytree(made.folders[kind], weights)
    ways = (_bytes, _bytes, _values, _values, _values, _resealed, _resealed, _resealed, _foreign_option)
    ways += (_format_1, _tensors, _tensors, _tensors, _header, _text, _file, _more_files)
    way = rng.choice(ways)
    what, other = way(rng, weights, made)

    def accepted(out: str) -> str:
        try:
            same = _without_times(out) == made.printed[f"{kind} {' '.join(words)}"]
        except ValueError:
            return "silent"
        if same and other != "refused":
            return "same"
        return "valid" if other == "allowed" and "NaN" not in out else "silent"

    return Case(f"{kind}: {way.__name__[1:]}: {what}", words, accepted)


# Each alters a folder; returns what it did, and how another result would be judged: `forbidden`, `allowed`; or `refused`, if
# even the same result would be wrong.

Judged = tuple[str, str]


def _bytes(rng: random.Random, weights: Path, made: Made) -> Judged:
    names = ("config.json", "config.json", "model.safetensors", "model.safetensors", "README.md")
    file = weights / rng.choice([name for name in names if (weights / name).exists()])
    content, what = damage.of_bytes(rng, file.read_bytes())
    file.write_bytes(content)
    return f"{file.name}: {what}", "forbidden"


def _config(weights: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((weights / "config.json").read_text())
    return content


def _write(weights: Path, config: dict[str, Any], *, sealed: bool) -> None:
    if sealed:
        config["digest"] = hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest()
        with suppress(UnicodeError, TypeError):  # it cannot be sealed
            config["config_digest"] = _digest(config)
    (weights / "config.json").write_text(json.dumps(config), errors="surrogatepass")


def _values(rng: random.Random, weights: Path, made: Made) -> Judged:
    config = _config(weights)
    what = damage.of_values(rng, config)
    _write(weights, config, sealed=False)
    return what, "forbidden"


def _resealed(rng: random.Random, weights: Path, made: Made) -> Judged:
    config = _config(weights)
    what = damage.of_values(rng, config)
    _write(weights, config, sealed=True)
    return what, "allowed"


def _format_1(rng: random.Random, weights: Path, made: Made) -> Judged:
    """Format 1 had no digest of config.json: values of the right type are believed."""
    config = _config(weights)
    what = damage.of_values(rng, config)
    config.pop("config_digest", None)
    config["landscale_format"] = 1
    _write(weights, config, sealed=False)
    return what, "allowed"


def _foreign_option(rng: random.Random, weights: Path, made: Made) -> Judged:
    """Options that would make timm read a file or fetch a URL."""
    config = _config(weights)
    bait, url = made.bait.folder, made.bait.url
    name, value = rng.choice(
        [
            *[("checkpoint_path", str(bait / file)) for file in ("weights.pth", "model.safetensors")],
            ("pretrained", True),
            ("pretrained_cfg", {"url": url, "file": str(bait / "weights.pth")}),
            ("pretrained_cfg_overlay", {"file": str(bait / "weights.pth"), "state_dict": {}}),
            ("pretrained_strict", False),
            ("cache_dir", str(bait)),
            ("norm_layer", "os.system"),
            ("block", "subprocess.run"),
            ("scriptable", True),
            ("features_only", True),
            ("__class__", "x"),
        ]
    )
    where = rng.choice(("options", "head_options", ""))
    if where:
        config.setdefault(where, {})[name] = value
    else:
        config["model"] = rng.choice((f"local-dir:{bait}", "hf-hub:someone/something", f"hf_hub:{url}", str(bait)))
    _write(weights, config, sealed=True)
    # Super-resolution weights have no options: a further key there means nothing.
    return f"{where or 'model'}: {name} {value}", "refused" if "options" in _config(made.folders["classifier"]) and (
        config.get("kind") != "superres"
    ) else "allowed"


def _tensors(rng: random.Random, weights: Path, made: Made) -> Judged:
    file = weights / "model.safetensors"
    tensors: dict[str, Tensor] = load_file(file)
    names = sorted(tensors)
    name, judged = rng.choice(names), "refused"
    tensor = tensors[name]
    kind = rng.choice(("swap", "rename", "remove", "add", "type", "shape", "nan", "infinite", "huge", "empty", "code"))
    if kind == "swap":
        others = [n for n in names if n != name and tensors[n].shape == tensor.shape]
        other = rng.choice(others or [name])
        tensors[name], tensors[other] = tensors[other], tensor
        judged = "allowed"  # other weights, if they are sealed
    elif kind == "rename":
        tensors[f"{name}x"] = tensors.pop(name)
    elif kind == "remove":
        del tensors[name]
    elif kind == "add":
        tensors["more"] = torch.zeros(3)
    elif kind == "type":
        kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.bool, torch.int64, torch.uint8)
        tensors[name] = tensor.to(rng.choice(kinds))
        judged = "allowed"
    elif kind == "shape":
        shape = rng.choice(([*tensor.shape, 1], [1, *tensor.shape], [tensor.numel() + 1], [3, 3]))
        tensors[name] = torch.zeros(shape, dtype=tensor.dtype)
    elif kind in ("nan", "infinite", "huge"):
        value = {"nan": float("nan"), "infinite": -float("inf"), "huge": 3e38}[kind]
        flat = tensor.clone().reshape(-1)
        if not tensor.is_floating_point():
            value = -(2**62)
        flat[rng.randrange(len(flat))] = value
        tensors[name] = flat.reshape(tensor.shape)
        judged = "allowed" if kind == "huge" or not tensor.is_floating_point() else "refused"
    elif kind == "empty":
        tensors[name] = tensor.reshape(-1)[:0]
    else:
        file.write_bytes(made.pickled)
        if rng.random() < 0.7:
            _write(weights, _config(weights), sealed=True)
        return "a pickle", "refused"
    save_file({n: t.contiguous().clone() for n, t in tensors.items()}, file, metadata={"format": "pt"})
    sealed = rng.random() < 0.8
    if sealed:
        _write(weights, _config(weights), sealed=True)
    return f"{kind} {name}{' and sealed' if sealed else ''}", judged if sealed else "forbidden"


def _header(rng: random.Random, weights: Path, made: Made) -> Judged:
    """The header of model.safetensors, sealed again."""
    file = weights / "model.safetensors"
    content = file.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    what = damage.of_values(rng, header)
    text = json.dumps(header).encode(errors="surrogatepass")
    length = rng.choice((len(text),) * 5 + (0, 1, len(text) * 2, 2**40, 2**63, 2**64 - 1))
    file.write_bytes(struct.pack("<Q", length) + text + data)
    _write(weights, _config(weights), sealed=True)
    return f"{what}, length {length}", "allowed"


def _text(rng: random.Random, weights: Path, made: Made) -> Judged:
    """The JSON text itself: repeated keys, depth, encodings, numbers that are too long."""
    file = weights / "config.json"
    text = file.read_text()
    config = json.loads(text)
    key = rng.choice(sorted(config))
    repeated = json.dumps({key: rng.choice(damage.ODD)})[1:-1]
    judged = "forbidden"
    kind = rng.choice(
        ("repeated before", "repeated after", "deep", "bom", "utf-16", "long number", "infinity", "after")
    )
    if kind == "repeated before":
        text = "{" + repeated + ", " + text[text.index("{") + 1 :]
    elif kind == "repeated after":
        text = text[: text.rindex("}")] + ", " + repeated + "}"
    elif kind == "deep":
        text = text[: text.rindex("}")] + ', "deep": ' + "[" * 5000 + "]" * 5000 + "}"
    elif kind == "long number":
        text = text[: text.rindex("}")] + f', "{key}": ' + "9" * rng.choice((400, 5000, 100_000)) + "}"
    elif kind == "infinity":
        text = text[: text.rindex("}")] + f', "{key}": -Infinity' + "}"
    elif kind == "after":
        text += rng.choice(("{}", "]", "x", "\0"))
    encoded = (
        text.encode("utf-16") if kind == "utf-16" else text.encode("utf-8-sig" if kind == "bom" else "utf-8", "replace")
    )
    file.write_bytes(encoded)
    return f"{kind} {key}", judged


def _file(rng: random.Random, weights: Path, made: Made) -> Judged:
    return damage.of_file(rng, weights / rng.choice(("config.json", "model.safetensors"))), "forbidden"


def _more_files(rng: random.Random, weights: Path, made: Made) -> Judged:
    names = (
        "pytorch_model.bin",
        "model.pth",
        "config.py",
        "modeling.py",
        "model.safetensors.index.json",
        "sitecustomize.py",
    )
    name = rng.choice(names)
    (weights / name).write_bytes(made.pickled if not name.endswith(".py") else b"open('/tmp/ran', 'w')")
    return f"a further file {name}", "forbidden"
