"""`landscale benchmark scaling`: each training is a process group of its own and runs once; rows are those of its epochs."""

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
from landscale.cli import _command_line
from landscale.errors import LandscaleError
from landscale.studies.rank_scaling import study as study_module
from landscale.studies.rank_scaling.launch import TORCHRUN, launcher_command
from landscale.studies.rank_scaling.study import RankScalingPlan, planned_trainings
from landscale.testing import make_store, rgbn_plane
from landscale.training.recipe import Recipe
from landscale.training.runs import Run
from launchers import PROGRAMS, command_of, processes

KEYS = ["--model=wide_resnet", "--bands=B02,B03,B04,B08", "--batch=8", "--rate=1e-2", "--precision=fp32"]

# A launcher that starts no process: it writes the files of a training. What it does is set in fake.json next to it.
FAKE_LAUNCHER = """
import json, os, pathlib, sys, time, yaml
folder = pathlib.Path(__file__).parent
ranks, words = int(sys.argv[1]), sys.argv[2:]
flags = dict(word[2:].split("=", 1) for word in words if "=" in word)
behaviour = json.loads((folder / "fake.json").read_text()) if (folder / "fake.json").exists() else {}
if words[0] == "benchmark":
    if ranks in behaviour.get("no_network", []):
        sys.exit("no network")
    about = {"ranks": behaviour.get("ranks", ranks), "nodes": 1, "threads": 1, "cores": 4, "device": "cpu", "backend": "gloo"}
    about |= {"small": 1e-4, "large": 1e-2, "bytes": 25 * 2**20} if ranks > 1 else {}
    pathlib.Path(flags["out"]).write_text(json.dumps(about))
    sys.exit()
figures = ("micro_f1", "macro_f1", "macro_f1_at_half", "micro_ap", "macro_ap", "subset_accuracy", "hamming_loss")
if words[0] == "evaluate":
    scores = dict.fromkeys(figures, 0.3) | {"split": "test", "patches": 16, "averages": {}, "counts": []}
    with open(folder / "evaluated", "a") as evaluated:
        print(pathlib.Path(words[1]).name, ranks, flags["split"], file=evaluated)
    pathlib.Path(flags["out"]).write_text(json.dumps(scores | {"micro_f1_at_half": 0.25}))
    sys.exit()
run = pathlib.Path(flags["run-dir"])
with open(folder / "trained", "a") as trained:
    print(run.name, flags["batch"], flags["seed"], file=trained)
if run.name in behaviour.get("fail", []):
    sys.exit("landscale: the GPU is broken")
run.mkdir(exist_ok=True)
table, recipe = run / "metrics.csv", yaml.safe_load(open(flags["recipe"]))
lines = table.read_text().splitlines() if table.exists() else ["epoch,step,train_seconds"]
patches = int(flags["batch"]) * ranks
for epoch in range(len(lines), recipe["epochs"] + 1):
    lines.append(f"{epoch},{epoch * (48 // patches)},{10 / ranks + epoch}")
    table.write_text("\\n".join(lines) + "\\n")
    if behaviour.get("hang") == [run.name, epoch]:
        (folder / "hangs").touch()
        time.sleep(60)
scores = dict.fromkeys(figures, 0.4) | {"split": "val", "patches": 16, "averages": {}, "counts": []}
scores["micro_f1_at_half"] = 0.5 + ranks / 100 + int(flags["seed"]) / 1000
(run / "scores.json").write_text(json.dumps(scores))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    make_store(folder / "s.h5", planes=rgbn_plane(24), splits={"train": 48, "val": 16}, seed=1)
    return folder / "s.h5"


def arguments(store, out, *more):
    return ["benchmark", "scaling", "--store", store, "--out", out, *KEYS, *more, "--json"]


class FakeStudy:
    """A study with the fake launcher, in `folder / out`."""

    def __init__(self, folder, store):
        self.folder, self.store, self.out = folder, store, folder / "out"
        (folder / "fake.py").write_text(FAKE_LAUNCHER)
        self.launch = f"{{python}} {folder / 'fake.py'} {{ranks}}"

    def arguments(self, *more):
        return arguments(self.store, self.out, f"--launch={self.launch}", *more)

    def behave(self, **behaviour):
        (self.folder / "fake.json").write_text(json.dumps(behaviour))

    @property
    def batch_and_seed(self):
        """Batch and seed of each training that was started, by its name, from its last start."""
        lines = [line.split() for line in (self.folder / "trained").read_text().splitlines()]
        return {name: rest for name, *rest in lines}

    @property
    def trained(self):
        """Names of the trainings that were started, in this order."""
        return [line.split()[0] for line in (self.folder / "trained").read_text().splitlines()]


@pytest.fixture
def fake(tmp_path, store):
    return FakeStudy(tmp_path, store)


# ---- the command


def test_one_rank_is_trained_and_timed(cli, store, tmp_path):
    """A real training, without the start-up time of a launcher: the results are those of the run's files."""
    launch = f"--launch=env RANKS={{ranks}} {PROGRAMS / 'landscale'}"
    words = arguments(store, tmp_path / "out", "--ranks=1", "--repeats=1", "--epochs=2", launch)
    answer = cli(*words)
    assert answer.code == 0, answer.lines
    (row,) = answer.json["rows"]
    run = tmp_path / "out" / "weak-1-r1"
    epochs = pd.read_csv(run / "metrics.csv")
    assert (row["epochs"], row["steps"]) == (1, 6)
    assert row["seconds"] == epochs["train_seconds"][1] > 0
    assert row["micro_f1"] == json.loads((run / "scores.json").read_text())["micro_f1_at_half"]
    (all_reduce,) = answer.json["all_reduce"]
    assert (all_reduce["ranks"], all_reduce["nodes"], all_reduce["device"]) == (1, 1, "cpu")
    assert json.loads((tmp_path / "out" / "rank-scaling.json").read_text()) == answer.json
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    again = cli(*words)
    assert again.json == answer.json
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.slow
def test_two_ranks_by_torchrun(store, tmp_path):
    out = tmp_path / "out"
    answer = outcome(command(*arguments(store, out, "--ranks=1,2", "--repeats=1", "--epochs=2")))
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


