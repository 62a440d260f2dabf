"""A store that is cut short, changed or replaced while it is read gives one line; locks and write permission are not needed."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import Cli
from landscale.errors import BadStore
from landscale.loading import batches, evaluation_steps
from landscale.store import StoreWriter, open_store
from tiny import write

ALL = np.arange(6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "s.h5")
    return tmp_path / "s.h5"


def cut_short(path: Path) -> None:
    os.truncate(path, 4096)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"x")
    os.utime(path, ns=(0, 0))  # another time than that of the creation, even where the clock is coarse


def replace(path: Path) -> None:
    write(path.with_name("other.h5"))
    path.with_name("other.h5").replace(path)


CHANGED = "was changed or replaced while it was being read; start again"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (cut_short, CHANGED),
        (overwrite, CHANGED),
        (replace, CHANGED),
        (Path.unlink, "cannot be read any more (No such file or directory)"),
    ],
)
def test_a_store_that_changes_while_it_is_read_is_refused(
    change: Callable[[Path], object], problem: str, path: Path
) -> None:
    store = open_store(path)
    steps = evaluation_steps(ALL, 1)
    reading = batches(store, ["B01"], store.classes, steps, torch.device("cpu"), ahead=1)
    next(reading)
    change(path)
    for read in (lambda: list(reading), lambda: store.pixels("data_10m"), lambda: store.column("name")):
        with pytest.raises(BadStore) as caught:
            read()
        assert str(caught.value) == f"{path}: {problem}"


CUT_SHORT_IN_A_COPY = """
import os, sys, threading
from landscale.store import open_store
from landscale.store.file import StoreFile
store = open_store(sys.argv[1])
read = lambda: store.pixels("data_10m")
read()
StoreFile.check_unchanged = lambda _: None  # as if the file were cut short after the check
os.truncate(sys.argv[1], 0)
if sys.argv[2] == "thread":
    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
else:
    read()
"""


@pytest.mark.parametrize("where", ["thread", "main"])
def test_a_file_that_is_cut_short_during_a_copy_ends_the_process_in_one_line(where: str, path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CUT_SHORT_IN_A_COPY, path, where], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2, ended
    line = f"landscale: {path}: was cut short while it was being read; start again with the whole file"
    assert ended.stderr.strip() == line


def test_a_disk_that_fails_gives_a_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store = open_store(path)
    monkeypatch.setattr("landscale.store.file.read_into", fail)
    with pytest.raises(BadStore, match=r"s\.h5: cannot be read \(Input/output error\)"):
        store.column("name")


def test_short_reads_are_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = open_store(path).column("name")
    monkeypatch.setattr(
        "landscale.store.file.read_into",
        lambda handle, buffers, position: os.preadv(handle, [buffers[0][:7]], position),
    )
    assert np.array_equal(open_store(path).column("name"), expected)


@pytest.mark.parametrize("rows", [[0, 6], [-1]])
def test_rows_outside_the_store_are_refused(rows: list[int], path: Path) -> None:
    with pytest.raises(IndexError, match="row outside 0…5"):
        open_store(path).pixels("data_60m", rows)


@pytest.mark.parametrize(
    "out",
    [
        np.empty((2, 2, 2, 2), np.int16),
        np.empty((3, 2, 2, 2), np.uint16),
        np.empty((2, 2, 2, 4), np.uint16)[..., ::2],
    ],
    ids=["dtype", "shape", "stride"],
)
def test_another_array_is_refused(out: np.ndarray, path: Path) -> None:
    """Bytes are copied to it as they are in the file."""
    with pytest.raises(ValueError, match="of uint16, C-contiguous"):
        open_store(path).gather(ALL[:2], {"data_60m": out})


def test_a_store_that_is_being_filled_may_change(path: Path) -> None:
    store = open_store(path, unfinished=True)
    overwrite(path)
    assert store.pixels("data_60m").shape == (6, 2, 2, 2)


def test_locks_are_not_used(path: Path, cli: Cli) -> None:
    """HDF5's own lock fails here because another one is held; on some file systems it always fails."""
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert cli("verify", path).code == 0
        StoreWriter(path).finish()


def test_a_read_only_store_is_read_and_nothing_is_written_beside_it(path: Path, cli: Cli) -> None:
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        assert [cli(command, path).code for command in ("info", "verify")] == [0, 0]
        assert [file.name for file in path.parent.iterdir()] == ["s.h5"]
    finally:
        path.parent.chmod(0o755)
