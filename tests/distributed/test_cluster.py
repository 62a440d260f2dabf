"""Training by real launchers: torchrun, SLURM and Open MPI; a job that is preempted and started again."""

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
def slurm_here(tmp_path_factory):
    with slurm(tmp_path_factory.mktemp("slurm") / "slurm") as environment:
        yield environment


def train_words(store, run, epochs=2):
    return ["train", "--store", store, "--run-dir", run, f"--epochs={epochs}", *TINY]


def launched(before, words, more=None, seconds=240):
    process = subprocess.Popen(
        [str(word) for word in (*before, *words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | (more or {}),
    )
    out, said = process.communicate(timeout=seconds)
    assert wait_until_gone(process.pid) == []
    assert process.returncode == 0, said
    return out


def counts(figures):
    return [[row[key] for key in ("name", "tp", "fp", "fn", "tn")] for row in figures["counts"]]


def check(before, store, folder, capsys, more=None):
    """Trained by several ranks, its scores are those of its weights, by one process and by several."""
    answer = json.loads(launched(before, [*train_words(store, folder / "run"), "--json"], more))
    assert answer["scores"]["patches"] == 21
    capsys.readouterr()
    for split in ("val", "test"):
        words = ["evaluate", folder / "run", store, "--split", split, "--json"]
        together = json.loads(launched(before, words, more))
        assert main([str(word) for word in words]) == 0
        alone = json.loads(capsys.readouterr().out)
        assert counts(together) == counts(alone)
    assert counts(json.loads((folder / "run" / "scores.json").read_text())) == counts(answer["scores"])


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_torchrun(ranks, store, tmp_path, capsys):
    check(torchrun(ranks), store, tmp_path, capsys)


def test_srun(store, tmp_path, capsys, slurm_here):
    check(srun(2), store, tmp_path, capsys, slurm_here)


def test_mpirun(store, tmp_path, capsys):
    if shutil.which("mpirun") is None:
        pytest.skip("no mpirun here (Debian's openmpi-bin has one); see make test-cluster")
    check(mpirun(2), store, tmp_path, capsys)


def script(store, run, epochs):
    """The example's, with this machine's resources."""
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
    about = subprocess.run(
        ["scontrol", "show", "job", job], env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout
    return re.search(r"JobState=(\w+)", about)[1], int(re.search(r"Restarts=(\d+)", about)[1])


def submit(environment, folder, *words):
    said = subprocess.run(
        ["sbatch", "--parsable", "--output", folder / "job-%j.txt", *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    return said.stdout.strip().split(";")[0]


def wait(seconds, until):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.25)


def weights(run):
    return hashlib.sha256((run / "weights" / "model.safetensors").read_bytes()).hexdigest()


EPOCHS = 150


@pytest.fixture(scope="module")
def undisturbed(store, tmp_path_factory, slurm_here):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    launched(srun(2), train_words(store, run, EPOCHS), slurm_here)
    return weights(run)


@pytest.mark.parametrize("how", ["preempted", "warned"])
def test_a_job_is_started_again(how, store, tmp_path, slurm_here, undisturbed):
    """By a job of higher priority, which needs the whole node, or by the warning before its time is over."""
    run, log = tmp_path / "run", tmp_path
    (tmp_path / "train.sbatch").write_text(script(store, run, EPOCHS))
    job = submit(slurm_here, log, "--partition=low", "--ntasks=2", tmp_path / "train.sbatch")
    wait(60, (run / "metrics.csv").exists)  # an epoch is done
    if how == "preempted":
        submit(slurm_here, log, "--partition=high", "--exclusive", "--wrap=sleep 3")
    else:
        subprocess.run(["scancel", "--signal=USR1", job], env=os.environ | slurm_here, check=True)
    wait(60, lambda: state(job, slurm_here) in (("PENDING", 1), ("RUNNING", 1)))
    time.sleep(3)  # a job that SLURM starts again in the second in which it ended has "credential revoked"

    def ended():
        now = ["scontrol", "update", f"JobId={job}", "StartTime=now"]  # SLURM would let two minutes pass
        subprocess.run(now, env=os.environ | slurm_here, capture_output=True, check=False)
        return state(job, slurm_here)[0] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")

    wait(180, ended)
    said = (log / f"job-{job}.txt").read_text()
    assert state(job, slurm_here) == ("COMPLETED", 1), said
    assert said.count("stopped after step") == 1, said
    stopped, went_on = (int(re.search(rf"{words} step (\d+)", said)[1]) for words in ("stopped after", "goes on at"))
    assert went_on == stopped > 0
    assert weights(run) == undisturbed
