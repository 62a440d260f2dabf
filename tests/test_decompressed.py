"""What a compressed file says, by the system's libzstd and where there is none."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscale.errors import BadInput
from landscale.sources import decompressed
from landscale.sources.decompressed import Decompressed, estimated_size
from landscale.sources.zstandard import library
from tarballs import gzipped, zstandard

SKIPPABLE = b"\x50\x2a\x4d\x18\x05\x00\x00\x00hello"
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
    with closing(Decompressed(path, block)) as file:
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


@given(sizes=st.lists(st.integers(0, 300_000), min_size=1, max_size=4), block=st.integers(2000, 400_000))
@pytest.mark.skipif(library() is None, reason="this system has no libzstd")
def test_frames(sizes: list[int], block: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One after another, as a parallel packer writes them, with something between that says nothing."""
    path = tmp_path_factory.mktemp("frames") / "x"
    parts = [pixels(size, k) for k, size in enumerate(sizes)]
    path.write_bytes(SKIPPABLE.join(zstandard(part) for part in parts))
    assert content(path, block) == b"".join(parts)


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
def test_damaged(reader: str, tmp_path: Path) -> None:
    """Where a frame is said to begin, another thing does."""
    path = tmp_path / "x"
    packed = PACKERS[reader](pixels(300_000))
    path.write_bytes(packed + b"no frame, but long enough to be one")
    with pytest.raises(BadInput, match="cannot be decompressed"):
        content(path, 4096)


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
    with closing(Decompressed(path, 65_536)) as file:
        assert bytes(file.block()) == pixels(4 << 20)[:65_536]
        assert threading.active_count() > before
    assert threading.active_count() == before
