"""Accuracy and areas from reference points: the published example, a perfect sample, and no bias over many samples."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landscale.errors import BadInput, LandscaleError
from landscale.map_accuracy.estimates import Z, estimate, read_estimates

# Olofsson et al. 2014, tables 8 and 9: four strata, 640 points, ten million pixels of 30 m.
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
HECTARES = np.array([200_000, 150_000, 3_200_000, 6_450_000]) * 0.09
NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")


def test_the_example_of_the_paper():
    found = estimate(COUNTS, HECTARES, NAMES)
    users = [(row.users.value, Z * row.users.error) for row in found.classes]
    producers = [(row.producers.value, Z * row.producers.error) for row in found.classes]
    areas = [(row.area.value, Z * row.area.error) for row in found.classes]
    assert (found.overall.value, Z * found.overall.error) == pytest.approx((0.947, 0.018), abs=6e-4)
    assert users == [pytest.approx(pair, abs=6e-3) for pair in [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)]]
    assert producers == [
        pytest.approx(pair, abs=6e-3) for pair in [(0.75, 0.21), (0.85, 0.25), (0.93, 0.03), (0.96, 0.02)]
    ]
    expected = [(21_158, 6_158), (11_686, 3_756), (285_770, 15_510), (581_386, 16_282)]
    assert areas == [pytest.approx(pair, abs=1) for pair in expected]
    assert sum(row.area.value for row in found.classes) == pytest.approx(HECTARES.sum())
    assert [row.points for row in found.classes] == COUNTS.sum(1).tolist()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(2, 50), st.floats(0.1, 1e6)), min_size=1, max_size=8))
def test_a_sample_without_errors_gives_the_mapped_areas_without_uncertainty(strata):
    points, areas = (np.array(column) for column in zip(*strata, strict=True))
    found = estimate(np.diag(points), areas, [f"class {k}" for k in range(len(points))])
    assert (found.overall.value, found.overall.error) == pytest.approx((1, 0))
    for row, area in zip(found.classes, areas, strict=True):
        assert (row.area.value, row.area.error) == pytest.approx((area, 0))
        assert (row.users.value, row.producers.value) == pytest.approx((1, 1))


def test_areas_have_no_bias_and_intervals_hold_the_truth():
    """A map with errors, sampled a thousand times: mean and spread of the estimates are what they state."""
    rng = np.random.default_rng(0)
    truth = rng.choice(3, 40_000, p=[0.05, 0.35, 0.6])
    mapped = np.where(rng.random(len(truth)) < 0.85, truth, rng.integers(0, 3, len(truth)))
    strata = [np.flatnonzero(mapped == k) for k in range(3)]
    areas = np.array([len(rows) for rows in strata], float)
    areas_found, errors, inside = [], [], 0
    for _ in range(1000):
        counts = np.array([np.bincount(truth[rng.choice(rows, 60, replace=False)], minlength=3) for rows in strata])
        rare = estimate(counts, areas, ("a", "b", "c")).classes[0].area
        areas_found.append(rare.value)
        errors.append(rare.error)
        inside += rare.low <= (truth == 0).sum() <= rare.high
    assert np.mean(areas_found) == pytest.approx((truth == 0).sum(), rel=0.02)
    assert np.std(areas_found) == pytest.approx(np.mean(errors), rel=0.1)
    assert 900 < inside < 985
    assert areas[0] > 1.3 * (truth == 0).sum()  # the mapped area itself is far off


def test_a_single_point_has_no_interval_and_no_point_no_estimate():
    found = estimate(np.array([[1, 0], [3, 9]]), np.array([10.0, 50.0]), ("a", "b"))
    assert math.isnan(found.classes[0].users.error)
    assert found.to_json()["classes"][0]["users"]["error"] is None
    with pytest.raises(LandscaleError, match=r"no reference point lies in the class 'a', which has 10\.0 ha"):
        estimate(np.array([[0, 0], [3, 9]]), np.array([10.0, 50.0]), ("a", "b"))
    unmapped = estimate(np.array([[0, 0], [3, 9]]), np.array([0.0, 50.0]), ("a", "b"))
    assert unmapped.classes[0].area.value == pytest.approx(12.5)


def test_a_file_is_read_back_and_anything_else_refused(tmp_path):
    found = estimate(COUNTS, HECTARES, NAMES)
    path = tmp_path / "accuracy.json"
    path.write_text(json.dumps(found.to_json()))
    again = read_estimates(path)
    assert again.classes == found.classes
    for change in ({"counts": [[1]]}, {"counts": [[-1] * 4] * 4}, {"classes": []}, {"counts": "many"}):
        path.write_text(json.dumps(found.to_json() | change))
        with pytest.raises(BadInput, match=r"accuracy\.json"):
            read_estimates(path)
