"""Members of a tar archive are those that `tarfile` finds."""

from __future__ import annotations

import io
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscale.errors import BadInput
from landscale.formats import decompression as decompressed
from landscale.formats.tar import Tarball

FORMATS = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)
KINDS = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)  # all of them files
Found = list[tuple[str, bytes]]

words = st.text("abcXYZ019_-.é", min_size=1, max_size=60).filter(lambda word: word.strip("."))
names = st.lists(words, min_size=1, max_size=4).map("/".join)
contents = st.integers(0, 3000).flatmap(lambda n: st.binary(min_size=40, max_size=40).map(lambda b: (b * 75)[:n]))


def pack(path: Path, found: Found, how: int, kind: bytes) -> None:
    """A tar archive; in the pax format with a global header."""
    with tarfile.open(path, "w", format=how, pax_headers={"comment": "synthetic"}) as tar:
        for name, content in found:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), kind
            tar.addfile(info, io.BytesIO(content))


@given(
    found=st.lists(st.tuples(names, contents), min_size=1, max_size=12),
    how=st.sampled_from(FORMATS),
    kind=st.sampled_from(KINDS),
    block=st.sampled_from([512, 700, 4096, 5000, 1 << 20]),
)
def test_members_equal_those_of_tarfile(
    found: Found, how: int, kind: bytes, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Names of any length, every format, and members that extend over several blocks."""
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    try:
        pack(path, found, how, kind)
    except ValueError:  # a name that is too long for ustar
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decompressed, "BLOCK", block)
        with closing(Tarball(path)) as content:
            assert [(name, bytes(data)) for name, data in content.members()] == found
            assert content.consumed() == path.stat().st_size


def members(path: Path, data: bytes) -> list[str]:
    path.write_bytes(data)
    with closing(Tarball(path, 1024)) as content:
        return [name for name, _ in content.members()]


def test_messages_have_the_offset_of_the_damage(tmp_path: Path) -> None:
    """The offset is that in the tar archive, for any block size."""
    path = tmp_path / "x.tar"
    pack(path, [("a" * 200, b"x" * 3000), ("b", b"y")], tarfile.GNU_FORMAT, tarfile.REGTYPE)
    data = path.read_bytes()
    assert members(path, data) == ["a" * 200, "b"]
    second = 512 + 512 + 512 + 3072  # a long name's header, the name, its member's header and content
    damaged = bytearray(data)
    damaged[second] ^= 1
    with pytest.raises(BadInput, match=f"no tar header at byte {second}$"):
        members(path, bytes(damaged))
    with pytest.raises(BadInput, match="header at byte 0: is truncated"):
        members(path, data[:600])
    with pytest.raises(BadInput, match=f"member {'a' * 200}: is truncated"):
        members(path, data[:2000])
    with pytest.raises(BadInput, match="it lacks the end marker"):
        members(path, data[:second])


def test_an_invalid_extended_header(tmp_path: Path) -> None:
    """Its length has more digits than Python converts."""
    path = tmp_path / "x.tar"
    pack(path, [("é" * 60, b"x")], tarfile.PAX_FORMAT, tarfile.REGTYPE)
    with tarfile.open(tmp_path / "y.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("header")
        content = b"1" * 5000 + b" path=x\n"
        info.size, info.type = len(content), tarfile.XHDTYPE
        tar.addfile(info, io.BytesIO(content))
    assert members(path, path.read_bytes()) == ["é" * 60]
    with pytest.raises(BadInput, match="the extended header at byte 0 cannot be read"):
        members(path, (tmp_path / "y.tar").read_bytes())
