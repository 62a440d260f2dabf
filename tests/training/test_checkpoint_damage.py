"""A damaged or foreign checkpoint is refused in one line; the training never continues with other numbers."""

from __future__ import annotations

import json
import shutil
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from landscale.cli import main
from landscale.errors import BadInput
from landscale.runtime.signals import Stopped
from landscale.training.checkpoint import _checksum, load_checkpoint
from landscale.training.runs import Run
from trainings import CPU, TINY, flags, interrupted_learning, learn


@pytest.fixture(scope="module")
def stopped(store, tmp_path_factory):
    """A run that was stopped after 7 steps."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupted_learning(patch, lambda step: step == 7)
        with pytest.raises(Stopped):
            learn(TINY, store, folder)
    return folder


@pytest.fixture
def run(stopped, tmp_path) -> Run:
    shutil.copytree(stopped, tmp_path / "run")
    return Run(tmp_path / "run")


@settings(max_examples=60)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_found(stopped, tmp_path_factory, position, bit):
    content = bytearray(Run(stopped).last.read_bytes())
    content[int(position * len(content))] ^= 1 << bit
    file = tmp_path_factory.mktemp("flipped") / "last.safetensors"
    file.write_bytes(content)
    with pytest.raises(BadInput):
        load_checkpoint(file, CPU)


def test_a_training_is_not_resumed_from_a_damaged_checkpoint(run, store):
    content = bytearray(run.last.read_bytes())
    header = struct.unpack("<Q", content[:8])[0]
    content[8 + header + 100] ^= 0x40
    run.last.write_bytes(content)
    with pytest.raises(BadInput, match="is damaged: its checksum differs"):
        learn(TINY, store, run.folder)
    assert not run.ended


def rewrite(run, change):
    """Rewrite the last checkpoint with a valid checksum, after `change(tensors, state)`."""
    tensors, state = load_checkpoint(run.last, CPU)
    change(tensors, state)
    text = json.dumps(state)
    save_file(tensors, run.last, metadata={"state": text, "checksum": _checksum(tensors, text)})


@pytest.mark.parametrize(
    "key,value",
    [
        ("step", -1),
        ("step", "7"),
        ("step", 1.5),
        ("total", None),
        ("progress", 2.0),
        ("ranks", 0),
        ("seconds", -1.0),
        ("history", {}),
        ("history", [1]),
        ("halved", 1e400),
        ("unknown", None),
    ],
)
def test_a_state_of_other_types_is_refused(run, store, key, value):
    def change(tensors, state):
        state["state"][key] = value
        if key == "unknown":
            del state["state"]

    rewrite(run, change)
    with pytest.raises(BadInput, match="is not a checkpoint of this version"):
        learn(TINY, store, run.folder)


@pytest.mark.parametrize("how", ["missing", "other shape"])
def test_tensors_of_another_network_are_refused(run, store, how):
    def change(tensors, state):
        name = next(name for name in tensors if name.startswith("network"))
        if how == "missing":
            del tensors[name]
        else:
            tensors[name] = torch.zeros(3, 3, 3)

    rewrite(run, change)
    with pytest.raises(BadInput, match="does not fit this training"):
        learn(TINY, store, run.folder)


@pytest.mark.parametrize("how", ["missing", "renamed", "longer", "empty", "setting"])
def test_a_state_of_another_optimiser_is_refused(run, store, how):
    def change(tensors, state):
        name = next(name for name in tensors if name.endswith(".exp_avg_sq"))
        if how == "setting":
            state["optimizer"]["optimizer.group0.amsgrad"] = True
        elif how == "longer":
            tensors[name] = torch.zeros(*tensors[name].shape, 2)
        else:
            tensor = tensors.pop(name)
            if how == "renamed":
                tensors[f"{name}x"] = tensor
            elif how == "empty":
                tensors[name] = tensor.reshape(-1)[:0]

    rewrite(run, change)
    with pytest.raises(BadInput, match=r"does not fit this training \(optimizer\."):
        learn(TINY, store, run.folder)


OTHER_TENSORS = {
    "a larger one": lambda t: torch.zeros(*t.shape[:-1], t.shape[-1] + 1),
    "the same number of values": lambda t: t.reshape(-1)[None, None],
    "a scalar": lambda t: t.sum(),
    "another type": lambda t: t.to(torch.float16),
}


@pytest.mark.parametrize("how", [*OTHER_TENSORS, "one too many"])
def test_an_optimizer_state_of_other_shapes_is_refused_when_it_is_loaded(run, store, how, capsys):
    """With a valid checksum. torch would only fail in the next step, or compute with broadcast values."""

    def change(tensors, state):
        name = next(name for name in tensors if name.startswith("optimizer.") and tensors[name].ndim > 1)
        if how == "one too many":
            tensors["optimizer.999.exp_avg"] = torch.zeros(3)
        else:
            tensors[name] = OTHER_TENSORS[how](tensors[name]).contiguous()

    rewrite(run, change)
    assert main(["train", f"--store={store.path}", f"--run={run.folder}", *flags(TINY)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert f"{run.last}: does not fit this training (" in said[-1]
    assert "optimizer." in said[-1]


def test_the_checksum_covers_names_types_and_shapes():
    a = {"x": torch.zeros(4), "y": torch.ones(2)}
    others = [
        {"y": torch.zeros(4), "x": torch.ones(2)},
        {"x": torch.zeros(2, 2), "y": torch.ones(2)},
        {"x": torch.zeros(4, dtype=torch.int32), "y": torch.ones(2)},
        {"x": torch.zeros(4)},
    ]
    assert len({_checksum(tensors, "{}") for tensors in (a, *others)} | {_checksum(a, "{ }")}) == 6
    assert _checksum(dict(reversed(a.items())), "{}") == _checksum(a, "{}")


def test_bfloat16_and_scalars_have_a_checksum(tmp_path):
    tensors = {"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.tensor(2.0), "c": torch.empty(0)}
    file = tmp_path / "x.safetensors"
    save_file(tensors, file, metadata={"state": "{}", "checksum": _checksum(tensors, "{}")})
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["checksum"]
    assert load_checkpoint(file, CPU)[0]["b"] == 2


@pytest.mark.parametrize("content", ["", "[]", "a: [", "null", "&a [*a]"])
def test_a_damaged_recipe_of_the_run_is_one_line(run, store, content):
    (run.folder / "recipe.yaml").write_text(content)
    with pytest.raises(BadInput, match=r"recipe\.yaml|holds a run with"):
        learn(TINY, store, run.folder)
