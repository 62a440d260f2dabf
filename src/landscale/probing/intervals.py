"""The figures of a set of patches, and of bootstrap samples of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SAMPLES = 200
LEVEL = 95.0  # per cent of the samples that an interval holds
MULTI_LABEL = ("micro_ap", "macro_ap", "micro_f1", "macro_f1")
SINGLE_LABEL = ("accuracy", "macro_f1")
_SEED = 0  # the patches of a sample are the same for all probes of a store, so that their differences have less noise


def figure_names(*, multi_label: bool) -> tuple[str, ...]:
    """The figures, the main one first."""
    return MULTI_LABEL if multi_label else SINGLE_LABEL


class Resampling:
    """Figures of N patches, each counted any number of times.

    Figures are those of `inference.metrics` at a threshold of 0.5: F1 and average precision are those of a set in which each
    patch is repeated as often as it is counted; macro averages are over the classes that occur there.

    Args:
        probabilities: (N, C) in 0…1. targets: (N, C), 0 or 1. multi_label: whether a patch may have several classes.
    """

    def __init__(self, probabilities: NDArray[np.float32], targets: NDArray[np.uint8], *, multi_label: bool) -> None:
        n, classes = targets.shape
        self.multi_label, self.patches = multi_label, n
        positive = targets.astype(bool)
        highest = probabilities.argmax(axis=1)[:, None] == np.arange(classes)
        predicted = probabilities > 0.5 if multi_label else highest
        self._counts = [flags.astype(np.float64) for flags in (predicted & positive, predicted, positive)]
        self._rankings: list[_Ranking] = []
        if multi_label:
            patches = np.repeat(np.arange(n), classes)
            self._rankings.append(_Ranking(probabilities.ravel(), positive.ravel(), patches))
            columns = zip(probabilities.T, positive.T, strict=True)
            self._rankings += [_Ranking(p, t, np.arange(n)) for p, t in columns]

    def figures(self, counts: NDArray[np.int64]) -> dict[str, float]:
        """The figures by name, if patch i is counted `counts[i]` times."""
        weights = counts.astype(np.float64)
        tp, predicted, true = (weights @ flags for flags in self._counts)
        supported = true > 0
        f1 = 2 * tp / np.maximum(predicted + true, 1)
        macro_f1 = float(f1[supported].mean()) if supported.any() else 0.0
        if not self.multi_label:
            return {"accuracy": float(tp.sum() / max(weights.sum(), 1)), "macro_f1": macro_f1}
        micro, *each = (ranking.average_precision(weights) for ranking in self._rankings)
        return {
            "micro_ap": micro,
            "macro_ap": float(np.array(each)[supported].mean()) if supported.any() else 0.0,
            "micro_f1": float(2 * tp.sum() / max((predicted + true).sum(), 1)),
            "macro_f1": macro_f1,
        }

    def samples(self, number: int = SAMPLES) -> dict[str, NDArray[np.float64]]:
        """The figures (number,) of bootstrap samples: N patches drawn with replacement; NaN for a sample without a class."""
        rng = np.random.default_rng(_SEED)
        found = []
        for _ in range(number):
            counts = np.bincount(rng.integers(0, self.patches, size=self.patches), minlength=self.patches)
            figures = self.figures(counts)
            empty = not (counts @ self._counts[2]).any()
            found.append([np.nan if empty else value for value in figures.values()])
        return dict(zip(figure_names(multi_label=self.multi_label), np.array(found).T, strict=True))


class _Ranking:
    """Decisions in the order of their probability."""

    def __init__(self, values: NDArray[np.float32], positive: NDArray[np.bool_], patches: NDArray[np.int64]) -> None:
        order = np.argsort(-values, kind="stable")
        ordered = values[order]
        self._patches, self._positive = patches[order], positive[order]
        self._ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # equal ones count as one step

    def average_precision(self, weights: NDArray[np.float64]) -> float:
        """The mean over the positives of the precision at their rank; 0 without positives."""
        counted = weights[self._patches]
        tp = np.cumsum(counted * self._positive)[self._ends]
        total = np.cumsum(counted)[self._ends]
        gained = np.diff(tp, prepend=0.0)
        return float((gained * (tp / np.maximum(total, 1))).sum() / tp[-1]) if tp[-1] else 0.0


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 2.5th and the 97.5th percentile of the figures of bootstrap samples."""
    low, high = np.nanpercentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)


def interval_over_seeds(samples: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """The interval of the mean over seeds, from the figures of each seed (`samples_over_seeds`)."""
    return interval(samples_over_seeds(samples))


def samples_over_seeds(samples: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean over seeds (SAMPLES,) in bootstrap samples in which patches and seeds are both drawn with replacement.

    The seeds of a sample are the same for all probes with as many seeds.

    Args:
        samples: for each seed the figures (SAMPLES,), in which the patches of a sample are the same for all seeds.
    """
    values = np.stack(samples)
    seeds = np.random.default_rng(_SEED).integers(0, len(values), size=values.T.shape)
    means: NDArray[np.float64] = np.take_along_axis(values.T, seeds, axis=1).mean(axis=1)
    return means
