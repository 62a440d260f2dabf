"""Training ends in time, with the schedule that it can still do."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import landscale.training.training as training_module
from landscale.distributed import Ranks
from landscale.testing import make_store, rgbn_plane
from landscale.training import planner
from landscale.training.build import build_classifier
from landscale.training.runs import Run
from landscale.training.trainable_model import StepResult
from landscale.training.training import Trainer
from trainings import CPU, PLAIN, TINY, flags, learn, outcome


def test_max_time(store, tmp_path):
    """It uses its time, ends within it, and the rate has fallen to nothing by then."""
    begun = time.monotonic()
    learn(replace(PLAIN, epochs=100_000, batch=4), store, tmp_path / "run", max_time=8.0)
    took = time.monotonic() - begun
    assert 3 < took < 8
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert table["rate"].iloc[-1] < 1e-3 * table["rate"].max()
    assert table["rate"].max() > 0.9 * PLAIN.rate


class Clock:
    """Time that passes only when someone works."""

    now = 1000.0

    def monotonic(self):
        return self.now

    def work(self, seconds, result=None):
        self.now += seconds
        return result


@given(
    limit=st.floats(60, 6000),
    share_of_a_step=st.floats(1 / 1500, 1 / 50),
    share_of_first=st.floats(0, 0.4),
    share_of_an_evaluation=st.floats(0, 0.02),
    waiting=st.floats(0, 3),
    slower=st.floats(1, 1.25),
    batch=st.sampled_from([1, 4, 8, 40]),
    views=st.sampled_from([1, 4]),
    every=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(600, 1 / 1000, 0.3, 0.0, 0, 1, 8, 1, 1)  # the first step is slow, as GPUs' and oneDNN's are
@example(600, 1 / 1000, 0.0, 0.02, 0, 1, 8, 4, 1)  # mostly evaluation
@example(600, 1 / 1000, 0.01, 0.0, 3, 1, 8, 1, 1)  # mostly waiting for the disk
@example(600, 1 / 100, 0.1, 0.01, 0, 1.25, 40, 1, 1)  # an epoch is one step
@example(600, 1 / 1500, 0.0, 0.0, 0, 1.25, 1, 1, 1)  # slower and slower within long epochs
def test_planned_time(
    store,
    tmp_path,
    limit,
    share_of_a_step,
    share_of_first,
    share_of_an_evaluation,
    waiting,
    slower,
    batch,
    views,
    every,
):
    """Whatever steps and evaluations cost: it ends within its time, and makes use of most of it."""
    clock = Clock()
    step, one_evaluation = limit * share_of_a_step / (1 + waiting), limit * share_of_an_evaluation
    done = []

    def learn_slowly(self, _parts, incoming, _signalled):
        next(incoming)
        done.append(training_module.rate_factor(self.recipe, self.state.progress))
        pace = step * (1 + (slower - 1) * (clock.now - 1000) / limit)
        return clock.work(pace + (limit * share_of_first if len(done) == 1 else 0), StepResult(0.5, 0))

    def wait(*arguments, **_):
        for rows in arguments[3]:
            clock.work(waiting * step)
            yield SimpleNamespace(rows=rows)

    def infer_slowly(classifier, store, patches, *_, **__):
        cost = classifier.description.views * one_evaluation * len(patches) / 16
        return clock.work(cost, np.full((len(patches), 4), 0.5))

    def evaluate_slowly(classifier, *_, **__):
        return clock.work(classifier.description.views * one_evaluation, {"micro_ap": 0.5})

    with pytest.MonkeyPatch.context() as patch:
        for name, stand_in in (
            ("time", clock),
            ("batches", wait),
            ("infer", infer_slowly),
            ("evaluate", evaluate_slowly),
            ("save_weights", lambda *_: None),
            ("write_json", lambda *_: None),
        ):
            patch.setattr(training_module, name, stand_in)
        patch.setattr(planner, "time", clock)
        patch.setattr(planner, "infer", infer_slowly)
        patch.setattr(Trainer, "step", learn_slowly)
        patch.setattr(Trainer, "save", lambda self: None)
        patch.setattr(Run, "write_history", lambda self, history: clock.work(0.01))
        patch.setattr(Run, "events", lambda self, epoch: lambda row: None)
        recipe = replace(PLAIN, epochs=100_000, batch=batch, views=views, evaluate_every=every, rate_batch=None)
        run = Run(tmp_path / "run")
        trainer = Trainer(recipe, store, run, Ranks(), build_classifier(recipe, store), CPU, limit)
        trainer.fit()
        trainer.finish()
    used = (clock.now - 1000) / limit
    assert used <= 1
    assert used > 0.6
    assert done[-1] < 0.02 or len(done) < 60  # the schedule was gone through to its end


@pytest.mark.slow
def test_max_time_through_the_command(tmp_path):
    """All of it: also starting Python and importing torch."""
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 400, "val": 100})
    command = [str(Path(sys.executable).with_name("landscale")), "train", "--store", str(store.path), "--max-time=20s"]
    command += ["--run", str(tmp_path / "run"), *flags(TINY, epochs=100_000)]
    begun = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.monotonic() - begun
    assert ended.returncode == 0, ended.stderr
    assert 10 < took < 20


def test_more_time_than_needed_changes_nothing(store, tmp_path, undisturbed):
    learn(TINY, store, tmp_path / "run", max_time=3600.0)
    weights, *_ = outcome(tmp_path / "run")
    assert weights == undisturbed[0]
