"""What a training prints where there is no terminal, as in the log of a batch job."""

from __future__ import annotations

import re

from landscale.cli import main
from landscale.training.checkpoint import TrainingState
from landscale.training.messages import epoch_line, shortened_line
from trainings import TINY, flags


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


def test_a_training_that_a_time_limit_cuts_says_so():
    assert shortened_line(95, 100) is None
    line = shortened_line(21, 360)
    assert line is not None
    assert line.startswith("--max-time: trained for 21 of the recipe's 360 steps")
