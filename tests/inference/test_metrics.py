"""Metrics compared with scikit-learn and with results computed by hand; thresholds compared with brute force."""

import itertools
import json
import math
import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from landscale.errors import Diverged, UnknownName
from landscale.inference.metrics import (
    Counts,
    Scores,
    average_precision,
    choose_thresholds,
    compute_scores,
    count_decisions,
)

Array = NDArray[Any]
Case = tuple[Array, Array]
PARTS = ("tp", "fp", "fn", "tn")

PRIOR = 10  # number of positives at which a class's own threshold and the shared one have equal weight


@st.composite
def multi_label(draw: st.DrawFn, min_patches: int = 1) -> Case:
    """Few distinct probabilities give ties, also at 0, 0.5 and 1; densities 0 and 1 give classes in no and in all patches."""
    n, c = draw(st.integers(min_patches, 65)), draw(st.integers(1, 20))
    levels = draw(st.sampled_from([1, 2, 4, 10, 1000]))
    density = draw(st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    targets = (
        rng.random((n, c)) < density * rng.integers(0, 2, c) if draw(st.booleans()) else rng.random((n, c)) < density
    )
    return (rng.integers(0, levels + 1, (n, c)) / levels).astype(dtype), targets.astype(np.uint8)


@st.composite
def single_label(draw: st.DrawFn) -> Case:
    n, c = draw(st.integers(1, 65)), draw(st.integers(1, 20))
    present = draw(st.integers(1, c))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    odds = rng.random((n, c)) ** draw(st.sampled_from([1, 8]))
    return odds / odds.sum(1, keepdims=True), np.eye(c, dtype=np.uint8)[rng.integers(0, present, n)]


def names(c: int) -> list[str]:
    return [f"class {i}" for i in range(c)]


def score(case: Case, thresholds: Any = 0.5, multi: bool = True) -> Scores:
    return compute_scores(*case, names(case[0].shape[1]), thresholds, multi_label=multi, split="val")


def assert_close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)


def assert_equal_counts(a: Counts, b: Counts) -> None:
    for part in PARTS:
        assert getattr(a, part).dtype == np.int64
        np.testing.assert_array_equal(getattr(a, part), getattr(b, part))


def assert_scores_equal_sklearns(result: Scores, p: Array, t: Array, predicted: Array) -> None:
    n, c = p.shape
    rows, supported = result.counts, t.any(0)
    # with a single class scikit-learn would assume a binary problem; an empty column prevents it and changes no score
    t2, d2 = (np.hstack([x, np.zeros((n, 1))]).astype(int) for x in (t, predicted))
    functions = {
        "precision": sk.precision_score,
        "recall": sk.recall_score,
        "f1": sk.f1_score,
        "f2": lambda *a, **k: sk.fbeta_score(*a, beta=2, **k),
        "jaccard": sk.jaccard_score,
    }
    for name, function in functions.items():
        per_class = function(t2, d2, average=None, zero_division=0)[:c]
        assert_close([row[name] for row in rows], per_class)
        assert_close(result.averages["macro"][name], per_class[supported].mean() if supported.any() else 0)
        for average in ("micro", "weighted", "samples"):
            assert_close(result.averages[average][name], function(t2, d2, average=average, zero_division=0))
    assert_close(result.subset_accuracy, sk.accuracy_score(t2, d2))
    assert_close(result.hamming_loss, sk.hamming_loss(t2, d2) * (c + 1) / c)

    confusion = sk.multilabel_confusion_matrix(t2, d2)[:c]
    assert_close([[row["tn"], row["fp"], row["fn"], row["tp"]] for row in rows], confusion.reshape(c, 4))
    assert_close([row["support"] for row in rows], t.sum(0))

    ap = [sk.average_precision_score(t[:, i], p[:, i]) for i in np.flatnonzero(supported)]
    assert_close([row["ap"] for row in rows if row["ap"] is not None], ap)
    assert [row["ap"] is not None for row in rows] == supported.tolist()
    assert_close(result.macro_ap, np.mean(ap) if ap else 0)
    assert_close(result.micro_ap, sk.average_precision_score(t.ravel(), p.ravel()) if ap else 0)
    assert result.micro_f1 == result.averages["micro"]["f1"]
    assert result.macro_f1 == result.averages["macro"]["f1"]


