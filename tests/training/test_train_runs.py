"""The folder of a run, called again, and what cannot be trained."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import landscale.training.training as training_module
from landscale.cli import main
from landscale.distributed import Ranks
from landscale.errors import BadStore, LandscaleError
from landscale.store import open_store
from landscale.testing import make_store, rgbn_plane
from landscale.training import trainable_model
from landscale.training.build import build_classifier
from landscale.training.runs import Run
from landscale.training.training import Trainer
from trainings import CPU, PLAIN, TINY, flags, learn, outcome

# ---- the folder of a run


def test_a_finished_run_called_again_is_left_as_it_is(store, tmp_path, capsys, monkeypatch):
    words = ["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(TINY), "--json"]
    assert main(words) == 0
    first, said = outcome(tmp_path / "run"), capsys.readouterr().out
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("it trains again"))
    monkeypatch.setattr(training_module, "evaluate", lambda *_, **__: pytest.fail("it evaluates again"))
    assert main(words) == 0
    assert outcome(tmp_path / "run") == first
    assert json.loads(capsys.readouterr().out) == json.loads(said)


@pytest.mark.parametrize("key,value", [("rate", 0.5), ("model", "wide_resnet_eca"), ("seed", 3), ("epochs", 9)])
def test_a_run_of_another_recipe_is_refused(store, tmp_path, capsys, key, value):
    folder = tmp_path / "run"
    Run(folder).begin(PLAIN, store)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main(["train", f"--store={store.path}", f"--run={folder}", *flags(PLAIN, **{key: value})]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{key} {getattr(PLAIN, key)}, not {value}" in err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_run_on_another_store_or_in_a_foreign_folder_is_refused(store, tmp_path):
    Run(tmp_path / "run").begin(PLAIN, store)
    other = make_store(tmp_path / "o.h5", planes=rgbn_plane(12), splits={"train": 8}, seed=9)
    with pytest.raises(LandscaleError, match=r"another store than .*o\.h5"):
        learn(PLAIN, other, tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(LandscaleError, match="neither empty nor a run"):
        learn(PLAIN, store, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_the_same_store_under_another_name_is_the_same(store, tmp_path):
    Run(tmp_path / "run").begin(PLAIN, store)
    (tmp_path / "moved.h5").write_bytes(store.path.read_bytes())

    Run(tmp_path / "run").begin(PLAIN, open_store(tmp_path / "moved.h5"))
    with pytest.raises(LandscaleError, match="seed"):
        Run(tmp_path / "run").begin(replace(PLAIN, seed=5), open_store(tmp_path / "moved.h5"))


@pytest.mark.parametrize("left", [("recipe.yaml",), ("recipe.yaml", "environment.json"), (".recipe.yaml.7.partial",)])
def test_a_run_that_was_killed_while_it_began_begins_again(store, tmp_path, left):
    Run(tmp_path / "whole").begin(PLAIN, store)
    (tmp_path / "run").mkdir()
    for name in left:
        source = tmp_path / "whole" / name
        (tmp_path / "run" / name).write_bytes(source.read_bytes() if source.exists() else b"model: wi")
    for _ in range(2):
        Run(tmp_path / "run").begin(PLAIN, store)
        assert (tmp_path / "run" / "recipe.yaml").read_bytes() == (tmp_path / "whole" / "recipe.yaml").read_bytes()
        assert (tmp_path / "run" / "run.json").read_bytes() == (tmp_path / "whole" / "run.json").read_bytes()
    with pytest.raises(LandscaleError, match="seed 0, not 1"):
        Run(tmp_path / "run").begin(replace(PLAIN, seed=1), store)


# ---- what cannot be


def refused(words, capsys):
    """Exit code 2 and one line on stderr, which is returned."""
    code = main([str(word) for word in words])
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
    "option": (["--options={nope: 1}"], "nope"),
    "shift": (["--shift=500"], "shift"),
    "band": (["--bands=B02,B11"], "lacks B11"),
    "band twice": (["--bands=B02,B02"], "B02"),
    "band set": (["--bands=rgbx"], "did you mean rgb"),
    "model": (["--model=resnet5"], "did you mean resnet50"),
    "labels": (["--labels=ben19"], "Urban fabric"),
    "accuracy": (["--select=accuracy"], "accuracy"),
    "time": (["--max-time=45"], "45m"),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_refused_in_one_line(what, store, tmp_path, capsys):
    import re

    words, pattern = IMPOSSIBLE[what]
    plain = flags(replace(PLAIN, warmup_epochs=0.0, mixup=0.0))
    line = refused(["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *plain, *words], capsys)
    assert re.search(pattern, line), line
    if what != "rate":  # nothing has begun, so the command put right works in the same folder
        assert not (tmp_path / "run").exists()


def test_selecting_needs_val_and_the_folder_stays_free(tmp_path, capsys):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 16})
    words = ["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(PLAIN, epochs=1)]
    line = refused([*words, "--select=macro_ap"], capsys)
    assert "val" in line
    assert "--select last" in line
    assert main(words) == 0


def test_no_train_split(tmp_path, capsys):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"test": 16})
    line = refused(["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", *flags(PLAIN)], capsys)
    assert "'train'" in line or "train split" in line


def test_a_band_without_statistics_is_named(tmp_path):
    """All zero in the train split, as a band that a product lacks."""
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


def test_divergence_in_the_last_step_is_noticed(tmp_path, monkeypatch):
    """A finite loss whose gradient is not; without val nothing else would look at the weights."""
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 8})
    monkeypatch.setattr(
        training_module, "build_loss", lambda *_, **__: lambda logits, wanted: (0 * logits).sqrt().sum()
    )
    with pytest.raises(LandscaleError, match=r"diverged|not finite"):
        learn(replace(PLAIN, epochs=1), store, tmp_path / "run")
    assert not (tmp_path / "run" / "weights").exists()
