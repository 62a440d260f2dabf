"""The folder of a run, repeated commands in it, and the errors of trainings that are impossible."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import landscale.training.trainer as trainer_module
from landscale.cli import main
from landscale.distributed import Ranks
from landscale.errors import BadStore, LandscaleError
from landscale.store import open_store
from landscale.testing import make_store, rgbn_plane
from landscale.training import trainable_model
from landscale.training.build import build_classifier
from landscale.training.runs import Run
from landscale.training.trainer import Trainer
from trainings import CPU, PLAIN, TINY, flags, learn, outcome

# ---- the folder of a run


def test_repeating_the_command_of_a_finished_run_changes_nothing(store, tmp_path, capsys, monkeypatch):
    args = ["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(TINY), "--json"]
    assert main(args) == 0
    first, printed = outcome(tmp_path / "run"), capsys.readouterr().out
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(trainer_module, "evaluate", lambda *_, **__: pytest.fail("evaluated again"))
    assert main(args) == 0
    assert outcome(tmp_path / "run") == first
    assert json.loads(capsys.readouterr().out) == json.loads(printed)


@pytest.mark.parametrize("key,value", [("rate", 0.5), ("model", "wide_resnet_eca"), ("seed", 3), ("epochs", 9)])
def test_a_folder_with_a_run_of_another_recipe_is_refused(store, tmp_path, capsys, key, value):
    folder = tmp_path / "run"
    Run(folder).begin(PLAIN, store)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main(["train", f"--store={store.path}", f"--run={folder}", *flags(PLAIN, **{key: value})]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{key} {getattr(PLAIN, key)}, not {value}" in err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_another_store_or_a_folder_with_other_files_is_refused(store, tmp_path):
    Run(tmp_path / "run").begin(PLAIN, store)
    other = make_store(tmp_path / "o.h5", planes=rgbn_plane(12), splits={"train": 8}, seed=9)
    with pytest.raises(LandscaleError, match=r"another store than .*o\.h5"):
        learn(PLAIN, other, tmp_path / "run")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").touch()
    with pytest.raises(LandscaleError, match="neither empty nor a run"):
        learn(PLAIN, store, tmp_path / "foreign")
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.tex"]


def test_a_run_accepts_its_store_under_another_file_name(store, tmp_path):
    Run(tmp_path / "run").begin(PLAIN, store)
    (tmp_path / "moved.h5").write_bytes(store.path.read_bytes())

    Run(tmp_path / "run").begin(PLAIN, open_store(tmp_path / "moved.h5"))
    with pytest.raises(LandscaleError, match="seed"):
        Run(tmp_path / "run").begin(replace(PLAIN, seed=5), open_store(tmp_path / "moved.h5"))


@pytest.mark.parametrize("files", [("recipe.yaml",), ("recipe.yaml", "environment.json"), (".recipe.yaml.7.partial",)])
def test_a_run_killed_while_creating_its_folder_can_begin_again(store, tmp_path, files):
    Run(tmp_path / "whole").begin(PLAIN, store)
    (tmp_path / "run").mkdir()
    for name in files:
        source = tmp_path / "whole" / name
        (tmp_path / "run" / name).write_bytes(source.read_bytes() if source.exists() else b"model: wi")
    for _ in range(2):
        Run(tmp_path / "run").begin(PLAIN, store)
        assert (tmp_path / "run" / "recipe.yaml").read_bytes() == (tmp_path / "whole" / "recipe.yaml").read_bytes()
        assert (tmp_path / "run" / "run.json").read_bytes() == (tmp_path / "whole" / "run.json").read_bytes()
    with pytest.raises(LandscaleError, match="seed 0, not 1"):
        Run(tmp_path / "run").begin(replace(PLAIN, seed=1), store)


# ---- impossible trainings


def error_line(args, capsys):
    """Run a command that must end with exit code 2 and one error line on stderr; return the line."""
    code = main([str(word) for word in args])
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
    "optimizer that cannot be resumed": (
        ["--optimizer=kron"],
        "--optimizer kron: a training with it could not be resumed",
    ),
    "optimizer with second derivatives": (
        ["--optimizer=adahessian"],
        "--optimizer adahessian: it needs second derivatives",
    ),
    "the same with lookahead": (["--optimizer=lookahead_kronw"], "could not be resumed; choose another"),
    "option": (["--options={nope: 1}"], "nope"),
    "shift": (["--shift=500"], "shift"),
    "band": (["--bands=B02,B11"], "lacks B11"),
    "band twice": (["--bands=B02,B02"], "B02"),
    "band set": (["--bands=rgbx"], "did you mean rgb"),
    "model": (["--model=resnet5"], "did you mean resnet50"),
    "labels": (["--labels=ben19"], "ben19 cannot be made"),
    "accuracy": (["--select=accuracy"], "accuracy"),
    "time": (["--max-time=45"], "45m"),
}


@pytest.mark.parametrize("problem", IMPOSSIBLE)
def test_an_impossible_training_gives_one_error_line(problem, store, tmp_path, capsys):
    import re

    args, pattern = IMPOSSIBLE[problem]
    plain = flags(replace(PLAIN, warmup_epochs=0.0, mixup=0.0))
    line = error_line(["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *plain, *args], capsys)
    assert re.search(pattern, line), line
    if problem != "rate":  # no folder is created, so the corrected command works in the same place
        assert not (tmp_path / "run").exists()


def test_selecting_without_a_val_split_is_refused_and_creates_no_run(tmp_path, capsys):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 16})
    args = ["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(PLAIN, epochs=1)]
    line = error_line([*args, "--select=macro_ap"], capsys)
    assert "val" in line
    assert "--select last" in line
    assert main(args) == 0


def test_a_store_without_a_train_split_is_refused(tmp_path, capsys):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"test": 16})
    line = error_line(["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(PLAIN)], capsys)
    assert "'train'" in line or "train split" in line


def test_a_band_without_statistics_is_named_in_the_error(tmp_path):
    """A band missing from the products is 0 in the whole train split, so it has no statistics."""
    pixels = np.random.default_rng(0).integers(1, 999, (16, 4, 12, 12)).astype(np.uint16)
    pixels[:, 2] = 0
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 16}, pixels={"data_10m": pixels})
    with pytest.raises(BadStore, match="B04"):
        build_classifier(PLAIN, store)
    assert build_classifier(replace(PLAIN, bands="B02,B03"), store)


def test_fewer_patches_than_processes_are_refused(tmp_path, monkeypatch):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 3})
    monkeypatch.setattr(trainable_model, "over_ranks", lambda network, *_, **__: network)
    with pytest.raises(LandscaleError, match=r"3 .*4"):
        Trainer(PLAIN, store, Run(tmp_path / "run"), Ranks(0, 4), build_classifier(PLAIN, store), CPU, None)


def test_divergence_in_the_last_step_is_detected(tmp_path, monkeypatch):
    """The loss is finite, its gradient is not; without a val split no evaluation checks the weights afterwards."""
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 8})
    monkeypatch.setattr(
        trainer_module, "build_loss", lambda *_, **__: lambda logits, targets: (0 * logits).sqrt().sum()
    )
    with pytest.raises(LandscaleError, match=r"diverged|not finite"):
        learn(replace(PLAIN, epochs=1), store, tmp_path / "run")
    assert not (tmp_path / "run" / "weights").exists()
