"""landscale benchmark scaling: every training is a process group, none is done twice, and the figures are those of its epochs."""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import command, outcome
from landscale.errors import LandscaleError
from landscale.studies.rank_scaling import study as study_module
from landscale.studies.rank_scaling.launch import TORCHRUN, launcher_command
from landscale.studies.rank_scaling.study import RankScalingPlan, planned_trainings
from landscale.testing import make_store, rgbn_plane
from landscale.training.recipe import Recipe
from landscale.training.runs import Run
from launchers import PROGRAMS, command_of, processes

KEYS = ["--model=wide_resnet", "--bands=B02,B03,B04,B08", "--batch=8", "--rate=1e-2", "--precision=fp32"]

# A launcher that starts nothing: it writes what a training would leave. Its orders are in a file beside it.
PRETEND = """
import json, os, pathlib, sys, time, yaml
here = pathlib.Path(__file__).parent
ranks, words = int(sys.argv[1]), sys.argv[2:]
flags = dict(word[2:].split("=", 1) for word in words if "=" in word)
orders = json.loads((here / "orders.json").read_text()) if (here / "orders.json").exists() else {}
if words[0] == "benchmark":
    if ranks in orders.get("silent", []):
        sys.exit("no network")
    about = {"ranks": orders.get("ranks", ranks), "nodes": 1, "threads": 1, "cores": 4, "device": "cpu", "backend": "gloo"}
    about |= {"small": 1e-4, "large": 1e-2, "bytes": 25 * 2**20} if ranks > 1 else {}
    pathlib.Path(flags["out"]).write_text(json.dumps(about))
    sys.exit()
run = pathlib.Path(flags["run-dir"])
with open(here / "order", "a") as order:
    print(run.name, flags["batch"], flags["seed"], file=order)
if run.name in orders.get("fail", []):
    sys.exit("landscale: the GPU is on fire")
run.mkdir(exist_ok=True)
table, recipe = run / "metrics.csv", yaml.safe_load(open(flags["recipe"]))
lines = table.read_text().splitlines() if table.exists() else ["epoch,step,train_seconds"]
patches = int(flags["batch"]) * ranks
for epoch in range(len(lines), recipe["epochs"] + 1):
    lines.append(f"{epoch},{epoch * (48 // patches)},{10 / ranks + epoch}")
    table.write_text("\\n".join(lines) + "\\n")
    if orders.get("hang") == [run.name, epoch]:
        (here / "hangs").touch()
        time.sleep(60)
figures = ("micro_f1", "macro_f1", "macro_f1_at_half", "micro_ap", "macro_ap", "subset_accuracy", "hamming_loss")
scores = dict.fromkeys(figures, 0.4) | {"split": "val", "patches": 16, "averages": {}, "counts": []}
scores["micro_f1_at_half"] = 0.5 + ranks / 100 + int(flags["seed"]) / 1000
(run / "scores.json").write_text(json.dumps(scores))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    make_store(folder / "s.h5", planes=rgbn_plane(24), splits={"train": 48, "val": 16}, seed=1)
    return folder / "s.h5"


def words(store, out, *more):
    return ["benchmark", "scaling", "--store", store, "--out", out, *KEYS, *more, "--json"]


class Pretend:
    """A study by the launcher that starts nothing, at `folder / out`."""

    def __init__(self, folder, store):
        self.folder, self.store, self.out = folder, store, folder / "out"
        (folder / "pretend.py").write_text(PRETEND)
        self.launch = f"{{python}} {folder / 'pretend.py'} {{ranks}}"

    def words(self, *more):
        return words(self.store, self.out, f"--launch={self.launch}", *more)

    def orders(self, **orders):
        (self.folder / "orders.json").write_text(json.dumps(orders))

    @property
    def trained(self):
        """The trainings that were started, in this order."""
        return [line.split()[0] for line in (self.folder / "order").read_text().splitlines()]


@pytest.fixture
def pretend(tmp_path, store):
    return Pretend(tmp_path, store)


# ---- the command


def test_one_rank_is_trained_and_timed(cli, store, tmp_path):
    """The real thing without a launcher's seconds: what is told is what the run's own files say."""
    launch = f"--launch=env RANKS={{ranks}} {PROGRAMS / 'landscale'}"
    asked = words(store, tmp_path / "out", "--ranks=1", "--repeats=1", "--epochs=2", launch)
    answer = cli(*asked)
    assert answer.code == 0, answer.lines
    (row,) = answer.json["rows"]
    run = tmp_path / "out" / "weak-1-r1"
    epochs = pd.read_csv(run / "metrics.csv")
    assert (row["epochs"], row["steps"]) == (1, 6)
    assert row["seconds"] == epochs["train_seconds"][1] > 0
    assert row["micro_f1"] == json.loads((run / "scores.json").read_text())["micro_f1_at_half"]
    (known,) = answer.json["all_reduce"]
    assert (known["ranks"], known["nodes"], known["device"]) == (1, 1, "cpu")
    assert json.loads((tmp_path / "out" / "rank-scaling.json").read_text()) == answer.json
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    again = cli(*asked)
    assert again.json == answer.json
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.slow
def test_two_ranks_by_torchrun(store, tmp_path):
    out = tmp_path / "out"
    answer = outcome(command(*words(store, out, "--ranks=1,2", "--repeats=1", "--epochs=2")))
    assert answer.code == 0, answer.lines
    content = answer.json
    assert [t["name"] for t in content["trainings"]] == ["weak-1-r1", "weak-2-r1", "strong-2-r1"]
    assert content["settings"]["threads"] == max(1, content["environment"]["cores"] // 2)
    two = content["all_reduce"][1]
    assert (two["ranks"], two["backend"], two["threads"]) == (2, "gloo", content["settings"]["threads"])
    assert 0 < two["small"] < two["large"]
    by_name = {(row["kind"], row["ranks"]): row for row in content["rows"]}
    assert by_name["weak", 2]["global_batch"] == 16
    assert by_name["strong", 2]["global_batch"] == by_name["weak", 1]["global_batch"] == 8
    for row in content["rows"]:
        name = f"{'weak' if row['ranks'] == 1 else row['kind']}-{row['ranks']}-r1"
        table = pd.read_csv(out / name / "metrics.csv")
        assert row["seconds"] == table["train_seconds"][1]
        assert row["steps"] * row["global_batch"] == 48
        assert row["predicted"] > 0
    assert "2 ranks" in (out / "all-reduce-2.log").read_text()
    assert ET.parse(out / "rank-scaling.svg").getroot().tag.endswith("svg")
    assert "## Strong scaling" in (out / "rank-scaling.md").read_text()


def left_of(folder):
    """Processes that were started for a folder."""
    return [p for p in processes() if any(str(folder) in word for word in command_of(p))]


def wait_until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


@pytest.mark.slow
def test_killed_while_two_ranks_train(store, tmp_path):
    """The launcher and its ranks end with the command; the next call keeps what has ended and finishes the rest."""
    asked = words(store, tmp_path / "out", "--ranks=1,2", "--repeats=1", "--epochs=6", "--weak")
    running = command(*asked)
    wait_until((tmp_path / "out" / "weak-2-r1" / "metrics.csv").exists)
    os.kill(running.pid, signal.SIGKILL)
    outcome(running)
    wait_until(lambda: not left_of(tmp_path), 60)
    ended = (tmp_path / "out" / "weak-1-r1" / "scores.json").stat().st_mtime_ns
    again = outcome(command(*asked))
    assert again.code == 0, again.lines
    assert (tmp_path / "out" / "weak-1-r1" / "scores.json").stat().st_mtime_ns == ended
    assert [row["ranks"] for row in again.json["rows"]] == [1, 2]
    two = again.json["trainings"][1]
    assert two["starts"][0] == 1
    assert [epoch["counts"] for epoch in two["epochs"]] == [k not in two["starts"] for k in range(1, 7)]


# ---- the order of the study, and what can go wrong; the trainings are pretended


def test_all_numbers_of_ranks_in_each_repeat(cli, pretend):
    answer = cli(*pretend.words("--ranks=4,1,2", "--repeats=2", "--seed=7"))
    assert answer.code == 0, answer.lines
    once = ["weak-1", "weak-2", "strong-2", "weak-4", "strong-4"]
    assert pretend.trained == [f"{name}-r{repeat}" for repeat in (1, 2) for name in once]
    told = {line.split()[0]: line.split()[1:] for line in (pretend.folder / "order").read_text().splitlines()}
    assert told["weak-4-r1"] == ["8", "7"]
    assert told["strong-4-r2"] == ["2", "8"]
    rows = {(row["kind"], row["ranks"]): row for row in answer.json["rows"]}
    assert list(rows) == [(kind, k) for kind in ("weak", "strong") for k in (1, 2, 4)]
    times = [10 / 4 + epoch for epoch in (2, 3)] * 2
    assert rows["weak", 4]["seconds"] == pytest.approx(statistics.fmean(times))
    assert rows["weak", 4]["seconds_deviation"] == pytest.approx(statistics.stdev(times))
    assert rows["weak", 4]["micro_f1"] == pytest.approx(0.5475)
    assert rows["weak", 4]["rate"] == pytest.approx(32 / 5.0)  # 16 of the 48 patches fill no step
    assert rows["strong", 4]["rate"] == pytest.approx(48 / 5.0)
    assert rows["strong", 1]["efficiency"] == 1
    assert rows["strong", 4]["efficiency"] == pytest.approx(48 / 5.0 / (48 / 12.5) / 4)


def test_a_kind_alone(cli, pretend):
    assert cli(*pretend.words("--ranks=1,2", "--repeats=1", "--strong")).code == 0
    assert pretend.trained == ["weak-1-r1", "strong-2-r1"]  # on one rank they are the same


def test_more_ranks_and_repeats_may_be_added(cli, pretend):
    cli(*pretend.words("--ranks=1,2", "--repeats=1", "--weak"))
    before = len(pretend.trained)
    answer = cli(*pretend.words("--ranks=1,2,4", "--repeats=2"))
    assert answer.code == 0
    assert pretend.trained[before:] == [
        *("strong-2-r1", "weak-4-r1", "strong-4-r1"),
        *("weak-1-r2", "weak-2-r2", "strong-2-r2", "weak-4-r2", "strong-4-r2"),
    ]
    assert cli(*pretend.words("--ranks=1", "--repeats=1")).json["rows"] == answer.json["rows"]


def test_a_training_that_fails_is_named_and_the_others_go_on(cli, pretend):
    pretend.orders(fail=["weak-2-r1"])
    answer = cli(*pretend.words("--ranks=1,2,4", "--repeats=1", "--weak"))
    assert answer.code == 1
    log = pretend.out / "weak-2-r1.log"
    assert f"{log}: weak-2-r1 ended with exit code 1: the GPU is on fire" in answer.lines[-1]
    assert [row["ranks"] for row in answer.json["rows"]] == [1, 4]
    assert "- failed: " in (pretend.out / "rank-scaling.md").read_text()
    pretend.orders()
    before = len(pretend.trained)
    again = cli(*pretend.words("--ranks=1,2,4", "--repeats=1", "--weak"))
    assert (again.code, pretend.trained[before:]) == (0, ["weak-2-r1"])
    assert [row["ranks"] for row in again.json["rows"]] == [1, 2, 4]


def test_ranks_that_cannot_talk_are_not_trained(cli, pretend):
    pretend.orders(silent=[2])
    answer = cli(*pretend.words("--ranks=1,2", "--repeats=1"))
    assert answer.code == 1
    assert pretend.trained == ["weak-1-r1"]
    assert "an all-reduce on 2 ranks ended with exit code 1: no network" in answer.lines[-1]


def test_a_launcher_that_starts_another_number(cli, pretend):
    pretend.orders(ranks=1)
    answer = cli(*pretend.words("--ranks=2"))
    assert answer.code == 2
    assert "--launch: found 1 ranks, expected 2 from" in answer.lines[0]


@pytest.mark.parametrize(
    "number,code",
    [
        (signal.SIGKILL, -9),
        pytest.param(signal.SIGTERM, 75, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_stopped_and_called_again(cli, pretend, number, code):
    """No launcher outlives the command, and the epoch in which a session begins does not count."""
    pretend.orders(hang=["weak-2-r1", 2])
    asked = pretend.words("--ranks=1,2", "--repeats=1", "--weak", "--epochs=4")
    running = command(*asked)
    wait_until((pretend.folder / "hangs").exists, 60)
    os.kill(running.pid, number)
    answer = outcome(running)
    assert answer.code == code
    wait_until(lambda: not left_of(pretend.folder), 10)
    pretend.orders()
    again = cli(*asked)
    assert (again.code, pretend.trained) == (0, ["weak-1-r1", "weak-2-r1", "weak-2-r1"])
    two = again.json["trainings"][1]
    assert two["starts"] == [1, 3]
    assert [epoch["counts"] for epoch in two["epochs"]] == [False, True, False, True]


def test_where_no_epoch_would_count_it_begins_anew(tmp_path):
    run, row = Run(tmp_path / "run"), {}
    for done, starts in [(0, [1]), (0, [1]), (1, [1, 2]), (1, [1, 2]), (2, [1])]:
        run.folder.mkdir(exist_ok=True)
        pd.DataFrame({"epoch": range(1, done + 1)}).to_csv(run.folder / "metrics.csv")
        study_module._begin_session(run, row, 3)
        assert row["starts"] == starts
    assert not run.folder.exists()


BAD = [
    (["--ranks=1,x"], "--ranks: found '1,x'"),
    (["--ranks=0,1"], "--ranks: found '0,1'"),
    (["--ranks="], "--ranks: found ''"),
    (["--ranks=1,3"], "--ranks: found 3, expected divisors of the batch of 8 for strong scaling"),
    (["--repeats=0"], "--repeats: found 0"),
    (["--epochs=1"], "--epochs: found 1, expected at least 2"),
    (["--launch=torchrun landscale"], "expected {ranks} in place of the number"),
    (["--launch=torchrum -n {ranks}"], "--launch: found 'torchrum', expected a program on the PATH"),
    (["--launch=env 'A={ranks}"], "expected a command line"),
    (["--modle=resnet18"], "did you mean model"),
    (["--recipe=sedona2020"], "did you mean sedona2019"),
    (["--model=wide_resnext"], "did you mean wide_resnet"),
    (["--bands=rgb,B05"], "B05"),
    (["more"], "more"),
]


@pytest.mark.parametrize("more,line", BAD, ids=[" ".join(more) for more, _ in BAD])
def test_bad_input_is_one_line(cli, store, tmp_path, more, line):
    answer = cli(*words(store, tmp_path / "out", *more))
    assert (answer.code, len(answer.lines)) == (2, 1), answer.lines
    assert line in answer.lines[0]
    assert not (tmp_path / "out").exists()


def test_bad_folders(cli, pretend, store, tmp_path):
    asked = ["--ranks=1", "--repeats=1"]
    assert cli(*pretend.words(*asked)).code == 0

    def refused(*arguments):
        answer = cli(*arguments)
        assert (answer.code, len(answer.lines)) == (2, 1), answer.lines
        return answer.lines[0]

    assert "epochs 3, not 4" in refused(*pretend.words(*asked, "--epochs=4"))
    assert "batch 8, not 16" in refused(*pretend.words(*asked, "--batch=16"))
    assert "launch" in refused(*words(store, pretend.out, *asked))
    assert "is neither empty nor a rank-scaling study" in refused(*words(store, tmp_path, *asked))
    assert (pretend.out / "recipe.yaml").read_text().count("epochs: 3") == 1


def test_a_run_without_the_seconds_of_its_steps(cli, pretend):
    (pretend.folder / "pretend.py").write_text(PRETEND.replace("train_seconds", "seconds"))
    answer = cli(*pretend.words("--ranks=1", "--repeats=1"))
    assert answer.code == 2
    assert "metrics.csv: has no column train_seconds" in answer.lines[-1]


# ---- the plan


@given(st.sets(st.sampled_from([1, 2, 4, 8]), min_size=1), st.integers(1, 3), st.integers(0, 5))
def test_only_what_is_studied_differs(ranks, repeats, seed):
    plan = RankScalingPlan(Recipe(batch=16, seed=seed), tuple(sorted(ranks)), repeats)
    found = planned_trainings(plan)
    assert len({t.name for t in found}) == len(found) == repeats * sum(1 if k == 1 else 2 for k in ranks)
    for t in found:
        assert t.batch == (16 if t.kind == "weak" else 16 // t.ranks)
        assert t.seed == seed + t.repeat - 1
    assert [t.repeat for t in found] == sorted(t.repeat for t in found)


def test_every_rank_has_as_many_threads_at_every_number(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    plan = RankScalingPlan(Recipe())
    assert [
        study_module._threads_per_rank(replace(plan, ranks=ranks)) for ranks in [(1,), (1, 2), (1, 4), (2, 16)]
    ] == [8, 4, 2, 1]
    assert study_module._threads_per_rank(replace(plan, launch="srun -n {ranks} landscale")) is None


def test_the_launchers_words():
    assert launcher_command(TORCHRUN, 3)[:2] == [sys.executable, "-m"]
    assert "--nproc-per-node=3" in launcher_command(TORCHRUN, 3)
    assert launcher_command("env A='b c' N={ranks} x", 2) == ["env", "A=b c", "N=2", "x"]
    with pytest.raises(LandscaleError, match="ranks"):
        launcher_command("", 2)