def processes_of(folder):
    """Processes whose command line contains a folder."""
    return [p for p in processes() if any(str(folder) in word for word in command_of(p))]


def wait_until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


@pytest.mark.slow
def test_killed_study_is_resumed(store, tmp_path):
    """The launcher and its ranks end with the command; the next call keeps ended trainings and finishes the others."""
    words = arguments(store, tmp_path / "out", "--ranks=1,2", "--repeats=1", "--epochs=6", "--weak")
    running = command(*words)
    wait_until((tmp_path / "out" / "weak-2-r1" / "metrics.csv").exists)
    os.kill(running.pid, signal.SIGKILL)
    outcome(running)
    wait_until(lambda: not processes_of(tmp_path), 60)
    ended = (tmp_path / "out" / "weak-1-r1" / "scores.json").stat().st_mtime_ns
    again = outcome(command(*words))
    assert again.code == 0, again.lines
    assert (tmp_path / "out" / "weak-1-r1" / "scores.json").stat().st_mtime_ns == ended
    assert [row["ranks"] for row in again.json["rows"]] == [1, 2]
    two = again.json["trainings"][1]
    assert two["starts"][0] == 1
    assert [epoch["counts"] for epoch in two["epochs"]] == [k not in two["starts"] for k in range(1, 7)]


# ---- the order of trainings, and failures; with the fake launcher


def test_each_repeat_covers_all_numbers_of_ranks(cli, fake):
    answer = cli(*fake.arguments("--ranks=4,1,2", "--repeats=2", "--seed=7"))
    assert answer.code == 0, answer.lines
    once = ["weak-1", "weak-2", "strong-2", "weak-4", "strong-4"]
    assert fake.trained == [f"{name}-r{repeat}" for repeat in (1, 2) for name in once]
    assert fake.batch_and_seed["weak-4-r1"] == ["8", "7"]
    assert fake.batch_and_seed["strong-4-r2"] == ["2", "8"]
    rows = {(row["kind"], row["ranks"]): row for row in answer.json["rows"]}
    assert list(rows) == [(kind, k) for kind in ("weak", "strong") for k in (1, 2, 4)]
    times = [10 / 4 + epoch for epoch in (2, 3)]
    assert rows["weak", 4]["seconds"] == pytest.approx(statistics.fmean(times))
    assert rows["weak", 4]["seconds_deviation"] == pytest.approx(0)  # both repeats take as long
    assert rows["weak", 4]["training_seconds"] == pytest.approx(10 / 4 + 1 + sum(times))
    assert rows["weak", 4]["micro_f1"] == pytest.approx(0.5475)
    assert rows["weak", 4]["rate"] == pytest.approx(32 / 5.0)  # 16 of the 48 patches do not fill a step
    assert rows["strong", 4]["rate"] == pytest.approx(48 / 5.0)
    assert rows["strong", 1]["efficiency"] == 1
    assert rows["strong", 4]["efficiency"] == pytest.approx(48 / 5.0 / (48 / 12.5) / 4)


