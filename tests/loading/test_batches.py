"""The order of patches in epochs and steps; batches contain the pixels and labels of the store."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from landscale.distributed import Ranks
from landscale.errors import BadStore
from landscale.loading import (
    PatchDataset,
    batches,
    epoch_order,
    evaluation_steps,
    labelled_patches,
    rare_class_weights,
    targets_by_name,
    train_steps,
)
from landscale.store import Plane
from landscale.testing import CLASSES, make_store, rgbn_plane, sentinel_planes
from landscale.vocabulary.nomenclatures import BEN19, CLC43

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
def test_the_order_of_an_epoch_is_a_permutation_that_depends_on_its_arguments_only(patches, seed, epoch):
    patches = np.array(patches, np.int64)
    before = patches.copy()
    first = epoch_order(patches, seed, epoch)
    np.random.default_rng(5).random(7)
    np.random.seed(seed % 1000)  # noqa: NPY002  the legacy state must not matter
    torch.manual_seed(epoch)
    assert np.array_equal(epoch_order(patches, seed, epoch), first)
    assert np.array_equal(patches, before)
    assert np.array_equal(np.sort(first), np.sort(patches))


def test_the_order_differs_between_seeds_and_epochs():
    patches = np.arange(1000)
    orders = [tuple(epoch_order(patches, seed, epoch)) for seed in range(3) for epoch in range(5)]
    assert len(set(orders)) == 15
    assert tuple(patches) not in orders
    # the positions of patches in two epochs are uncorrelated
    assert abs(np.corrcoef(np.argsort(orders[0]), np.argsort(orders[1]))[0, 1]) < 0.15


def test_the_order_is_the_same_as_in_older_versions():
    """A training begun with an older version resumes with the patches of the epoch that were not yet used."""
    assert list(epoch_order(np.arange(10), 0, 0)) == [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]
    assert np.array_equal(epoch_order(np.arange(99), 7, 3), np.random.default_rng([7, 3]).permutation(99))


# ---- drawing patches of rare classes more often

weight_lists = st.lists(st.floats(0.01, 50), min_size=1, max_size=120)


@given(weight_lists, st.integers(0, 2**40), st.integers(0, 500))
@settings(max_examples=200, deadline=None)
def test_an_epoch_has_each_patch_as_often_as_its_weight_rounded_down_or_up(weights, seed, epoch):
    weights = np.array(weights)
    patches = np.arange(1000, 1000 + len(weights))
    order = epoch_order(patches, seed, epoch, weights)
    assert order.dtype == patches.dtype
    assert len(order) == len(patches)
    assert np.array_equal(order, epoch_order(patches, seed, epoch, weights.copy()))
    times = np.bincount(order - 1000, minlength=len(patches))
    expected = weights / weights.mean()
    assert (times >= np.floor(expected - 1e-6)).all()
    assert (times <= np.ceil(expected + 1e-6)).all()


def test_over_many_epochs_each_patch_is_drawn_in_proportion_to_its_weight():
    weights = np.random.default_rng(0).gamma(1.0, size=40)
    weights /= weights.mean()
    orders = [epoch_order(np.arange(40), 3, epoch, weights) for epoch in range(600)]
    times = np.mean([np.bincount(order, minlength=40) for order in orders], axis=0)
    assert np.abs(times - weights).max() < 5 * 0.5 / 600**0.5
    positions = np.array([np.flatnonzero(order == weights.argmax())[0] for order in orders])
    assert positions.min() < 5  # shuffled: the position differs from that in the split
    assert len({tuple(order) for order in orders}) == 600


@given(st.integers(1, 300), st.integers(0, 99), st.integers(0, 99))
def test_equal_weights_give_the_order_without_weights(n, seed, epoch):
    patches = np.arange(n) * 3
    assert np.array_equal(epoch_order(patches, seed, epoch, np.ones(n)), epoch_order(patches, seed, epoch))


def test_the_weight_of_a_patch_follows_its_rarest_class():
    """Of 8 patches, 4 have class a, 2 have class b, 1 has class c."""
    a, b, c = np.eye(3, dtype=np.uint8)
    targets = np.array([a, a, a, a | b, b, b & 0, c, c & 0])
    weights = rare_class_weights(targets, 0.5)
    assert weights.mean() == pytest.approx(1)
    assert weights / weights[0] == pytest.approx(np.sqrt([1, 1, 1, 2, 2, 1, 4, 1]))
    assert rare_class_weights(targets, 1.0)[6] == pytest.approx(4 * rare_class_weights(targets, 1.0)[0])
    assert np.array_equal(rare_class_weights(targets, 0.0), np.ones(8))
    assert np.array_equal(rare_class_weights(np.zeros((5, 3), np.uint8), 0.5), np.ones(5))


@given(st.integers(1, 60), st.integers(1, 6), st.integers(0, 10**6), st.floats(0, 2))
def test_weights_follow_the_frequencies_of_classes(n, classes, seed, power):
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, classes)) < rng.random(classes) ** 2).astype(np.uint8)
    weights = rare_class_weights(targets, power)
    assert weights.shape == (n,)
    assert weights.mean() == pytest.approx(1)
    assert (weights > 0).all()
    frequencies = targets.mean(0)
    assume(targets.any())
    rarest = np.where(targets, frequencies, 1.0).min(1)
    labelled = targets.any(1)
    assert weights[labelled] * rarest[labelled] ** power == pytest.approx(
        weights[labelled][0] * rarest[labelled][0] ** power
    )
    assert weights[~labelled] == pytest.approx(weights[labelled].min())


def test_patches_of_a_rare_class_are_drawn_more_often():
    targets = np.zeros((1000, 2), np.uint8)
    targets[:, 0] = 1
    targets[::100, 1] = 1
    weights = rare_class_weights(targets, 0.5)
    seen = targets[epoch_order(np.arange(1000), 0, 0, weights)].sum(0)
    assert seen[0] == 1000
    assert 90 <= seen[1] <= 100  # of 10 patches, each drawn 9 or 10 times: 10 times as often as the other 990


# ---- steps of training


@given(sizes)
@settings(max_examples=150, deadline=None)
def test_steps_are_full_and_hold_every_patch_at_most_once(size):
    n, batch, world = size
    order = epoch_order(np.arange(100, 100 + n), 3, 7)
    steps = train_steps(order, batch * world)
    seen = np.concatenate([*steps, np.array([], np.int64)])
    assert np.array_equal(seen, order[: len(seen)])
    assert n - len(seen) < batch * world  # fewer patches than a step are left out
    if n >= batch * world:
        assert all(len(rows) == batch * world for rows in steps)
    else:
        assert len(seen) == n


def test_the_patches_left_out_differ_between_epochs():
    patches = np.arange(10)
    left_out = [set(patches) - set(np.concatenate(train_steps(epoch_order(patches, 0, e), 4))) for e in range(60)]
    assert all(len(s) == 2 for s in left_out)
    assert set().union(*left_out) == set(patches)


def test_a_split_smaller_than_a_step_is_one_step():
    assert [list(rows) for rows in train_steps(np.arange(5), 8)] == [[0, 1, 2, 3, 4]]
    assert train_steps(np.arange(0), 8) == []


@given(sizes)
@settings(max_examples=40, deadline=None)
def test_the_ranks_together_take_every_patch_of_a_step(store, size):
    """For any number of ranks: each patch is on one rank, in the order of the step, and all ranks have as many steps."""
    n, batch, world = size
    order = epoch_order(store.patches("train"), 3, 7)[:n]
    steps = train_steps(order, batch)
    targets = targets_by_name(store, CLASSES)
    ranks = [
        [
            (b.rows, b.planes[("B01", "B09")].numpy().copy(), b.targets.numpy())
            for b in batches(store, ("B01",), targets, steps, CPU, ranks=Ranks(rank, world))
        ]
        for rank in range(world)
    ]
    assert {len(parts) for parts in ranks} == {len(steps)}  # a rank with one more step would block in a collective
    for k, step in enumerate(steps):
        together = np.full(len(step), -1)
        for rank, parts in enumerate(ranks):
            rows, pixels, labels = parts[k]
            together[rank::world] = rows
            assert np.array_equal(pixels, store.pixels("data_60m", rows))
            assert np.array_equal(labels, targets[rows])
        assert np.array_equal(together, step)
        lengths = [len(parts[k][0]) for parts in ranks]
        assert max(lengths) - min(lengths) <= 1


def test_a_rank_without_patches_has_an_empty_batch(store):
    parts = list(batches(store, ("B02",), store.classes, [np.arange(2)] * 3, CPU, ranks=Ranks(2, 4, 2)))
    assert [len(b.rows) for b in parts] == [0, 0, 0]
    assert [tuple(t.shape) for t in parts[0].planes.values()] == [(0, 4, 12, 12)]
    assert parts[0].targets.shape == (0, len(CLASSES))


# ---- steps of evaluation


@given(sizes)
@settings(max_examples=100, deadline=None)
def test_evaluation_batches_hold_every_patch_once_on_any_number_of_ranks(size):
    """The batches are the same for any number of ranks; rank r has batches r, r + world, …."""
    n, batch, world = size
    patches = np.arange(7, 7 + n)
    alone = evaluation_steps(patches, batch)
    assert [row for rows in alone for row in rows] == list(patches)
    assert all(1 <= len(rows) <= batch for rows in alone)
    for rank in range(world):
        steps = evaluation_steps(patches, batch, rank, world)
        assert [list(rows) for rows in steps] == [list(rows) for rows in alone[rank::world]]


# ---- pixels


@pytest.mark.parametrize("dtype", ["uint16", "uint8", "float32"])
@pytest.mark.parametrize("bands", [("B04", "B03", "B02"), ("B01", "B8A", "B02"), ("B12",)])
def test_batches_hold_the_pixels_and_labels_of_the_store(tmp_path, dtype, bands):
    store = make_store(tmp_path / "s.h5", planes=sentinel_planes(12, dtype), splits={"train": 11})
    targets = targets_by_name(store, CLASSES)
    rows = epoch_order(np.arange(11), 1, 1)
    parts = []
    for batch in batches(store, bands, targets, evaluation_steps(rows, 4), CPU):
        assert {name for names in batch.planes for name in names} >= set(bands)
        assert all(set(names) & set(bands) for names in batch.planes)  # planes without a requested band are not read
        assert batch.targets.dtype == torch.float32
        assert np.array_equal(batch.targets.numpy(), store.classes[batch.rows])
        for names, tensor in batch.planes.items():
            plane = next(p for p in store.layout.planes if p.bands == names)
            assert str(tensor.dtype) == f"torch.{dtype}"
            assert np.array_equal(tensor.numpy(), store.pixels(plane.key, batch.rows))
        parts.append(batch.rows)
    assert np.array_equal(np.concatenate(parts), rows)
    assert [len(p) for p in parts] == [4, 4, 3]


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_a_batch_stays_valid_until_the_next_is_taken(store, ahead):
    targets = targets_by_name(store, CLASSES)
    steps = [epoch_order(np.arange(90), 0, e)[:32] for e in range(12)]
    addresses = set()
    for batch, rows in zip(batches(store, store.layout.bands, targets, steps, CPU, ahead), steps, strict=True):
        time.sleep(0.005)  # time for the threads to read ahead
        assert np.array_equal(batch.rows, rows)
        for names, tensor in batch.planes.items():
            plane = next(p for p in store.layout.planes if p.bands == names)
            assert np.array_equal(tensor.numpy(), store.pixels(plane.key, rows))
        assert np.array_equal(batch.targets.numpy(), targets[rows])
        addresses.add(batch.planes[store.layout.planes[0].bands].data_ptr())
    assert len(addresses) <= ahead + 1  # buffers are reused


def test_without_steps_there_are_no_batches(store):
    assert list(batches(store, ("B02",), store.classes, [], CPU)) == []


def test_threads_end_when_the_iteration_is_abandoned(store):
    before = threading.active_count()
    stream = batches(store, ("B02",), store.classes, [np.arange(8)] * 50, CPU)
    next(stream)
    assert threading.active_count() > before  # threads read ahead
    stream.close()
    del stream
    gc.collect()
    assert threading.active_count() == before


def test_bad_patches_are_in_no_batch(tmp_path):
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
        planes=(Plane("data_10m", ("B02",), 4, 10),),
        classes=names,
        splits={"train": 30},
        labels=labels,
        signal=0,
    )
    found = targets_by_name(store, BEN19.names)
    expected = np.zeros((30, 19), np.uint8)
    for i, row in enumerate(labels):
        expected[i, BEN19.columns(names[c] for c in np.flatnonzero(row))] = 1
    assert expected.any(0).sum() > 15  # most classes occur, so that the comparison is not trivial
    assert np.array_equal(found, expected)
    assert np.array_equal(targets_by_name(store, names), labels)
    chosen = ("Pastures", "Airports")
    assert np.array_equal(targets_by_name(store, chosen), labels[:, [names.index(c) for c in chosen]])


def test_labels_are_mapped_by_name_for_any_order_of_classes(tmp_path):
    """Published BigEarthNet models list the 19 classes in two orders; both are requested of stores with 43 classes."""
    store = make_store(
        tmp_path / "s.h5",
        planes=(Plane("data_10m", ("B02",), 4, 10),),
        classes=CLC43.names,
        splits={"train": 40},
        signal=0,
    )
    alphabetical = sorted(BEN19.names)
    assert alphabetical != list(BEN19.names)
    official = targets_by_name(store, BEN19.names)
    columns = [BEN19.names.index(name) for name in alphabetical]
    assert np.array_equal(targets_by_name(store, alphabetical), official[:, columns])


def test_patches_whose_labels_all_lie_outside_the_classes_are_left_out(tmp_path):
    """57 patches of BigEarthNet v1 have only labels that belong to none of the 19 classes."""
    labels = np.zeros((6, 43), np.uint8)
    labels[[0, 1, 4], CLC43.names.index("Airports")] = 1  # belongs to none of the 19
    labels[[1, 2, 5], CLC43.names.index("Pastures")] = (
        1  # row 3 has no label at all: it stays, as in a store of its own
    )
    store = make_store(
        tmp_path / "s.h5",
        planes=(Plane("data_10m", ("B02",), 4, 10),),
        classes=CLC43.names,
        splits={"train": 4, "val": 1, "test": 1},
        labels=labels,
        signal=0,
    )
    assert labelled_patches(store, "train", BEN19.names).tolist() == [1, 2, 3]
    assert labelled_patches(store, "train", CLC43.names).tolist() == [0, 1, 2, 3]
    assert labelled_patches(store, "test", BEN19.names).tolist() == [5]
    with pytest.raises(BadStore, match="no patch in val with any of the 19 classes"):
        labelled_patches(store, "val", BEN19.names)
    assert PatchDataset(store, "train", labels="ben19").rows.tolist() == [1, 2, 3]


def test_a_class_that_is_missing_is_refused(tmp_path):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(6), splits={"train": 4})
    with pytest.raises(BadStore, match=r"s\.h5: .*unknown class 'glacier'"):
        targets_by_name(store, ("forest", "glacier"))
    with pytest.raises(BadStore, match="Urban fabric"):
        targets_by_name(store, BEN19.names)
    with pytest.raises(BadStore, match=r"lacks B12.*B02"):
        next(batches(store, ("B02", "B12"), store.classes, [np.arange(2)], CPU))
    assert Path(store.path).exists()
