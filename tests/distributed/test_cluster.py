"""Training under real launchers: torchrun, SLURM and Open MPI; and a SLURM job that is preempted and requeued."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from landscale.cli import main
from landscale.testing import make_store, rgbn_plane
from launchers import PROGRAMS, mpirun, srun, torchrun, wait_until_gone
from slurm import slurm

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

TINY = ["--model=wide_resnet", "--options={width: 0.5}", "--bands=B02,B03,B04,B08", "--side=12", "--precision=fp32"]
TINY += ["--batch=4", "--rate=1e-2", "--rate-batch=8", "--mixup=0.2", "--ema=0.9", "--select=micro_ap"]
EXAMPLE = Path(__file__).parents[2] / "examples" / "train.sbatch"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    splits = {"train": 40, "val": 21, "test": 65}
    return make_store(tmp_path_factory.mktemp("cluster") / "s.h5", planes=rgbn_plane(12), splits=splits, seed=4).path


@pytest.fixture(scope="module")
def slurm_environment(tmp_path_factory):
    with slurm(tmp_path_factory.mktemp("slurm") / "slurm") as environment:
        yield environment


def train_words(store, run, epochs=2):
    return ["train", "--store", store, "--run-dir", run, f"--epochs={epochs}", *TINY]


def run_under(launcher, words, more=None, seconds=240):
    process = subprocess.Popen(
        [str(word) for word in (*launcher, *words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | (more or {}),
    )
    out, errors = process.communicate(timeout=seconds)
    assert wait_until_gone(process.pid) == []
    assert process.returncode == 0, errors
    return out


def counts(figures):
    return [[row[key] for key in ("name", "tp", "fp", "fn", "tn")] for row in figures["counts"]]


def check(launcher, store, folder, capsys, more=None):
    """The scores of a training on several ranks are those of its weights, evaluated on one rank and on several."""
    answer = json.loads(run_under(launcher, [*train_words(store, folder / "run"), "--json"], more))
    assert answer["scores"]["patches"] == 21
    capsys.readouterr()
    for split in ("val", "test"):
        words = ["evaluate", folder / "run", store, "--split", split, "--json"]
        on_ranks = json.loads(run_under(launcher, words, more))
        assert main([str(word) for word in words]) == 0
        on_one = json.loads(capsys.readouterr().out)
        assert counts(on_ranks) == counts(on_one)
    assert counts(json.loads((folder / "run" / "scores.json").read_text())) == counts(answer["scores"])


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_torchrun(ranks, store, tmp_path, capsys):
    check(torchrun(ranks), store, tmp_path, capsys)


def test_srun(store, tmp_path, capsys, slurm_environment):
    check(srun(2), store, tmp_path, capsys, slurm_environment)


def test_mpirun(store, tmp_path, capsys):
    if shutil.which("mpirun") is None:
        pytest.skip("no mpirun on this machine (Debian: openmpi-bin); see make test-cluster")
    check(mpirun(2), store, tmp_path, capsys)


def script(store, run, epochs):
    """The example script, with the resources of this machine."""
    lines = EXAMPLE.read_text().splitlines()
    kept = [
        line
        for line in lines
        if not re.match(r"#SBATCH --(nodes|ntasks-per-node|gres|cpus-per-task|time|signal)", line)
    ]
    words = " ".join(str(word) for word in train_words(store, run, epochs)).replace("{width: 0.5}", "'{width: 0.5}'")
    start = f"srun --overcommit --kill-on-bad-exit=1 {PROGRAMS / 'landscale'} {words}"
    return "\n".join(start if line.startswith("srun") else line for line in kept) + "\n"


def state(job, environment):
    shown = subprocess.run(
        ["scontrol", "show", "job", job], env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout
    return re.search(r"JobState=(\w+)", shown)[1], int(re.search(r"Restarts=(\d+)", shown)[1])


def submit(environment, folder, *words):
    submitted = subprocess.run(
        ["sbatch", "--parsable", "--output", folder / "job-%j.txt", *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    return submitted.stdout.strip().split(";")[0]


def wait(seconds, until):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.25)


def weights(run):
    return hashlib.sha256((run / "weights" / "model.safetensors").read_bytes()).hexdigest()


EPOCHS = 150


@pytest.fixture(scope="module")
def undisturbed(store, tmp_path_factory, slurm_environment):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    run_under(srun(2), train_words(store, run, EPOCHS), slurm_environment)
    return weights(run)


@pytest.mark.parametrize("how", ["preempted", "warned"])
def test_requeued_job_ends_with_the_weights_of_an_undisturbed_one(how, store, tmp_path, slurm_environment, undisturbed):
    """Preempted by a job of higher priority that needs the whole node, or warned by a signal before its time limit."""
    run, log = tmp_path / "run", tmp_path
    (tmp_path / "train.sbatch").write_text(script(store, run, EPOCHS))
    job = submit(slurm_environment, log, "--partition=low", "--ntasks=2", tmp_path / "train.sbatch")
    wait(60, (run / "metrics.csv").exists)  # after the first epoch
    if how == "preempted":
        submit(slurm_environment, log, "--partition=high", "--exclusive", "--wrap=sleep 3")
    else:
        subprocess.run(["scancel", "--signal=USR1", job], env=os.environ | slurm_environment, check=True)
    wait(60, lambda: state(job, slurm_environment) in (("PENDING", 1), ("RUNNING", 1)))
    time.sleep(3)  # SLURM revokes the credential of a job that it restarts within the second in which it ended

    def ended():
        now = ["scontrol", "update", f"JobId={job}", "StartTime=now"]  # otherwise SLURM waits for two minutes
        subprocess.run(now, env=os.environ | slurm_environment, capture_output=True, check=False)
        return state(job, slurm_environment)[0] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")

    wait(180, ended)
    output = (log / f"job-{job}.txt").read_text()
    assert state(job, slurm_environment) == ("COMPLETED", 1), output
    assert output.count("stopped after step") == 1, output
    stopped = int(re.search(r"stopped after step (\d+)", output)[1])
    resumed = int(re.search(r"(?:goes on|resumes|resumed) at step (\d+)", output)[1])
    assert resumed == stopped > 0
    assert weights(run) == undisturbed
