"""Figures of resampled patches equal those of scikit-learn, and intervals those of torchgeo-bench; they cover."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from landscale.inference.metrics import compute_scores
from landscale.probing.intervals import SAMPLES, Resampling, interval, interval_over_seeds


def data(n: int, *, multi_label: bool, seed: int = 0, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = (rng.integers(0, 20, (n, classes)) / 20).astype(np.float32)  # many equal probabilities
    if multi_label:
        return p, (rng.random((n, classes)) < 0.2 + 0.5 * p).astype(np.uint8)
    return p, np.eye(classes, dtype=np.uint8)[rng.integers(classes, size=n)]


@pytest.mark.parametrize("multi_label", [False, True])
def test_figures_are_those_of_evaluate(multi_label: bool):
    p, t = data(300, multi_label=multi_label)
    found = Resampling(p, t, multi_label=multi_label).figures(np.ones(300, np.int64))
    scores = compute_scores(p, t, list("abcd"), 0.5, multi_label=multi_label, split="test").to_json()
    assert found == pytest.approx({name: scores[name] for name in found}, abs=1e-12)


def test_figures_of_a_sample_are_those_of_its_patches():
    p, t = data(60, multi_label=True, classes=6)
    t[:, 5] = 0
    t[0, 5] = 1  # absent in some samples
    resampling = Resampling(p, t, multi_label=True)
    for seed in range(8):
        rows = np.random.default_rng(seed).integers(0, 60, 60)
        found = resampling.figures(np.bincount(rows, minlength=60))
        there = t[rows].any(0)
        each = [average_precision_score(t[rows, c], p[rows, c]) for c in np.flatnonzero(there)]
        f1 = f1_score(t[rows][:, there], p[rows][:, there] > 0.5, average="macro", zero_division=0)
        expected = {
            "micro_ap": average_precision_score(t[rows], p[rows], average="micro"),
            "macro_ap": np.mean(each),
            "micro_f1": f1_score(t[rows], p[rows] > 0.5, average="micro"),
            "macro_f1": f1,
        }
        assert found == pytest.approx(expected, abs=1e-12)


def test_accuracy_interval_is_that_of_torchgeo_bench():
    """As its bootstrap.py describes it: rows of one call of `integers`, percentiles 2.5 and 97.5, seed 0."""
    p, t = data(150, multi_label=False)
    right = p.argmax(1) == t.argmax(1)
    rows = np.random.default_rng(0).integers(0, 150, size=(SAMPLES, 150))
    expected = np.percentile(right[rows].mean(axis=1), [2.5, 97.5])
    samples = Resampling(p, t, multi_label=False).samples()
    np.testing.assert_allclose(interval(samples["accuracy"]), expected, atol=1e-12)


def test_micro_ap_interval_is_that_of_torchgeo_bench():
    p, t = data(40, multi_label=True)
    rng = np.random.default_rng(0)
    values = []
    for _ in range(SAMPLES):
        rows = rng.integers(0, 40, size=40)
        values.append(average_precision_score(t[rows], p[rows], average="micro"))
    samples = Resampling(p, t, multi_label=True).samples()
    np.testing.assert_allclose(interval(samples["micro_ap"]), np.percentile(values, [2.5, 97.5]), atol=1e-12)


def test_samples_without_a_class_do_not_count():
    p, t = data(3, multi_label=True)
    t[:] = 0
    t[0, 0] = 1
    samples = Resampling(p, t, multi_label=True).samples()
    assert 0.2 < np.isnan(samples["micro_ap"]).mean() < 0.4  # (2/3)³ = 0.296
    assert np.isfinite(interval(samples["micro_ap"])).all()


def test_the_interval_covers_the_truth_in_95_of_100_cases():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        right = rng.random(120) < 0.8
        p = np.stack([right, ~right], axis=1).astype(np.float32)
        t = np.tile(np.array([1, 0], np.uint8), (120, 1))
        low, high = interval(Resampling(p, t, multi_label=False).samples(100)["accuracy"])
        covered += low <= 0.8 <= high
    assert 0.9 <= covered / 300 <= 0.985


def test_the_interval_over_seeds_holds_both_kinds_of_chance():
    rng = np.random.default_rng(0)
    patches = rng.normal(0, 0.01, SAMPLES)  # the same for all seeds, as one test split is
    one = interval_over_seeds([0.8 + patches])
    assert one == pytest.approx(interval(0.8 + patches))
    equal = interval_over_seeds([0.8 + patches] * 5)
    assert equal == pytest.approx(one)
    spread = interval_over_seeds([mean + patches for mean in (0.7, 0.75, 0.8, 0.85, 0.9)])
    # The mean of 5 seeds with a deviation of 0.0707 (bootstrap: ÷ n) has one of 0.0316; patches add 0.01.
    assert spread[1] - spread[0] == pytest.approx(2 * 1.96 * np.hypot(0.0316, 0.01), rel=0.25)
