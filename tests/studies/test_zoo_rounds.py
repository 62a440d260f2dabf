"""Rounds of measurements of networks, repetitions on a busy machine, and what the figures of all rounds become."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from landscale.cli import main
from landscale.studies.zoo import speed as zoo
from landscale.studies.zoo.measure import OUT_OF_MEMORY, SpeedMeasurement
from landscale.studies.zoo.page import BUSY, speed_cells
from landscale.studies.zoo.summary import LARGE, SMALL, busy_rows, comparison_sentences, speed_of

TINY = ["mlp_mixer_tiny", "wide_resnet"]

JOB = {"device": "cpu", "batch": 2, "seconds": 1.0, "bands": ("B02",), "classes": 19}


def measured(training: float, reference: float = 100.0) -> dict:
    return {
        "training": training,
        "inference": 2 * training,
        "reference": reference,
        "peak_memory": 5 * 10**6,
        "seconds": 1,
    }


def measure_with(monkeypatch, answers: Callable[[SpeedMeasurement], dict], out: Path, **more) -> tuple[list, dict]:
    """Run `measure_zoo` with given answers; returns the measured names and sides in order, and the results."""
    jobs = []
    monkeypatch.setattr(zoo, "measure_in_process", lambda job: jobs.append((job.name, job.side)) or answers(job))
    return jobs, zoo.measure_zoo([*TINY, "vit_40"], out, JOB, **({"rounds": 3} | more))


def test_networks_take_turns_in_an_order_that_is_reversed_in_every_second_round(tmp_path, monkeypatch):
    jobs, content = measure_with(monkeypatch, lambda _: measured(1.0), tmp_path / "zoo.json")
    order = [*TINY, "vit_40"]
    assert [name for name, _ in jobs] == [*order, *order[::-1], *order]
    assert [row["round"] for row in content["measurements"]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    jobs, _ = measure_with(monkeypatch, lambda _: measured(1.0), tmp_path / "zoo.json", rounds=4)
    assert [name for name, _ in jobs] == order[::-1]  # one round more


def test_both_networks_of_the_claim_are_measured_at_the_same_side_too(tmp_path, monkeypatch):
    jobs = []
    monkeypatch.setattr(zoo, "measure_in_process", lambda job: jobs.append((job.name, job.side)) or measured(1.0))
    zoo.measure_zoo([SMALL, LARGE], tmp_path / "zoo.json", JOB, 2)
    assert jobs == [(SMALL, 90), (LARGE, 120), (SMALL, 120), (SMALL, 120), (LARGE, 120), (SMALL, 90)]


def test_measurements_on_a_busy_machine_are_repeated_and_do_not_count(tmp_path, monkeypatch):
    references = iter([100, 90, 84, 100, 40, 100, 99, 50, 45])

    def answer(_):
        return measured(1.0, next(references, 60))  # 60 in every repetition

    jobs, content = measure_with(monkeypatch, answer, tmp_path / "zoo.json")
    again = jobs[9:]
    assert [name for name, _ in again] == ["vit_40", "wide_resnet", "wide_resnet", "vit_40"] * 2
    rows = content["measurements"]
    assert len(rows) == 9
    assert sorted(row["repeats"] for row in rows) == [0, 0, 0, 0, 0, 2, 2, 2, 2]
    assert {row["reference"] for row in busy_rows(rows)} == {84, 60}  # the faster of a measurement and its repetitions
    speeds = {model["name"]: speed_of(content, model) for model in content["models"]}
    assert [(speed.rounds, speed.busy) for speed in speeds.values()] == [(3, False), (1, False), (1, False)]


def test_a_network_without_quiet_measurements_is_marked():
    rows = [
        {"name": "a", "side": 8, "round": 0} | measured(10.0, 100.0),
        {"name": "a", "side": 8, "round": 1} | measured(12.0, 86.0),
        {"name": "a", "side": 8, "round": 2} | measured(90.0, 84.0),
        {"name": "b", "side": 8, "round": 0} | measured(30.0, 70.0),
        {"name": "c", "side": 8, "round": 0, "failed": OUT_OF_MEMORY},
    ]
    content = {"measurements": rows, "models": [{"name": n, "side": 8, "flops": 2} for n in "abcd"]}
    cells = [speed_cells(speed_of(content, model)) for model in content["models"]]
    assert cells == [
        ["11.0 (10.0–12.0)", "22.0 (20.0–24.0)", "5", "66"],  # 3·2·11 FLOPs/s of 100
        [f"30.0 {BUSY}", f"60.0 {BUSY}", "5", "180"],
        [OUT_OF_MEMORY, "", "", ""],
        ["", "", "", ""],
    ]


def test_no_measurement_begins_after_the_time(tmp_path, monkeypatch, capsys):
    jobs, content = measure_with(monkeypatch, lambda _: measured(1.0), tmp_path / "zoo.json", seconds_left=0.0)
    assert (jobs, content["measurements"]) == ([], [])
    assert zoo.missing_measurements(content, 3) == 9
    words = ["benchmark", "zoo", *TINY, "--rounds", "2", "--out", str(tmp_path / "b.json"), "--max-time", "0.1s"]
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    assert "landscale: 4 measurements are missing; run the same command again to do them" in captured.err
    assert json.loads(captured.out)["measurements"] == []


def test_a_failure_is_tried_again_by_the_next_command_but_not_out_of_memory(tmp_path, monkeypatch):
    def answer(job):
        return {"failed": OUT_OF_MEMORY if job.name == TINY[0] else "killed"} if job.name in TINY else measured(1.0)

    jobs, _ = measure_with(monkeypatch, answer, tmp_path / "zoo.json", rounds=1)
    assert len(jobs) == 3
    jobs, content = measure_with(monkeypatch, lambda _: measured(3.0), tmp_path / "zoo.json", rounds=1)
    assert [name for name, _ in jobs] == [TINY[1]]
    assert len(content["measurements"]) == 3


def test_a_killed_process_is_reported(monkeypatch):
    job = SpeedMeasurement("wide_resnet", 60, "cpu", batch=2, seconds=0.01, bands=("B02",), classes=2)
    monkeypatch.setattr(zoo, "measure_speed_if_memory_suffices", kill_this_process)
    monkeypatch.setattr(zoo, "start_fork_server", lambda _: multiprocessing.get_context("fork"))  # which starts faster
    assert "was killed" in zoo.measure_in_process(job)["failed"]


def kill_this_process(_job):
    os.kill(os.getpid(), signal.SIGKILL)


# ---- the main claim of Papoutsis et al. 2022


def claim(small: float, at_120: float, large: float) -> dict:
    """Results of three rounds, in the second of which the machine was busy, and slow with one of the networks."""
    sizes = ((SMALL, 90, small, 10), (SMALL, 120, at_120, 10), (LARGE, 120, large, 100))
    models = [{"name": n, "side": side, "flops": 7, "parameters": count} for n, side, _, count in sizes]
    rows = [
        {"name": name, "side": side, "round": k} | measured(speed * (0.2 if k == 1 and name == SMALL else 1), reference)
        for k, reference in enumerate((100.0, 50.0, 99.0))
        for name, side, speed, _ in sizes
    ]
    return {"models": models, "measurements": rows, "settings": {"batch": 2}}


@given(*[st.floats(0.1, 1e5)] * 3)
def test_sentences_contain_the_ratios_of_quiet_rounds(small, at_120, large):
    lines = comparison_sentences(claim(small, at_120, large))
    assert "10.0 times fewer" in lines[0]
    for line, where, speed in zip(lines[1:], ("Each at its own side", "Both at 120 px"), (small, at_120), strict=True):
        assert line.startswith(where)
        assert f"trains {speed / large:.2f} times as fast" in line
        assert "1.00 of the memory (medians and ranges of 2 rounds, batches of 2)" in line


def test_no_sentences_without_measurements():
    content = claim(1.0, 1.0, 1.0)
    assert comparison_sentences(content | {"measurements": []}) == []
    assert comparison_sentences(content | {"models": []}) == []
    failed = [{"name": LARGE, "side": 120, "round": 0, "failed": "out of memory"}]
    assert comparison_sentences(content | {"measurements": failed}) == []
