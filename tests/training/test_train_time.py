"""`max_time`: training ends within its time limit and completes its learning-rate schedule by then."""

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

import landscale.training.trainer as trainer_module
from landscale.distributed import Ranks
from landscale.inference.metrics import compute_scores
from landscale.testing import make_store, rgbn_plane
from landscale.training import planner, results
from landscale.training.build import build_classifier
from landscale.training.runs import Run
from landscale.training.trainable_model import StepResult
from landscale.training.trainer import Trainer
from trainings import CPU, PLAIN, TINY, flags, learn, outcome


@pytest.mark.slow  # it needs a machine that is not busy with other work
def test_max_time_is_used_and_not_exceeded_and_the_rate_falls_to_zero(store, tmp_path):
    """The training uses at least 3 of its 8 seconds, and the last rate is below a thousandth of the highest."""
    started = time.monotonic()
    learn(replace(PLAIN, epochs=100_000, batch=4), store, tmp_path / "run", max_time=8.0)
    elapsed = time.monotonic() - started
    assert 3 < elapsed < 8
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert table["rate"].iloc[-1] < 1e-3 * table["rate"].max()
    assert table["rate"].max() > 0.9 * PLAIN.rate


SOME_SCORES = compute_scores(np.full((4, 4), 0.5), np.eye(4), ("a", "b", "c", "d"), 0.5, multi_label=True, split="val")


class Clock:
    """A simulated clock that advances only by calls of `work`."""

    now = 1000.0

    def monotonic(self):
        return self.now

    def work(self, seconds, result=None):
        self.now += seconds
        return result


@given(
    limit=st.floats(60, 6000),
    step_fraction=st.floats(1 / 1500, 1 / 50),
    first_step_fraction=st.floats(0, 0.4),
    evaluation_fraction=st.floats(0, 0.02),
    waiting=st.floats(0, 3),
    slowdown=st.floats(1, 1.25),
    batch=st.sampled_from([1, 4, 8, 40]),
    views=st.sampled_from([1, 4]),
    every=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(600, 1 / 1000, 0.3, 0.0, 0, 1, 8, 1, 1)  # the first step is slow, as on GPUs and with oneDNN
@example(600, 1 / 1000, 0.0, 0.02, 0, 1, 8, 4, 1)  # mostly evaluation
@example(600, 1 / 1000, 0.01, 0.0, 3, 1, 8, 1, 1)  # mostly waiting for the disk
@example(600, 1 / 100, 0.1, 0.01, 0, 1.25, 40, 1, 1)  # an epoch is one step
@example(600, 1 / 1500, 0.0, 0.0, 0, 1.25, 1, 1, 1)  # slower and slower within long epochs
def test_the_planner_uses_most_of_the_time_limit_and_never_exceeds_it(
    store,
    tmp_path,
    limit,
    step_fraction,
    first_step_fraction,
    evaluation_fraction,
    waiting,
    slowdown,
    batch,
    views,
    every,
):
    """For any cost of steps, waiting and evaluations, on a simulated clock. Costs are fractions of the time limit."""
    clock = Clock()
    step, one_evaluation = limit * step_fraction / (1 + waiting), limit * evaluation_fraction
    rate_factors = []

    def learn_slowly(self, _parts, incoming, _signalled):
        next(incoming)
        rate_factors.append(trainer_module.rate_factor(self.recipe, self.state.progress))
        pace = step * (1 + (slowdown - 1) * (clock.now - 1000) / limit)
        return clock.work(pace + (limit * first_step_fraction if len(rate_factors) == 1 else 0), StepResult(0.5, 0))

    def batches_slowly(*arguments, **_):
        for rows in arguments[3]:
            clock.work(waiting * step)
            yield SimpleNamespace(rows=rows)

    def infer_slowly(classifier, store, patches, *_, **__):
        cost = classifier.description.views * one_evaluation * len(patches) / 16
        return clock.work(cost, np.full((len(patches), 4), 0.5))

    def evaluate_slowly(classifier, *_, **__):
        return clock.work(
            classifier.description.views * one_evaluation,
            SOME_SCORES,
        )

    with pytest.MonkeyPatch.context() as patch:
        for module, name, replacement in (
            (trainer_module, "time", clock),
            (trainer_module, "batches", batches_slowly),
            (trainer_module, "evaluate", evaluate_slowly),
            (results, "infer", infer_slowly),
            (results, "evaluate", evaluate_slowly),
            (results, "save_weights", lambda *_: None),
            (results, "write_json", lambda *_: None),
        ):
            patch.setattr(module, name, replacement)
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
    assert rate_factors[-1] < 0.02 or len(rate_factors) < 60  # the schedule has reached its end


@pytest.mark.slow
def test_the_train_command_ends_within_max_time(tmp_path):
    """The limit includes starting Python and importing torch."""
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 400, "val": 100})
    command = [str(Path(sys.executable).with_name("landscale")), "train", "--store", str(store.path), "--max-time=20s"]
    command += ["--run", str(tmp_path / "run"), *flags(TINY, epochs=100_000)]
    started = time.monotonic()
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    elapsed = time.monotonic() - started
    assert process.returncode == 0, process.stderr
    assert 10 < elapsed < 20


def test_a_time_limit_longer_than_needed_does_not_change_the_weights(store, tmp_path, undisturbed):
    learn(TINY, store, tmp_path / "run", max_time=3600.0)
    weights, *_ = outcome(tmp_path / "run")
    assert weights == undisturbed[0]
