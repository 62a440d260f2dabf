"""Which patches a step takes, and that their pixels and labels are the store's."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from landscale.batches import batches, epoch_order, evaluation_steps, targets_by_name, train_steps
from landscale.errors import BadStore
from landscale.labels import BEN19, CLC43
from landscale.store import Plane
from stores import CLASSES, make_store, rgbn_plane, sentinel_planes

CPU = torch.device("cpu")
sizes = st.tuples(st.integers(0, 90), st.integers(1, 17), st.integers(1, 5))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("batches") / "s.h5", planes=sentinel_planes(12), seed=4)


# ---- order


@given(
    patches=st.lists(st.integers(0, 10_000), unique=True, max_size=200),
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 5000),
)
@settings(max_examples=40, deadline=None)
def test_order_is_a_permutation_and_a_pure_function(patches, seed, epoch):
    patches = np.array(patches, np.int64)
    before = patches.copy()
    first = epoch_order(patches, seed, epoch)
    np.random.default_rng().random(7)
    np.random.seed(seed % 1000)  # noqa: NPY002  the legacy state must not matter
    torch.manual_seed(epoch)
    assert np.array_equal(epoch_order(patches, seed, epoch), first)
    assert np.array_equal(patches, before)
    assert np.array_equal(np.sort(first), np.sort(patches))


def test_order_differs_by_seed_and_epoch():
    patches = np.arange(1000)
    orders = [tuple(epoch_order(patches, seed, epoch)) for seed in range(3) for epoch in range(5)]
    assert len(set(orders)) == 15
    assert tuple(patches) not in orders
    # an order mixes: a patch's place in an epoch says nothing about its place in the next
    assert abs(np.corrcoef(np.argsort(orders[0]), np.argsort(orders[1]))[0, 1]) < 0.15


# ---- steps of training


@given(sizes)
@settings(max_examples=150, deadline=None)
def test_a_step_is_the_same_for_any_number_of_ranks(size):
    n, batch, world = size
    order = epoch_order(np.arange(100, 100 + n), 3, 7)
    ranks = [train_steps(order, batch, rank, world) for rank in range(world)]
    alone = train_steps(order, batch * world)
    assert len({len(steps) for steps in ranks}) == 1  # a rank with a step more would wait for ever
    if n >= world:
        assert len(ranks[0]) == len(alone)
    for k, rows in enumerate(alone if n >= world else []):
        together = np.concatenate([steps[k] for steps in ranks])
        assert sorted(together) == sorted(rows)
        shares = [len(steps[k]) for steps in ranks]
        assert max(shares) - min(shares) <= (n < batch * world)  # equal, so that the mean of means is the mean
    seen = np.concatenate([rows for steps in ranks for rows in steps] or [np.array([], np.int64)])
    assert len(np.unique(seen)) == len(seen)
    assert set(seen) <= set(order)
    assert n - len(seen) < batch * world  # less than a batch is left out
    if n >= batch * world:
        assert all(len(rows) == batch for steps in ranks for rows in steps)


def test_what_is_left_out_changes_from_epoch_to_epoch():
    patches = np.arange(10)
    left = [set(patches) - set(np.concatenate(train_steps(epoch_order(patches, 0, e), 4))) for e in range(60)]
    assert all(len(s) == 2 for s in left)
    assert set().union(*left) == set(patches)


def test_a_small_split_is_a_batch():
    assert [list(rows) for rows in train_steps(np.arange(5), 8)] == [[0, 1, 2, 3, 4]]
    assert [[list(r) for r in train_steps(np.arange(5), 8, k, 2)] for k in (0, 1)] == [[[0, 2, 4]], [[1, 3]]]


# ---- steps of evaluation


@given(sizes)
@settings(max_examples=100, deadline=None)
def test_evaluation_sees_every_patch_exactly_once(size):
    n, batch, world = size
    patches = np.arange(7, 7 + n)
    ranks = [evaluation_steps(patches, batch, rank, world) for rank in range(world)]
    seen = [row for steps in ranks for rows in steps for row in rows]
    assert sorted(seen) == list(patches)
    assert all(1 <= len(rows) <= batch for steps in ranks for rows in steps)
    together = np.full(n, -1)  # as `infer` puts it together: rank r holds every world-th patch from r on
    for rank, steps in enumerate(ranks):
        together[rank::world] = np.concatenate([*steps, np.array([], np.int64)])
    assert np.array_equal(together, patches)


# ---- pixels


@pytest.mark.parametrize("dtype", ["uint16", "uint8", "float32"])
@pytest.mark.parametrize("bands", [("B04", "B03", "B02"), ("B01", "B8A", "B02"), ("B12",)])
def test_pixels_are_the_stores(tmp_path, dtype, bands):
    store = make_store(tmp_path / "s.h5", planes=sentinel_planes(12, dtype), splits={"train": 11})
    targets = targets_by_name(store, CLASSES)
    rows = epoch_order(np.arange(11), 1, 1)
    parts = []
    for batch in batches(store, bands, targets, evaluation_steps(rows, 4), CPU):
        assert {name for names in batch.planes for name in names} >= set(bands)
        assert all(set(names) & set(bands) for names in batch.planes)  # a plane nobody asked for is not read
        assert batch.targets.dtype == torch.float32
        assert np.array_equal(batch.targets.numpy(), store.classes[batch.rows])
        for names, tensor in batch.planes.items():
            plane = next(p for p in store.layout.planes if p.bands == names)
            assert str(tensor.dtype) == f"torch.{dtype}"
            assert np.array_equal(tensor.numpy(), store.planes[plane.key][batch.rows])
        parts.append(batch.rows)
    assert np.array_equal(np.concatenate(parts), rows)
    assert [len(p) for p in parts] == [4, 4, 3]


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_a_batch_stays_valid_until_the_next_is_asked_for(store, ahead):
    targets = targets_by_name(store, CLASSES)
    steps = [epoch_order(np.arange(90), 0, e)[:32] for e in range(12)]
    places = set()
    for batch, rows in zip(batches(store, store.layout.bands, targets, steps, CPU, ahead), steps, strict=True):
        time.sleep(0.005)  # the threads gather what they may
        assert np.array_equal(batch.rows, rows)
        for names, tensor in batch.planes.items():
            plane = next(p for p in store.layout.planes if p.bands == names)
            assert np.array_equal(tensor.numpy(), store.planes[plane.key][rows])
        assert np.array_equal(batch.targets.numpy(), targets[rows])
        places.add(batch.planes[store.layout.planes[0].bands].data_ptr())
    assert len(places) <= ahead + 1  # memory is used again


def test_no_steps_no_batches(store):
    assert list(batches(store, ("B02",), store.classes, [], CPU)) == []


def test_leaving_early_leaves_no_thread(store):
    before = threading.active_count()
    stream = batches(store, ("B02",), store.classes, [np.arange(8)] * 50, CPU)
    next(stream)
    assert threading.active_count() > before  # it does gather ahead
    stream.close()
    del stream
    gc.collect()
    assert threading.active_count() == before


def test_bad_patches_are_never_given(tmp_path):
    store = make_store(tmp_path / "s.h5", splits={"train": 10, "val": 4}, bad=(3, 7, 12))
    assert list(store.patches("train")) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert list(store.patches("val")) == [10, 11, 13]


# ---- labels


def test_labels_are_mapped_by_name(tmp_path):
    rng = np.random.default_rng(2)
    order = rng.permutation(43)  # not the official order: columns are found by name
    names = [CLC43.names[k] for k in order]
    labels = (rng.random((30, 43)) < 0.1).astype(np.uint8)
    store = make_store(
        tmp_path / "s.h5",
        planes=(Plane("data_10m", ("B02",), 4),),
        classes=names,
        splits={"train": 30},
        labels=labels,
        signal=0,
    )
    found = targets_by_name(store, BEN19.names)
    expected = np.zeros((30, 19), np.uint8)
    for i, row in enumerate(labels):
        expected[i, BEN19.columns(names[c] for c in np.flatnonzero(row))] = 1
    assert expected.any(0).sum() > 15  # the check has something to say about most classes
    assert np.array_equal(found, expected)
    assert np.array_equal(targets_by_name(store, names), labels)
    some = ("Pastures", "Airports")
    assert np.array_equal(targets_by_name(store, some), labels[:, [names.index(c) for c in some]])


def test_labels_are_mapped_whatever_the_order_asked_for(tmp_path):
    """Published BigEarthNet models list the 19 classes in two orders; both are asked of stores with 43."""
    store = make_store(
        tmp_path / "s.h5",
        planes=(Plane("data_10m", ("B02",), 4),),
        classes=CLC43.names,
        splits={"train": 40},
        signal=0,
    )
    by_alphabet = sorted(BEN19.names)
    assert by_alphabet != list(BEN19.names)
    official = targets_by_name(store, BEN19.names)
    columns = [BEN19.names.index(name) for name in by_alphabet]
    assert np.array_equal(targets_by_name(store, by_alphabet), official[:, columns])


def test_a_class_that_is_missing_is_refused(tmp_path):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(6), splits={"train": 4})
    with pytest.raises(BadStore, match=r"s\.h5: .*unknown class 'glacier'"):
        targets_by_name(store, ("forest", "glacier"))
    with pytest.raises(BadStore, match="Urban fabric"):
        targets_by_name(store, BEN19.names)
    with pytest.raises(BadStore, match=r"lacks B12.*B02"):
        next(batches(store, ("B02", "B12"), store.classes, [np.arange(2)], CPU))
    assert Path(store.path).exists()
