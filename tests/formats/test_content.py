"""Files that are larger than what they should be, by their headers or once decompressed, are refused before they fill memory."""

from __future__ import annotations

import bz2
import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from landscale.errors import BadInput
from landscale.formats import tables
from landscale.formats.content import MAX_FILE, read_content, read_text
from landscale.formats.geotiff import read_band
from landscale.formats.tables import read_parquet
from landscale.formats.tar import Tarball
from landscale.formats.zip_or_folder import list_members, read_member


def refused(read: object, *arguments: object) -> str:
    with pytest.raises(BadInput) as caught:
        read(*arguments)  # type: ignore[operator]
    return caught.value.problem


def test_large_files(tmp_path: Path) -> None:
    with (tmp_path / "x.tif").open("wb") as file:
        file.truncate(4 << 30)
    problem = "has 4,294,967,296 bytes, expected at most 536,870,912"
    assert refused(read_content, tmp_path / "x.tif") == problem
    assert refused(read_member, str(tmp_path / "x.tif")) == problem


def large_zip(path: Path, kind: int) -> str:
    """A zip of a few kB whose member has more than MAX_FILE bytes, as its header announces."""
    with zipfile.ZipFile(path, "w", kind) as archive, archive.open("A/x.png", "w") as file:
        file.write(b"0" * 1000)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2") + 24  # the size in the directory
    data[at : at + 4] = (MAX_FILE + 1).to_bytes(4, "little")
    path.write_bytes(data)
    ((_, location),) = list_members(path, {".png"})
    return location


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED])
def test_large_members_of_zips(kind: int, tmp_path: Path) -> None:
    assert (
        refused(read_member, large_zip(tmp_path / "z.zip", kind))
        == "has 536,870,913 bytes, expected at most 536,870,912"
    )


def test_members_with_more_bytes_than_announced_end_there(tmp_path: Path) -> None:
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("A/x.png", b"0" * 1_000_000)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2") + 24
    data[at : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    assert "CRC" in refused(read_member, f"{path}::A/x.png")


@pytest.mark.parametrize("read", [read_content, read_text, lambda path: read_band(path, np.zeros((4, 4)))])
def test_pipes_and_devices(read: object, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.tif")
    assert refused(read, tmp_path / "x.tif") == "is not a regular file"
    assert refused(read, Path("/dev/zero")) == "is not a regular file"


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_archives_that_are_pipes(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    open_archive = Tarball if ".tar" in name else lambda path: list_members(path, {".png"})
    assert refused(open_archive, tmp_path / name) == "is not a regular file"


def test_parquet_with_more_rows_or_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"name": ["x" * 1000] * 20_000}), path, compression="zstd")
    assert path.stat().st_size < 10_000
    assert len(read_parquet(path)) == 20_000
    monkeypatch.setattr(tables, "MAX_PARQUET", 15_000_000)
    assert refused(read_parquet, path).startswith("has 16,384 rows and 16,4")  # of the first four batches
    monkeypatch.setattr(tables, "MAX_ROWS", 19_999)
    assert refused(read_parquet, path).startswith("has 20,000 rows and ")


def test_text_that_is_longer_once_decompressed(tmp_path: Path) -> None:
    """In two streams, of which the second crosses the limit."""
    path = tmp_path / "t.csv.bz2"
    path.write_bytes(bz2.compress(b"a" * 600) + bz2.compress(b"b" * 500))
    assert read_text(path, 1100) == "a" * 600 + "b" * 500
    assert refused(read_text, path, 1099) == "cannot be decompressed (it has more than 1,099 bytes)"
