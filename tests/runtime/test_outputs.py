"""A result replaces only an older result of the same kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from landscale.errors import BadInput
from landscale.runtime.outputs import check_output

TIFF = (b"II", b"MM")


@pytest.mark.parametrize("content", [None, b"", b"II*\0older map", b"MM"])
def test_new_names_empty_files_and_older_results_may_be_written(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    if content is not None:
        path.write_bytes(content)
    check_output(str(path), TIFF, "a GeoTIFF")
    assert (path.read_bytes() if path.exists() else None) == content


@pytest.mark.parametrize("content", [b"I", b"{}", b"\x89HDF", b" II"])
def test_other_files_are_left(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"map\.tif: exists and is not a GeoTIFF; choose another name or remove it"):
        check_output(path, TIFF, "a GeoTIFF")
    assert path.read_bytes() == content


def test_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder, expected the name of a GeoTIFF"):
        check_output(tmp_path, TIFF, "a GeoTIFF")
