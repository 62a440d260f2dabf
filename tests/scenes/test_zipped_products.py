"""Products in zips: what is found in them, and zips that are damaged, encrypted, or larger than they seem."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from conftest import Cli
from landscale.errors import BadInput
from landscale.formats import rasters
from landscale.scenes import product_files
from landscale.scenes.acquisitions import check_tiles
from landscale.scenes.scene import open_scene
from landscale.scenes.tile import open_tiles
from layouts import NAME, Pixels, safe, safe_zip
from products import write_tiffs

pytestmark = pytest.mark.filterwarnings(
    "ignore::PendingDeprecationWarning"
)  # of rasterio, in its own affine transforms


@pytest.fixture
def small() -> Pixels:
    return {band: np.full((side, side), 2000, np.uint16) for band, side in (("B02", 120), ("B05", 60), ("B01", 20))}


def packed(folder: Path, path: Path, **how: int) -> Path:
    with zipfile.ZipFile(path, "w", **how) as archive:  # type: ignore[arg-type]
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


def test_zips_among_folders_are_tiles(small: Pixels, tmp_path: Path) -> None:
    safe_zip(tmp_path / "a", small)
    (tmp_path / "a/unpacked").rename(tmp_path / "b")
    (tmp_path / "a/others.zip").write_bytes(b"nothing of ours")
    (tile,) = open_tiles(tmp_path / "a")
    assert (tile.product, tile.mgrs) == (NAME.rsplit("_", 1)[0], "T33LTA")
    assert tile.manifest.files
    shutil.move(next((tmp_path / "b").iterdir()), tmp_path / "a")
    with pytest.raises(BadInput, match="is the same acquisition and tile as"):
        check_tiles(open_tiles(tmp_path / "a"))


def test_a_zip_of_two_products_is_refused(small: Pixels, tmp_path: Path) -> None:
    for name in ("L1C", "L2A"):
        write_tiffs(tmp_path / "two", NAME.replace("L2A", name), small)
    with pytest.raises(BadInput, match=r"two\.zip.two: holds more than one scene: S2A_MSIL1C.* and S2A_MSIL2A"):
        open_scene(packed(tmp_path / "two", tmp_path / "two.zip"))


def test_a_flipped_byte_in_a_zip_is_noticed(small: Pixels, tmp_path: Path, cli: Cli) -> None:
    """By the product's own digest, as in a folder."""
    path = packed(safe(tmp_path, small), tmp_path / f"{NAME}.SAFE.zip")
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith("B05_20m.jp2"))
    content[info.header_offset + len(info.filename) + 30 + info.file_size // 2] ^= 1
    path.write_bytes(content)
    answer = cli("prepare", "tiles", path, tmp_path / "store.h5", "--labels", "none", "--workers", 1)
    assert answer.code in (1, 2)
    assert any("B05_20m.jp2" in line for line in answer.lines), answer.lines


def test_zips_that_gdal_cannot_read_are_refused(small: Pixels, tmp_path: Path, cli: Cli) -> None:
    product = write_tiffs(tmp_path, "scene", small)
    bz2 = packed(product, tmp_path / "bz2.zip", compression=zipfile.ZIP_BZIP2)
    encrypted = packed(product, tmp_path / "encrypted.zip")
    content = encrypted.read_bytes()
    for mark in (b"PK\3\4\x14\0\0", b"PK\1\2\x14\3\x14\0\0"):
        assert mark in content
        content = content.replace(mark, mark[:-1] + b"\1")
    encrypted.write_bytes(content)
    cut = tmp_path / "cut.zip"
    cut.write_bytes(content[:-30])
    for path, problem in (
        (bz2, "is compressed by method 12 of the zip format, expected deflate; unpack the zip"),
        (encrypted, "is encrypted; unpack the zip"),
        (cut, "is not a complete zip file"),
    ):
        answer = cli("info", path)
        assert (answer.code, len(answer.lines)) == (2, 1)
        assert problem in answer.lines[0]


def test_members_are_read_up_to_a_limit(small: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    product = safe(tmp_path, small)
    with (product / "MTD_MSIL2A.xml").open("a") as file:
        file.write(" " * 100_000)
    path = packed(product, tmp_path / "x.zip", compression=zipfile.ZIP_DEFLATED)
    assert open_scene(path).offset == 1000
    monkeypatch.setattr("landscale.scenes.metadata.MAX_METADATA", 50_000)
    monkeypatch.setattr(product_files, "MAX_METADATA", 50_000)
    with pytest.raises(BadInput, match=r"MTD_MSIL2A\.xml: has 1\d\d,\d\d\d bytes, expected at most 50,000"):
        open_scene(path)
    monkeypatch.setattr(product_files, "MAX_METADATA", 1 << 20)
    monkeypatch.setattr(rasters, "MAX_ZIPPED", 100)
    with pytest.raises(BadInput, match=r"B02_10m\.jp2: has .* bytes, expected at most 100"):
        open_scene(path)


def test_members_outside_the_zip_are_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../B02.tif", b"II*\0")
        archive.writestr("__MACOSX/._B02.tif", b"II*\0")
    with pytest.raises(BadInput, match="holds no band raster"):
        open_scene(tmp_path / "x.zip")
