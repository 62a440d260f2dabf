"""The published LMDB of BigEarthNet v2, opened as a store, equals the HDF5 store that is prepared from it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archives import GSD, metadata, pixels, write_v2
from conftest import Cli
from landscale.datasets.bigearthnet import folders as bigearthnet
from landscale.datasets.bigearthnet.lmdb import survey
from landscale.errors import BadInput
from landscale.loading import batches
from landscale.preparation import prepare_survey
from landscale.store import PatchStore, open_store
from landscale.store import lmdb as lmdb_environments
from landscale.store.statistics import TrainStatistics
from lmdbs import PATCHES, S1, WORDS, put, radar, refused, value, write

CPU = torch.device("cpu")


def prepared(path: Path, store: Path) -> PatchStore:
    prepare_survey(survey([(None, path)]), store)
    return open_store(store)


def same(store: PatchStore, other: PatchStore) -> None:
    """Assert that two stores hold the same patches, in the same order, bit by bit."""
    assert store.layout == other.layout
    assert store.split_sizes() == other.split_sizes()
    for key in ("name", "split", "tile", "date", "country", "snow", "cloud", "state", "crs", "nodata_share"):
        assert np.array_equal(store.column(key), other.column(key), equal_nan=key.endswith("share")), key
    assert np.array_equal(store.classes, other.classes)
    rows = np.arange(len(store.states))
    for plane in store.layout.planes:
        assert np.array_equal(store.pixels(plane.key, rows), other.pixels(plane.key, rows))
    assert dict(store.statistics) == dict(other.statistics)
    assert len(store.statistics) == len(store.layout.bands)


# ---- its content


def test_the_lmdb_equals_the_store_that_is_prepared_from_it(reben_lmdb: Path, tmp_path: Path) -> None:
    same(open_store(reben_lmdb), prepared(reben_lmdb, tmp_path / "s.h5"))


def test_the_lmdb_equals_the_store_of_the_archive(reben_lmdb: Path, tmp_path: Path) -> None:
    """The same patches as GeoTIFFs, read by code that shares nothing with the LMDB reader."""
    prepare_survey(bigearthnet.survey([(None, write_v2(tmp_path / "v2", PATCHES))]), tmp_path / "v2.h5")
    archive, store = open_store(tmp_path / "v2.h5"), open_store(reben_lmdb)
    order = np.argsort(archive.column("name"))
    assert list(store.column("name")) == sorted(p.v2 for p in PATCHES)
    for key in ("name", "split", "tile", "date", "country", "snow", "cloud"):
        assert np.array_equal(store.column(key), archive.column(key)[order]), key
    assert np.array_equal(store.classes, archive.classes[order])
    for plane in store.layout.planes:
        assert np.array_equal(store.pixels(plane.key, np.arange(16)), archive.pixels(plane.key, order))
    assert dict(store.statistics) == archive.statistics


@given(rows=st.lists(st.integers(0, 15), max_size=24), bands=st.sets(st.sampled_from(sorted(GSD)), min_size=1))
@settings(max_examples=40)
def test_batches_hold_the_pixels_of_their_rows(reben_lmdb: Path, rows: list[int], bands: set[str]) -> None:
    store = open_store(reben_lmdb)
    numbers = [int(name.rsplit("_", 2)[1]) for name in store.column("name")]
    for batch in batches(store, tuple(bands), store.classes, [np.array(rows, np.int64)], CPU):
        assert bands <= {band for names in batch.planes for band in names}
        assert all(set(names) & bands for names in batch.planes)
        for names, tensor in batch.planes.items():
            expected = [[pixels(numbers[row], band) for band in names] for row in rows]
            assert np.array_equal(tensor.numpy(), np.array(expected, np.uint16).reshape(tensor.shape))
        assert np.array_equal(batch.targets.numpy(), store.classes[rows])


def test_sentinel_1_and_2(lmdb_of_both: Path, tmp_path: Path) -> None:
    store = open_store(lmdb_of_both)
    assert [p.key for p in store.layout.planes] == ["data_10m", "data_20m", "data_60m", "data_s1"]
    numbers = [int(name.rsplit("_", 2)[1]) for name in store.column("name")]
    expected = np.array([[radar(k, band) for band in S1] for k in numbers])
    assert np.array_equal(store.pixels("data_s1", np.arange(16)), expected)
    assert store.statistics["VV"][0] == pytest.approx(expected[store.patches("train"), 0].mean(dtype=float))
    same(store, prepared(lmdb_of_both, tmp_path / "s.h5"))
    assert not any(bad for _, bad in store.damaged())


def test_sentinel_1_alone(tmp_path: Path) -> None:
    store = open_store(write(tmp_path / "s1", [], PATCHES[:5]))
    assert store.layout.bands == S1
    assert list(store.column("name")) == sorted(p.v2 for p in PATCHES[:5])
    same(store, prepared(tmp_path / "s1", tmp_path / "s.h5"))


def test_metadata_without_names_of_sentinel_1_patches(lmdb_copy: Path) -> None:
    metadata(PATCHES).drop(columns="s1_name").to_parquet(lmdb_copy / "metadata.parquet")
    assert len(open_store(lmdb_copy)) == 16


def test_only_patches_in_both_environment_and_metadata_are_included(tmp_path: Path) -> None:
    """If the environment has both instruments, patches without a Sentinel-1 partner are left out as well."""
    path = write(tmp_path / "some", PATCHES[2:9], PATCHES[5:12])
    put(path, {"S2A_MSIL2A_20200101T000000_N9999_R000_T33UUP_00_00": b"no tensors", "reference": b""})
    assert list(open_store(path).column("name")) == sorted(p.v2 for p in PATCHES[5:9])
    refused(write(tmp_path / "apart", PATCHES[:4], PATCHES[4:]), tmp_path / "apart", "holds none of the 16 patches")


def test_a_file_without_folder_and_metadata_above(tmp_path: Path, reben_lmdb: Path) -> None:
    path = write(tmp_path / "ben.mdb", subdir=False)
    names = sorted(p.v2 for p in PATCHES)
    assert list(open_store(path).column("name")) == names
    folder = tmp_path / "moved"
    folder.mkdir()
    shutil.copy(reben_lmdb / "data.mdb", folder)
    assert list(open_store(folder).column("name")) == names


# ---- training and evaluating


WORDS += ["--bands=B02,B8A,B09", "--warmup-epochs=0.5", "--scale=both", "--select=last"]


def test_a_training_on_the_lmdb_equals_one_on_the_prepared_store(reben_lmdb: Path, tmp_path: Path, cli: Cli) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        prepared(reben_lmdb, tmp_path / "s.h5")
        found = []
        for store, run in ((reben_lmdb, tmp_path / "run-lmdb"), (tmp_path / "s.h5", tmp_path / "run-h5")):
            answer = cli("train", "--store", store, "--run", run, *WORDS)
            assert answer.code == 0, answer.lines
            scored = cli("evaluate", run, store, "--split", "test", "--json")
            assert scored.code == 0, scored.lines
            weights = safetensors.numpy.load_file(run / "weights" / "model.safetensors")
            found.append((weights, scored.json, json.loads((run / "scores.json").read_text())))
    finally:
        torch.set_num_threads(threads)
    (ours, scores, val), (theirs, their_scores, their_val) = found
    assert list(ours) == list(theirs)
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert (scores, val) == (their_scores, their_val)
    assert scores["patches"] == 4


def test_a_training_resumes_only_on_the_same_environment(reben_lmdb: Path, lmdb_copy: Path, lmdb_of_both: Path) -> None:
    plans = [open_store(path).attributes["plan"] for path in (reben_lmdb, lmdb_copy, lmdb_of_both)]
    assert plans[0] == plans[1] != plans[2]  # an environment may be moved


# ---- statistics


def test_statistics_are_computed_once(lmdb_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_store(lmdb_copy)
    assert first.summary()["statistics"] == {}  # info reads no pixels
    train = first.pixels("data_10m", first.patches("train")).astype(float)
    assert first.statistics["B02"] == pytest.approx((train[:, 0].mean(), train[:, 0].std()))
    kept = lmdb_copy.with_name("copy.statistics.json")
    assert kept.is_file()
    with monkeypatch.context() as patch:
        patch.setattr(TrainStatistics, "_compute", lambda _: pytest.fail("measured again"))
        assert open_store(lmdb_copy).statistics == dict(first.statistics)
        assert set(open_store(lmdb_copy).summary()["statistics"]) == set(GSD)
    put(lmdb_copy, {PATCHES[0].v2: value(PATCHES[1])})  # this patch is in the train split, so the statistics change
    second = open_store(lmdb_copy)
    assert second.summary()["statistics"] == {}
    assert second.statistics["B02"] != first.statistics["B02"]
    good = kept.read_text()
    mean = str(second.statistics["B02"][0])
    assert good.count(mean) == 1
    damaged = [good.replace("]", "", 1), good.replace(mean, "1" + mean), good.replace(mean, "NaN")]
    for text in ("", "{}", "[1]", '{"plan": 3', '{"plan": "x", "statistics": 3}', *damaged):
        kept.write_text(text)
        assert open_store(lmdb_copy).statistics == second.statistics


def test_statistics_are_not_cached_in_a_read_only_folder(lmdb_copy: Path) -> None:
    (lmdb_copy.parent / "copy.statistics.json").mkdir()
    for file in lmdb_copy.iterdir():
        file.chmod(0o444)
    lmdb_copy.chmod(0o555)
    before = sorted(lmdb_copy.parent.rglob("*"))
    store = open_store(lmdb_copy)
    assert len(store.statistics) == 12
    assert store.statistics["B02"][1] > 0
    assert sorted(lmdb_copy.parent.rglob("*")) == before  # neither lock nor leftovers
    lmdb_copy.chmod(0o755)


# ---- processes and threads


def test_threads_and_forks(reben_lmdb: Path) -> None:
    """Forks while threads read: neither process hangs, uses the environment of the other, or reads wrong pixels."""
    store = open_store(reben_lmdb)
    expected = store.pixels("data_20m", np.arange(16))
    ended, wrong = threading.Event(), []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not ended.is_set():
            rows = rng.integers(0, 16, 8)
            if not np.array_equal(store.pixels("data_20m", rows), expected[rows]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    codes = []
    try:
        for _ in range(10):
            child = os.fork()
            if not child:
                opened = len(lmdb_environments._ENVIRONMENTS._by_file)
                right = np.array_equal(store.pixels("data_20m", np.arange(16)), expected)
                os._exit(0 if right and not opened else 1)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * 10
    assert not wrong
    assert lmdb_environments._ENVIRONMENTS._readers == 0


def test_the_lmdb_is_pickled_without_open_handles(reben_lmdb: Path) -> None:
    store = open_store(reben_lmdb)
    store.pixels("data_60m", np.arange(3))
    content = pickle.dumps(store)
    assert len(content) < 100_000
    same(pickle.loads(content), store)
    reader = survey([(None, reben_lmdb)]).read
    assert len(pickle.dumps(reader)) < 10_000


# ---- importing


def test_several_inputs_with_splits(tmp_path: Path, lmdb_of_both: Path, reben_lmdb: Path) -> None:
    a, b = write(tmp_path / "a", PATCHES[:5]), write(tmp_path / "b", PATCHES[5:9])
    found = survey([(None, a), ("test", b)])
    prepare_survey(found, tmp_path / "s.h5", workers=2)
    store = open_store(tmp_path / "s.h5")
    assert store.split_sizes() == {"train": 3, "val": 1, "test": 5}
    for path in (a, b):
        part = open_store(path)
        rows = np.flatnonzero(np.isin(store.column("name"), part.column("name")))
        for plane in store.layout.planes:
            assert np.array_equal(store.pixels(plane.key, rows), part.pixels(plane.key, np.arange(len(rows))))
    with pytest.raises(BadInput, match="more than once"):
        survey([(None, a), (None, a)])
    with pytest.raises(BadInput, match="has other instruments than"):
        survey([(None, reben_lmdb), (None, lmdb_of_both)])


def test_prepare_by_the_command(reben_lmdb: Path, tmp_path: Path, cli: Cli) -> None:
    assert cli("prepare", "lmdb", reben_lmdb, tmp_path / "s.h5", "--workers", 2).code == 0
    same(open_store(reben_lmdb), open_store(tmp_path / "s.h5"))
    answer = cli("prepare", "lmdb", reben_lmdb, tmp_path / "t.h5", "--labels", "clc43")
    assert answer.code == 2
    assert "unknown class of clc43" in answer.lines[0]


def test_info_and_verify_by_the_command(reben_lmdb: Path, tmp_path: Path, cli: Cli) -> None:
    prepared(reben_lmdb, tmp_path / "s.h5")
    ours, theirs = (cli("info", path, "--json").json for path in (reben_lmdb, tmp_path / "s.h5"))
    for key in ("kind", "patches", "splits", "bands", "classes", "side", "planes", "counts", "nomenclature"):
        assert ours[key] == theirs[key], key
    assert "no checksums" in cli("verify", reben_lmdb).out


def test_a_summary_is_that_of_the_prepared_store(reben_lmdb: Path, tmp_path: Path) -> None:
    ours, theirs = open_store(reben_lmdb).summary(), prepared(reben_lmdb, tmp_path / "s.h5").summary()
    for key in ("kind", "patches", "splits", "bands", "classes", "side", "planes", "counts", "nomenclature"):
        assert ours[key] == theirs[key], key
    assert list(ours) == list(theirs)
