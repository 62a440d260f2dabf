"""`landscale scale`: its candidates, that a study survives kills and failures, and that results, runs and pages agree.

Most tests run the trainings in the process of the test (`in_this_process`), because starting processes that import torch takes
longer than the trainings. One test kills the real command; slow tests do so with several processes and other signals.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
import xml.etree.ElementTree as ET
from dataclasses import asdict, replace
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import command, outcome
from landscale.cli import main
from landscale.distributed import local_device
from landscale.inference.scores import Scores
from landscale.models import ZOO, describe_model
from landscale.models.compound import Scaling, candidates
from landscale.runtime.documents import write_json
from landscale.store import open_store
from landscale.studies.compound_scaling import study as study_module
from landscale.studies.compound_scaling import trainings
from landscale.studies.compound_scaling.networks import ScalableNetwork, scalable_network
from landscale.studies.compound_scaling.page import compound_scaling_page
from landscale.studies.compound_scaling.plots import COLOURS, compound_scaling_charts, compound_scaling_svg
from landscale.studies.compound_scaling.search import (
    AXES,
    TOLERANCE,
    network_along_axis,
    networks_of_sizes,
    search_candidates,
)
from landscale.studies.compound_scaling.study import CompoundScalingPlan, run_compound_scaling
from landscale.testing import make_store, rgbn_plane
from landscale.training.recipe import Recipe, load_recipe
from landscale.training.runs import Run
from launchers import command_of, fork_context, members, parent_of, processes, wait_until_gone

RECIPE = Recipe(model="wide_resnet", bands="B02,B03,B04,B08", epochs=1, batch=8, rate=1e-2, precision="fp32")
KEYS = [f"--{key}={getattr(RECIPE, key)}" for key in ("bands", "epochs", "batch", "rate", "precision")]
COARSE = ["--step=0.5", "--phi=1"]  # two candidates and two further sizes


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Patches of 12 px, so that scaled networks see 6 px and more."""
    folder = tmp_path_factory.mktemp("scaling")
    make_store(folder / "s.h5", planes=rgbn_plane(12), splits={"train": 40, "val": 16}, seed=1, signal=0.5)
    return folder / "s.h5"


def words(store, out, *more):
    return ["scale", "wide_resnet", "--store", store, "--out", out, *COARSE, *KEYS, *more, "--json"]


def without_seconds(content):
    """The part of the results that does not depend on the clock, the folder or the number of processes."""
    text = json.loads(json.dumps(content))
    for row in [text["unscaled"], *text["candidates"], *text["sizes"]]:
        for figures in (row, *row["runs"]):
            figures.pop("seconds", None)
    return text


@pytest.fixture(scope="module")
def in_this_process():
    """Run the trainings one after the other in this process, with one thread as in the worker processes of tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run_sequentially(jobs, workers):
        for job in jobs:
            yield job, trainings._train(job, local_device())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_module, "run_trainings", run_sequentially)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def undisturbed(store, tmp_path_factory, in_this_process):
    """A study that was not interrupted: its folder and its results."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main([str(word) for word in words(store, out)]) == 0
    return out, json.loads((out / "compound-scaling.json").read_text())


# ---- which networks


def base_of(store, name="wide_resnet", **recipe):
    return scalable_network(replace(RECIPE, model=name, **recipe), open_store(store))


@pytest.mark.parametrize("cost,step", [(2.0, 0.1), (2.0, 0.5), (3.7, 0.5), (1.3, 0.1)])
def test_candidates_are_all_within_the_budget(store, cost, step):
    root = base_of(store)
    plain = describe_model("wide_resnet", 4, 4, 6)
    assert (root.unscaled.flops, root.unscaled.parameters) == (plain["flops"], plain["parameters"])
    found = search_candidates(root, cost * plain["flops"], step)
    assert len({network.key for network in found}) == len(found)
    grid = [round(1 + k * step, 10) for k in range(int(1.25 * cost / step) + 1)]
    every = [Scaling(*factors) for factors in itertools.product(grid, repeat=3)]
    fit = {}
    for scaling in [scaling for scaling in every if abs(scaling.cost - cost) <= 0.25 * cost]:
        network = root.network(scaling)
        if abs(network.flops / plain["flops"] - cost) <= TOLERANCE * cost:
            fit.setdefault(network.key, []).append(scaling)
    assert {network.key for network in found} == set(fit)
    for network in found:  # the (α, β, γ) of this network whose α·β²·γ² is nearest to the budget
        assert network.scaling in fit[network.key]
        nearest = min(abs(scaling.cost - cost) for scaling in fit[network.key])
        assert abs(network.scaling.cost - cost) == pytest.approx(nearest)


