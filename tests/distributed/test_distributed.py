"""Several ranks: their numbers under each launcher, time-outs, and trainings that equal those of one process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from landscale import distributed
from landscale.cli import main
from landscale.distributed import Ranks
from landscale.distributed import ranks as ranks_module
from landscale.errors import LandscaleError
from landscale.loading import evaluation_steps
from landscale.testing import make_store
from launchers import codes_of, run_on_ranks, run_script, start_ranks

ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
LAUNCHERS = ("SLURM_", "OMPI_", "PMI_", "TORCHELASTIC_")


# ---- the numbers of a rank


@pytest.fixture
def no_launcher(monkeypatch):
    """An environment without the variables of a launcher; those that `_from_environment` adds are removed again."""
    for key in list(os.environ):
        if key in ENVIRONMENT or key.startswith(LAUNCHERS):
            monkeypatch.delenv(key)
    for key in ("MASTER_ADDR", "MASTER_PORT"):  # so that monkeypatch restores them
        monkeypatch.setenv(key, "")
        monkeypatch.delenv(key)
    return monkeypatch


def announce(monkeypatch, **variables):
    for key, value in variables.items():
        monkeypatch.setenv(key, str(value))
    return ranks_module._from_environment()


def test_without_a_launcher_there_is_one_rank(no_launcher):
    assert ranks_module._from_environment() == Ranks(0, 1, 0)
    ranks = distributed.start_process_group()
    assert ranks.first
    assert not torch.distributed.is_initialized()
    assert ranks.gather({"a": 1}) == [{"a": 1}]
    assert ranks.broadcast("x") == "x"
    assert ranks.begin_sum(torch.tensor([2.0, 3.0]))().tolist() == [2.0, 3.0]
    weights = torch.ones(2)
    ranks.broadcast_tensors([weights])
    assert weights.tolist() == [1.0, 1.0]
    ranks.report_progress(3)
    with distributed.process_group(1.0) as ranks:
        assert (ranks.rank, ranks.world, ranks.local) == (0, 1, 0)
        ranks.report_progress(0)
    assert distributed.local_device(Ranks(local=0)).type == ("cuda" if torch.cuda.is_available() else "cpu")
    distributed.end_process_group()  # has no effect


def test_torchrun(no_launcher):
    master = {"MASTER_ADDR": "a", "MASTER_PORT": 1}
    assert announce(no_launcher, RANK=5, WORLD_SIZE=8, LOCAL_RANK=1, **master) == Ranks(5, 8, 1)
    assert not Ranks(5, 8, 1).first


def test_torchrun_inside_a_slurm_step_takes_precedence(no_launcher):
    slurm = {"SLURM_STEP_NUM_TASKS": 2, "SLURM_PROCID": 1, "SLURM_LOCALID": 0, "SLURM_JOB_ID": 7}
    master = {"MASTER_ADDR": "a", "MASTER_PORT": 1}
    assert announce(no_launcher, RANK=3, WORLD_SIZE=4, LOCAL_RANK=3, **slurm, **master) == Ranks(3, 4, 3)


@pytest.mark.parametrize(
    "nodes,first",
    [
        ("node03", "node03"),
        ("a,b", "a"),
        ("node[003-010]", "node003"),
        ("gpu[7,9-11],login", "gpu7"),
        ("r[1-2]n[04-08]", "r1n04"),
        ("n[1-2].example.org,m", "n1.example.org"),
    ],
)
def test_first_host_of_a_slurm_list(no_launcher, nodes, first):
    """As `scontrol show hostnames` lists them, which containers often lack."""
    no_launcher.setenv("SLURM_STEP_NODELIST", nodes)
    assert ranks_module._first_slurm_host() == first


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": 0, "WORLD_SIZE": 2},
        {"RANK": "x", "WORLD_SIZE": 2, "MASTER_ADDR": "a", "MASTER_PORT": 1},
        {"SLURM_STEP_NUM_TASKS": 2},
        {"OMPI_COMM_WORLD_SIZE": 2},
        {"PMI_SIZE": "two"},
    ],
)
def test_incomplete_variables_of_a_launcher_are_refused(no_launcher, variables):
    with pytest.raises(LandscaleError, match="start the processes by torchrun, srun or mpirun, or unset them"):
        announce(no_launcher, **variables)


def test_mpich_and_intel_mpi(no_launcher):
    assert announce(no_launcher, PMI_RANK=3, PMI_SIZE=4, MPI_LOCALRANKID=1) == Ranks(3, 4, 1)
    assert os.environ["MASTER_ADDR"] == "127.0.0.1"
    assert announce(no_launcher, PMI_RANK=0, PMI_SIZE=1) == Ranks()


def test_slurm(no_launcher):
    """The first host of the step; the port depends on the job, so that two jobs on a host use different ones."""
    step = {"SLURM_JOB_ID": 123_456, "SLURM_STEP_NODELIST": "node[03-04]", "SLURM_STEP_NUM_TASKS": 8}
    assert announce(no_launcher, **step, SLURM_PROCID=6, SLURM_LOCALID=2) == Ranks(6, 8, 2)
    assert os.environ["MASTER_ADDR"] == "node03"
    assert 1024 < int(os.environ["MASTER_PORT"]) < 65_536
    port = os.environ.pop("MASTER_PORT")
    assert announce(no_launcher, SLURM_PROCID=0, SLURM_LOCALID=0) == Ranks(0, 8, 0)
    assert os.environ.pop("MASTER_PORT") == port  # the same in every process of a job
    announce(no_launcher, SLURM_JOB_ID=123_457)
    assert os.environ["MASTER_PORT"] != port


def test_batch_script_without_srun_is_one_process(no_launcher):
    """Inside sbatch, SLURM sets the number of tasks that a step could have, but there is no step."""
    assert announce(no_launcher, SLURM_JOB_ID=9, SLURM_NTASKS=16, SLURM_PROCID=0, SLURM_LOCALID=0) == Ranks()
    assert announce(no_launcher, SLURM_STEP_NUM_TASKS=1) == Ranks()
    assert "MASTER_ADDR" not in os.environ


def test_open_mpi(no_launcher):
    mpi = {"OMPI_COMM_WORLD_SIZE": 4, "OMPI_COMM_WORLD_RANK": 2, "OMPI_COMM_WORLD_LOCAL_RANK": 0}
    no_launcher.setenv("MASTER_ADDR", "node07")  # as `mpirun -x MASTER_ADDR` sets it
    assert announce(no_launcher, **mpi) == Ranks(2, 4, 0)
    assert os.environ["MASTER_ADDR"] == "node07"
    assert os.environ["MASTER_PORT"]
    assert announce(no_launcher, OMPI_COMM_WORLD_SIZE=1) == Ranks()


# ---- time-outs of the process group

LATE = """
import os, sys, time
from datetime import timedelta
import torch
from landscale.distributed import ranks as module
from landscale.errors import LandscaleError

