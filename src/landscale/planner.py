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
    first_epoch: bool = True

    def is_early(self, step: int) -> bool:
        return self.first_epoch and step - self.begun[0] in EARLY

    def total(self, step: int, seconds: float) -> int:
        """Steps of the whole training, when `step` of them took `seconds`."""
        pace = (seconds - self.begun[1]) / (step - self.begun[0])
        left = SHARE * self.limit - seconds - self.evaluation * self.scorings
        each = pace + self.evaluation * self.evaluations / self.steps_an_epoch
        return min(self.longest, step + max(1, int(left / each)))

    def total_after_epoch(self, step: int, seconds: float, evaluation: float) -> int:
        """The same at the end of an epoch, whose `evaluation` is among the seconds (0: there was none)."""
        self.evaluation = evaluation or self.evaluation
        total = self.total(step, seconds - evaluation)
        self.begun, self.first_epoch = (step, seconds), False
        return total