@pytest.mark.parametrize("cost,tolerance,step", [(2.0, 0.1, 0.1), (2.0, 0.5, 0.5), (8.0, 2.0, 0.25)])
def test_the_grid_has_every_scaling_within_the_tolerance(cost, tolerance, step):
    grid = [round(1 + k * step, 10) for k in range(int((cost + tolerance) / step) + 1)]
    expected = [
        s for s in itertools.starmap(Scaling, itertools.product(grid, repeat=3)) if abs(s.cost - cost) <= tolerance
    ]
    assert candidates(cost, tolerance, step) == expected


@given(
    st.floats(1, 1.3), st.floats(1, 1.3), st.floats(1, 1.2), st.sampled_from([0.5, 1.2]), st.sampled_from([0.3, 0.5])
)
@settings(max_examples=4)
def test_each_axis_alone_has_the_flops_of_the_compound_network(depth, width, resolution, phi, step):
    root = ScalableNetwork(RECIPE, 4, 4, 12)
    best = Scaling(round(depth, 1), round(width, 1), round(resolution, 1))
    rows = networks_of_sizes(root, best, [phi], step)
    assert [axis for _, axis, _ in rows] == [*AXES, "compound"]
    grown = rows[-1][2]
    for _, axis, network in rows[:-1]:
        assert all(getattr(network.scaling, other) == 1 for other in AXES if other != axis)
        others = [
            root.network(Scaling(**{axis: 1 + k * step})) for k in range(int(2 * best.power(phi).cost / step) + 2)
        ]
        nearest = min(abs(other.flops - grown.flops) for other in others)
        assert abs(network.flops - grown.flops) == nearest


def test_the_unscaled_network_is_nearest_to_its_own_flops():
    root = ScalableNetwork(RECIPE, 4, 4, 120)
    for axis in AXES:
        assert network_along_axis(root, axis, root.unscaled.flops, 0.1) == root.unscaled


def test_the_recipe_of_a_network_builds_it(store):
    from landscale.training.build import build_classifier

    root = base_of(store, "efficientnet60_eca" if "efficientnet60_eca" in ZOO else "wide_resnet_eca")
    network = root.network(Scaling(2.0, 1.2, 1.5))
    built = build_classifier(root.recipe_of(network, 3), open_store(store))
    assert built.description.side == network.side == 9
    assert sum(p.numel() for p in built.network.parameters() if p.requires_grad) == network.parameters


# ---- the command


def test_the_plan_trains_nothing(cli, store, tmp_path):
    plan = ["scale", "wide_resnet", "--store", store, "--plan", "--step=0.2", *KEYS]
    answer = cli(*plan, "--out", tmp_path / "out", "--json")
    assert answer.code == 0
    rows = answer.json["candidates"]
    assert len(rows) >= 3
    assert all(abs(row["flops"] - answer.json["budget"]) <= TOLERANCE * answer.json["budget"] for row in rows)
    assert not (tmp_path / "out").exists()
    absolute = cli(*plan, f"--flops={answer.json['budget']:.0f}", "--json")
    assert absolute.json["candidates"] == rows
    assert all(f"{row['parameters']:,}" in cli(*plan).out for row in rows[:1])


