"""The linear probe is the regression of scikit-learn, and its C is the one that torchgeo-bench's search finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from landscale.errors import Diverged
from landscale.probing import linear
from landscale.probing.linear import STRENGTHS, choose_strength, fit_linear

CPU = torch.device("cpu")


def problem(n: int, seed: int, *, multi_label: bool) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 8), of which the classes (n, 4) are a noisy function."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8)).astype(np.float32)
    scores = x @ np.random.default_rng(99).normal(size=(8, 4)) + 2 * rng.normal(size=(n, 4))
    targets = scores > 1 if multi_label else scores.argmax(axis=1)[:, None] == np.arange(4)
    return x, targets.astype(np.uint8)


def reference(x: np.ndarray, targets: np.ndarray, c: float, test: np.ndarray, *, multi_label: bool) -> np.ndarray:
    how = {"C": c, "tol": 1e-10, "max_iter": 10_000}
    if not multi_label:
        return LogisticRegression(**how).fit(x, targets.argmax(axis=1)).predict_proba(test)
    return np.stack([LogisticRegression(**how).fit(x, t).predict_proba(test)[:, 1] for t in targets.T], axis=1)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("c", [1e-3, 1.0, 100.0])
def test_probabilities_are_those_of_scikit_learn(c: float, multi_label: bool):
    x, targets = problem(200, 0, multi_label=multi_label)
    test, _ = problem(50, 1, multi_label=multi_label)
    found = fit_linear(x, targets, c, CPU, multi_label=multi_label).probabilities(test)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(x, targets, c, test, multi_label=multi_label), atol=2e-3)


def test_classes_without_training_patches_have_probability_0():
    x, targets = problem(100, 0, multi_label=False)
    some = ~targets[:, 2].astype(bool)
    found = fit_linear(x[some], targets[some], 1.0, CPU, multi_label=False).probabilities(x)
    assert (found[:, 2] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    only = targets[:, 1].astype(bool)
    alone = fit_linear(x[only], targets[only], 1.0, CPU, multi_label=False).probabilities(x)
    np.testing.assert_array_equal(alone, np.broadcast_to(np.eye(4)[1], alone.shape))


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_strength_is_the_first_of_highest_score_on_val(multi_label: bool, monkeypatch: pytest.MonkeyPatch):
    train, val = problem(60, 0, multi_label=multi_label), problem(80, 1, multi_label=multi_label)
    monkeypatch.setattr(linear, "STRENGTHS", STRENGTHS[::6])
    found = choose_strength(train, val, CPU, multi_label=multi_label)
    scores = []
    for c in STRENGTHS[::6]:
        p = reference(*train, c, val[0], multi_label=multi_label)
        if multi_label:
            scores.append(average_precision_score(val[1], p, average="micro"))
        else:
            scores.append((p.argmax(axis=1) == val[1].argmax(axis=1)).mean())
    assert found == STRENGTHS[::6][int(np.argmax(scores))]


def test_the_grid_is_that_of_torchgeo_bench():
    assert len(STRENGTHS) == 40
    assert STRENGTHS[0] == pytest.approx(1e-6)
    assert STRENGTHS[-1] == pytest.approx(1e4)
    np.testing.assert_allclose(np.diff(np.log10(STRENGTHS)), 10 / 39)


def test_features_that_cannot_be_fitted_end_in_one_line():
    x = np.full((6, 2), np.nan, np.float32)
    targets = np.eye(2, dtype=np.uint8)[[0, 1] * 3]
    with pytest.raises(Diverged, match="not finite, with every C"):
        choose_strength((x, targets), (x, targets), CPU, multi_label=True)
