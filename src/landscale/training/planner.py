"""Plan how many training steps fit into --max-time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landscale.distributed import Ranks
from landscale.inference.evaluate import infer
from landscale.inference.evaluate_pixels import score_pixels
from landscale.models.classifier import Classifier
from landscale.store import PatchStore

PLANNED_FRACTION = 0.88  # of the time limit; the rest is for starting, writing, and a machine that becomes slower
EARLY = (3, 5, 10, 20, 50, 100)  # steps of a session after which the plan is updated; then after every EVERY-th step
EVERY = 200


@dataclass
class Planner:
    """Plans a training so that it ends, scores included, within `limit` seconds.

    longest: steps of the whole recipe; a plan never has more. steps_an_epoch: steps in an epoch. evaluations: evaluations in an
    epoch. scorings: cost of computing the final scores, in evaluations of `evaluation` seconds each. begun: step and seconds
    from which on the pace is measured; moved forward every epoch, because steps on larger inputs take longer. steps: steps of
    this session. pace: seconds per step.
    """

    limit: float
    longest: int
    steps_an_epoch: int
    evaluations: float
    scorings: float
    evaluation: float
    begun: tuple[int, float]
    steps: int = 0
    pace: float = 0.0

    def is_early(self, step: int, seconds: float) -> bool:
        """Whether to update the plan after this step. The first step is not measured, because libraries initialise during it."""
        self.steps += 1
        if self.steps == 1:
            self.begun = (step, seconds)
        return self.steps in EARLY or self.steps % EVERY == 0

    def total(self, step: int, seconds: float, evaluation: float = 0.0) -> int:
        """Plan the steps of the whole training, after `step` steps and `seconds` seconds, `evaluation` of which were no steps."""
        if step > self.begun[0]:
            self.pace = (seconds - evaluation - self.begun[1]) / (step - self.begun[0])
        left = PLANNED_FRACTION * self.limit - seconds - self.evaluation * self.scorings
        each = self.pace + self.evaluation * self.evaluations / self.steps_an_epoch
        return min(self.longest, step + max(1, int(left / max(each, 1e-9))))

    def total_after_epoch(self, step: int, seconds: float, evaluation: float) -> int:
        """Like `total`, at the end of an epoch whose evaluation took `evaluation` seconds (0: no evaluation)."""
        self.evaluation = evaluation or self.evaluation
        total = self.total(step, seconds, evaluation)
        self.begun = (step, seconds)
        return total


def seconds_of_evaluation(classifier: Classifier, store: PatchStore, world: int) -> float:
    """Estimated seconds of an evaluation of the val split on `world` ranks, from two batches after a first one."""
    patches = store.patches("val")

    def work(rows: NDArray[np.int64]) -> None:
        if classifier.description.pixels:
            score_pixels(classifier, store, rows, "val", Ranks(), 64, show=False, factors={})
        else:
            infer(classifier, store, rows, Ranks(), show=False)

    work(patches[:64])
    begun = time.monotonic()
    work(patches[:128])
    a_batch = (time.monotonic() - begun) / math.ceil(len(patches[:128]) / 64)
    return a_batch * math.ceil(len(patches) / 64 / world)
