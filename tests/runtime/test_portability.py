"""Where a system call is missing, as on macOS, the package works without it."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from landscale.runtime import portability
from landscale.store import open_store
from tiny import write

ONLY_ON_LINUX = (
    "O_DIRECT",
    "O_TMPFILE",
    "POSIX_FADV_DONTNEED",
    "fdatasync",
    "posix_fadvise",
    "posix_fallocate",
    "preadv",
    "sched_getaffinity",
)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without the calls that only Linux has."""
    for name in ONLY_ON_LINUX:
        monkeypatch.delattr(os, name)
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    monkeypatch.setattr(portability, "MEMINFO", Path("/no/such/file"))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    opened = os.open(tmp_path / "file", os.O_RDWR)
    yield opened
    os.close(opened)


def test_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert (portability.usable_cores(), portability.usable_core_numbers()) == (2, {3, 5})
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert (portability.usable_cores(), portability.usable_core_numbers()) == (4, {0, 1, 2, 3})


def test_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       900 kB\nMemFree:        100 kB\nMemAvailable:   300 kB\n")
    monkeypatch.setattr(portability, "MEMINFO", tmp_path / "meminfo")
    assert portability.available_memory() == 300 * 1024
    monkeypatch.setattr(portability, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 7, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert portability.available_memory() == 7 * 4096


@pytest.mark.usefixtures("elsewhere")
def test_direct_and_unnamed_files_are_not_supported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert portability.open_direct(tmp_path / "file") is None
    with pytest.raises(OSError, match="not supported"):
        portability.open_unnamed(tmp_path)
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


@pytest.mark.usefixtures("elsewhere")
def test_space_is_checked_and_files_only_grow(handle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    portability.reserve_space(handle, 50)
    assert os.fstat(handle).st_size == 100
    portability.reserve_space(handle, 5000)
    assert os.fstat(handle).st_size == 5000
    assert os.pread(handle, 100, 0) == bytes(range(100))
    allocated = os.fstat(handle).st_blocks * 512
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_bavail=2, f_frsize=1000))
    portability.reserve_space(handle, allocated + 2000)
    with pytest.raises(OSError, match="No space left") as caught:
        portability.reserve_space(handle, allocated + 2001)
    assert caught.value.errno == errno.ENOSPC
    assert os.fstat(handle).st_size == allocated + 2000


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("position", "expected"), [(0, 60), (70, 30), (100, 0)])
def test_buffers_are_filled_one_after_another(
    missing: bool, position: int, expected: int, handle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing:
        monkeypatch.delattr(os, "preadv")
    first, second = bytearray(20), np.zeros((4, 5), np.uint16)
    assert portability.read_into(handle, [first, second.data], position) == expected
    found = bytes(first) + second.tobytes()
    assert found == bytes(range(position, position + expected)).ljust(60, b"\0")


@pytest.mark.usefixtures("elsewhere")
def test_hints_do_nothing(handle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    portability.sync_data(handle)
    assert synced == [handle]
    portability.drop_from_page_cache(handle, 0, 100)
    portability.use_large_pages(mmap.mmap(-1, 4096))
    portability.keep_freed_memory()
    portability.signal_when_parent_ends(15)


def test_a_store_written_without_them_is_the_same(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    expected = write(tmp_path / "linux.h5")
    request.getfixturevalue("elsewhere")
    write(tmp_path / "elsewhere.h5")
    assert (tmp_path / "elsewhere.h5").read_bytes() == (tmp_path / "linux.h5").read_bytes()
    store = open_store(tmp_path / "elsewhere.h5")
    assert np.array_equal(store.pixels("data_10m"), expected["data_10m"])