def test_results_pages_and_runs_agree(undisturbed):
    out, content = undisturbed
    assert json.loads((out / "compound-scaling.json").read_text()) == content
    assert len(content["candidates"]) > 1
    for row in [content["unscaled"], *content["candidates"], *content["sizes"]]:
        (run,) = row["runs"]
        folder = out / "runs" / run["run"]
        assert json.loads((folder / "scores.json").read_text())["micro_f1"] == row["micro_f1"]
        assert row["steps"] == 5
        recipe = load_recipe(str(folder / "recipe.yaml"), [])
        assert recipe.side == row["side"]
        assert recipe.options == row["options"]
    top = max(content["candidates"], key=lambda row: row["micro_f1"])
    assert content["best"] == {axis: top[axis] for axis in AXES}
    (grown,) = [row for row in content["sizes"] if row["axis"] == "compound"]
    assert grown["runs"] == top["runs"]  # a candidate that is also a size is trained once
    size, scaling = eval("{" + content["registration"][0] + "}", {"Scaling": Scaling}).popitem()
    assert size == "b1"
    assert asdict(scaling) == content["best"]
    page = (out / "compound-scaling.md").read_text()
    assert all(line in page for line in content["registration"])
    assert all(f"{row['micro_f1']:.4f}" in page for row in content["candidates"])
    assert ET.parse(out / "compound-scaling.svg").getroot().tag.endswith("svg")


def test_a_second_call_trains_nothing(undisturbed, store, cli):
    out, content = undisturbed
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    answer = cli(*words(store, out, "--workers", 2))
    assert answer.json == content
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")} == before


def test_several_processes_give_the_results_of_one(undisturbed, store, tmp_path, cli, monkeypatch):
    """They are forked from the prepared server; their parent is then that server."""
    context = fork_context()
    forkserver.ensure_running()
    parent = SimpleNamespace(getpid=lambda: forkserver._forkserver._forkserver_pid)
    monkeypatch.setattr(trainings, "multiprocessing", SimpleNamespace(get_context=lambda _: context))
    monkeypatch.setattr(trainings, "os", parent)
    monkeypatch.setattr(study_module, "run_trainings", trainings.run_trainings)
    answer = cli(*words(store, tmp_path / "out", "--workers", 2))
    assert answer.code == 0, answer.lines
    assert without_seconds(answer.json) == without_seconds(undisturbed[1])


def test_a_killed_study_keeps_the_trainings_that_have_ended(undisturbed, start, store, tmp_path, cli):
    """Its process that trains ends with it, and the same command gives the results of one that was not killed."""
    out, log = tmp_path / "out", tmp_path / "log.txt"
    running = start(words(store, out, "--workers", 1), log)
    while running.is_alive() and not list(out.glob("runs/*/scores.json")):
        time.sleep(0.005)
    assert running.is_alive(), log.read_text()
    (training,) = [p for p in processes() if parent_of(p) == running.pid and "spawn_main" in " ".join(command_of(p))]
    running.kill()
    running.join()
    end = time.monotonic() + 10
    while command_of(training) and time.monotonic() < end:
        time.sleep(0.02)
    assert not command_of(training)
    ended = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/scores.json")}
    again = cli(*words(store, out))
    assert again.code == 0, again.lines
    assert without_seconds(again.json) == without_seconds(undisturbed[1])
    assert {path: path.stat().st_mtime_ns for path in ended} == ended


@pytest.mark.slow  # each of its processes imports torch
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_study_is_resumed(undisturbed, store, tmp_path, number):
    """With two processes that train. None is left, and the results are those of one process that was not killed."""
    out = tmp_path / "out"
    running = command(*words(store, out, "--workers", 2))
    while running.poll() is None and not list(out.glob("runs/*/recipe.yaml")):
        time.sleep(0.005)
    assert running.poll() is None, outcome(running)
    os.kill(running.pid, number)
    answer = outcome(running)
    assert answer.code == {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 75, signal.SIGINT: 130}[number]
    if number != signal.SIGKILL:
        assert answer.lines[-1:] == ["landscale: stopped; run the same command again to resume"]
    assert wait_until_gone(running.pid) == []
    ended = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/scores.json")}
    again = outcome(command(*words(store, out, "--workers", 2)))
    assert again.code == 0, again.lines
    assert without_seconds(again.json) == without_seconds(undisturbed[1])
    assert {path: path.stat().st_mtime_ns for path in ended} == ended


