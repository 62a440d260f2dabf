"""What a training prints where there is no terminal, as in the log of a batch job."""

from __future__ import annotations

import html
import json
import re
import time

from landscale.cli import main
from landscale.commands.command import STARTED
from landscale.training.checkpoint import TrainingState
from landscale.training.messages import epoch_line
from trainings import PLAIN, TINY, flags


def test_a_line_an_epoch(store, tmp_path, capsys):
    assert main(["train", "--store", str(store.path), "--run", str(tmp_path / "run"), *flags(TINY)]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    scores = r"loss 0\.\d{{4}}, micro F1 0\.\d{{4}}, macro F1 0\.\d{{4}}"
    pattern = r"epoch {} of 3, step {} of 15: " + scores + r", [\d,]+ patches/s, \d+ s left"
    assert len(lines) == 3
    for k, line in enumerate(lines, 1):
        assert re.fullmatch(pattern.format(k, 5 * k), line), line


def test_the_time_left_is_that_of_the_steps_left():
    state = TrainingState(total=100, step=25, seconds=3600.0)
    row = {"epoch": 1, "step": 25, "loss": 0.5, "train_seconds": 10.0, "val_micro_f1": 0.75}
    line = "epoch 1 of 4, step 25 of 100: loss 0.5000, micro F1 0.7500, 200 patches/s, 3 h 0 min left"
    assert epoch_line(row, state, 4, 2000) == line


def test_a_training_that_a_time_limit_cuts_says_so_everywhere(store, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["--store", str(store.path), "--run", str(run), *flags(PLAIN, epochs=10_000)]
    assert main(["train", *words, "--max-time", f"{time.monotonic() - STARTED + 1.5:.1f}s"]) == 0
    steps = json.loads((run / "scores.json").read_text())["steps"]
    assert steps["planned"] == 50_000
    assert 0 < steps["trained"] < 45_000
    line = f"trained for {steps['trained']:,} of the recipe's 50,000 steps (--max-time)"
    assert line in capsys.readouterr().out.splitlines()[-1]
    for words in (["info", run], ["evaluate", run, store.path]):
        assert main([str(word) for word in words]) == 0
        assert line in capsys.readouterr().out
    assert main(["evaluate", str(run), str(store.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == steps
    assert main(["report", str(run), "--out", str(tmp_path)]) == 0
    assert html.escape(line) in (tmp_path / "report.html").read_text().replace("&#39;", "&#x27;")
    capsys.readouterr()


def test_a_training_that_is_nearly_whole_says_nothing():
    assert TrainingState(total=89, limited=True).cut_short(100) == {"trained": 89, "planned": 100}
    assert TrainingState(total=90, limited=True).cut_short(100) is None
    assert TrainingState(total=50).cut_short(100) is None  # on another number of processes
