"""What a compressed file says, by the system's libzstd and where there is none."""

from __future__ import annotations

import ctypes
import os
import random
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscale.errors import BadInput
from landscale.formats import decompression as decompressed
from landscale.formats.decompression import DecompressedFile, estimated_size
from landscale.formats.read_ahead import ReadAhead
from landscale.formats.zstandard import Zstandard, library
from tarballs import gzipped, zstandard

with_library = pytest.mark.skipif(library() is None, reason="this system has no libzstd")
SKIPPABLE = b"\x5a\x2a\x4d\x18\x05\x00\x00\x00hello"
PACKERS = {"plain": bytes, "gzip": gzipped, "system": zstandard, "arrow": zstandard}


@pytest.fixture(params=PACKERS)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name = str(request.param)
    if name == "system" and library() is None:
        pytest.skip("this system has no libzstd")
    if name == "arrow":
        monkeypatch.setattr(decompressed, "library", lambda: None)
    return name


def pixels(n: int, seed: int = 0) -> bytes:
    """As easy to compress as those of a satellite."""
    return np.random.default_rng(seed).integers(0, 1500, (n + 1) // 2, dtype=np.uint16).tobytes()[:n]


def content(path: Path, block: int) -> bytes:
    with closing(DecompressedFile(path, block)) as file:
        blocks = []
        while one := file.block():
            blocks.append(bytes(one))
        assert not file.block()
        assert all(len(one) == block for one in blocks[:-1])
        assert file.consumed() == path.stat().st_size
    return b"".join(blocks)


@pytest.mark.parametrize("block", [1000, 4096, 131_072, 300_000, 1 << 20])
def test_all_that_was_packed(reader: str, block: int, tmp_path: Path) -> None:
    """Blocks that end with a frame's, with those inside it, and beyond its end."""
    path = tmp_path / "x"
    for size in (1, 999, 131_072, 600_000, 1 << 20):
        path.write_bytes(PACKERS[reader](pixels(size)))
        assert content(path, block) == pixels(size), size


def checked(data: bytes) -> bytes:
    """A frame with a checksum of its content, as the `zstd` program writes it; Arrow's have none."""
    zstd = library()
    assert zstd is not None
    zstd.ZSTD_createCCtx.restype = zstd.ZSTD_compress2.restype = ctypes.c_size_t
    packer = ctypes.c_void_p(zstd.ZSTD_createCCtx())
    zstd.ZSTD_CCtx_setParameter(packer, 201, 1)  # ZSTD_c_checksumFlag
    out = ctypes.create_string_buffer(len(data) + 1000)
    size = zstd.ZSTD_compress2(packer, out, ctypes.c_size_t(len(out)), data, ctypes.c_size_t(len(data)))
    zstd.ZSTD_freeCCtx(packer)
    return out.raw[:size]


@with_library
@given(
    sizes=st.lists(st.integers(0, 300_000), min_size=1, max_size=4),
    block=st.integers(2000, 400_000),
    first=st.sampled_from([b"", SKIPPABLE]),
    last=st.sampled_from([b"", SKIPPABLE]),
)
def test_frames(
    sizes: list[int], block: int, first: bytes, last: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One after another, as a parallel packer writes them, with others that say nothing before, between and after."""
    path = tmp_path_factory.mktemp("frames") / "x"
    parts = [pixels(size, k) for k, size in enumerate(sizes)]
    packed = [(checked if k % 2 else zstandard)(part) for k, part in enumerate(parts)]
    path.write_bytes(first + SKIPPABLE.join(packed) + last)
    assert content(path, block) == b"".join(parts)


@with_library
def test_a_file_that_comes_in_drops(tmp_path: Path) -> None:
    """As from a pipe or over a network: a read that brings less than asked for is not the end."""
    path = tmp_path / "x"
    os.mkfifo(path)
    said = pixels(1 << 20)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            packed = checked(said)
            for k in range(0, len(packed), 7001):
                pipe.write(packed[k : k + 7001])

    writer = threading.Thread(target=write)
    writer.start()
    zstd = library()
    assert zstd is not None
    with closing(Zstandard(path, zstd, 100_000)) as file:
        block = bytearray(1 << 21)
        assert file.readinto(memoryview(block)) == len(said)
        assert block[: len(said)] == said
    writer.join()


def test_after_an_error_nothing_more_is_read() -> None:
    """What was read before it comes first, in order; then the error, however often one asks."""
    asked = 0

    def fill(block: memoryview) -> int:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise OSError("the disk is broken")
        block[:] = bytes([asked]) * len(block)
        return len(block)

    with closing(ReadAhead(fill, 10, 4)) as ahead:
        assert bytes(ahead.block()) == b"\1" * 10
        assert bytes(ahead.block()) == b"\2" * 10
        for _ in range(6):
            with pytest.raises(OSError, match="broken"):
                ahead.block()
    assert asked == 3


@pytest.mark.parametrize("reader", ["gzip", "system", "arrow"], indirect=True)
def test_truncated(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    packed = PACKERS[reader](pixels(300_000))
    for length in (5, 9, 100, 1000, len(packed) // 2, len(packed) - 1):
        path.write_bytes(packed[:length])
        for block in (4096, 1 << 20):
            with pytest.raises(BadInput, match="cannot be decompressed"):
                content(path, block)


@pytest.mark.parametrize("reader", ["gzip", "system", "arrow"], indirect=True)
def test_something_behind_it(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(PACKERS[reader](pixels(300_000)) + b"no frame, but long enough to be one")
    with pytest.raises(BadInput, match="cannot be decompressed"):
        content(path, 4096)


@with_library
def test_damaged(tmp_path: Path) -> None:
    """Where a checksum covers it, a flipped bit is refused, or has changed nothing."""
    path = tmp_path / "x"
    said = pixels(300_000)
    packed = checked(said)
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(packed)
        damaged[rng.choice([rng.randrange(4, 20), rng.randrange(4, len(packed))])] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert content(path, 65_536) == said
        except BadInput:
            refused += 1
    assert refused > 280


def test_estimated_size(reader: str, tmp_path: Path) -> None:
    """Exact of small files, near for larger ones, whatever is read ahead."""
    path = tmp_path / "x"
    for size in (1000, 3 << 20, 12 << 20):
        path.write_bytes(PACKERS[reader](pixels(size)))
        found = estimated_size(path)
        assert found == size if size < 4 << 20 else found == pytest.approx(size, rel=0.1), size


def test_closed_before_its_end(reader: str, tmp_path: Path) -> None:
    """No thread stays."""
    path = tmp_path / "x"
    path.write_bytes(PACKERS[reader](pixels(4 << 20)))
    before = threading.active_count()
    with closing(DecompressedFile(path, 65_536)) as file:
        assert bytes(file.block()) == pixels(4 << 20)[:65_536]
        assert threading.active_count() > before
    assert threading.active_count() == before
