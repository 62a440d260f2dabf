"""Several ranks learn what one process learns with the same global batch; a signal to one rank stops all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
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
from launchers import ranks_at, run_on_ranks, start_ranks, torchrun, wait_until_gone
from once import made_once
from trainings import CPU, PLAIN, TINY, flags, outcome

SGD = replace(PLAIN, optimizer="sgd", rate=0.05, weight_decay=0.0, warmup_epochs=0.0, turns=False, epochs=2)
LAYER_NORM = replace(SGD, model="test_convnext", options={}, side=32)
UNFREEZING = replace(LAYER_NORM, freeze="all", unfreeze_every=0.4, layer_decay=0.8, rate=0.2)
# A recipe for two ranks, and the recipe of a single process that must give the same weights.
EQUIVALENT = {
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
EQUIVALENT |= {
    "frozen": (replace(LAYER_NORM, batch=4, freeze=2), replace(LAYER_NORM, batch=8, freeze=2)),
    "unfreezing": (replace(UNFREEZING, batch=2, accumulate=2), replace(UNFREEZING, batch=8)),
    "unfreezing norms": (
        replace(SGD, batch=4, sync_norms=True, freeze=3, unfreeze_every=0.5),
        replace(SGD, batch=8, freeze=3, unfreeze_every=0.5),
    ),
}
if find_spec("peft"):
    EQUIVALENT["adapters"] = (replace(LAYER_NORM, batch=4, lora=2), replace(LAYER_NORM, batch=8, lora=2))
LARGE = replace(LAYER_NORM, model="convnext_atto", batch=4, rate=0.01)  # its gradients fill several buckets
COMPRESSED = {method: replace(LARGE, compress=method) for method in ("none", "bf16", "powersgd")}


def counts_of_many_sizes(store, ranks) -> list[list[list[int]]]:
    """Counts of decisions over the first 1 to 65 patches, in batches of 8, from a network with probabilities around 0.5."""
    classifier = build_classifier(replace(PLAIN, seed=3), store)
    found = []
    for n in range(1, 66):
        patches = store.patches("test")[:n]
        probabilities = infer(classifier, store, patches, ranks, 8, show=False)
        counts = count_decisions(probabilities, store.classes[patches], 0.5)
        found.append([part.tolist() for part in (counts.tp, counts.fp, counts.fn, counts.tn)])
    return found


def run_rank(path: Path, folder: Path, trains: bool) -> None:
    """The program of each rank: evaluate, and if `trains`, train with every recipe above."""
    gradients.PLAIN_STEPS = 4  # steps before PowerSGD begins to compress
    store, ranks = open_store(path), start_process_group()
    if ranks.first:
        (folder / f"counts-{ranks.world}.json").write_text("")
    content = counts_of_many_sizes(store, ranks)
    if ranks.rank == ranks.world - 1:
        (folder / f"counts-{ranks.world}.json").write_text(json.dumps(content))
    recipes = {name: recipe for name, (recipe, _) in EQUIVALENT.items()} | COMPRESSED
    for name, recipe in recipes.items() if trains else ():
        train(recipe, store, folder / name, ranks=ranks, device=CPU)
    end_process_group()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    splits = {"train": 39, "val": 9, "test": 65}
    return make_store(tmp_path_factory.mktemp("ranks") / "s.h5", planes=rgbn_plane(12), splits=splits, seed=2)


@pytest.fixture(scope="module")
def two_ranks(store, tmp_path_factory):
    """The folder with the counts and the runs of all recipes above, written by two ranks."""

    def evaluate_and_train(folder):
        run_on_ranks(2, folder / "log.txt", run_rank, store.path, folder, True)

    return made_once(tmp_path_factory, "two-ranks", evaluate_and_train)


@pytest.mark.parametrize("name", EQUIVALENT)
def test_two_ranks_learn_the_weights_of_one_process_with_the_same_global_batch(name, two_ranks, store, tmp_path):
    _, recipe = EQUIVALENT[name]
    train(recipe, store, tmp_path / "run", device=CPU)
    initial = build_classifier(recipe, store).network.state_dict()
    one, two = (load_file(run / "weights" / "model.safetensors") for run in (tmp_path / "run", two_ranks / name))
    assert one.keys() == two.keys()
    for statistics in (False, True):
        keys = [k for k in one if ("running" in k) == statistics and one[k].is_floating_point()]
        change = sum(float((one[k] - initial[k]).square().sum()) for k in keys) ** 0.5
        difference = sum(float((one[k] - two[k]).square().sum()) for k in keys) ** 0.5
        assert change > 0.01 or not keys
        assert difference <= 2e-3 * change, (difference, change)


@pytest.mark.parametrize("method", ["bf16", "powersgd"])
def test_compressed_gradients_give_nearly_the_same_weights(method, two_ranks):
    plain, compressed = (load_file(two_ranks / name / "weights" / "model.safetensors") for name in ("none", method))
    norm = sum(float(v.square().sum()) for v in plain.values()) ** 0.5
    difference = sum(float((plain[k] - compressed[k]).square().sum()) for k in plain) ** 0.5
    assert 0 < difference < {"bf16": 0.002, "powersgd": 0.03}[method] * norm


def test_two_ranks_count_the_same_decisions_as_one_process(two_ranks, store):
    assert json.loads((two_ranks / "counts-2.json").read_text()) == counts_of_many_sizes(store, Ranks())


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [3, 4])
def test_three_and_four_ranks_count_the_same_decisions_as_one_process(ranks, store, tmp_path):
    run_on_ranks(ranks, tmp_path / "log.txt", run_rank, store.path, tmp_path, False)
    assert json.loads((tmp_path / f"counts-{ranks}.json").read_text()) == counts_of_many_sizes(store, Ranks())


# ---- signals and kills


def train_words(store, run):
    return ["train", "--store", str(store.path), "--run-dir", str(run), *flags(TINY, epochs=20, batch=4)]


def wait_until(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(store, tmp_path_factory):
    def train_to_the_end(folder):
        run_on_ranks(2, folder / "log.txt", main, train_words(store, folder / "run"))

    return outcome(made_once(tmp_path_factory, "undisturbed-ranks", train_to_the_end) / "run")


def test_a_signal_to_one_rank_stops_all_and_resuming_gives_the_undisturbed_result(store, tmp_path, undisturbed):
    run, log = tmp_path / "run", tmp_path / "log.txt"
    process = subprocess.Popen(
        [*map(str, torchrun(2)), *train_words(store, run)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_until((run / "metrics.csv").exists)
    os.kill(ranks_at(store.path)[1], signal.SIGUSR1)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert stderr.count("stopped after step") == 1, stderr
    assert "exitcode  : 75" in stderr  # torchrun itself exits with 1
    assert "landscale/train" not in stderr  # no traceback from landscale's code
    assert wait_until_gone(process.pid) == []
    run_on_ranks(2, log, main, train_words(store, run))
    assert "resumes at step" in log.read_text()
    assert outcome(run) == undisturbed


def test_a_killed_training_on_two_ranks_resumes_in_one_process(store, tmp_path):
    run = tmp_path / "run"
    ranks = start_ranks(2, tmp_path / "log.txt", main, train_words(store, run))
    wait_until((run / "metrics.csv").exists)
    for process in ranks:
        process.kill()
    for process in ranks:
        process.join()
    assert main(train_words(store, run)) == 0
    assert (run / "scores.json").exists()