case, rank = sys.argv[1], int(os.environ["RANK"])
if case == "missing" and rank == 1:
    sys.exit()
if case == "dies":
    wait_for_all = module._wait_for_all

    def die_after_arrival(*arguments):
        store = wait_for_all(*arguments)
        if rank == 1:
            os._exit(9)
        return store

    module._wait_for_all = die_after_arrival
try:
    ranks = module.start_process_group("gloo", timedelta(seconds=float(sys.argv[2])))
except LandscaleError as error:
    sys.exit(str(error))
if rank == 1:
    time.sleep(float(sys.argv[2]) + 1)
assert ranks.begin_sum(torch.ones(1))().tolist() == [2.0]
assert ranks.gather(rank) == [0, 1]
module.end_process_group()
"""


def run_late(folder, case, timeout):
    """Exit codes and output of two ranks."""
    script, log = folder / "late.py", folder / "log.txt"
    script.write_text(LATE)
    return codes_of(start_ranks(2, log, run_script, script, case, timeout)), log.read_text()


def test_collectives_may_take_longer_than_the_arrival(tmp_path):
    codes, output = run_late(tmp_path, "slow", 5)
    assert codes == [0, 0], output


def test_waiting_for_a_missing_rank_ends_after_the_timeout(tmp_path):
    codes, output = run_late(tmp_path, "missing", 2)
    assert codes == [1, 0]
    assert re.search(r"^not all 2 ranks arrived within 2 s \(.+\); run the same command again$", output, re.MULTILINE)


@pytest.mark.slow
def test_a_rank_that_dies_just_after_its_arrival_ends_the_others(tmp_path):
    codes, output = run_late(tmp_path, "dies", 12)
    assert codes == [2, 9]
    assert "another rank did not connect within 12 s" in output


# ---- two ranks

BANDS = "B02,B03,B04,B08"
COMMON = [f"--bands={BANDS}", "--rate=1e-2", "--precision=fp32", "--seed=1", "--thresholds=one"]
# Without norms over the batch, dropout or augmentation, two halves of a batch are exactly the batch.
LAYER_NORM = [*COMMON, "--side=32", "--model=test_convnext", "--turns=false", "--optimizer=sgd", "--epochs=2"]
BATCH_NORM = [
    *COMMON,
    "--side=24",
    "--model=wide_resnet",
    "--options={width: 0.5}",
    "--ema=0.5",
    "--epochs=3",
    "--mixup=0.2",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    return make_store(folder / "s.h5", splits={"train": 37, "val": 17, "test": 7}, seed=2)


def torchrun(*words, processes=2, seconds=150):
    """`--` keeps torchrun from reading landscale's `--run` as an abbreviation of its own `--run-path`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run([*command, *map(str, words)], capture_output=True, text=True, timeout=seconds, check=False)


