"""How many labels scratch needs for a score: cases whose answer is known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscale.studies.transfer.multiples import Bounded, Multiple, labels_to_reach, multiple_of_labels

LABELS = np.array([10.0, 100.0, 1000.0])
SCORES = np.array([0.5, 0.7, 0.9])


@pytest.mark.parametrize(
    "scores,score,reached",
    [
        (SCORES, 0.6, 10**1.5),  # half of the way on a logarithmic axis
        (SCORES, 0.75, 10**2.25),
        (SCORES, 0.5, 10),
        (SCORES, 0.7, 100),
        (SCORES, 0.9, 1000),
        (SCORES, 0.4999, -np.inf),
        (SCORES, 0.9001, np.inf),
        ([0.5, 0.5, 0.9], 0.5, 10),  # the smallest number of labels
        ([0.5, 0.9, 0.7], 0.7, 10**1.5),  # fewer labels reached it already
        ([0.7, 0.5, 0.9], 0.8, 10**2.5),  # from the best score with at most 100 labels
        ([0.7, 0.5, 0.6], 0.71, np.inf),
    ],
)
def test_number_of_labels_at_which_a_curve_reaches_a_score(scores: list[float], score: float, reached: float):
    assert labels_to_reach(LABELS, np.array(scores), np.float64(score)) == pytest.approx(reached, rel=1e-12)


def test_a_curve_of_one_point_gives_only_bounds_or_equality():
    found = labels_to_reach(np.array([50.0]), np.array([[0.6]] * 3), np.array([0.5, 0.6, 0.7]))
    assert found.tolist() == [-np.inf, 50, np.inf]


def test_equal_numbers_of_labels():
    labels = np.array([10.0, 100.0, 100.0])  # shots of more patches than there are, and all labels
    assert labels_to_reach(labels, np.array([0.5, 0.7, 0.8]), np.float64(0.75)) == 100
    assert labels_to_reach(labels, np.array([0.5, 0.7, 0.7]), np.float64(0.6)) == pytest.approx(10**1.5)


scores = st.floats(0, 1)


@given(st.lists(scores, min_size=3, max_size=3), scores, scores)
def test_a_higher_score_never_needs_fewer_labels(curve: list[float], one: float, other: float):
    low, high = sorted([one, other])
    fewer, more = labels_to_reach(LABELS, np.array([curve, curve]), np.array([low, high]))
    assert fewer <= more * (1 + 1e-12)
    assert all(10 * (1 - 1e-12) <= value <= 1000 * (1 + 1e-12) for value in (fewer, more) if np.isfinite(value))


# ---- the multiple and its interval


def multiple(score: float, used: float, samples: np.ndarray, own: np.ndarray) -> Multiple:
    return multiple_of_labels(LABELS, SCORES, samples, used, score, own)


NOISE = np.random.default_rng(0).normal(0, 0.05, 200)


def test_samples_are_compared_by_their_number():
    """If the same patches make scratch and encoder equally better or worse, the multiple is certain."""
    samples = SCORES[:, None] + NOISE
    found = multiple(0.6, 5, samples, 0.6 + NOISE)
    for end in (found.value, found.low, found.high):
        assert end.value == pytest.approx(10**1.5 / 5)
        assert end.bound == "="
    other = multiple(0.6, 5, samples, 0.6 + NOISE[::-1])
    assert other.value == found.value
    assert other.low.value < 0.9 * found.value.value < 1.1 * found.value.value < other.high.value


def test_the_interval_holds_95_per_cent_of_the_samples():
    still = np.repeat(SCORES[:, None], 200, axis=1)
    own = np.random.default_rng(0).permutation(np.linspace(0.5, 0.9, 200))
    found = multiple(0.7, 10, still, own)
    ordered = np.sort(10 ** (1 + (own - 0.5) / 0.2)) / 10
    assert (found.low.value, found.high.value) == pytest.approx((ordered[4], ordered[195]))


def test_beyond_the_curve_there_are_only_bounds():
    still = np.repeat(SCORES[:, None], 200, axis=1)
    own = np.full(200, 0.7)
    assert multiple(0.95, 20, still, own).value == Bounded(50, ">")
    assert multiple(0.45, 20, still, own).value == Bounded(0.5, "<")
    some = own.copy()
    some[:10], some[10:20] = 0.4, 0.95
    found = multiple(0.7, 20, still, some)
    assert (found.value, found.low, found.high) == (Bounded(5), Bounded(0.5, "<"), Bounded(50, ">"))
    some[3:20] = 0.7  # 1.5% of the samples are outside the interval
    assert multiple(0.7, 20, still, some).low == Bounded(5)


def test_samples_without_a_class_do_not_count():
    still = np.repeat(SCORES[:, None], 200, axis=1)
    still[1, :50] = np.nan
    own = np.full(200, 0.7)
    own[40:60] = np.nan
    found = multiple(0.7, 10, still, own)
    assert (found.low, found.high) == (Bounded(10), Bounded(10))
    nothing = multiple(0.7, 10, still, np.full(200, np.nan))
    assert (nothing.low, nothing.high) == (Bounded(1, "<"), Bounded(100, ">"))


def test_texts():
    assert str(Multiple(Bounded(4.217), Bounded(0.51, "<"), Bounded(12345.6, ">"))) == "4.22 [< 0.51 … > 12,346]"
    assert str(Multiple(*[Bounded(6, ">")] * 3)) == "> 6"
    assert str(Multiple(*[Bounded(6)] * 3)) == "6 [6 … 6]"
    assert str(Multiple(Bounded(6, ">"), Bounded(2), Bounded(6, ">"))) == "> 6 [2 … > 6]"
