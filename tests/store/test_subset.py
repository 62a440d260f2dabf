"""A store with fewer patches to train on differs from the whole one in its train split alone."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from landscale.errors import BadInput
from landscale.store import PatchStore, subset
from landscale.testing import make_store, rgbn_plane
from landscale.training.trainer import Trainer
from trainings import PLAIN, learn


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PatchStore:
    splits = {"train": 12, "val": 6, "test": 4}
    return make_store(tmp_path_factory.mktemp("subset") / "s.h5", planes=rgbn_plane(12), splits=splits)


def test_only_the_train_split_differs(store: PatchStore):
    part = subset(store, np.array([7, 2, 3]))
    assert part.patches("train").tolist() == [2, 3, 7]
    assert part.split_sizes() == {"none": 9, "train": 3, "val": 6, "test": 4}
    assert np.array_equal(part.column("split"), part.splits)
    for split in ("val", "test"):
        np.testing.assert_array_equal(part.patches(split), store.patches(split))
    np.testing.assert_array_equal(part.pixels("data_10m", [2, 13]), store.pixels("data_10m", [2, 13]))
    np.testing.assert_array_equal(part.column("name"), store.column("name"))
    assert part.statistics == store.statistics
    assert store.split_sizes()["train"] == 12


def test_digests_differ_from_those_of_other_subsets(store: PatchStore):
    parts = [subset(store, np.array(rows)) for rows in ([2, 3], [3, 2], [2, 4])]
    first, same, other = ((part.fingerprint(), part.attributes["plan"]) for part in parts)
    assert first == same
    assert len({*first, *other, store.fingerprint(), store.attributes["plan"]}) == 6


def test_another_process_gets_the_subset(store: PatchStore):
    copied = pickle.loads(pickle.dumps(subset(store, np.array([5, 1]))))
    assert copied.patches("train").tolist() == [1, 5]


@pytest.mark.parametrize("rows", [[2, 2], [2, 13], [99]])
def test_rows_of_other_splits_are_refused(store: PatchStore, rows: list[int]):
    with pytest.raises(ValueError, match="different rows of the train split"):
        subset(store, np.array(rows))


def test_a_training_sees_only_these_patches(store: PatchStore, tmp_path, monkeypatch: pytest.MonkeyPatch):
    seen: set[int] = set()
    true = Trainer.step

    def step(self, parts, *more):
        seen.update(int(row) for rows in parts for row in rows)
        return true(self, parts, *more)

    monkeypatch.setattr(Trainer, "step", step)
    recipe = replace(PLAIN, epochs=2, batch=4)
    learn(recipe, subset(store, np.array([2, 3, 7, 11])), tmp_path / "run")
    assert seen == {2, 3, 7, 11}
    with pytest.raises(BadInput, match="another store"):
        learn(recipe, subset(store, np.array([2, 3, 7, 10])), tmp_path / "run")
