"""Maps of classifiers of pixels: their probabilities blended, the same whatever is interrupted, without seams."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from landscale.maps.pixelwise import blended_rows, needed_rows, triangular_weights
from landscale.maps.windows import window_starts
from landscale.models.classifier import Classifier
from landscale.runtime.parts import Parts
from mapped import Stub, description_with, draw_scene, predict, write_scene

SIDE = 12


class PixelStub(Stub):
    """Gives each pixel its B02 / 10,000 and the rest as probabilities, so blending must return them whatever the windows."""

    def __init__(self, bands=("B02",), **changes):
        super().__init__(bands, head="pixels", multi_label=False, thresholds=(), **changes)

    def probabilities(self, planes):
        (tensor,) = planes.values()
        values = tensor.float()[:, 0] / 10_000
        return torch.stack([values, 1 - values], 1)


@pytest.mark.parametrize("shape", [(12, 12), (30, 42), (7, 50), (25, 13)])
@pytest.mark.parametrize("stride", [None, 5, 12])
def test_a_pixel_keeps_its_own_probability(tmp_path, shape, stride):
    values = np.random.default_rng(0).integers(1, 9000, shape, np.uint16)
    scene = write_scene(tmp_path / "scene", {"B02": values})
    written = predict(PixelStub(), scene, tmp_path / "map.tif", stride, probabilities="float32")
    with rasterio.open(written.files["probabilities"]) as file:
        assert np.allclose(file.read(1), values / 10_000, atol=6e-4)  # the precision of float16
    with rasterio.open(written.map) as file:
        assert (file.read(1) == (values < 5000)).all()
        assert file.tags()["CLASS_RULE"] == "the likeliest class of the pixel"


def test_parts_that_are_kept_give_the_same_map(tmp_path):
    rng = np.random.default_rng(1)
    tops, height = window_starts(50, SIDE, 5, 1), 50
    rows = [rng.random((3, SIDE, 20), np.float32) for _ in tops]
    done = Parts(tmp_path)
    whole = list(blended_rows(rows, tops, SIDE, height, done, [True] * len(tops)))
    assert [top for top, _ in whole] == tops
    assert sum(values.shape[1] for _, values in whole) == height
    for kept in ([0], [3, 4], [*range(1, len(tops))], [len(tops) - 1], range(0, len(tops), 2)):
        missing = [k not in kept for k in range(len(tops))]
        wanted = needed_rows(tops, SIDE, missing)
        again = blended_rows(
            [row if want else None for row, want in zip(rows, wanted, strict=True)], tops, SIDE, height, done, missing
        )
        for (_, first), (_, second) in zip(whole, again, strict=True):
            assert np.array_equal(first, second)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, SIDE), st.data())
def test_exactly_the_rows_that_reach_into_a_missing_part_are_needed(length, stride, data):
    tops = window_starts(length, SIDE, stride, 1)
    missing = data.draw(st.lists(st.booleans(), min_size=len(tops), max_size=len(tops)))
    ends = [*tops[1:], max(length, tops[-1] + SIDE)]
    for j, wanted in enumerate(needed_rows(tops, SIDE, missing)):
        reached = any(
            lacks and tops[j] < end and tops[k] < tops[j] + SIDE
            for k, (lacks, end) in enumerate(zip(missing, ends, strict=True))
        )
        assert wanted == reached


def test_blending_changes_evenly_across_the_border_of_a_window():
    """Two rows of windows that disagree: the step from row to row is nowhere larger than the weights' own."""
    tops = [0, SIDE // 2, SIDE]
    rows = [np.full((1, SIDE, 4), value, np.float32) for value in (0.0, 1.0, 0.0)]

    class Nothing(Parts):
        def __init__(self):
            pass

        def put(self, name, array):
            pass

    parts = blended_rows(rows, tops, SIDE, 2 * SIDE, Nothing(), [True] * 3)
    column = np.concatenate([values[0, :, 0] for _, values in parts])
    assert np.abs(np.diff(column)).max() <= 2 / SIDE + 1e-3
    assert column.max() > 0.9


def test_weights_are_positive_and_symmetric():
    for side in (1, 2, 5, 120):
        weights = triangular_weights(side)
        assert (weights > 0).all()
        assert np.allclose(weights, weights[::-1])
        assert weights.argmax() in ((side - 1) // 2, side // 2)


def test_a_trained_network_maps_its_scene(tmp_path):
    """The real network, with an input coarser than the window: shapes, blending and the class map fit together."""
    torch.manual_seed(0)
    d = description_with(("B02", "B8A"), head="pixels", multi_label=False, thresholds=(), side=24, ground=480, views=2)
    scene = write_scene(tmp_path / "scene", draw_scene(100, 100, names=("B02", "B8A")))
    written = predict(Classifier(d).eval(), scene, tmp_path / "map.tif", probabilities="float32")
    with rasterio.open(written.files["probabilities"]) as file:
        values = file.read()
        assert file.descriptions == ("dark", "bright")
    assert np.allclose(values.sum(0), 1, atol=2e-3)