def evaluated(run, store, split, capsys):
    capsys.readouterr()
    assert main(["evaluate", str(run), str(store.path), "--split", split, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow  # test_train_ranks compares the weights of many recipes
def test_two_ranks_train_like_one_process_with_twice_the_batch(store, tmp_path, capsys):
    both = tmp_path / "both"
    words = ["train", f"--store={store.path}", "--json", *LAYER_NORM]
    ended = torchrun("-m", "--", "landscale", *words, "--batch=4", f"--run={both}")
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)  # one object: only the first rank prints
    assert answer["run"] == str(both)
    assert main([*words, "--batch=8", f"--run={tmp_path / 'alone'}"]) == 0
    alone = json.loads(capsys.readouterr().out)

    one, two = (load_file(run / "weights" / "model.safetensors") for run in (tmp_path / "alone", both))
    start = fresh_weights(store)
    moved = sum(float((one[k] - start[k]).square().sum()) for k in one) ** 0.5
    apart = sum(float((one[k] - two[k]).square().sum()) for k in one) ** 0.5
    assert moved > 0.1
    assert apart < 1e-3 * moved
    first, second = (pd.read_csv(run / "metrics.csv") for run in (tmp_path / "alone", both))
    assert list(first["step"]) == list(second["step"]) == [4, 8]
    assert list(first["rate"]) == pytest.approx(list(second["rate"]))
    assert np.allclose(first["loss"], second["loss"], rtol=1e-4), "the loss is that of one process"

    # every patch was scored once, and the scores are those of a single process
    for split, patches in (("val", 17), ("test", 7)):
        figures = evaluated(both, store, split, capsys)
        assert figures["patches"] == patches
        assert all(sum(row[key] for key in ("tp", "fp", "fn", "tn")) == patches for row in figures["counts"])
        if split == "val":
            assert counts(figures) == counts(answer["scores"])
    assert answer["scores"]["micro_ap"] == pytest.approx(alone["scores"]["micro_ap"], abs=0.02)


def counts(figures):
    return [[row[key] for key in ("name", "tp", "fp", "fn", "tn")] for row in figures["counts"]]


def fresh_weights(store):
    from landscale.training.build import build_classifier
    from landscale.training.recipe import load_recipe

    return build_classifier(load_recipe(None, LAYER_NORM), store).network.state_dict()


SCRIPT = """
import json
import sys
import time
from pathlib import Path
import torch
import landscale.training.checkpoint as checkpoint
import landscale.training.training as training
from landscale.distributed import start_process_group, end_process_group
from landscale.training.recipe import load_recipe
from landscale.training.runs import Run
from landscale.store import open_store

torch.set_num_threads(1)
path, folder, words = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
ranks, store = start_process_group(), open_store(path)
save_checkpoint = checkpoint.save_checkpoint

def slow(*arguments):  # the other ranks must wait until the first one has written it
    time.sleep(0.3)
    save_checkpoint(*arguments)

checkpoint.save_checkpoint = slow
arguments = load_recipe(None, [*words, "--select=micro_ap"]), store, folder / "run"
options = {"ranks": ranks, "device": torch.device("cpu")}
scores = training.train(*arguments, **options)
(folder / f"figures-{ranks.rank}.json").write_text(json.dumps(scores.to_json()))
assert training.train(*arguments, **options) == scores  # a run that has ended returns its scores again
for several in (ranks.gather(ranks.rank), [ranks.broadcast(5 + ranks.rank)] * 2):
    assert several in ([0, 1], [5, 5]), several
end_process_group()
"""


def test_scores_of_a_run_are_those_of_its_weights(store, tmp_path, capsys):
    """Batch statistics differ between ranks, and so do averaged weights; those of the first rank are saved. Whichever rank
    scored a patch, the scores must be those of the saved weights.
    """
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    run_on_ranks(2, tmp_path / "log.txt", run_script, script, store.path, tmp_path, *BATCH_NORM, "--batch=6")
    first, second = (json.loads((tmp_path / f"figures-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    figures = evaluated(tmp_path / "run", store, "val", capsys)
    assert figures["micro_ap"] == pytest.approx(first["micro_ap"], abs=1e-6)
    assert counts(figures) == counts(first)
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    best = table["val_micro_ap"].max()  # whose weights are kept
    assert figures["micro_ap"] == pytest.approx(best, abs=1e-6)


def test_bad_input_on_all_ranks_ends_with_one_line(store, tmp_path):
    """All ranks end at once, without a traceback."""
    missing = tmp_path / "no.h5"
    log = tmp_path / "log.txt"
    assert codes_of(start_ranks(2, log, main, ["train", f"--store={missing}", *LAYER_NORM])) == [2, 2]
    output = log.read_text()
    assert f"landscale: {missing}: no such store" in output
    assert "landscale/commands" not in output  # no traceback
    assert "landscale/cli.py" not in output


def test_gathered_probabilities_are_in_the_order_of_the_patches(store, monkeypatch):
    """Each rank evaluates whole batches; gathered, they are in the requested order, also with more ranks than batches."""
    from landscale.inference.evaluate import infer
    from landscale.training.build import build_classifier
    from landscale.training.recipe import load_recipe

    classifier = build_classifier(load_recipe(None, BATCH_NORM), store).eval()
    patches = store.patches("val")[::-1].copy()
    expected = infer(classifier, store, patches, Ranks(), 4, show=False)
    for world in (2, 3, 9):
        parts = []
        for rank in range(world):
            own = [np.empty(0, np.int64), *evaluation_steps(patches, 4, rank, world)]
            parts.append(infer(classifier, store, np.concatenate(own), Ranks(), 4, show=False))
        assert sum(map(len, parts)) == len(patches)
        monkeypatch.setattr(Ranks, "gather", lambda self, value, parts=parts: parts if self.world > 1 else [value])
        for rank in range(world):
            gathered = infer(classifier, store, patches, replace(Ranks(), rank=rank, world=world), 4, show=False)
            assert np.array_equal(gathered, expected)
        monkeypatch.undo()
