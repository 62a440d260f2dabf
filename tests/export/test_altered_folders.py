"""A folder of weights that differs from what was written is refused in one line, whatever differs."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from landscale.errors import BadInput
from landscale.export.publish import publish_weights
from landscale.models.classifier import Classifier, Description
from landscale.models.weights import check_weights, load_model, save_weights
from landscale.report.charts import Picture, picture_sheet
from landscale.runtime.documents import json_text, read_json

BANDS = ("B02", "B03", "B04")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported folder of a network that timm has."""
    torch.manual_seed(0)
    statistics = {band: (400.0 + k, 100.0) for k, band in enumerate(BANDS)}
    options = {"embed_dim": 12, "num_heads": 1, "depth": 1}
    d = Description(
        "vit_small_patch8_224", BANDS, ("forest", "lake", "town"), "custom", True, statistics, 32, 320, options=options
    )
    picture = picture_sheet([Picture(np.zeros((4, 4, 3), np.uint8), ["label: lake"])])
    made = tmp_path_factory.mktemp("made") / "w"
    about = {"recipe": "tiny", "scores": {"split": "val"}}
    save_weights(made, Classifier(d), about, licence="mit", picture=picture, exported=True)
    assert check_weights(made)["exported"]
    assert load_model(made).description == d
    return made


def byte(rng: random.Random, copy: Path) -> None:
    file = rng.choice(sorted(copy.iterdir()))
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
    file.write_bytes(content)


def length(rng: random.Random, copy: Path) -> None:
    file = rng.choice(sorted(copy.iterdir()))
    content = file.read_bytes()
    cut = rng.randrange(len(content))
    file.write_bytes(rng.choice((content[:cut], content + b" ", content + b"\n", b"\n" + content)))


def tensors(rng: random.Random, copy: Path) -> None:
    """Two tensors change places, one gets another shape, or one is left out."""
    file = copy / "model.safetensors"
    state = load_file(file)
    first, second = rng.sample([name for name, tensor in state.items() if tensor.ndim == 1], 2)
    how = rng.choice(("swap", "shape", "remove", "add"))
    if how == "swap":
        state[first], state[second] = state[second] + 1, state[first] + 1
    elif how == "shape":
        state[first] = state[first].repeat(2)
    elif how == "remove":
        del state[first]
    else:
        state["more"] = torch.zeros(2)
    save_file(state, file, metadata={"format": "pt"})


def values(rng: random.Random, copy: Path) -> None:
    """Entries of `config.json`, in the same layout."""
    config = read_json(copy / "config.json")
    own = config["landscale"]
    changes: dict[str, object] = {
        "classes": ["lake", "forest", "town"],
        "bands": own["bands"][::-1],
        "side": 64,
        "thresholds": [0.1, 0.2, 0.3],
        "temperature": 2.0,
        "files": {name: own["files"][name] for name in list(own["files"])[1:]},
        "digest": own["digest"][::-1],
        "provenance": {},
        "landscale_format": 2,
    }
    name = rng.choice(sorted(changes))
    own[name] = changes[name]
    (copy / "config.json").write_text(json_text(config if rng.random() < 0.8 else own))


def entries_of_timm(rng: random.Random, copy: Path) -> None:
    config = read_json(copy / "config.json")
    config["pretrained_cfg"] = config.get("pretrained_cfg", {}) | {"url": "http://127.0.0.1:9/x.pth"}
    (copy / "config.json").write_text(json_text({"pretrained_cfg": config.pop("pretrained_cfg"), **config}))


def layout(rng: random.Random, copy: Path) -> None:
    """The same entries, written in another way."""
    config = read_json(copy / "config.json")
    text = rng.choice(
        (json_text(config) + "\n", json_text(config).replace(" ", ""), json_text(config).replace("\n", "\r\n"))
    )
    (copy / "config.json").write_bytes(text.encode())


def files(rng: random.Random, copy: Path) -> None:
    """A file is removed, added, renamed, or takes the place of another."""
    some = sorted(copy.iterdir())
    first, second = rng.sample(some, 2)
    how = rng.choice(("remove", "add", "folder", "rename", "swap"))
    if how == "remove":
        first.unlink()
    elif how == "add":
        (copy / rng.choice(("pytorch_model.bin", "model.pth", "x", ".x", "config.json.bak"))).write_bytes(b"x")
    elif how == "folder":
        (copy / "more").mkdir()
    elif how == "rename":
        first.rename(copy / f"{first.name}x")
    else:
        first.write_bytes(second.read_bytes())


WAYS: tuple[Callable[[random.Random, Path], None], ...] = (
    byte,
    byte,
    byte,
    length,
    tensors,
    values,
    entries_of_timm,
    layout,
    files,
    files,
)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**9), way=st.sampled_from(WAYS))
def test_an_altered_folder_is_never_accepted(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, way: Callable[[random.Random, Path], None]
) -> None:
    copy = tmp_path_factory.mktemp("altered") / "w"
    shutil.copytree(folder, copy)
    way(random.Random(seed), copy)
    for read in (load_model, check_weights, lambda path: publish_weights(path, "me/model")):
        with pytest.raises(BadInput) as refused:
            read(copy)
        assert "\n" not in str(refused.value)
    shutil.rmtree(copy.parent)
