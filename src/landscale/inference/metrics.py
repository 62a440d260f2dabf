"""Counts per class, the figures computed from them, and thresholds.

A class is predicted for a multi-label patch if its probability is **above** (not at) the threshold, as in torchmetrics; for
a single-label patch, the class of highest probability is predicted. Figures are defined as in scikit-learn (User guide,
Metrics and scoring) with `zero_division=0`, except that macro and weighted averages are over the classes with support (at
least one positive target). Micro averages are over all decisions.

No figure depends on the order of the patches, to the last bit: counts are integers, means are summed by `math.fsum`, and
equal probabilities are ranked as one group. So figures are the same for any number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landscale.errors import Diverged, UnknownName
from landscale.inference.added_metrics import added_figures
from landscale.inference.scores import ClassScores, Scores
from landscale.vocabulary.headline import HEADLINE

__all__ = [
    "HEADLINE",
    "THRESHOLDS",
    "ClassScores",
    "Counts",
    "Scores",
    "average_precision",
    "choose_thresholds",
    "compute_scores",
    "count_decisions",
]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Reals = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]

THRESHOLDS = ("half", "one", "smooth", "per_class")
# With this many positives, a class's own best threshold and the one shared by all classes have equal weight.
SHRINKAGE = 10.0
LOGIT_STEP = 0.1  # between the thresholds that `smooth` compares


@dataclass(frozen=True, eq=False)
class Counts:
    """True and false positives and negatives, (C,) int64 each. Counts of disjoint sets of patches can be added."""

    tp: Integers
    fp: Integers
    fn: Integers
    tn: Integers

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def support(self) -> Integers:
        """(C,) positives among the targets."""
        return self.tp + self.fn

    @property
    def total(self) -> Counts:
        """The sums over all classes, shape (1,), for micro averages."""
        return Counts(*(part.sum(keepdims=True) for part in (self.tp, self.fp, self.fn, self.tn)))

    @property
    def figures(self) -> dict[str, Floats]:
        """precision, recall, f1, f2 and jaccard, each (C,) in 0…1."""
        tp, fp, fn = self.tp, self.fp, self.fn
        return {
            "precision": _ratio(tp, tp + fp),
            "recall": _ratio(tp, tp + fn),
            "f1": _ratio(2 * tp, 2 * tp + fp + fn),
            "f2": _ratio(5 * tp, 5 * tp + fp + 4 * fn),
            "jaccard": _ratio(tp, tp + fp + fn),
        }


def count_decisions(probabilities: ArrayLike, targets: ArrayLike, thresholds: float | Floats | None) -> Counts:
    """Counts per class of N patches.

    Args:
        probabilities: (N, C) in 0…1.
        targets: (N, C), 0 or 1.
        thresholds: one or (C,); None in a single-label classifier, where the highest probability decides.

    Raises:
        ValueError: the shapes differ.
        Diverged: a probability is not finite.
    """
    p, t = _checked(probabilities, targets)
    return _compare(_decide(p, thresholds), t, axis=0)


def compute_scores(
    probabilities: ArrayLike,
    targets: ArrayLike,
    classes: Sequence[str],
    thresholds: float | Floats,
    *,
    multi_label: bool,
    split: str,
) -> Scores:
    """Compute all scores of N patches.

    `micro_f1`, `macro_f1`, `averages` and `counts` are at `thresholds`; `…_at_half` at 0.5. Thresholds do not apply to a
    single-label classifier: there, all four are computed from the class of highest probability (of equal ones, the first).

    Args:
        probabilities: (N, C) in 0…1.
        targets: (N, C), 0 or 1; one 1 per row in a single-label store.
        classes: C names.
        thresholds: one or (C,), in 0…1.
        multi_label: whether a patch may hold several classes.
        split: the name of the split, copied into the result.

    Raises ValueError and Diverged as `count_decisions` does.
    """
    p, t = _checked(probabilities, targets)
    n, c = p.shape
    if len(classes) != c:
        raise ValueError(f"{len(classes)} class names for {c} columns")
    predicted = _decide(p, thresholds if multi_label else None)
    by_class, by_patch = _compare(predicted, t, axis=0), _compare(predicted, t, axis=1)
    half = _compare(_decide(p, 0.5), t, axis=0) if multi_label else by_class

    supported, figures = by_class.support > 0, by_class.figures
    averages = {
        "micro": _averages(by_class.total, np.ones(1, np.int64)),
        "macro": _averages(by_class, supported),
        "weighted": _averages(by_class, by_class.support),
        "samples": _averages(by_patch, np.ones(n, np.int64)),
    }
    ap = list(map(average_precision, p.T.copy(), t.T.copy()))
    wrong = by_patch.fp + by_patch.fn
    shown: list[float | None] = np.broadcast_to(thresholds, c).tolist() if multi_label else [None] * c
    counts = [
        {
            "name": name,
            **{key: int(getattr(by_class, key)[i]) for key in ("tp", "fp", "fn", "tn", "support")},
            **{key: float(figure[i]) for key, figure in figures.items()},
            "ap": ap[i] if supported[i] else None,
            "threshold": shown[i],
        }
        for i, name in enumerate(classes)
    ]
    return Scores(
        split=split,
        patches=n,
        micro_f1=averages["micro"]["f1"],
        macro_f1=averages["macro"]["f1"],
        micro_f1_at_half=float(half.total.figures["f1"][0]),
        macro_f1_at_half=_averages(half, supported)["f1"],
        micro_ap=average_precision(p.ravel(), t.ravel()),
        macro_ap=math.fsum(ap) / max(int(supported.sum()), 1),
        accuracy=None if multi_label else int(by_class.tp.sum()) / max(n, 1),
        subset_accuracy=int((wrong == 0).sum()) / max(n, 1),
        hamming_loss=int(wrong.sum()) / max(p.size, 1),
        averages=averages,
        counts=cast(list[ClassScores], counts),
        extra=added_figures(p, t),
    )


def average_precision(probabilities: Reals, positive: Flags) -> float:
    """The mean, over the positives, of the precision among all that rank at least as high; 0 without a positive.

    Both arguments are (N,). Equals the step-wise `average_precision_score` of scikit-learn.
    """
    values, tp, fp, _ = _ranking(probabilities, positive)
    gained = -np.diff(tp, append=0)  # positives at each value
    return float((gained * (tp / (tp + fp))).sum() / tp[0]) if values.size else 0.0


def choose_thresholds(probabilities: ArrayLike, targets: ArrayLike, how: str) -> Floats:
    """Thresholds (C,) in 0…1, chosen on a validation split of N patches.

    - `half`: 0.5 for every class.
    - `one`: the single threshold of highest micro F1.
    - `smooth`: the single threshold of highest micro plus macro F1, each averaged over neighbouring thresholds. For
      validation splits of a few hundred patches: it finds the middle of a plateau instead of a random peak. The
      logits of the thresholds that are compared are multiples of 0.1, from the lowest to the highest probability.
    - `per_class`: the threshold of highest F1 of each class, shrunk toward the single one, because the best threshold of a
      rare class is mostly chance. With n positives, the logit of the class's own threshold has the weight n / (n + 10),
      that of the single one the rest. A class without positives gets the single one.

    For `one` and `per_class` the search is exact: thresholds midway between neighbouring probabilities are compared. Of
    equally good thresholds, the nearest to 0.5 is chosen.

    Args:
        probabilities: (N, C) in 0…1.
        targets: (N, C), 0 or 1.
        how: one of `THRESHOLDS`.

    Raises UnknownName for another `how`, ValueError and Diverged as `count_decisions` does.
    """
    if how not in THRESHOLDS:
        raise UnknownName("choice of thresholds", how, THRESHOLDS)
    p, t = _checked(probabilities, targets)
    if how == "smooth":
        return np.full(p.shape[1], _plateau(p, t))
    shared = np.full(p.shape[1], 0.5 if how == "half" else _best_threshold(p.ravel(), t.ravel()))
    if how != "per_class":
        return shared
    own = np.array(list(map(_best_threshold, p.T.copy(), t.T.copy())))
    positives = t.sum(axis=0)
    trust = positives / (positives + SHRINKAGE)
    both = np.clip([own, shared], 1e-12, 1 - 1e-12)  # the logit of 0 and 1 is infinite
    own_logit, shared_logit = np.log(both / (1 - both))
    logits = trust * own_logit + (1 - trust) * shared_logit
    return np.where(positives > 0, 1 / (1 + np.exp(-logits)), shared)


def _plateau(p: Reals, t: Flags) -> float:
    """The threshold of choice `smooth`. Even steps of the logit resolve thresholds near 0 and 1, and are 0.025 at 0.5."""
    if not p.size:
        return 0.5
    ends = np.clip(np.array([p.min(), p.max()], np.float64), 1e-6, 1 - 1e-6)  # the logit of 0 and 1 is infinite
    first, last = np.log(ends / (1 - ends)) / LOGIT_STEP
    # Two more values on either side than the ones to choose from, for smoothing.
    steps = np.arange(math.floor(first) - 2, math.ceil(last) + 3)
    grid = 1 / (1 + np.exp(-LOGIT_STEP * steps))
    positive, negative = t.sum(axis=0), (~t).sum(axis=0)
    tp, fp = (np.stack([_above(p[chosen, c], grid) for c, chosen in enumerate(flags.T)], axis=1) for flags in (t, ~t))
    counts = Counts(tp, fp, positive - tp, negative - fp)
    supported = positive > 0
    macro = np.where(supported, counts.figures["f1"], 0).sum(axis=1) / max(int(supported.sum()), 1)
    micro = _ratio(2 * tp.sum(axis=1), (2 * tp + fp + counts.fn).sum(axis=1))
    smooth = np.convolve(micro + macro, [1, 2, 3, 2, 1], mode="valid")
    best = grid[2:-2][smooth >= smooth.max() - 1e-9]  # equal but for the rounding of sums
    return float(best[np.abs(best - 0.5).argmin()])


def _above(p: Reals, thresholds: Floats) -> Integers:
    """How many of some probabilities (n,) are above each threshold (K,); sorted once, as there may be hundreds."""
    return p.size - np.searchsorted(np.sort(p), thresholds, side="right").astype(np.int64)


def _best_threshold(p: Reals, positive: Flags) -> float:
    values, tp, fp, below = _ranking(p, positive)
    reachable = values > 0  # no threshold in 0…1 lies below a probability of 0
    if not reachable.any():
        return 0.5
    # A threshold just below a negative is never better than one above it, so only those below a positive are compared.
    # The quotients are of integers so small that equal ones are equal as floats, and only these, so `==` finds all ties.
    f1 = 2 * tp / (tp + fp + tp[0])
    middle = (values + below) / 2
    middle = np.where(middle < values, middle, below)  # between adjacent floats, the mean may round up to the value
    best = middle[reachable & (f1 == f1[reachable].max())]
    return float(best[np.abs(best - 0.5).argmin()])


def _ranking(p: Reals, positive: Flags) -> tuple[Floats, Integers, Integers, Floats]:
    """The distinct probabilities of the positives in ascending order, with three arrays that belong to them.

    These are the true and the false positives at or above each, and the next lower probability of any patch, or 0. Sorting
    positives and negatives separately avoids a slow argsort.
    """
    values, multiplicity = np.unique(p[positive], return_counts=True)
    negatives = np.sort(p[~positive])
    lower = np.searchsorted(negatives, values)  # negatives strictly below each value
    zero = np.zeros(1, p.dtype)
    below = np.maximum(np.concatenate([zero, negatives])[lower], np.concatenate([zero, values])[:-1])
    tp = multiplicity[::-1].cumsum()[::-1]
    return values.astype(np.float64), tp, negatives.size - lower, below.astype(np.float64)


def _averages(counts: Counts, weights: Flags | Integers) -> dict[str, float]:
    total = max(int(weights.sum()), 1)
    return {name: math.fsum(figure * weights) / total for name, figure in counts.figures.items()}


def _compare(predicted: Flags, targets: Flags, axis: int) -> Counts:
    """Counts from two (N, C) arrays: per class (axis 0) or per patch (axis 1)."""
    tp, positive, true = (flags.sum(axis, np.int64) for flags in (predicted & targets, predicted, targets))
    return Counts(tp, positive - tp, true - tp, predicted.shape[axis] - positive - true + tp)


def _decide(p: Reals, thresholds: float | Floats | None) -> Flags:
    if thresholds is None:
        return np.asarray(p.argmax(axis=1)[:, None] == np.arange(p.shape[1]))
    return np.asarray(p > np.broadcast_to(thresholds, p.shape[1]))


def _checked(probabilities: ArrayLike, targets: ArrayLike) -> tuple[Reals, Flags]:
    p, t = np.asarray(probabilities), np.asarray(targets)
    if p.ndim != 2 or p.shape != t.shape:
        raise ValueError(f"probabilities {p.shape} and targets {t.shape} are not both (N, C)")
    if broken := p.size - np.count_nonzero(np.isfinite(p)):  # NaN would be scored as "class absent"
        raise Diverged(f"{broken} of {p.size} probabilities are not finite")
    return p, t.astype(np.bool_)


def _ratio(part: Integers, whole: Integers) -> Floats:
    return np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)
