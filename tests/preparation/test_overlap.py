"""Patches are read while others are written: in order, from buffers that are free again, and without the page cache."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archives import link_v2
from landscale.datasets.bigearthnet import folders as bigearthnet
from landscale.errors import BadInput
from landscale.preparation import prepare_survey
from landscale.preparation.overlap import IN_FLIGHT, write_while_reading
from landscale.store import Layout, Plane
from landscale.store.direct import PAGE, DirectFile, page_aligned_buffers


@given(st.integers(0, 12))
def test_parts_are_written_in_order_and_before_their_memory_is_reused(parts: int) -> None:
    written: list[int] = []
    threads = {threading.current_thread().name}

    def reading() -> Iterator[int]:
        for part in range(parts):
            assert part - IN_FLIGHT < len(written)
            yield part

    def write(part: int) -> int:
        threads.add(threading.current_thread().name)
        written.append(part)
        return 10 * part

    assert list(write_while_reading(reading(), write)) == [10 * part for part in range(parts)]
    assert written == list(range(parts))
    assert len(threads) == (2 if parts else 1)


@pytest.mark.parametrize("fails", [False, True])
def test_the_switch_interval_is_restored(fails: bool) -> None:
    before, during = sys.getswitchinterval(), []

    def write(_: int) -> None:
        during.append(sys.getswitchinterval())
        if fails:
            raise BadInput("disk", "is full")

    with suppress(BadInput):
        list(write_while_reading(range(3), write))
    assert during[0] < before == sys.getswitchinterval()


@pytest.mark.parametrize("bad", [0, 1, 5])
def test_nothing_is_written_after_a_part_that_fails(bad: int) -> None:
    written: list[int] = []

    def write(part: int) -> None:
        if part == bad:
            raise BadInput("disk", "is full")
        written.append(part)

    with pytest.raises(BadInput, match="disk: is full"):
        list(write_while_reading(range(9), write))
    assert written == list(range(bad))


def test_parts_before_a_reading_error_are_written() -> None:
    written: list[int] = []

    def reading() -> Iterator[int]:
        yield 0
        raise BadInput("source", "is damaged")

    with pytest.raises(BadInput, match="source"):
        list(write_while_reading(reading(), written.append))
    assert written == [0]


def test_an_error_of_writing_is_raised_before_a_later_one_of_reading() -> None:
    """The disk is full, but the reader finds a damaged patch before the write fails."""
    read = threading.Event()

    def reading() -> Iterator[int]:
        yield 0
        read.set()
        raise BadInput("source", "is damaged")

    def write(_: int) -> None:
        read.wait(10)
        raise BadInput("disk", "is full")

    with pytest.raises(BadInput, match="disk"):
        list(write_while_reading(reading(), write))


def test_ctrl_c_waits_only_for_the_part_being_written() -> None:
    begun, go_on = threading.Event(), threading.Event()
    written: list[int] = []

    def reading() -> Iterator[int]:
        yield from range(IN_FLIGHT - 1)
        begun.wait(10)
        threading.Timer(0.1, go_on.set).start()
        raise KeyboardInterrupt

    def write(part: int) -> None:
        begun.set()
        go_on.wait(10)
        written.append(part)

    with pytest.raises(KeyboardInterrupt):
        list(write_while_reading(reading(), write))
    assert written == [0]  # the part being written, and none of the queued ones


def test_garbage_collection_is_restored() -> None:
    """Objects that existed before are frozen, but only until the end."""
    frozen = [gc.get_freeze_count() for _ in write_while_reading(range(1), lambda _: None)]
    assert frozen[0] > 0
    assert gc.get_freeze_count() == 0


@given(data=st.data())
def test_a_direct_file_holds_what_was_written(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ranges of whole pages and of parts of them, written in any order, give the same bytes as in memory."""
    path = tmp_path_factory.mktemp("direct") / "file"
    plane = Plane("data", ("B02", "B03"), 32, 10)  # 4,096 bytes per patch
    source = page_aligned_buffers(Layout((plane,), ("lake",), "custom", multi_label=True), 4)["data"]
    source[...] = np.random.default_rng(1).integers(0, 9000, source.shape)
    raw = source.reshape(-1).view(np.uint8)
    expected = np.zeros(8 * PAGE, np.uint8)
    path.write_bytes(expected.tobytes())
    file = DirectFile(path)
    edges = st.sampled_from([0, PAGE, 2 * PAGE, 3 * PAGE]) | st.integers(0, 3 * PAGE)
    try:
        for _ in range(data.draw(st.integers(1, 5))):
            place, begin = data.draw(edges), data.draw(edges)
            size = data.draw(st.sampled_from([0, PAGE]) | st.integers(0, 4 * PAGE - begin))
            file.write(raw[begin : begin + size], place)
            expected[place : place + size] = raw[begin : begin + size]
        file.sync()
        found = np.empty(8 * PAGE, np.uint8)
        file.read(found, 0)
    finally:
        file.close()
    assert (found == expected).all()
    assert path.read_bytes() == expected.tobytes()


def test_planes_begin_at_pages_and_whole_pages_bypass_the_cache(
    v2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 patches are whole pages of every plane. Without that, preparation would only be slower, which no other test shows."""
    direct: list[int] = []
    original_pwrite = os.pwrite

    def pwrite(handle: int, content: memoryview, position: int) -> int:
        flags = int(Path(f"/proc/self/fdinfo/{handle}").read_text().split("flags:")[1].split()[0], 8)
        written = original_pwrite(handle, content, position)
        if flags & os.O_DIRECT:
            direct.append(position)
        return written

    monkeypatch.setattr(os, "pwrite", pwrite)
    archive = link_v2(tmp_path, v2, 130)
    prepare_survey(bigearthnet.survey([(None, archive)]), tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as file:
        places = [file[key].id.get_offset() for key in ("data_10m", "data_20m", "data_60m")]
        sizes = [file[key][0].nbytes for key in ("data_10m", "data_20m", "data_60m")]
    assert all(place % PAGE == 0 for place in places)
    expected = sorted(place + 64 * k * size for place, size in zip(places, sizes, strict=True) for k in range(2))
    if not direct:
        pytest.skip("this file system has no direct writes")
    assert set(expected) <= set(direct)
