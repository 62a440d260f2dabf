"""Draws of training patches keep the classes in proportion and depend on the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscale.probing.drawing import draw_fraction, draw_shots


def single_label(counts: list[int]) -> np.ndarray:
    classes = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    return np.eye(len(counts), dtype=np.uint8)[classes]


def multi_label(n: int, seed: int = 0) -> np.ndarray:
    """Nineteen classes, as rare as one in 400, and some patches without a class."""
    rates = 0.5 * 0.7 ** np.arange(19)
    return (np.random.default_rng(seed).random((n, 19)) < rates).astype(np.uint8)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
def test_single_label_classes_keep_their_proportion(fraction: float):
    targets = single_label([1000, 600, 300, 90, 10])
    drawn = targets[draw_fraction(targets, fraction, seed=0)]
    expected = np.maximum(fraction * targets.sum(0), 1)
    assert (abs(drawn.sum(0) - expected) < 1).all()


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
def test_multi_label_classes_keep_their_proportion(fraction: float):
    targets = multi_label(3000)
    rows = draw_fraction(targets, fraction, seed=0)
    expected = fraction * targets.sum(0)
    # At random, the counts of a class would have a standard deviation of up to its root.
    assert (abs(targets[rows].sum(0) - expected) <= np.maximum(1, 0.35 * np.sqrt(expected))).all()
    assert len(rows) == pytest.approx(fraction * 3000, rel=0.1, abs=6)


@given(
    st.integers(0, 2**32),
    st.integers(1, 40),
    st.integers(1, 6),
    st.floats(0.001, 1),
    st.floats(0.05, 0.9),
    st.booleans(),
)
def test_every_class_that_occurs_is_drawn(seed, n, classes, fraction, rate, multi):
    rng = np.random.default_rng(seed)
    chosen = rng.random((n, classes)) < rate if multi else rng.integers(classes, size=(n, 1)) == np.arange(classes)
    targets = chosen.astype(np.uint8)
    rows = draw_fraction(targets, fraction, seed % 100)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(targets[rows].any(0), targets.any(0))


@pytest.mark.parametrize("draw", [lambda t, s: draw_fraction(t, 0.1, s), lambda t, s: draw_shots(t, 3, s)])
@pytest.mark.parametrize("targets", [single_label([90, 60, 30]), multi_label(300)], ids=["single", "multi"])
def test_a_draw_is_a_function_of_the_seed(draw, targets):
    np.testing.assert_array_equal(draw(targets, 0), draw(targets, 0))
    assert not np.array_equal(draw(targets, 0), draw(targets, 1))


def test_the_whole_split():
    targets = multi_label(50)
    np.testing.assert_array_equal(draw_fraction(targets, 1.0, seed=3), np.arange(50))


def test_shots_of_a_single_label_store_are_exact():
    targets = single_label([50, 20, 3])
    rows = draw_shots(targets, 5, seed=0)
    np.testing.assert_array_equal(targets[rows].sum(0), [5, 5, 3])
    assert (np.diff(rows) > 0).all()


def test_shots_of_a_multi_label_store_are_reached_with_few_patches():
    targets = multi_label(1000)
    rows = draw_shots(targets, 5, seed=0)
    counts = targets[rows].sum(0)
    assert (counts >= np.minimum(5, targets.sum(0))).all()
    assert len(rows) <= 5 * 19
    assert counts[np.argmin(np.where(targets.sum(0) >= 5, targets.sum(0), 9999))] == 5  # the rarest is drawn first


def test_all_patches_of_a_class_can_be_drawn():
    targets = single_label([90, 60, 30])
    found = np.zeros(len(targets), int)
    for seed in range(60):
        found[draw_fraction(targets, 0.1, seed)] += 1
    assert found.min() > 0
    assert found.max() < 20  # each is drawn in about 6 of 60
