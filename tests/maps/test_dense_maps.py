"""Windows that are computed together: which they are, that they equal single windows where they must, and how close they are."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from landscale.loading import Native
from landscale.maps import dense
from landscale.maps.dense import dense_rows, positions, runs
from landscale.maps.windows import probability_rows, window_grid
from landscale.models.classifier import Classifier, Description
from landscale.models.dense import map_side

NAMES = ("B02", "B04", "B8A", "B01")  # at 10, 10, 20 and 60 m
SIDE = 24  # pixels of a window at 10 m


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch):
    """bfloat16 rounds differently in batches of other sizes."""
    for module in ("classifier", "dense"):
        monkeypatch.setattr(f"landscale.models.{module}.reduced_precision", lambda device: False)


def classifier_with(**changes):
    torch.manual_seed(0)
    description = Description(
        model="wide_resnet",
        bands=NAMES,
        classes=("dark", "bright", "other"),
        nomenclature="custom",
        multi_label=True,
        statistics=dict.fromkeys(NAMES, (3000.0, 1500.0)),
        side=12,
        ground=10 * SIDE,
        options={"width": 0.5},
        views=2,
    )
    classifier = Classifier(replace(description, **changes)).eval()
    with torch.no_grad():  # so that probabilities differ from window to window
        classifier.network.get_classifier().weight.mul_(8)
    return classifier


def smooth_scene(height, width, seed=0):
    """Bands of a scene at native resolution: fields of random brightness, some pixels wide, with noise."""
    rng = np.random.default_rng(seed)
    bands = {}
    for name in NAMES:
        ratio = {"B8A": 2, "B01": 6}.get(name, 1)
        rows, columns = -(-height // ratio), -(-width // ratio)
        fields = rng.integers(500, 6000, (rows // 9 + 1, columns // 9 + 1)).repeat(9, 0).repeat(9, 1)[:rows, :columns]
        bands[name] = (fields + rng.integers(0, 400, fields.shape)).astype(np.uint16)
    return bands


class ArrayPixels:
    """The part of `ScenePixels` that is needed here, with bands in memory."""

    gsd = 10.0

    def __init__(self, bands):
        self.bands = bands
        self.height, self.width = bands["B02"].shape
        self.ratios = {name: {"B8A": 2, "B01": 6}.get(name, 1) for name in bands}
        self.files = {
            name: SimpleNamespace(block_shape=(7, 7), height=len(values), width=values.shape[1])
            for name, values in bands.items()
        }
        self.reads = []

    def read(self, band, row, rows):
        self.reads.append((band, row, rows))
        return self.bands[band][row : row + rows]

    def harmonise(self, values):
        return values


class Memory:
    """Finished parts in memory."""

    def __init__(self):
        self.parts = {}

    def has(self, name):
        return name in self.parts

    def get(self, name):
        return self.parts.get(name)

    def put(self, name, array):
        self.parts[name] = array


def mapped(classifier, pixels, stride=None, done=None):
    grid = window_grid(classifier, pixels, stride)
    counted = []
    rows = list(probability_rows(classifier, pixels, grid, done or Memory(), {}, counted.append))
    assert sum(counted) == grid.windows
    assert [top for top, _ in rows] == np.cumsum([0, *(v.shape[1] for _, v in rows)])[:-1].tolist()
    return np.concatenate([values for _, values in rows], axis=1)


def single(classifier, pixels, top, left):
    """Probabilities of the window that begins at a pixel, given to the classifier alone."""
    planes: Native = {}
    for name, values in pixels.bands.items():
        ratio = pixels.ratios[name]
        y, x, side = top // ratio, left // ratio, SIDE // ratio
        planes[(name,)] = torch.from_numpy(values[y : y + side, x : x + side].copy())[None, None]
    return classifier.probabilities(planes)[0].numpy()


# ---- where the windows lie


@given(
    length=st.integers(1, 500),
    shape=st.sampled_from([(24, 3), (24, 6), (12, 12), (60, 15), (36, 4)]),
    step=st.integers(1, 14),
    grid=st.sampled_from([1, 2, 3, 6]),
)
@settings(max_examples=200, deadline=None)
def test_windows_are_a_stride_apart_up_to_the_end(length, shape, step, grid):
    side, cells = shape
    stride = side // cells * min(step, cells - 1)
    found = runs(length, side, cells, stride, grid)
    starts = positions(found, side, cells)
    last = max(0, (length - side) // grid * grid)
    assert starts[0] == 0
    assert starts[-1] == last
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= stride).all() or last < side
    for run in found:
        assert set(np.diff(run.starts)) <= {side}
        assert all(0 <= start <= last and start % grid == 0 for start in run.starts)
        assert all(0 <= k <= (len(run.starts) - 1) * cells for k in run.kept)


@pytest.mark.parametrize(
    "stride,together", [(None, True), (4, False), (8, True), (16, True), (12, False), (24, False), (48, False)]
)
def test_windows_are_computed_together_if_the_stride_is_one_of_feature_cells(stride, together):
    """The map of a window has 3×3 features, so a cell is 8 px."""
    classifier, pixels = classifier_with(), ArrayPixels(smooth_scene(90, 100))
    grid = window_grid(classifier, pixels, stride)
    assert (grid.tiling is not None) == together
    assert grid.stride == {None: 8, 4: 6, 48: 24}.get(stride, stride)


@pytest.mark.parametrize(
    "changes,side",
    [
        ({}, 3),
        ({"model": "wide_resnet_eca_ghost"}, 3),
        ({"options": {"width": 0.5, "global_pool": "max"}}, None),
        ({"options": {"width": 0.5, "global_pool": "avgmax"}}, None),
        ({"head": "query"}, None),
        ({"model": "vit_6", "options": {}}, None),
        ({"model": "trio", "options": {}}, None),
        ({"model": "lambda_resnet", "options": {}}, None),
    ],
)
def test_networks_that_do_not_end_in_a_mean_over_a_map_classify_window_by_window(changes, side):
    classifier = Classifier(replace(classifier_with().description, **({"options": {}} | changes))).eval()
    assert map_side(classifier) == side


# ---- what they contain


@pytest.mark.parametrize("views", [1, 8])
@pytest.mark.parametrize("shape", [(72, 96), (97, 80), (24, 50), (10, 30)])
def test_windows_that_the_network_was_given_are_exact_and_others_close(shape, views):
    """Exact are the windows side by side, and those at the end of the scene."""
    classifier, pixels = classifier_with(views=views), ArrayPixels(smooth_scene(*shape))
    tiling = window_grid(classifier, pixels, 8).tiling
    rows = [row for rows in list(dense_strips(classifier, pixels, tiling)) for row in rows]
    found = dict(zip(positions(tiling.rows, SIDE, 3), rows, strict=True))
    lefts = positions(tiling.columns, SIDE, 3)
    padded = {
        name: np.pad(
            v,
            [
                (0, max(0, SIDE // r - v.shape[0])),
                (0, max(0, SIDE // r - v.shape[1])),
            ],
            mode="edge",
        )
        for name, v in pixels.bands.items()
        for r in [pixels.ratios[name]]
    }
    whole = ArrayPixels(padded)
    exact, close = [], []
    for top, row in found.items():
        for left, values in zip(lefts, row, strict=True):
            if top % 6 or left % 6:  # inside a pixel of 60 m, where no single window can begin
                continue
            given = any(top in run.starts for run in tiling.rows) and any(left in run.starts for run in tiling.columns)
            (exact if given else close).append(np.abs(values - single(classifier, whole, top, left)).max())
    assert max(exact) < 1e-5
    if close:
        assert np.mean(close) < 0.02
        assert np.max(close) < 0.1


def dense_strips(classifier, pixels, tiling):
    from landscale.maps.strips import EmptyPixels, read_strips

    needed = [True] * len(tiling.tops)
    strips = read_strips(pixels, tiling.tops, needed, SIDE, max(SIDE, pixels.width), EmptyPixels(pixels))
    return (rows for rows in dense_rows(classifier, strips, tiling, pixels, {}) if rows is not None)


def test_the_map_does_not_depend_on_how_many_windows_are_computed_at_once(monkeypatch):
    classifier, pixels = classifier_with(), ArrayPixels(smooth_scene(100, 130))
    expected = mapped(classifier, pixels)
    for batch in (1, 2, 5):
        monkeypatch.setattr(dense, "BATCH", batch)
        assert np.allclose(mapped(classifier, pixels), expected, atol=1e-6)


def test_a_uniform_scene_gives_a_uniform_map():
    """Every window has the same features of each position, so no trace of the windows side by side remains."""
    classifier = classifier_with()
    pixels = ArrayPixels({name: np.full_like(values, 2345) for name, values in smooth_scene(130, 110).items()})
    for stride in (8, 16):
        found = mapped(classifier, pixels, stride)
        assert np.ptp(found, axis=(1, 2)).max() < 1e-5


def test_the_map_turns_with_the_scene():
    """With all eight views, and windows side by side that fit the scene."""
    classifier = classifier_with(views=8)
    pixels = ArrayPixels(smooth_scene(96, 96))
    turned = ArrayPixels({name: np.rot90(values).copy() for name, values in pixels.bands.items()})
    assert np.allclose(mapped(classifier, turned), np.rot90(mapped(classifier, pixels), axes=(1, 2)), atol=1e-5)


# ---- reading and resuming


def test_every_block_is_decoded_once():
    pixels = ArrayPixels(smooth_scene(131, 60))
    for stride in (8, 12):
        pixels.reads = []
        mapped(classifier_with(), pixels, stride)
        for name, file in pixels.files.items():
            rows = [row for band, first, n in pixels.reads if band == name for row in range(first, first + n)]
            assert len(rows) == len(set(rows))
            assert file.height - len(rows) <= 6 // pixels.ratios[name]
        assert sum(n for band, _, n in pixels.reads if band == "B02") == 131


@pytest.mark.parametrize("stride", [8, 12])
def test_any_finished_parts_give_the_same_map(stride):
    classifier, pixels = classifier_with(), ArrayPixels(smooth_scene(120, 60))
    complete = Memory()
    expected = mapped(classifier, pixels, stride, complete)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        some = Memory()
        some.parts = {name: part for name, part in complete.parts.items() if rng.random() < 0.5}
        assert np.allclose(mapped(classifier, pixels, stride, some), expected, atol=1e-6)
        assert some.parts.keys() == complete.parts.keys()


def test_finished_parts_are_not_computed_again(monkeypatch):
    classifier, pixels = classifier_with(), ArrayPixels(smooth_scene(120, 60))
    done = Memory()
    mapped(classifier, pixels, 8, done)
    calls = []
    maps = dense.window_maps
    monkeypatch.setattr(dense, "window_maps", lambda *given: calls.append(1) or maps(*given))
    mapped(classifier, pixels, 8, done)
    assert calls == []
    del done.parts["72"]
    mapped(classifier, pixels, 8, done)
    assert len(calls) == 1  # this row of windows side by side and the one above, in one batch


def test_exactly_the_pixels_without_data_are_nan():
    bands = smooth_scene(95, 61)
    empty = np.zeros((95, 61), bool)
    empty[30:50, 11:40] = empty[-3:] = True
    for name in ("B02", "B04"):
        bands[name][empty] = 0
    bands["B02"][0, 0] = 0
    found = mapped(classifier_with(), ArrayPixels(bands))
    assert np.array_equal(np.isnan(found), np.broadcast_to(empty, found.shape))
