"""Several ranks are one process with as large a batch: losses, gradients, norms, counts; and they end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from landscale.cli import main
from landscale.distributed import Ranks, end_process_group, start_process_group
from landscale.inference.evaluate import infer
from landscale.inference.metrics import count_decisions
from landscale.store import open_store
from landscale.testing import make_store, rgbn_plane
from landscale.training import gradients
from landscale.training.build import build_classifier
from landscale.training.training import train
from launchers import members, ranks_at, torchrun, wait_until_gone
from trainings import CPU, PLAIN, TINY, flags, outcome

SGD = replace(PLAIN, optimizer="sgd", rate=0.05, weight_decay=0.0, warmup_epochs=0.0, turns=False, epochs=2)
LAYER_NORM = replace(SGD, model="test_convnext", options={}, side=32)
# A recipe for both ranks, and the one of a single process that must come to the same.
ALIKE = {
    "batch": (replace(LAYER_NORM, batch=4), replace(LAYER_NORM, batch=8)),
    "accumulate": (replace(LAYER_NORM, batch=2, accumulate=2), replace(LAYER_NORM, batch=8)),
    "one step of 39": (replace(LAYER_NORM, batch=64), replace(LAYER_NORM, batch=128)),
    "norms": (replace(SGD, batch=4, sync_norms=True), replace(SGD, batch=8)),
    "norms with activations": (
        replace(SGD, model="test_resnet", options={}, side=32, batch=4, sync_norms=True, rate=0.02),
        replace(SGD, model="test_resnet", options={}, side=32, batch=8, rate=0.02),
    ),
    "adamw, clipped": (
        replace(LAYER_NORM, batch=4, optimizer="adamw", rate=1e-3, clip_grad=0.5),
        replace(LAYER_NORM, batch=8, optimizer="adamw", rate=1e-3, clip_grad=0.5),
    ),
}
LARGE = replace(LAYER_NORM, model="convnext_atto", batch=4, epochs=4, rate=0.01)  # of several buckets
COMPRESSED = {how: replace(LARGE, compress=how) for how in ("none", "bf16", "powersgd")}


def counts_of_many(store, ranks) -> list[list[list[int]]]:
    """Evaluated with 1 to 65 patches, in batches of 8, by a network whose probabilities lie around a half."""
    classifier = build_classifier(replace(PLAIN, seed=3), store)
    found = []
    for n in range(1, 66):
        patches = store.patches("test")[:n]
        probabilities = infer(classifier, store, patches, ranks, 8, show=False)
        counts = count_decisions(probabilities, store.classes[patches], 0.5)
        found.append([part.tolist() for part in (counts.tp, counts.fp, counts.fn, counts.tn)])
    return found


def work(path: Path, folder: Path, *, trains: bool) -> None:
    """What each rank does."""
    torch.set_num_threads(1)
    gradients.PLAIN_STEPS = 8  # of PowerSGD, before it begins
    store, ranks = open_store(path), start_process_group()
    if ranks.first:
        (folder / f"counts-{ranks.world}.json").write_text("")
    content = counts_of_many(store, ranks)
    if ranks.rank == ranks.world - 1:
        (folder / f"counts-{ranks.world}.json").write_text(json.dumps(content))
    recipes = {name: both for name, (both, _) in ALIKE.items()} | COMPRESSED
    for name, recipe in recipes.items() if trains else ():
        train(recipe, store, folder / name, ranks=ranks, device=CPU)
    end_process_group()


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]), trains=sys.argv[3] == "train")


def launched(ranks: int, *words: object) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", __file__]
    ended = subprocess.run(
        [*command, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    splits = {"train": 39, "val": 9, "test": 65}
    return make_store(tmp_path_factory.mktemp("ranks") / "s.h5", planes=rgbn_plane(12), splits=splits, seed=2)


@pytest.fixture(scope="module")
def both(store, tmp_path_factory):
    """What two ranks leave of all the recipes above."""
    folder = tmp_path_factory.mktemp("both")
    launched(2, store.path, folder, "train")
    return folder


@pytest.mark.parametrize("name", ALIKE)
def test_two_ranks_are_one_process_with_as_large_a_batch(name, both, store, tmp_path):
    _, recipe = ALIKE[name]
    train(recipe, store, tmp_path / "run", device=CPU)
    start = build_classifier(recipe, store).network.state_dict()
    mine, theirs = (load_file(run / "weights" / "model.safetensors") for run in (tmp_path / "run", both / name))
    assert mine.keys() == theirs.keys()
    for statistics in (False, True):
        keys = [k for k in mine if ("running" in k) == statistics and mine[k].is_floating_point()]
        moved = sum(float((mine[k] - start[k]).square().sum()) for k in keys) ** 0.5
        apart = sum(float((mine[k] - theirs[k]).square().sum()) for k in keys) ** 0.5
        assert moved > 0.01 or not keys
        assert apart <= 2e-3 * moved, (apart, moved)


@pytest.mark.parametrize("how", ["bf16", "powersgd"])
def test_compressed_gradients_learn_as_well(how, both):
    plain, compressed = (load_file(both / name / "weights" / "model.safetensors") for name in ("none", how))
    norm = sum(float(v.square().sum()) for v in plain.values()) ** 0.5
    apart = sum(float((plain[k] - compressed[k]).square().sum()) for k in plain) ** 0.5
    assert 0 < apart < {"bf16": 0.002, "powersgd": 0.03}[how] * norm


def test_counts_do_not_depend_on_the_ranks(both, store):
    assert json.loads((both / "counts-2.json").read_text()) == counts_of_many(store, Ranks())


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("ranks", [3, 4])
def test_counts_of_more_ranks(ranks, store, tmp_path):
    launched(ranks, store.path, tmp_path, "evaluate")
    assert json.loads((tmp_path / f"counts-{ranks}.json").read_text()) == counts_of_many(store, Ranks())


# ---- signals and kills


def begun(store, run, *more, ranks=2):
    words = ["train", "--store", store.path, "--run-dir", run, *flags(TINY, epochs=40, batch=4), *more]
    return subprocess.Popen(
        [str(word) for word in (*torchrun(ranks), *words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(store, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    process = begun(store, run)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return outcome(run)


def test_a_signal_to_one_rank_stops_all_and_nothing_is_lost(store, tmp_path, undisturbed):
    run = tmp_path / "run"
    process = begun(store, run)
    until((run / "metrics.csv").exists)
    os.kill(ranks_at(store.path)[1], signal.SIGUSR1)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert said.count("stopped after step") == 1, said
    assert "exitcode  : 75" in said  # torchrun's own is 1
    assert "landscale/train" not in said  # no traceback of ours
    assert wait_until_gone(process.pid) == []
    process = begun(store, run)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "resumes at step" in said
    assert outcome(run) == undisturbed


def test_another_number_of_ranks_goes_on(store, tmp_path):
    run = tmp_path / "run"
    process = begun(store, run)
    until((run / "metrics.csv").exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for left in members(process.pid):
        os.kill(left, signal.SIGKILL)
    words = ["train", "--store", store.path, "--run-dir", run, *flags(TINY, epochs=40, batch=4)]
    assert main([str(word) for word in words]) == 0
    assert (run / "scores.json").exists()
