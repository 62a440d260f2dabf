"""Plain, gzip and Zstandard files are decompressed whole, or refused."""

from __future__ import annotations

import os
import random
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from landscale.errors import BadInput
from landscale.formats.decompression import DecompressedFile, estimated_size
from landscale.formats.read_ahead import ReadAhead, read_fully
from landscale.formats.zstandard import ZstandardFile
from tarballs import gzipped, zstandard

SKIPPABLE = b"\x5a\x2a\x4d\x18\x05\x00\x00\x00hello"
PACKERS = {"plain": bytes, "gzip": gzipped, "zstd": zstandard}


@pytest.fixture(params=PACKERS)
def packer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pixels(n: int, seed: int = 0) -> bytes:
    """About as compressible as pixels of a satellite."""
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
def test_the_content_is_the_same_for_any_block_size(packer: str, block: int, tmp_path: Path) -> None:
    """Blocks that end at the end of a frame, within it, and beyond it."""
    path = tmp_path / "x"
    for size in (1, 999, 131_072, 600_000, 1 << 20):
        path.write_bytes(PACKERS[packer](pixels(size)))
        assert content(path, block) == pixels(size), size


def checked(data: bytes) -> bytes:
    """A frame with a checksum of its content, as the `zstd` program writes it."""
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


@given(
    sizes=st.lists(st.integers(0, 300_000), min_size=1, max_size=4),
    block=st.integers(2000, 400_000),
    first=st.sampled_from([b"", SKIPPABLE]),
    last=st.sampled_from([b"", SKIPPABLE]),
)
def test_several_and_skippable_frames(
    sizes: list[int], block: int, first: bytes, last: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Several frames, as parallel compressors write them, with skippable frames before, between and after."""
    path = tmp_path_factory.mktemp("frames") / "x"
    parts = [pixels(size, k) for k, size in enumerate(sizes)]
    packed = [(checked if k % 2 else zstandard)(part) for k, part in enumerate(parts)]
    path.write_bytes(first + SKIPPABLE.join(packed) + last)
    assert content(path, block) == b"".join(parts)


def test_short_reads_are_not_the_end_of_the_file(tmp_path: Path) -> None:
    """From a pipe or network file system, a read may return fewer bytes than requested."""
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
    with closing(ZstandardFile(path, 100_000)) as file:
        assert read_fully(file.readinto, memoryview(block := bytearray(1 << 21))) == len(said)
        assert block[: len(said)] == said
    writer.join()


def test_after_an_error_nothing_more_is_read() -> None:
    """Blocks that were read before the error are returned first, in order; then every call raises the error."""
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


@pytest.mark.parametrize("packer", ["gzip", "zstd"], indirect=True)
def test_truncated(packer: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    packed = PACKERS[packer](pixels(300_000))
    for length in (5, 9, 100, 1000, len(packed) // 2, len(packed) - 1):
        path.write_bytes(packed[:length])
        for block in (4096, 1 << 20):
            with pytest.raises(BadInput, match="cannot be decompressed"):
                content(path, block)


@pytest.mark.parametrize("packer", ["gzip", "zstd"], indirect=True)
def test_trailing_data_is_refused(packer: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(PACKERS[packer](pixels(300_000)) + b"no frame, but long enough to be one")
    with pytest.raises(BadInput, match="cannot be decompressed"):
        content(path, 4096)


def test_damaged(tmp_path: Path) -> None:
    """In a frame with a checksum, a flipped bit is refused or has no effect."""
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


def test_estimated_size(packer: str, tmp_path: Path) -> None:
    """Exact for small files, within 10 % for larger ones, independent of read-ahead."""
    path = tmp_path / "x"
    for size in (1000, 3 << 20, 12 << 20):
        path.write_bytes(PACKERS[packer](pixels(size)))
        found = estimated_size(path)
        assert found == size if size < 4 << 20 else found == pytest.approx(size, rel=0.1), size


def test_closed_before_its_end(packer: str, tmp_path: Path) -> None:
    """No thread is left behind."""
    path = tmp_path / "x"
    path.write_bytes(PACKERS[packer](pixels(4 << 20)))
    before = threading.active_count()
    with closing(DecompressedFile(path, 65_536)) as file:
        assert bytes(file.block()) == pixels(4 << 20)[:65_536]
        assert threading.active_count() > before
    assert threading.active_count() == before
