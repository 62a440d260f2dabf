"""The frozen protocols give the scores, intervals and C of torchgeo-bench's own functions, where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landscale.probing.intervals import Resampling, interval
from landscale.probing.linear import STRENGTHS, choose_strength, fit_linear
from landscale.probing.neighbours import neighbour_probabilities

CPU = torch.device("cpu")
Split = tuple[np.ndarray, np.ndarray]


def splits(*, multi_label: bool) -> tuple[Split, Split, Split]:
    """Features (n, 32) and targets (n, 7) of train, val and test; the features differ in mean and scale."""
    rng = np.random.default_rng(0)
    weights, scale, mean = rng.normal(size=(32, 7)), rng.uniform(0.1, 3, 32), rng.uniform(0, 2, 32)
    found = []
    for n in (300, 150, 400):
        x = (rng.normal(size=(n, 32)) * scale + mean).astype(np.float32)
        scores = x @ weights + 6 * rng.normal(size=(n, 7))
        scores -= np.median(scores, axis=0)
        t = scores > 4 if multi_label else scores.argmax(axis=1)[:, None] == np.arange(7)
        found.append((x, t.astype(np.uint8)))
    return found[0], found[1], found[2]


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_are_equal(multi_label: bool):
    peer = pytest.importorskip("torchgeo_bench.main")
    train, val, test = splits(multi_label=multi_label)
    theirs = [a for x, t in (train, val, test) for a in (x, t.astype(np.int64) if multi_label else t.argmax(axis=1))]
    main = "micro_ap" if multi_label else "accuracy"

    def scored(p: np.ndarray) -> tuple[float, float, float]:
        resampling = Resampling(p, test[1], multi_label=multi_label)
        score = resampling.figures(np.ones(len(p), np.int64))[main]
        return (score, *interval(resampling.samples()[main]))

    neighbours = peer.evaluate_knn(*theirs[:2], *theirs[4:], seed=0, n_bootstrap=200, device="cpu")
    assert scored(neighbour_probabilities(*train, test[0], CPU)) == pytest.approx(neighbours[:3], abs=1e-6)

    regression = peer.evaluate_logistic(
        *theirs, list(STRENGTHS), 0, 200, merge_val=True, device="cpu", temp_scale=False
    )
    c = choose_strength(train, val, CPU, multi_label=multi_label)
    assert c == regression[3]
    joined = [np.concatenate([a, b]) for a, b in zip(train, val, strict=True)]
    fitted = fit_linear(joined[0], joined[1], c, CPU, multi_label=multi_label)
    assert scored(fitted.probabilities(test[0])) == pytest.approx(regression[:3], abs=1e-6)