@pytest.mark.slow
def test_a_dead_training_process_is_reported_and_the_others_continue(undisturbed, store, tmp_path):
    out = tmp_path / "out"
    running = command(*words(store, out, "--epochs=40"))
    deadline = time.monotonic() + 200
    while not (begun := list(out.glob("runs/*/metrics.csv"))) and time.monotonic() < deadline:
        time.sleep(0.005)
    workers = [
        p for p in members(running.pid) if p != running.pid and b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()
    ]
    os.kill(workers[0], signal.SIGKILL)
    answer = outcome(running)
    dead = begun[0].parent.name
    assert answer.code == 1
    assert list(answer.json["failed"]) == [dead]
    assert f"{dead}: its process died (exit code -9" in answer.lines[0]
    others = [row for row in answer.json["candidates"] if row["runs"]]
    assert len(others) == len(undisturbed[1]["candidates"]) - 1


def test_a_failed_training_is_reported_and_the_others_continue(undisturbed, store, tmp_path, cli):
    out = tmp_path / "out"
    last = undisturbed[1]["candidates"][-1]["runs"][0]["run"]
    write_json(
        out / "compound-scaling.json",
        {k: v for k, v in undisturbed[1].items() if k in ("base", "data", "budget", "step", "recipe")},
    )
    (out / "runs" / last).mkdir(parents=True)
    (out / "runs" / last / "notes.txt").write_text("not a run")
    answer = cli(*words(store, out))
    assert answer.code == 1
    assert answer.json["failed"].keys() == {last}
    assert "is neither empty nor a run" in answer.lines[0]
    assert "1 trainings failed" in answer.lines[-1]
    assert [bool(row["runs"]) for row in answer.json["candidates"]] == [True] * (len(answer.json["candidates"]) - 1) + [
        False
    ]
    assert "failed" in (out / "compound-scaling.md").read_text()


def test_a_search_in_which_all_trainings_diverge_ends_with_an_error(store, tmp_path, cli):
    answer = cli(*words(store, tmp_path / "out", "--rate=1e30", "--optimizer=sgd"))
    assert answer.code == 2
    assert all("diverged" in line for line in answer.lines)
    assert answer.lines[-1].startswith("landscale: none of")


BAD = [
    (["resnet50"], "'resnet50' cannot be scaled; those that can: "),
    (["wide_resnext"], "did you mean wide_resnet"),
    (["wide_resnet", "--flops", "1x"], "--flops: found '1x'"),
    (["wide_resnet", "--flops", "many"], "--flops: found 'many'"),
    (["wide_resnet", "--flops", "5"], "--flops: found 5, expected more than"),
    (["wide_resnet", "--flops", "1.5x", "--step", "1"], "no network within 15% of"),
    (["wide_resnet", "--flops", "1.25x", "--step", "0.5"], "the nearest network has"),
    (["wide_resnet", "--max-time", "21s"], "--max-time: leaves"),
    (["wide_resnet", "--step", "0"], "--step: found 0"),
    (["wide_resnet", "--step", "nan"], "--step: found nan"),
    (["wide_resnet", "--phi", "1,x"], "--phi: found '1,x'"),
    (["wide_resnet", "--phi", "0"], "--phi: found '0'"),
    (["wide_resnet", "--seeds", "1.5"], "--seeds: found '1.5'"),
    (["wide_resnet", "--seeds", "1", "--seed=2"], "--seed: found together with --seeds"),
    (["wide_resnet", "--workers", "0"], "--workers: found 0"),
    (["wide_resnet", "--max-time", "soon"], "--max-time: found 'soon'"),
    (["wide_resnet", "--side=60"], "--side: the study sets it itself"),
    (["wide_resnet", "--options={width: 3}"], "--options: sets width"),
    (["wide_resnet", "--progressive=[[0.5, 8]]"], "--progressive"),
    (["wide_resnet", "--epochz=3"], "did you mean epochs"),
    (["wide_resnet", "--labels=ben20"], "ben19"),
]


