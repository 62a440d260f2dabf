"""The members of a tar: what `tarfile` finds there."""

from __future__ import annotations

import io
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscale.sources import decompressed
from landscale.sources.tarball import Tarball

FORMATS = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)
KINDS = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)  # all of them files
Found = list[tuple[str, bytes]]

words = st.text("abcXYZ019_-.é", min_size=1, max_size=60).filter(lambda word: word.strip("."))
names = st.lists(words, min_size=1, max_size=4).map("/".join)
contents = st.integers(0, 3000).flatmap(lambda n: st.binary(min_size=40, max_size=40).map(lambda b: (b * 75)[:n]))


def pack(path: Path, found: Found, how: int, kind: bytes) -> None:
    with tarfile.open(path, "w", format=how) as tar:
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
def test_what_tarfile_finds(
    found: Found, how: int, kind: bytes, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Names of any length, in every format, and members that lie across blocks."""
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