def test_every_training_is_scored_on_the_test_split(cli, tmp_path):
    make_store(tmp_path / "s.h5", planes=rgbn_plane(24), splits={"train": 48, "val": 16, "test": 16})
    fake = FakeStudy(tmp_path, tmp_path / "s.h5")
    words = fake.arguments("--ranks=1,2", "--repeats=1", "--weak")
    answer = cli(*words)
    assert answer.code == 0, answer.lines
    assert (tmp_path / "evaluated").read_text().splitlines() == ["weak-1-r1 1 test", "weak-2-r1 2 test"]
    assert [(row["test_micro_f1"], row["test_macro_f1"]) for row in answer.json["rows"]] == [(0.25, 0.3)] * 2
    assert "0.2500" in (fake.out / "rank-scaling.md").read_text()
    (fake.out / "weak-2-r1" / "scores-test.json").unlink()
    content = json.loads((fake.out / "rank-scaling.json").read_text())
    del content["trainings"][1]["test_micro_f1"]  # as in a study of an earlier version
    (fake.out / "rank-scaling.json").write_text(json.dumps(content))
    assert cli(*words).json["rows"] == answer.json["rows"]
    assert len(fake.trained) == 2


def test_the_schedule_is_scaled_to_the_epochs_of_the_study(cli, fake):
    assert cli(*fake.arguments("--ranks=1", "--repeats=1", "--epochs=3", "--recipe=sedona2019")).code == 0
    settings = json.loads((fake.out / "rank-scaling.json").read_text())["settings"]
    assert settings["warmup_epochs"] == pytest.approx(0.15)
    assert settings["milestones"] == pytest.approx([0.9, 1.8, 2.4])


def test_one_kind_alone(cli, fake):
    assert cli(*fake.arguments("--ranks=1,2", "--repeats=1", "--strong")).code == 0
    assert fake.trained == ["weak-1-r1", "strong-2-r1"]  # on one rank both kinds are the same


def test_ranks_and_repeats_can_be_added(cli, fake):
    cli(*fake.arguments("--ranks=1,2", "--repeats=1", "--weak"))
    before = len(fake.trained)
    answer = cli(*fake.arguments("--ranks=1,2,4", "--repeats=2"))
    assert answer.code == 0
    assert fake.trained[before:] == [
        *("strong-2-r1", "weak-4-r1", "strong-4-r1"),
        *("weak-1-r2", "weak-2-r2", "strong-2-r2", "weak-4-r2", "strong-4-r2"),
    ]
    assert cli(*fake.arguments("--ranks=1", "--repeats=1")).json["rows"] == answer.json["rows"]


def test_failed_training_is_named_and_the_others_run(cli, fake):
    fake.behave(fail=["weak-2-r1"])
    answer = cli(*fake.arguments("--ranks=1,2,4", "--repeats=1", "--weak"))
    assert answer.code == 1
    log = fake.out / "weak-2-r1.log"
    assert f"{log}: weak-2-r1 ended with exit code 1: the GPU is broken" in answer.lines[-1]
    assert [row["ranks"] for row in answer.json["rows"]] == [1, 4]
    assert "- failed: " in (fake.out / "rank-scaling.md").read_text()
    fake.behave()
    before = len(fake.trained)
    again = cli(*fake.arguments("--ranks=1,2,4", "--repeats=1", "--weak"))
    assert (again.code, fake.trained[before:]) == (0, ["weak-2-r1"])
    assert [row["ranks"] for row in again.json["rows"]] == [1, 2, 4]


def test_ranks_whose_all_reduce_fails_are_not_trained(cli, fake):
    fake.behave(no_network=[2])
    answer = cli(*fake.arguments("--ranks=1,2", "--repeats=1"))
    assert answer.code == 1
    assert fake.trained == ["weak-1-r1"]
    assert "an all-reduce on 2 ranks ended with exit code 1: no network" in answer.lines[-1]


def test_launcher_that_starts_another_number_of_ranks_is_refused(cli, fake):
    fake.behave(ranks=1)
    answer = cli(*fake.arguments("--ranks=2"))
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
def test_stopped_study_is_resumed(cli, fake, number, code):
    """No launcher outlives the command, and the first epoch of each session is not timed."""
    fake.behave(hang=["weak-2-r1", 2])
    words = fake.arguments("--ranks=1,2", "--repeats=1", "--weak", "--epochs=4")
    running = command(*words)
    wait_until((fake.folder / "hangs").exists, 60)
    os.kill(running.pid, number)
    answer = outcome(running)
    assert answer.code == code
    wait_until(lambda: not processes_of(fake.folder), 10)
    fake.behave()
    again = cli(*words)
    assert (again.code, fake.trained) == (0, ["weak-1-r1", "weak-2-r1", "weak-2-r1"])
    two = again.json["trainings"][1]
    assert two["starts"] == [1, 3]
    assert [epoch["counts"] for epoch in two["epochs"]] == [False, True, False, True]


