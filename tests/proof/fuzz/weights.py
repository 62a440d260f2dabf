"""Folders of weights, of classifiers and of super-resolution networks.

One digest covers every byte of a folder, so any folder that differs from the original without new digests must be refused. Cases
with new digests stand for weights that other people made: they may be other weights, but not such that contradict themselves.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import shutil
import stat
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import damage
from landscale.models.classifier import Classifier, Description
from landscale.models.weights import save_weights
from landscale.report.charts import Picture, picture_sheet
from landscale.runtime.documents import json_text
from landscale.runtime.sealed_config import ENTRY
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
    of_timm = replace(DESCRIPTION, model="mobilenetv3_small_050", options={}, side=32)
    for kind, description in (("classifier", DESCRIPTION), ("of_timm", of_timm)):
        about = {"recipe": "tiny", "scores": {}, "splits": {"train": 16}}
        picture = picture_sheet([Picture(np.zeros((4, 4, 3), np.uint8), ["label: lake"])])
        save_weights(root / kind, Classifier(description), about, licence="mit", picture=picture, exported=True)
    save_random(root / "networks", tail=0.02)
    store, scene = root / "store.h5", write_scene(root / "scene", noise(60))
    make_store(store, planes=rgbn_plane(12), splits={"test": 16})
    shutil.copy(store, bait.folder / "store.h5")
    shutil.copy(root / "classifier" / "model.safetensors", bait.folder)
    pickled = pickle.dumps(_Bomb(bait.folder / "ran"))
    (bait.folder / "weights.pth").write_bytes(pickled)
    of_classifiers = [
        *[["evaluate", "w", str(store), "--json"]] * 5,
        ["info", "w", "--json"],
        ["export", "w", "out", "--json"],
        ["predict", "w", str(scene), "map.tif", "--json"],
    ]
    commands = {
        "classifier": of_classifiers,
        "of_timm": of_classifiers,
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
    kind = rng.choice(("classifier",) * 3 + ("of_timm", "networks"))
    words = rng.choice(made.commands[kind])
    weights = folder / "w"
    shutil.copytree(made.folders[kind], weights)
    ways = (_bytes, _bytes, _bytes, _values, _values, _resealed, _resealed, _resealed, _foreign_option)
    ways += (_format_1, _tensors, _tensors, _tensors, _header, _text, _file, _file, _more_files, _listed_files)
    way = rng.choice(ways)
    what, judged = way(rng, weights, made)
    if judged == "not sealed":
        judged = "same" if _is_same(weights, made.folders[kind]) else "refused"

    def accepted(out: str) -> str:
        try:
            same = _without_times(out) == made.printed[f"{kind} {' '.join(words)}"]
        except ValueError:
            return "silent"
        if same and judged != "refused":
            return "same"
        result = {key: value for key, value in json.loads(out).items() if key != "provenance"}  # any JSON
        return "valid" if judged == "allowed" and "NaN" not in json.dumps(result) else "silent"

    return Case(f"{kind}: {way.__name__[1:]}: {what}", words, accepted)


def _is_same(folder: Path, original: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    names = {path.name for path in folder.iterdir()}
    return names == {path.name for path in original.iterdir()} and all(
        stat.S_ISREG((folder / name).lstat().st_mode)
        and (folder / name).stat().st_size == (original / name).stat().st_size
        and (folder / name).read_bytes() == (original / name).read_bytes()
        for name in names
    )


# Each alters a folder; returns what it did, and how a command that accepts it is judged: `not sealed`: right only if nothing has
# changed after all; `allowed`: these are other weights; `refused`: even the same result would be wrong.

Judged = tuple[str, str]


def _any_file(rng: random.Random, weights: Path) -> Path:
    return rng.choice([*sorted(weights.iterdir()), weights / "config.json"])


def _bytes(rng: random.Random, weights: Path, made: Made) -> Judged:
    file = _any_file(rng, weights)
    content, what = damage.of_bytes(rng, file.read_bytes())
    file.write_bytes(content)
    return f"{file.name}: {what}", "not sealed"


def _config(weights: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((weights / "config.json").read_text())
    return content


def _write(weights: Path, config: dict[str, Any], *, sealed: bool) -> None:
    own = config.get(ENTRY)
    if not sealed or not isinstance(own, dict):
        (weights / "config.json").write_text(json_text(config), errors="surrogatepass")
        return
    others = [path for path in sorted(weights.iterdir()) if path.name != "config.json"]
    own["files"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in others}
    own.pop("digest", None)
    own["digest"] = zeros = "0" * 64
    before, _, after = json_text(config).encode(errors="surrogatepass").rpartition(zeros.encode())
    digest = hashlib.sha256(before + zeros.encode() + after).hexdigest()
    (weights / "config.json").write_bytes(before + digest.encode() + after)


def _values(rng: random.Random, weights: Path, made: Made) -> Judged:
    config = _config(weights)
    what = damage.of_values(rng, config)
    _write(weights, config, sealed=False)
    return what, "not sealed"


def _resealed(rng: random.Random, weights: Path, made: Made) -> Judged:
    config = _config(weights)
    what = damage.of_values(rng, config[ENTRY] if rng.random() < 0.8 else config)
    _write(weights, config, sealed=True)
    return what, "allowed"


def _format_1(rng: random.Random, weights: Path, made: Made) -> Judged:
    """Format 1 had no digest of config.json: values of the right type are believed."""
    config = {key: value for key, value in _config(weights)[ENTRY].items() if key != "files"}
    config |= {
        "landscale_format": 1,
        "digest": hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest(),
    }
    what = damage.of_values(rng, config)
    _write(weights, config, sealed=False)
    return what, "allowed"


def _foreign_option(rng: random.Random, weights: Path, made: Made) -> Judged:
    """Options that would make timm read a file or fetch a URL."""
    config = _config(weights)
    own = config[ENTRY]
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
    where = rng.choice(("options", "head_options", "model_args", ""))
    if where == "model_args":  # timm's own, which landscale does not use
        config.setdefault(where, {})[name] = value
    elif where:
        own.setdefault(where, {})[name] = value
    else:
        own["model"] = rng.choice((f"local-dir:{bait}", "hf-hub:someone/something", f"hf_hub:{url}", str(bait)))
    _write(weights, config, sealed=True)
    # Super-resolution weights have no options: a further key there means nothing.
    ignored = where == "model_args" or own.get("kind") == "superres"
    return f"{where or 'model'}: {name} {value}", "allowed" if ignored else "refused"


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
    return f"{kind} {name}{' and sealed' if sealed else ''}", judged if sealed else "not sealed"


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
    return f"{kind} {key}", "not sealed"


def _file(rng: random.Random, weights: Path, made: Made) -> Judged:
    return damage.of_file(rng, _any_file(rng, weights)), "not sealed"


def _more_files(rng: random.Random, weights: Path, made: Made) -> Judged:
    return _add_file(rng, weights, made), "not sealed"


def _listed_files(rng: random.Random, weights: Path, made: Made) -> Judged:
    """With digests that fit: the file belongs to these weights, and must not be used."""
    what = _add_file(rng, weights, made)
    _write(weights, _config(weights), sealed=True)
    return f"{what}, listed", "allowed"


def _add_file(rng: random.Random, weights: Path, made: Made) -> str:
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
    return f"a further file {name}"
