"""Scores of maps, compared with scikit-learn's for random pixels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from landscale.inference.pixel_scores import confusion_matrix, pixel_scores

NAMES = ("forest", "water", "town", "field")


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=60))
def test_scores_are_those_of_scikit_learn(pairs):
    reference, mapped = np.array(pairs).T
    counts = confusion_matrix(reference, mapped, 4)
    assert np.array_equal(counts, metrics.confusion_matrix(reference, mapped, labels=range(4)))
    scores = pixel_scores(counts, NAMES)
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(reference, mapped))
    present = sorted({*reference, *mapped})
    assert scores.mean_iou == pytest.approx(metrics.jaccard_score(reference, mapped, labels=present, average="macro"))
    assert scores.macro_f1 == pytest.approx(metrics.f1_score(reference, mapped, labels=present, average="macro"))
    for k, one in enumerate(scores.classes):
        assert (one.support, one.mapped) == ((reference == k).sum(), (mapped == k).sum())
        assert math.isnan(one.recall) == (k not in reference)
        assert math.isnan(one.precision) == (k not in mapped)
        assert math.isnan(one.iou) == (k not in present)


def test_pixels_without_a_reference_do_not_count():
    reference, mapped = np.array([[0, 255], [1, 1]], np.uint8), np.array([[0, 1], [1, 0]], np.uint8)
    assert confusion_matrix(reference, mapped, 2).tolist() == [[1, 0], [1, 1]]


def test_json_has_no_nan():
    found = pixel_scores(np.array([[3, 0], [0, 0]]), ("forest", "water")).to_json()
    assert found["classes"][0]["iou"] == 1
    assert found["classes"][1]["iou"] is None
    assert (found["mean_iou"], found["pixels"], found["confusion"]) == (1, 3, [[3, 0], [0, 0]])


@pytest.mark.parametrize("counts", [np.zeros((2, 3)), np.array([[1, -1], [0, 0]])])
def test_a_matrix_of_another_form_is_refused(counts):
    with pytest.raises(ValueError, match="expected 2 × 2"):
        pixel_scores(counts, ("a", "b"))


def test_a_map_without_a_class_is_refused():
    with pytest.raises(ValueError, match="from 0 to 255"):
        confusion_matrix(np.array([0, 1]), np.array([0, 255]), 2)