@pytest.mark.parametrize("more,line", BAD, ids=[" ".join(more) for more, _ in BAD])
def test_wrong_arguments_are_reported_in_one_line(cli, store, tmp_path, more, line):
    answer = cli("scale", *more, "--store", store, "--out", tmp_path / "out", *KEYS)
    assert (answer.code, len(answer.lines)) == (2, 1), answer.lines
    assert line in answer.lines[0]
    assert not (tmp_path / "out" / "runs").exists()


def test_other_folders_and_stores_are_refused(cli, store, undisturbed, tmp_path):
    out, _ = undisturbed

    def refused(*arguments):
        answer = cli(*arguments)
        assert (answer.code, len(answer.lines)) == (2, 1), answer.lines
        return answer.lines[0]

    assert "contains a study with step 0.5, not 0.25" in refused(*words(store, out, "--step=0.25"))
    assert "contains a study with epochs 1, not 2" in refused(*words(store, out, "--epochs=2"))
    other = make_store(tmp_path / "t.h5", planes=rgbn_plane(12), splits={"train": 16, "val": 8})
    assert "contains a study on another store" in refused(*words(other.path, out))
    assert "is neither empty nor the folder of a compound-scaling study" in refused(*words(store, tmp_path))
    without = make_store(tmp_path / "v.h5", planes=rgbn_plane(12), splits={"train": 16})
    assert "val" in refused(*words(without.path, tmp_path / "new"))
    assert not (tmp_path / "new").exists()


# ---- the study with faked trainings


def made_scores(micro_f1, macro_f1):
    return Scores("val", 16, micro_f1, macro_f1, *[0.5] * 4, None, 0.5, 0.5, averages={}, counts=[])


@pytest.fixture
def pretended(monkeypatch):
    """Replace the trainings by a function that writes a score for each run. The value records jobs and sets the scores."""
    jobs = []

    def score(job):
        return 0.5

    def pretend(todo, workers):
        for job in todo:
            jobs.append(job)
            figure = state["score"](job)
            if figure is None:
                yield job, "pretended to fail"
                continue
            write_json(Run(job.run).folder / "scores.json", made_scores(figure, figure / 2).to_json())
            pd.DataFrame([{"seconds": 3.0, "step": 7}]).to_csv(job.run / "metrics.csv", index=False)
            yield job, None

    state = {"jobs": jobs, "score": score}
    monkeypatch.setattr(study_module, "run_trainings", pretend)
    return state


def test_the_best_candidate_has_the_highest_mean_over_all_seeds(store, tmp_path, pretended):
    """One high score is not enough, and a candidate without the score of a seed is not considered."""
    plan = CompoundScalingPlan(RECIPE, step=0.25, phis=(1.0, 2.0), seeds=(1, 2))
    found = search_candidates(base_of(store), 2 * base_of(store).unscaled.flops, 0.25)
    steady, varying, incomplete = found[1], found[0], found[2]
    by_side = {
        n.name: scores for n, scores in ((steady, (0.7, 0.72)), (varying, (0.9, 0.2)), (incomplete, (0.99, None)))
    }
    pretended["score"] = lambda job: by_side.get(job.run.name.rsplit("_seed-", 1)[0], (0.1, 0.2))[job.recipe.seed - 1]
    content = run_compound_scaling(plan, open_store(store), tmp_path / "out")
    assert content["best"] == asdict(steady.scaling)
    row = next(row for row in content["candidates"] if row["options"] == steady.options and row["side"] == steady.side)
    assert row["micro_f1"] == pytest.approx(0.71)
    assert row["micro_f1_deviation"] == pytest.approx(0.02 / 2**0.5)
    assert row["macro_f1"] == pytest.approx(0.355)
    assert list(content["failed"].values()) == ["pretended to fail"]
    assert "0.7100 ± 0.0141" in compound_scaling_page(content)