@given(multi_label(), st.data())
def test_multi_label_scores_equal_those_of_scikit_learn(case: Case, data: st.DataObject) -> None:
    p, t = case
    c = p.shape[1]
    thresholds = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.77]), min_size=c, max_size=c)))
    result = score(case, thresholds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_scores_equal_sklearns(result, p, t, p > thresholds)
    assert [row["threshold"] for row in result.counts] == thresholds.tolist()
    assert result.accuracy is None
    at_half = score(case, 0.5)
    assert result.micro_f1_at_half == at_half.micro_f1
    assert result.macro_f1_at_half == at_half.macro_f1


@given(single_label())
def test_single_label_scores_equal_those_of_scikit_learn(case: Case) -> None:
    p, t = case
    c = p.shape[1]
    true, predicted = t.argmax(1), p.argmax(1)
    result = score(case, 0.9, multi=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_scores_equal_sklearns(result, p, t, np.eye(c, dtype=int)[predicted])
        assert_close(
            result.macro_f1, sk.f1_score(true, predicted, labels=np.unique(true), average="macro", zero_division=0)
        )
    assert_close(result.accuracy, sk.accuracy_score(true, predicted))
    assert_close(result.micro_f1, result.accuracy)
    assert (result.micro_f1_at_half, result.macro_f1_at_half) == (result.micro_f1, result.macro_f1)
    assert {row["threshold"] for row in result.counts} == {None}


def test_scores_computed_by_hand() -> None:
    """Two patches, three classes. Patch 1: a true and a false positive; patch 2: a false negative exactly at the threshold."""
    p = np.array([[0.9, 0.8, 0.1], [0.5, 0.2, 0.3]])
    t = np.array([[1, 0, 0], [1, 0, 0]])
    result = score((p, t))
    assert [[row[part] for part in PARTS] for row in result.counts] == [[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, 2]]
    assert result.micro_f1 == 0.5
    assert result.macro_f1 == pytest.approx(2 / 3)  # the one class with support
    assert_close(list(result.averages["samples"].values()), [1 / 4, 1 / 2, 1 / 3, 5 / 12, 1 / 4])
    assert result.subset_accuracy == 0
    assert result.hamming_loss == pytest.approx(1 / 3)
    assert [row["ap"] for row in result.counts] == [1, None, None]
    assert result.micro_ap == pytest.approx((1 + 2 / 3) / 2)
    assert (result.split, result.patches) == ("val", 2)
    assert [row["name"] for row in result.counts] == names(3)


def test_equal_probabilities_rank_as_one_group() -> None:
    positive = np.array([True, False, False, False])
    assert average_precision(np.full(4, 0.7), positive) == average_precision(np.full(4, 0.7), positive[::-1]) == 0.25


@given(multi_label(), st.randoms(use_true_random=False), st.sampled_from(["half", "one", "per_class"]))
def test_scores_do_not_depend_on_the_order_of_patches(case: Case, random: Any, method: str) -> None:
    order = random.sample(range(len(case[0])), len(case[0]))
    shuffled = (case[0][order], case[1][order])
    assert score(case) == score(shuffled)
    assert score(case, multi=False) == score(shuffled, multi=False)
    np.testing.assert_array_equal(choose_thresholds(*case, method), choose_thresholds(*shuffled, method))


@given(multi_label(), st.lists(st.integers(0, 65), max_size=4), st.sampled_from([None, 0.3, 0.5]))
def test_counts_of_disjoint_parts_add_up_to_the_total(case: Case, cuts: list[int], threshold: float | None) -> None:
    p, t = case
    bounds = [0, *sorted(min(cut, len(p)) for cut in cuts), len(p)]
    parts = [count_decisions(p[a:b], t[a:b], threshold) for a, b in itertools.pairwise(bounds)]
    whole = count_decisions(p, t, threshold)
    assert_equal_counts(sum(parts[1:], parts[0]), whole)
    np.testing.assert_array_equal(whole.tp + whole.fp + whole.fn + whole.tn, len(p))


@given(st.data(), st.booleans(), st.randoms(use_true_random=False))
def test_permuting_the_classes_permutes_the_scores(data: st.DataObject, multi: bool, random: Any) -> None:
    p, t = data.draw(multi_label() if multi else single_label())
    c = p.shape[1]
    order = random.sample(range(c), c)
    thresholds = np.linspace(0.2, 0.8, c)
    one = compute_scores(p, t, names(c), thresholds, multi_label=multi, split="test")
    other = compute_scores(
        p[:, order], t[:, order], [names(c)[i] for i in order], thresholds[order], multi_label=multi, split="test"
    )
    assert [one.counts[i] for i in order] == other.counts
    assert replace(one, counts=[]) == replace(other, counts=[])
    np.testing.assert_array_equal(
        choose_thresholds(p, t, "per_class")[order], choose_thresholds(p[:, order], t[:, order], "per_class")
    )


@given(multi_label(), st.booleans())
def test_json_has_no_nan_or_infinity(case: Case, multi: bool) -> None:
    result = score(case, choose_thresholds(*case, "per_class"), multi)
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert Scores.from_json(content) == result


def test_scores_without_patches() -> None:
    empty = np.zeros((0, 3))
    for multi in (True, False):
        result = score((empty, empty), multi=multi)
        assert (result.patches, result.micro_f1, result.macro_ap) == (0, 0, 0)
        json.dumps(result.to_json(), allow_nan=False)
    assert choose_thresholds(empty, empty, "per_class").tolist() == [0.5] * 3


def f1(p: Array, t: Array, threshold: float) -> float:
    predicted, hits = (p > threshold).sum(), ((p > threshold) & (t > 0)).sum()
    return float(2 * hits / max(predicted + t.sum(dtype=int), 1))


def brute_force(p: Array, t: Array) -> tuple[float, list[float]]:
    """The highest F1 of any threshold in 0…1, and the midpoints that reach it."""
    edges = np.unique(np.append(p.astype(np.float64).ravel(), [0]))
    outcomes = {(a + b) / 2: f1(p, t, a) for a, b in itertools.pairwise(edges)}
    best = max(outcomes.values(), default=0.0)
    return best, [threshold for threshold, value in outcomes.items() if value == best]


@given(multi_label())
def test_the_single_threshold_has_the_highest_micro_f1(case: Case) -> None:
    thresholds = choose_thresholds(*case, "one")
    assert thresholds.shape == (case[0].shape[1],)
    assert thresholds.dtype == np.float64
    assert len(set(thresholds)) == 1
    best, midpoints = brute_force(*case)
    assert_close(f1(*case, thresholds[0]), best)
    if best > 0:
        assert abs(thresholds[0] - 0.5) == min(abs(np.array(midpoints) - 0.5))


@given(multi_label())
def test_per_class_thresholds_are_the_best_ones_shrunk_toward_the_shared_one(case: Case) -> None:
    p, t = case
    chosen, shared = choose_thresholds(p, t, "per_class"), choose_thresholds(p, t, "one")[0]
    assert ((chosen >= 0) & (chosen <= 1)).all()

    def logit(x: float) -> float:
        return math.log(x / (1 - x))

    for i in range(p.shape[1]):
        n = int(t[:, i].sum())
        best, midpoints = brute_force(p[:, i], t[:, i])
        if n == 0:
            assert chosen[i] == shared
        elif best > 0:
            own = min(midpoints, key=lambda x: (abs(x - 0.5), x))
            assert_close(logit(chosen[i]), (n * logit(own) + PRIOR * logit(shared)) / (n + PRIOR))


def test_a_frequent_class_has_its_own_threshold_and_a_rare_one_nearly_the_shared_one() -> None:
    rng = np.random.default_rng(0)
    t = np.column_stack([rng.random(20_000) < frequency for frequency in (0.5, 0.5, 1e-4)])
    boundaries = np.array([0.1, 0.7, 0.4])
    p = np.where(t, boundaries + 0.05, boundaries - 0.05) + rng.random(t.shape) * 0.01
    chosen, shared = choose_thresholds(p, t, "per_class"), choose_thresholds(p, t, "one")[0]
    assert 0 < t[:, 2].sum() < PRIOR
    assert [f1(p[:, i], t[:, i], chosen[i]) for i in (0, 1)] == [1, 1]
    assert f1(p[:, 0], t[:, 0], shared) < 0.1
    assert abs(chosen[2] - shared) < abs(chosen[2] - boundaries[2])


def test_of_equally_good_thresholds_the_nearest_to_half_is_chosen() -> None:
    # F1 is 2/3 if the first patch is positive (threshold 0.8), and if the first four are (threshold 0.15)
    p, t = np.array([[0.9], [0.7], [0.6], [0.2], [0.1]]), np.array([[1], [0], [0], [1], [0]])
    assert choose_thresholds(p, t, "one").tolist() == [pytest.approx(0.8)]
    assert choose_thresholds(p, t, "half").tolist() == [0.5]


def test_a_threshold_separates_adjacent_floats() -> None:
    low = np.nextafter(0.7, 1)
    high = np.nextafter(low, 1)
    p, t = np.array([[low], [high]]), np.array([[0], [1]])
    for p_, t_ in ((p, t), (np.nextafter(p, 1), t)):  # in one of these two pairs the mean rounds up
        assert count_decisions(p_, t_, choose_thresholds(p_, t_, "one")).tp.tolist() == [1]
        assert count_decisions(p_, t_, choose_thresholds(p_, t_, "one")).fp.tolist() == [0]


def test_wrong_shapes_and_nan_are_refused() -> None:
    p, t = np.full((4, 2), 0.3), np.ones((4, 2))
    with pytest.raises(UnknownName, match="per_class"):
        choose_thresholds(p, t, "per_clas")
    with pytest.raises(ValueError, match=r"\(4, 2\).*\(4, 1\)"):
        count_decisions(p, t[:, :1], 0.5)
    with pytest.raises(ValueError, match="3 class names for 2 columns"):
        compute_scores(p, t, names(3), 0.5, multi_label=True, split="val")
    p[1, 1] = np.nan
    with pytest.raises(Diverged, match="1 of 8"):
        score((p, t))
    with pytest.raises(Diverged, match="1 of 8"):
        choose_thresholds(p, t, "half")


@pytest.mark.slow
def test_scores_of_a_data_set_as_large_as_bigearthnet_take_seconds() -> None:
    rng = np.random.default_rng(0)
    t = rng.random((590_000, 43), np.float32) < np.geomspace(1e-4, 0.3, 43)
    p = (rng.random(t.shape, np.float32) + t) / 2
    start = time.perf_counter()
    thresholds = choose_thresholds(p, t, "per_class")
    result = score((p, t), thresholds)
    assert time.perf_counter() - start < 60  # about 3 s on one core; a loop over patches would take minutes
    assert sum(row["support"] for row in result.counts) == t.sum()


@pytest.mark.parametrize("how", ["one", "smooth", "per_class"])
@pytest.mark.parametrize("best", [0.0003, 0.02, 0.22, 0.5, 0.98, 0.9995])
def test_the_best_threshold_is_found_wherever_the_scores_lie(how: str, best: float) -> None:
    """The logits of the positives are from 1 below the best threshold upward, those of the negatives the mirror image."""
    centre = np.log(best / (1 - best))
    offsets = np.linspace(-1, 4, 60)
    logits = np.concatenate([centre + offsets, np.repeat(centre - offsets, 4)])
    p, t = (1 / (1 + np.exp(-logits)))[:, None].astype(np.float32), np.repeat([1, 0], [60, 240])[:, None]
    chosen = choose_thresholds(p, t, how)
    reached, possible = (
        count_decisions(p, t, threshold).figures["f1"][0] for threshold in (chosen, choose_thresholds(p, t, "one"))
    )
    assert reached > possible - 0.03
    assert abs(np.log(chosen[0] / (1 - chosen[0])) - centre) < 1.2
    assert possible > count_decisions(p, t, 0.4 if best > 0.9 else 0.7).figures["f1"][0]


def test_scores_without_any_spread_have_a_threshold() -> None:
    for value in (0.0, 0.5, 1.0):
        chosen = choose_thresholds(np.full((4, 2), value), np.ones((4, 2)), "smooth")
        assert np.all((chosen > 0) & (chosen < 1))


def test_smooth_threshold_is_the_middle_of_a_plateau() -> None:
    """F1 has a plateau between 0.3 and 0.5, and a narrow peak above it, where one patch more is right by chance."""
    p = np.concatenate([np.linspace(0.5, 0.7, 50), np.linspace(0.1, 0.3, 50)])[:, None]
    t = np.repeat([1, 0], 50)[:, None]
    assert choose_thresholds(p, t, "smooth")[0] == pytest.approx(0.4, abs=0.08)
    lucky_patch = np.array([[0.699], [0.01]])
    assert choose_thresholds(np.vstack([p, lucky_patch]), np.vstack([t, [[1], [0]]]), "smooth")[0] == pytest.approx(
        0.4, abs=0.08
    )


@pytest.mark.parametrize("seed", range(8))
def test_smooth_threshold_is_the_best_of_weighted_means_over_a_grid(seed: int) -> None:
    """Micro plus macro F1 at logits that are multiples of 0.1, averaged with two neighbours on either side, weights 1 2 3 2 1."""
    rng = np.random.default_rng(seed)
    t = rng.random((40, 3)) < (0.5, 0.3, 0.2)
    p = np.clip(0.25 * t + rng.normal(0.4, 0.15, t.shape), 0, 1)
    ends = np.clip([p.min(), p.max()], 1e-6, 1 - 1e-6)
    lowest, highest = np.floor(10 * scipy.special.logit(ends[0])), np.ceil(10 * scipy.special.logit(ends[1]))
    grid = scipy.special.expit(np.arange(lowest - 2, highest + 3) / 10).tolist()
    height = [
        sum(sk.f1_score(t, p > threshold, average=average, zero_division=0) for average in ("micro", "macro"))
        for threshold in grid
    ]
    smooth = {
        grid[k]: sum(w * height[k + j] for j, w in zip(range(-2, 3), (1, 2, 3, 2, 1), strict=True))
        for k in range(2, len(grid) - 2)
    }
    chosen = choose_thresholds(p, t, "smooth")
    assert chosen.tolist() == [pytest.approx(max(smooth, key=lambda threshold: round(smooth[threshold], 9)))] * 3


def test_smooth_threshold_avoids_a_peak_next_to_a_sharp_drop() -> None:
    """F1 is 0.95 from 0.3 on, 1 from 0.6 on, and 0 from 0.65 on."""
    p = np.concatenate([np.full(20, 0.65), np.full(20, 0.3), np.full(2, 0.6)])[:, None]
    t = np.concatenate([np.ones(20), np.zeros(22)])[:, None]
    assert 0.6 < choose_thresholds(p, t, "one")[0] < 0.65
    assert choose_thresholds(p, t, "smooth")[0] == pytest.approx(1 / (1 + np.exp(-0.4)))  # two steps below the drop


def test_smooth_threshold_considers_rare_classes() -> None:
    """By micro F1 alone the threshold would be above 0.6; half of the classes are only found below 0.35."""
    rng = np.random.default_rng(0)
    common = np.concatenate([rng.uniform(0.6, 0.9, 200), rng.uniform(0.0, 0.55, 200)])
    rare = np.concatenate([rng.uniform(0.34, 0.4, 10), rng.uniform(0.0, 0.3, 390)])
    p = np.stack([common, rare], axis=1)
    t = np.stack([np.arange(400) < 200, np.arange(400) < 10], axis=1)
    assert choose_thresholds(p, t, "one")[0] > 0.5
    assert choose_thresholds(p, t, "smooth")[0] < 0.4
