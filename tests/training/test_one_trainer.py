"""One run folder has one trainer at a time, and all ranks of a training were started with the same settings."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import pytest

from landscale.distributed import Ranks
from landscale.distributed.agreement import check_agreement
from landscale.errors import BadInput, LandscaleError
from landscale.training.runs import Run
from trainings import TINY, ended, flags, learn


def begun(start, store, folder):
    """A long training in another process, once it has written a checkpoint."""
    words = ["train", "--store", store.path, "--run", folder, *flags(TINY, epochs=1000)]
    process = start(words, folder.with_name("output.txt"))
    end = time.monotonic() + 60
    while not (folder / "metrics.csv").exists():
        assert time.monotonic() < end, folder.with_name("output.txt").read_text()
        time.sleep(0.02)
    return process


def test_a_second_training_is_refused_with_the_process_that_trains(start, store, tmp_path):
    process = begun(start, store, tmp_path / "run")
    with pytest.raises(BadInput, match=rf"is being trained by process {process.pid} on "):
        learn(replace(TINY, epochs=1000), store, tmp_path / "run")
    os.kill(process.pid, signal.SIGKILL)
    ended(process)
    partial = tmp_path / "run" / "checkpoints" / f".last.safetensors.{process.pid}.partial"
    partial.write_bytes(b"x")
    learn(replace(TINY, epochs=1000), store, tmp_path / "run", max_time=3.0)  # a killed process holds no lock
    assert not partial.exists()
    assert Run(tmp_path / "run").ended


class TwoRanks(Ranks):
    """Two ranks in one process: `gather` returns this one's value and that of the other."""

    def __init__(self, other):
        super().__init__(0, 2)
        object.__setattr__(self, "other", other)

    def gather(self, value):
        return [value, self.other]


def test_ranks_with_other_settings_are_refused_by_name():
    check_agreement(TwoRanks({"--store": "a", "--rate": "0.1"}), {"--store": "a", "--rate": "0.1"})
    with pytest.raises(
        LandscaleError, match=r"rank 1 was started with another --rate than rank 0: found 1\.0, expected"
    ):
        check_agreement(TwoRanks({"--store": "a", "--rate": "1.0"}), {"--store": "a", "--rate": "0.1"})


def test_the_fingerprint_of_a_store_depends_on_labels_and_splits(store):
    same = replace(store)
    assert same.fingerprint() == store.fingerprint()
    for change in (
        {"classes": store.classes[:, ::-1]},
        {"splits": store.splits[::-1]},
        {"statistics": {}},
        {"attributes": store.attributes | {"plan": "other"}},
    ):
        assert replace(store, **change).fingerprint() != store.fingerprint()
