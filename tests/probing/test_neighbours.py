"""Nearest neighbours equal scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from landscale.probing import neighbours
from landscale.probing.neighbours import neighbour_probabilities

CPU = torch.device("cpu")


def features(n: int, seed: int) -> np.ndarray:
    """With a large common offset, at which squares of float32 lose the differences."""
    return (np.random.default_rng(seed).normal(size=(n, 6)) + 1000).astype(np.float32)


@pytest.mark.parametrize("most", [1 << 24, 400], ids=["one block", "blocks"])
def test_single_label(most: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbours, "_MOST_DISTANCES", most)
    classes = np.random.default_rng(2).integers(0, 4, 80)
    train, test = features(80, 0), features(33, 1)
    found = neighbour_probabilities(train, np.eye(4, dtype=np.uint8)[classes], test, CPU)
    reference = KNeighborsClassifier(5, algorithm="brute").fit(train.astype(np.float64), classes)
    np.testing.assert_allclose(found, reference.predict_proba(test.astype(np.float64)), atol=1e-6)
    # Of equally frequent classes, both take the first one.
    np.testing.assert_array_equal(found.argmax(axis=1), reference.predict(test.astype(np.float64)))


def test_multi_label():
    targets = (np.random.default_rng(3).random((80, 5)) < 0.4).astype(np.uint8)
    train, test = features(80, 0), features(33, 1)
    found = neighbour_probabilities(train, targets, test, CPU)
    reference = KNeighborsClassifier(5, algorithm="brute").fit(train.astype(np.float64), targets)
    expected = np.stack([p[:, 1] for p in reference.predict_proba(test.astype(np.float64))], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_fewer_patches_than_neighbours_all_vote():
    targets = np.eye(3, dtype=np.uint8)[[0, 2, 2]]
    found = neighbour_probabilities(features(3, 0), targets, features(2, 1), CPU)
    np.testing.assert_allclose(found, [[1 / 3, 0, 2 / 3]] * 2)
