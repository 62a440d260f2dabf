"""Pixels between the centres of windows, and items that are computed ahead."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landscale.maps import blend
from landscale.maps.ahead import ahead
from landscale.maps.blend import interpolate
from landscale.maps.windows import window_starts


def blended(grid, tops, lefts, side, shape):
    parts = list(interpolate(iter(grid), tops, lefts, side, shape))
    ends = np.cumsum([values.shape[1] for _, values in parts])
    assert [top for top, _ in parts] == [0, *ends[:-1]]
    return np.concatenate([values for _, values in parts], axis=1)


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 60),
    side=st.integers(1, 24),
    stride=st.integers(1, 24),
    rows=st.sampled_from([1, 7, 64]),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_pixels_are_interpolated_between_centres(height, width, side, stride, rows, seed):
    tops, lefts = (window_starts(length, side, min(side, stride), 1) for length in (height, width))
    grid = np.random.default_rng(seed).random((len(tops), len(lefts), 3)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blend, "ROWS", rows)
        found = blended(grid, tops, lefts, side, (height, width))
    y, x = (np.arange(length) + 0.5 for length in (height, width))
    for k in range(3):
        across = np.array([np.interp(x, np.array(lefts) + side / 2, row) for row in grid[..., k]])
        expected = np.array([np.interp(y, np.array(tops) + side / 2, column) for column in across.T]).T
        assert np.allclose(found[k], expected, atol=1e-5)


@pytest.mark.parametrize("stride", [4, 8, 12, 24])  # of windows of 24 px
def test_no_border_of_a_window_is_visible_in_a_smooth_scene(stride):
    """On a plane, pixels rise evenly from the first centre to the last. On waves, no step is larger at borders than elsewhere."""
    side, length = 24, 192
    starts = np.array(window_starts(length, side, stride, 1))
    centres = starts + side / 2
    plane = np.broadcast_to(centres[:, None, None], (len(starts), len(starts), 1)).astype(np.float32)
    steps = np.diff(blended(plane, starts, starts, side, (length, length))[0], axis=0)[13:-13]
    assert np.allclose(steps, 1, atol=1e-4)
    waves = np.sin(centres / 40)[:, None, None] + np.cos(centres / 40)[None, :, None]
    found = blended(waves.astype(np.float32), starts, starts, side, (length, length))[0]
    steps = np.abs(np.diff(found, axis=0)).max(1)
    border = np.isin(np.arange(1, length), np.concatenate([starts, starts + side]))
    assert steps[border].max() <= 1.1 * steps[~border].max()


def test_items_keep_their_order_and_are_computed_ahead():
    begun = []

    def items():
        for k in range(9):
            begun.append(k)
            yield k

    iterator = ahead(items(), 2)
    assert next(iterator) == 0
    deadline = time.monotonic() + 10
    while len(begun) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert begun == [0, 1, 2]
    assert list(iterator) == list(range(1, 9))


def test_an_error_is_raised_where_its_item_would_be():
    def items():
        yield 1
        raise ValueError("third")

    found = []
    with pytest.raises(ValueError, match="third"):
        found.extend(ahead(items(), 3))
    iterator = ahead(items(), 3)
    assert next(iterator) == 1


def test_a_consumer_that_stops_ends_the_thread_and_closes_the_items():
    closed, before = [], set(threading.enumerate())

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    iterator = ahead(items(), 2)
    next(iterator)
    iterator.close()
    assert closed == [True]
    assert set(threading.enumerate()) <= before
