"""How many steps fit into --max-time."""

from __future__ import annotations

from dataclasses import dataclass

SHARE = 0.88  # of the time that is planned for; the rest is for starting, writing, and a machine that slows down
EARLY = (
    5,
    20,
    100,
    300,
)  # steps of a session after which the pace is looked at, before the first epoch tells it better


@dataclass
class Planner:
    """Plans a training that ends, scores included, within `limit` seconds of its own time.

    longest: steps of the whole recipe; a plan never has more. steps_an_epoch: between ends of epochs. evaluations: per
    epoch. scorings: what the scoring at the end costs, in evaluations. guess: what an evaluation costs, in steps, until
    one was measured. begun: step and seconds at which this session took over.
    """

    limit: float
    longest: int
    steps_an_epoch: int
    evaluations: float
    scorings: float
    guess: float
    begun: tuple[int, float]
    evaluation_seconds: float = 0.0
    spent_evaluating: float = 0.0

    def evaluated(self, seconds: float) -> None:
        """Note what an evaluation took."""
        self.evaluation_seconds = seconds
        self.spent_evaluating += seconds

    def is_early(self, step: int) -> bool:
        return step - self.begun[0] in EARLY

    def total(self, step: int, seconds: float) -> int:
        """Steps of the whole training, when `step` of them took `seconds`, evaluations included."""
        pace = (seconds - self.begun[1] - self.spent_evaluating) / (step - self.begun[0])
        evaluation = self.evaluation_seconds or pace * self.guess
        left = SHARE * self.limit - seconds - evaluation * self.scorings
        each = pace + evaluation * self.evaluations / self.steps_an_epoch
        return min(self.longest, step + max(1, int(left / each)))
