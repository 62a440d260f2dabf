"""The contract of `PatchStore` as tests, whatever file format the pixels are stored in.

With pytest, subclass `StoreContract` and provide a fixture `store`:

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self):
            return open_store("my.h5")

Elsewhere, call `check_store(store)`. The checks read every pixel of the train split, so use a small store.
"""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import torch

from landscale.errors import LandscaleError, UnknownName
from landscale.loading import batches, evaluation_steps
from landscale.store import BAD, COLUMNS, PENDING, REFERENCE, SHARES, SPLITS, WHOLE, PatchStore


def check_store(store: PatchStore) -> None:
    """Run all tests of `StoreContract`.

    Raises:
        AssertionError: the store breaks the contract.
    """
    contract = StoreContract()
    for name in sorted(dir(contract)):
        if name.startswith("test_"):
            getattr(contract, name)(store)


class StoreContract:
    """Tests that every open store passes; each takes the store as `store`, a fixture in pytest."""

    def test_arrays_have_a_row_per_patch(self, store: PatchStore) -> None:
        n = len(store.states)
        assert store.classes.shape == (n, len(store.layout.classes))
        assert store.splits.shape == store.states.shape == (n,)
        assert store.classes.dtype == store.splits.dtype == store.states.dtype == np.uint8
        assert np.isin(store.states, (PENDING, WHOLE, BAD)).all()
        assert (store.splits < len(SPLITS)).all()
        assert len(store) == np.count_nonzero(store.states == WHOLE)

    def test_classes_are_multi_hot_or_one_hot(self, store: PatchStore) -> None:
        whole = store.classes[store.states == WHOLE]
        assert np.isin(whole, (0, 1)).all()
        if not store.layout.multi_label:
            assert (whole.sum(axis=1) == 1).all()

    def test_planes_cover_the_same_ground(self, store: PatchStore) -> None:
        planes = store.layout.planes
        assert len({plane.key for plane in planes}) == len(planes)
        for plane in planes:
            assert len(set(plane.bands)) == len(plane.bands) > 0
            assert plane.gsd > 0
            assert math.isclose(plane.side * plane.gsd, store.layout.ground, rel_tol=1e-6)
        assert store.layout.side == max(plane.side for plane in planes)

    def test_columns_have_a_row_per_patch(self, store: PatchStore) -> None:
        n = len(store.states)
        for key in COLUMNS:
            assert store.column(key).shape == ((n, 2) if key == "origin" else (n,)), key
        for key in ("name", "tile", "crs", "date", "country"):
            assert store.column(key).dtype.kind == "U", key
        for key in SHARES:
            values = store.column(key)
            assert (np.isnan(values) | ((values >= 0) & (values <= 1))).all(), key
        assert np.array_equal(store.column("split"), store.splits)
        assert np.array_equal(store.column("state"), store.states)
        assert _refuses(lambda: store.column("no such column"))

    def test_names_are_unique(self, store: PatchStore) -> None:
        names = store.column("name")
        assert len(set(names.tolist())) == len(names)
        assert all(names.tolist())

    def test_splits_divide_the_whole_patches(self, store: PatchStore) -> None:
        sizes = store.split_sizes()
        found = []
        for split in SPLITS:
            assert store.has_split(split) == (split in sizes)
            if split in sizes:
                rows = store.patches(split)
                assert len(rows) == sizes[split]
                assert (np.diff(rows) > 0).all()
                assert (store.splits[rows] == SPLITS.index(split)).all()
                found += rows.tolist()
            else:
                assert _refuses(lambda split=split: store.patches(split))
        assert sorted(found) == np.flatnonzero(store.states == WHOLE).tolist()
        assert _refuses(lambda: store.patches("no such split"))

    def test_pixels_have_the_shape_and_dtype_of_their_plane(self, store: PatchStore) -> None:
        for plane in store.layout.planes:
            pixels = store.pixels(plane.key, self._some_rows(store))
            assert pixels.shape == (len(self._some_rows(store)), *plane.shape)
            assert pixels.dtype == plane.dtype
            assert np.isfinite(pixels).all()
            assert store.pixels(plane.key, []).shape == (0, *plane.shape)
        assert _refuses(lambda: store.pixels("no such plane"))

    def test_rows_are_read_in_any_order(self, store: PatchStore) -> None:
        rows = self._some_rows(store)
        order = np.concatenate([rows[::-1], rows[:1], rows[:1]])
        for plane in store.layout.planes:
            one_by_one = {row: store.pixels(plane.key, [row])[0] for row in rows.tolist()}
            expected = [one_by_one[row] for row in order.tolist()]
            assert np.array_equal(store.pixels(plane.key, order), np.array(expected).reshape(-1, *plane.shape))

    def test_only_the_planes_that_are_given_are_filled(self, store: PatchStore) -> None:
        rows = self._some_rows(store)
        for plane in store.layout.planes:
            out = np.zeros((len(rows), *plane.shape), plane.dtype)
            store.gather(rows, {plane.key: out})
            assert np.array_equal(out, store.pixels(plane.key, rows))

    def test_planes_are_found_by_their_bands(self, store: PatchStore) -> None:
        for plane in store.layout.planes:
            for band in plane.bands:
                found = store.planes_for([band], upsampled=plane.key == "data_super")
                assert plane in found
                assert all(band in other.bands for other in found)
        assert _refuses(lambda: store.planes_for(["no such band"]))

    def test_batches_hold_the_pixels_of_their_rows(self, store: PatchStore) -> None:
        rows = self._some_rows(store)
        for plane in store.layout.planes:
            upsampled = plane.key == "data_super"
            steps = evaluation_steps(rows, 3)
            seen = []
            for batch in batches(store, plane.bands, store.classes, steps, torch.device("cpu"), upsampled=upsampled):
                assert np.array_equal(batch.planes[plane.bands].numpy(), store.pixels(plane.key, batch.rows))
                assert np.array_equal(batch.targets.numpy(), store.classes[batch.rows])
                seen += batch.rows.tolist()
            assert seen == rows.tolist()

    def test_statistics_are_those_of_the_train_split(self, store: PatchStore) -> None:
        if not store.has_split("train"):
            assert len(store.statistics) == 0
            return
        done: set[str] = set()
        for plane in store.layout.planes:
            pixels = store.pixels(plane.key, store.patches("train")).astype(np.float64)
            for number, band in enumerate(plane.bands):
                if band == REFERENCE:  # numbers of classes have no statistics
                    assert band not in store.statistics
                    continue
                if band in done:  # in a native plane and in data_super; the statistics are those of the first
                    continue
                done.add(band)
                mean, deviation = pixels[:, number].mean(), pixels[:, number].std()
                if (mean, deviation) == (0, 0):
                    assert band not in store.statistics
                else:
                    assert np.allclose(store.statistics[band], (mean, deviation), rtol=1e-6, atol=1e-9 * abs(mean)), (
                        band
                    )
        assert set(store.statistics) <= done

    def test_every_whole_patch_is_verified_and_none_is_damaged(self, store: PatchStore) -> None:
        found = list(store.damaged())
        assert [row for row, _ in found] == np.flatnonzero(store.states == WHOLE).tolist()
        assert not any(damaged for _, damaged in found)
        assert store.damaged_columns() == ()
        assert store.proof

    def test_the_summary_is_json(self, store: PatchStore) -> None:
        summary = json.loads(json.dumps(store.summary()))
        assert summary["patches"] == len(store)
        assert summary["splits"] == store.split_sizes()
        assert summary["bytes"] == store.size > 0
        assert summary["classes"] == list(store.layout.classes)

    def test_it_can_be_sent_to_another_process(self, store: PatchStore) -> None:
        copy = pickle.loads(pickle.dumps(store))
        rows = self._some_rows(store)
        for plane in store.layout.planes:
            assert np.array_equal(copy.pixels(plane.key, rows), store.pixels(plane.key, rows))
        assert copy.layout == store.layout

    @staticmethod
    def _some_rows(store: PatchStore) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Up to 8 whole patches, spread over the store."""
        rows = np.flatnonzero(store.states == WHOLE)
        return np.asarray(rows[np.unique(np.linspace(0, len(rows) - 1, min(8, len(rows))).astype(int))], np.int64)


def _refuses(call: object) -> bool:
    """Whether a call raises one of the package's errors."""
    try:
        call()  # type: ignore[operator]
    except (LandscaleError, UnknownName):
        return True
    return False
