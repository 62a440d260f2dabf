"""As good as scratch with n times the labels: how many labels a training from scratch needs for the score of an encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landscale.probing.intervals import LEVEL

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bounded:
    """A number above 0. bound: "=", or "<" or ">" if it is only an upper or a lower bound of the true one."""

    value: float
    bound: str = "="

    def __str__(self) -> str:
        number = f"{self.value:,.0f}" if self.value >= 100 else f"{self.value:.3g}"
        return number if self.bound == "=" else f"{self.bound} {number}"


@dataclass(frozen=True)
class Multiple:
    """Scratch needs `value` times the labels; `low` and `high` are the ends of the 95% interval."""

    value: Bounded
    low: Bounded
    high: Bounded

    def __str__(self) -> str:
        if self.value.bound != "=" and self.value == self.low == self.high:
            return str(self.value)  # the bound holds in all samples
        return f"{self.value} [{self.low} … {self.high}]"


def multiple_of_labels(
    labels: Floats, scores: Floats, samples: Floats, used: float, score: float, score_samples: Floats
) -> Multiple:
    """The number of labels at which scratch reaches a score, divided by the number with which the score was reached.

    The interval is over bootstrap samples. The patches of sample b are the same for all cells of a store, and its seeds for all
    cells of as many seeds (`probing.intervals`). So the score of the encoder in sample b is compared with the curve of scratch in
    sample b. Of equal seeds, scratch and encoder also have the same training patches.

    Args:
        labels: (k,) numbers of labels of the trainings from scratch, above 0, ascending.
        scores: (k,) their scores, means over seeds.
        samples: (k, SAMPLES) their scores in bootstrap samples; NaN in a sample without a class.
        used: number of labels that the encoder had.
        score: its score with them. score_samples: (SAMPLES,) the same in bootstrap samples.
    """
    valid = ~(np.isnan(samples).any(axis=0) | np.isnan(score_samples))
    sampled = labels_to_reach(labels, samples[:, valid].T, score_samples[valid])
    if not valid.any():
        sampled = np.array([-np.inf, np.inf])  # the test patches have no label: nothing is measured
    # Without interpolation between two samples, because some may be infinite.
    low = np.percentile(sampled, (100 - LEVEL) / 2, method="lower")
    high = np.percentile(sampled, (100 + LEVEL) / 2, method="higher")
    value = labels_to_reach(labels, scores, np.float64(score))
    return Multiple(*(_bounded(float(reached), labels, used) for reached in (value, low, high)))


def labels_to_reach(labels: Floats, scores: Floats, score: Floats | np.float64) -> Floats:
    """The smallest number of labels at which a curve reaches a score.

    The curve is the highest score with at most as many labels, which is never lower with more labels; between two numbers of
    labels it is a straight line over their logarithm. It is not continued beyond the first and the last one.

    Args:
        labels: (k,) above 0, ascending.
        scores: (…, k) of the curve, one or several of them.
        score: (…) for each curve.

    Returns:
        (…) numbers of labels; −inf where the score is below the whole curve, inf where it is above.
    """
    curve = np.maximum.accumulate(scores, axis=-1)
    wanted = np.asarray(score)[..., None]
    end = (curve < wanted).sum(axis=-1, keepdims=True)  # the first point that reaches the score
    after, before = np.minimum(end, len(labels) - 1), np.clip(end - 1, 0, len(labels) - 1)
    upper, lower = np.take_along_axis(curve, after, axis=-1), np.take_along_axis(curve, before, axis=-1)
    rise = np.where(upper > lower, upper - lower, 1.0)
    reached = labels[before] * (labels[after] / labels[before]) ** ((wanted - lower) / rise)
    reached = np.where(wanted < curve[..., :1], -np.inf, np.where(end == len(labels), np.inf, reached))
    return reached[..., 0]


def _bounded(reached: float, labels: Floats, used: float) -> Bounded:
    if np.isfinite(reached):
        return Bounded(reached / used)
    return Bounded(labels[-1] / used, ">") if reached > 0 else Bounded(labels[0] / used, "<")
