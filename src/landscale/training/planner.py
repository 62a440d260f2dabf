"""How many steps fit into --max-time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from landscale.distributed import Ranks
from landscale.inference.evaluate import infer
from landscale.models.classifier import Classifier
from landscale.store import PatchStore

SHARE = 0.88  # of the time that is planned for; the rest is for starting, writing, and a machine that slows down
EARLY = (3, 5, 10, 20, 50, 100)  # steps of a session after which the pace is looked at; later at each EVERY-th
EVERY = 200


@dataclass
class Planner:
    """Plans a training that ends, scores included, within `limit` seconds of its own time.

    longest: steps of the whole recipe; a plan never has more. steps_an_epoch: between ends of epochs. evaluations: per
    epoch. scorings: what the scoring at the end costs, in evaluations of `evaluation` seconds each. begun: step and
    seconds from which on the pace counts; it moves on with the epochs, as steps on larger inputs take longer.
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
        """Whether to look at the pace now. The first step tells none: libraries set themselves up in it."""
        self.steps += 1
        if self.steps == 1:
            self.begun = (step, seconds)
        return self.steps in EARLY or self.steps % EVERY == 0

    def total(self, step: int, seconds: float, evaluation: float = 0.0) -> int:
        """Steps of the whole training, when `step` of them took `seconds`, since `begun` with one `evaluation`."""
        if step > self.begun[0]:
            self.pace = (seconds - evaluation - self.begun[1]) / (step - self.begun[0])
        left = SHARE * self.limit - seconds - self.evaluation * self.scorings
        each = self.pace + self.evaluation * self.evaluations / self.steps_an_epoch
        return min(self.longest, step + max(1, int(left / max(each, 1e-9))))

    def total_after_epoch(self, step: int, seconds: float, evaluation: float) -> int:
        """The same at the end of an epoch, whose `evaluation` is among the seconds (0: there was none)."""
        self.evaluation = evaluation or self.evaluation
        total = self.total(step, seconds, evaluation)
        self.begun = (step, seconds)
        return total


def seconds_of_evaluation(classifier: Classifier, store: PatchStore, world: int) -> float:
    """What evaluating the val split by so many ranks will take, from two batches of it after a first one."""
    patches = store.patches("val")
    infer(classifier, store, patches[:64], Ranks(), show=False)
    begun = time.monotonic()
    infer(classifier, store, patches[:128], Ranks(), show=False)
    a_batch = (time.monotonic() - begun) / math.ceil(len(patches[:128]) / 64)
    return a_batch * math.ceil(len(patches) / 64 / world)