def test_run_without_an_epoch_to_time_begins_anew(tmp_path):
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
def test_bad_input_ends_with_one_line(cli, store, tmp_path, more, line):
    answer = cli(*arguments(store, tmp_path / "out", *more))
    assert (answer.code, len(answer.lines)) == (2, 1), answer.lines
    assert line in answer.lines[0]
    assert not (tmp_path / "out").exists()


def test_folder_of_another_study_is_refused(cli, fake, store, tmp_path):
    words = ["--ranks=1", "--repeats=1"]
    assert cli(*fake.arguments(*words)).code == 0

    def refused(*arguments):
        answer = cli(*arguments)
        assert (answer.code, len(answer.lines)) == (2, 1), answer.lines
        return answer.lines[0]

    assert "epochs 3, not 4" in refused(*fake.arguments(*words, "--epochs=4"))
    assert "batch 8, not 16" in refused(*fake.arguments(*words, "--batch=16"))
    assert "launch" in refused(*arguments(store, fake.out, *words))
    assert "is neither empty nor a rank-scaling study" in refused(*arguments(store, tmp_path, *words))
    assert (fake.out / "recipe.yaml").read_text().count("epochs: 3") == 1


def test_run_without_the_time_of_its_steps_is_refused(cli, fake):
    (fake.folder / "fake.py").write_text(FAKE_LAUNCHER.replace("train_seconds", "seconds"))
    answer = cli(*fake.arguments("--ranks=1", "--repeats=1"))
    assert answer.code == 2
    assert "metrics.csv: has no column train_seconds" in answer.lines[-1]


def test_files_of_a_study_are_named_after_rank_scaling(cli, fake):
    """The default folder and the file names differ from those of compound scaling and of the other benchmarks."""
    assert cli(*fake.arguments("--ranks=1", "--repeats=1")).code == 0
    files = {path.name for path in fake.out.iterdir() if path.is_file()}
    assert files == {
        *("rank-scaling.json", "rank-scaling.md", "rank-scaling.svg", "recipe.yaml"),
        *("all-reduce-1.json", "all-reduce-1.log", "weak-1-r1.log"),
    }
    words = {kind: ["benchmark", kind, "--store=s.h5"] for kind in ("scaling", "learning")} | {
        "zoo": ["benchmark", "zoo"]
    }
    defaults = {kind: str(_command_line().parse_args(line).out) for kind, line in words.items()}
    assert defaults == {"scaling": "rank-scaling", "learning": "learning.json", "zoo": "zoo.json"}


# ---- the plan


@given(st.sets(st.sampled_from([1, 2, 4, 8]), min_size=1), st.integers(1, 3), st.integers(0, 5))
def test_trainings_differ_only_in_ranks_batch_and_seed(ranks, repeats, seed):
    plan = RankScalingPlan(Recipe(batch=16, seed=seed), tuple(sorted(ranks)), repeats)
    found = planned_trainings(plan)
    assert len({t.name for t in found}) == len(found) == repeats * sum(1 if k == 1 else 2 for k in ranks)
    for t in found:
        assert t.batch == (16 if t.kind == "weak" else 16 // t.ranks)
        assert t.seed == seed + t.repeat - 1
    assert [t.repeat for t in found] == sorted(t.repeat for t in found)


def test_threads_per_rank_do_not_depend_on_the_number_of_ranks(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    plan = RankScalingPlan(Recipe())
    assert [
        study_module._threads_per_rank(replace(plan, ranks=ranks)) for ranks in [(1,), (1, 2), (1, 4), (2, 16)]
    ] == [8, 4, 2, 1]
    assert study_module._threads_per_rank(replace(plan, launch="srun -n {ranks} landscale")) is None


def test_launcher_command_replaces_ranks_and_python():
    assert launcher_command(TORCHRUN, 3)[:2] == [sys.executable, "-m"]
    assert "--nproc-per-node=3" in launcher_command(TORCHRUN, 3)
    assert launcher_command("env A='b c' N={ranks} x", 2) == ["env", "A=b c", "N=2", "x"]
    with pytest.raises(LandscaleError, match="ranks"):
        launcher_command("", 2)