@pytest.mark.parametrize("workers", [1, 3])
def test_time_is_divided_by_flops(store, tmp_path, pretended, workers):
    """If every training takes all of its time, the study ends in time; and a FLOP gets the same time in all networks."""
    plan = CompoundScalingPlan(RECIPE, step=0.25, phis=(1.0, 2.0), seeds=(0, 1))
    run_compound_scaling(plan, open_store(store), tmp_path / "out", workers, seconds=1000.0)
    root = base_of(store)
    networks = networks_of_study(root, tmp_path / "out")
    rates, ends = [], [0.0] * workers
    for job in pretended["jobs"]:
        network = next(n for n in networks if job.run.name.startswith(n.name + "_"))
        rates.append(job.seconds / network.flops)
        first = ends.index(min(ends))
        ends[first] += job.seconds
    searched = 2 * len(search_candidates(root, 2 * root.unscaled.flops, plan.step))
    assert max(rates[:searched]) == pytest.approx(min(rates[:searched]))
    assert max(rates[searched:]) == pytest.approx(min(rates[searched:]))
    assert max(ends) <= 1000.0 + 1e-6
    assert max(ends) > 700.0


def networks_of_study(root, out):
    content = json.loads((out / "compound-scaling.json").read_text())
    rows = [content["unscaled"], *content["candidates"], *content["sizes"]]
    return [root.network(Scaling(*(row[axis] for axis in AXES))) for row in rows]


def test_added_sizes_are_trained_and_the_others_kept(store, tmp_path, pretended):
    plan = CompoundScalingPlan(RECIPE, step=0.5, phis=(1.0,))
    run_compound_scaling(plan, open_store(store), tmp_path / "out")
    before = len(pretended["jobs"])
    content = run_compound_scaling(replace(plan, phis=(1.0, 2.0)), open_store(store), tmp_path / "out")
    added = pretended["jobs"][before:]
    assert 0 < len(added) <= 4
    assert [line.split(":")[0] for line in content["registration"]] == ['"b1"', '"b2"']


@given(
    st.lists(st.tuples(st.integers(10**6, 10**12), st.integers(10**4, 10**9), st.floats(0, 1)), min_size=1, max_size=5),
    st.floats(0, 1),
)
def test_every_score_is_a_point_of_its_chart(points, start):
    def row(flops, parameters, score):
        return {"flops": flops, "parameters": parameters, "micro_f1": score, "macro_f1": score / 2}

    unscaled, grown = row(10**6, 10**4, start), [row(*point) for point in points]
    sizes = [{"axis": axis, "phi": 1.0, **size} for size in grown for axis in COLOURS]
    content = {
        "base": "a<b",
        "unscaled": unscaled,
        "sizes": [*sizes, {"axis": "depth", "phi": 2.0, "flops": 7, "parameters": 7}],
    }
    (f1_flops, f1_parameters), (macro_flops, _) = compound_scaling_charts(content)
    for chart, cost, scale, score in (
        (f1_flops, "flops", 1e9, "micro_f1"),
        (f1_parameters, "parameters", 1e6, "micro_f1"),
        (macro_flops, "flops", 1e9, "macro_f1"),
    ):
        assert [line.name for line in chart.lines] == list(COLOURS)
        for line in chart.lines:
            assert set(line.points) == {(one[cost] / scale, one[score]) for one in [unscaled, *grown]}
            assert list(line.points) == sorted(line.points)


def test_the_charts_of_a_study_as_svg():
    rows = [
        {"axis": axis, "phi": 1.0, "flops": 2e9, "parameters": 2e6, "micro_f1": 0.7, "macro_f1": 0.6}
        for axis in COLOURS
    ]
    content = {"base": "a<b", "unscaled": rows[0] | {"flops": 1e9}, "sizes": rows}
    drawn = compound_scaling_svg(content)
    assert drawn == compound_scaling_svg(content)
    root = ET.fromstring(drawn)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {*COLOURS, "micro F1", "macro F1", "GFLOPs", "million parameters"} <= set(texts)
    assert root.find("{http://www.w3.org/2000/svg}title").text == "a<b: compound scaling"


@pytest.mark.slow
def test_max_time_is_kept(store, tmp_path):
    """With more epochs than fit, the time limit ends each training, and all networks are trained."""
    begun = time.monotonic()
    answer = outcome(command(*words(store, tmp_path / "out", "--epochs=100000", "--max-time=60s")))
    assert time.monotonic() - begun < 60
    assert answer.code == 0, answer.lines
    assert all(row["steps"] > 20 for row in answer.json["candidates"])
