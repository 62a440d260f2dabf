"""The fast reader returns the same pixels as rasterio or raises an error, for any valid or damaged file."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from archives import GSD, Patch, pixels, write_band, write_patch
from landscale.errors import BadInput
from landscale.formats import geotiff
from landscale.formats.geotiff import Place, read_band

CORNER = (604_800, 5_834_040)


@pytest.fixture(autouse=True)
def _cold() -> Iterator[None]:
    """Remove the templates of earlier tests."""
    geotiff._templates.clear()
    yield
    geotiff._templates.clear()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest file of an archive: 20×20, one strip."""
    path = tmp_path_factory.mktemp("plain") / "B01.tif"
    write_band(path, pixels(1, "B01"), CORNER, 60, 32629)
    return path


def read(path: Path, side: int, dtype: str = "uint16") -> tuple[NDArray[np.generic], Place]:
    out = np.zeros((side, side), dtype)
    place = read_band(str(path), out)
    assert out.shape == (side, side)
    return out, place


def by_rasterio(path: Path) -> tuple[NDArray[np.generic], Place]:
    with rasterio.open(path) as file:
        return file.read(1), Place(f"EPSG:{file.crs.to_epsg()}", file.transform.c, file.transform.f)


def test_the_fixture_is_laid_out_as_the_archives_are(plain: Path, tmp_path: Path) -> None:
    """Sizes of the published files: 1,160 and 29,192 bytes in v1, 1,172 and 29,196 in v2."""
    assert plain.stat().st_size == 1160
    write_patch(tmp_path / "v2", Patch(0), nodata=0)
    assert (tmp_path / "v2/v2_B01.tif").stat().st_size == 1172
    assert (tmp_path / "v2/v2_B02.tif").stat().st_size == 29196
    page = tifffile.TiffFile(tmp_path / "v2/v2_B02.tif").pages[0]
    assert page.tags["StripOffsets"].count == 4


@pytest.mark.parametrize("band", GSD)
def test_equals_rasterio_on_the_archives_files(band: str, tmp_path: Path) -> None:
    """Read without a template, with one, and after a file with other pixels."""
    for k in (0, 1, 2):
        write_patch(tmp_path / str(k), Patch(k))
    for k in (0, 2, 1, 0):
        path = tmp_path / str(k) / f"{k}_{band}.tif"
        found, place = read(path, 1200 // GSD[band])
        expected, where = by_rasterio(path)
        assert np.array_equal(found, expected)
        assert np.array_equal(found, pixels(k, band))
        assert place == where == Place(f"EPSG:{Patch(k).epsg}", *Patch(k).corner)


def test_the_archives_files_need_no_rasterio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in (0, 1):
        write_patch(tmp_path / str(k), Patch(k), nodata=0)
    monkeypatch.setattr(geotiff, "_read_by_rasterio", lambda *_: pytest.fail("read by rasterio"))
    for k in (0, 1):
        for band, gsd in GSD.items():
            read(tmp_path / str(k) / f"{k}_{band}.tif", 1200 // gsd)


OTHERS = {
    "lzw": {"compress": "lzw"},
    "deflate with predictor": {"compress": "deflate", "predictor": 2},
    "zstd": {"compress": "zstd"},
    "tiled": {"tiled": True, "blockxsize": 16, "blockysize": 16},
    "tiled and compressed": {"tiled": True, "blockxsize": 16, "blockysize": 32, "compress": "deflate"},
    "big-endian": {"ENDIANNESS": "BIG"},
    "BigTIFF": {"BIGTIFF": "YES"},
    "strips of one row": {"blockysize": 1},
    "interleaved": {"interleave": "band"},
    "no data value": {"nodata": 65535},
}


@pytest.mark.parametrize("how", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("warm", [False, True])
def test_equals_rasterio_on_other_files(how: dict[str, object], warm: bool, plain: Path, tmp_path: Path) -> None:
    if warm:
        read(plain, 20)
    path = tmp_path / "other.tif"
    write_band(path, pixels(2, "B09"), CORNER, 60, 32635, **how)
    found, place = read(path, 20)
    assert np.array_equal(found, pixels(2, "B09"))
    assert place == by_rasterio(path)[1] == Place("EPSG:32635", *CORNER)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_other_dtypes_are_read(dtype: str, tmp_path: Path) -> None:
    values = pixels(0, "B02", (20, 20)).astype(dtype)
    write_band(tmp_path / "a.tif", values, CORNER, 10, 32633)
    for _ in range(2):
        assert np.array_equal(read(tmp_path / "a.tif", 20, dtype)[0], values)


def test_a_header_behind_the_pixels(tmp_path: Path) -> None:
    """GDAL moves the directory to the end when tags are added to a file."""
    path = tmp_path / "a.tif"
    write_band(path, pixels(0, "B01"), CORNER, 60, 32633)
    with rasterio.open(path, "r+") as file:
        file.update_tags(note="x" * 300)
    assert path.stat().st_size > 1160
    assert np.array_equal(read(path, 20)[0], pixels(0, "B01"))


def test_several_pages_give_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_band(path, pixels(0, "B02"), CORNER, 10, 32633)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    assert np.array_equal(read(path, 120)[0], pixels(0, "B02"))


def test_a_tie_point_at_the_centre_of_a_pixel(tmp_path: Path) -> None:
    """AREA_OR_POINT=Point: the outer corner lies half a pixel up and left."""
    path = tmp_path / "a.tif"
    values, place = pixels(0, "B01"), rasterio.Affine(60, 0, CORNER[0], 0, -60, CORNER[1])
    profile = {"driver": "GTiff", "count": 1, "height": 20, "width": 20, "dtype": "uint16", "crs": "EPSG:32633"}
    with rasterio.open(path, "w", **profile, transform=place) as file:
        file.update_tags(AREA_OR_POINT="Point")  # before the pixels: the header stays in front
        file.write(values, 1)
    tie = tifffile.TiffFile(path).pages[0].tags["ModelTiepointTag"].value
    assert tie[3:5] == (CORNER[0] + 30, CORNER[1] - 30)
    found, where = read(path, 20)
    assert where == by_rasterio(path)[1] == Place("EPSG:32633", *CORNER)
    assert np.array_equal(found, values)


def test_a_file_without_place(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels(0, "B01"))
    assert np.array_equal(read(path, 20)[0], pixels(0, "B01"))
    assert not len(recwarn)  # a warning would stand on stderr


def test_a_template_is_not_used_for_a_file_with_another_header(tmp_path: Path) -> None:
    """Files of the same size but other CRS, tie point or scale, in every order."""
    files = {}
    for k, (epsg, x, gsd) in enumerate([(32633, 1.5, 60), (32629, 1.5, 60), (32633, 99.25, 60), (32633, 1.5, 30)]):
        files[k] = tmp_path / f"{k}.tif"
        write_band(files[k], pixels(k, "B01"), (x, 2.0), gsd, epsg)
    assert len({f.stat().st_size for f in files.values()}) == 1
    for k in (0, 1, 0, 2, 3, 2, 1, 3, 0):
        found, place = read(files[k], 20)
        assert np.array_equal(found, pixels(k, "B01"))
        assert place == by_rasterio(files[k])[1]


def test_a_buffer_is_used_again_after_a_failure(plain: Path, tmp_path: Path) -> None:
    """rasterio leaves an array in another shape when decoding fails."""
    bad = tmp_path / "bad.tif"
    write_band(bad, pixels(0, "B01"), CORNER, 60, 32633, compress="deflate")
    content = bytearray(bad.read_bytes())
    content[-400:] = b"\xff" * 400
    bad.write_bytes(content)
    out = np.zeros((20, 20), np.uint16)
    with pytest.raises(BadInput, match=r"bad\.tif: cannot be decoded") as caught:
        read_band(str(bad), out)
    assert "previous exception" not in str(caught.value)
    read_band(str(plain), out)
    assert np.array_equal(out, pixels(1, "B01"))


@pytest.mark.parametrize("warm", [False, True])
class TestRefusals:
    """Each message names the file, what was found and what was expected."""

    @pytest.fixture(autouse=True)
    def _warm(self, warm: bool, plain: Path) -> None:
        if warm:
            read(plain, 20)

    def refused(self, path: Path, side: int = 20) -> str:
        with pytest.raises(BadInput) as caught:
            read(path, side)
        line = str(caught.value)
        assert line.startswith(f"{path}: ")
        assert "\n" not in line
        return caught.value.problem

    def test_shape(self, tmp_path: Path) -> None:
        write_band(tmp_path / "a.tif", pixels(0, "B05"), CORNER, 20, 32633)
        assert self.refused(tmp_path / "a.tif") == "is 60×60 uint16, expected 20×20 uint16"
        write_band(tmp_path / "b.tif", pixels(0, "B05", (10, 40)), CORNER, 20, 32633)
        assert self.refused(tmp_path / "b.tif") == "is 40×10 uint16, expected 20×20 uint16"

    @pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
    def test_dtype(self, dtype: str, tmp_path: Path) -> None:
        write_band(tmp_path / "a.tif", pixels(0, "B01").astype(dtype), CORNER, 60, 32633)
        assert self.refused(tmp_path / "a.tif") == f"is 20×20 {dtype}, expected 20×20 uint16"

    @pytest.mark.parametrize("how", [{}, {"compress": "lzw"}])
    def test_several_bands(self, how: dict[str, object], tmp_path: Path) -> None:
        write_band(tmp_path / "a.tif", np.stack([pixels(0, "B01")] * 3), CORNER, 60, 32633, **how)
        assert self.refused(tmp_path / "a.tif") == "has 3 bands, expected 1"

    def test_no_tiff(self, tmp_path: Path) -> None:
        (tmp_path / "a.tif").write_text("this is no picture\n" * 61)
        assert self.refused(tmp_path / "a.tif") == "is not a TIFF file: it begins with b'this is no pictu'"

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.tif").touch()
        assert self.refused(tmp_path / "a.tif") == "is empty"

    def test_missing(self, tmp_path: Path) -> None:
        assert self.refused(tmp_path / "a.tif") == "cannot be read (No such file or directory)"

    def test_a_folder(self, tmp_path: Path) -> None:
        assert self.refused(tmp_path) == "is not a regular file"

    def test_too_long(self, plain: Path, tmp_path: Path) -> None:
        (tmp_path / "a.tif").write_bytes(plain.read_bytes() + b"\0")
        assert self.refused(tmp_path / "a.tif") == "has 1161 bytes, its header announces 1160"

    def test_truncated_anywhere(self, plain: Path, tmp_path: Path) -> None:
        path = Path(shutil.copy(plain, tmp_path / "a.tif"))
        for length in reversed(range(path.stat().st_size)):
            os.truncate(path, length)
            self.refused(path)

    @pytest.mark.parametrize(
        "how", [{"compress": "lzw"}, {"ENDIANNESS": "BIG"}, {"tiled": True, "blockxsize": 16, "blockysize": 16}]
    )
    def test_other_files_truncated(self, how: dict[str, object], tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        write_band(path, pixels(0, "B01"), CORNER, 60, 32633, **how)
        content = path.read_bytes()
        for length in range(0, len(content), 37):
            path.write_bytes(content[:length])
            self.refused(path)


def attempt(path: Path) -> NDArray[np.generic] | None:
    try:
        return read(path, 20)[0]
    except BadInput:
        return None


@pytest.mark.parametrize("bits", [(0, 3, 6), pytest.param(range(8), marks=pytest.mark.slow)], ids=["some", "all"])
def test_a_flipped_bit_of_a_header(bits: Sequence[int], plain: Path, tmp_path: Path) -> None:
    """The file is refused or has the same pixels. Flips all `bits` of a byte in the directory, elsewhere one bit."""
    content, path = plain.read_bytes(), tmp_path / "a.tif"
    original = pixels(1, "B01")
    start = len(content) - original.nbytes
    values = 8 + 2 + 12 * content[8] + 4
    flips = [(at, bit) for at in range(start) for bit in (bits if at < values else [at % 8])]
    accepted = 0
    for at, bit in flips:
        mutated = bytearray(content)
        mutated[at] ^= 1 << bit
        path.write_bytes(mutated)
        found = attempt(path)
        accepted += found is not None
        assert found is None or np.array_equal(found, original), (at, bit)
    assert 0 < accepted < len(flips)


@settings(max_examples=150)
@given(st.data())
def test_mutated_headers_give_an_error_or_the_right_pixels(plain: Path, tmp_path: Path, data: st.DataObject) -> None:
    """An accepted file has the pixels of the original, or those that rasterio reads from it."""
    content = bytearray(plain.read_bytes())
    start = len(content) - 800
    for _ in range(data.draw(st.integers(1, 6))):
        word = data.draw(st.sampled_from([1, 2, 4]))
        at = data.draw(st.integers(0, start - word))
        value = data.draw(
            st.sampled_from([0, 1, 2, 3, 4, 8, 12, 13, 16, 20, 32, 255]) | st.integers(0, 2 ** (8 * word) - 1)
        )
        content[at : at + word] = struct.pack("<I", value)[:word]
    content = content[: data.draw(st.sampled_from([len(content), start, start + 400]) | st.integers(0, len(content)))]
    path = tmp_path / "m.tif"
    path.write_bytes(content)
    geotiff._templates.clear()
    if data.draw(st.booleans()):
        read(plain, 20)
    found = attempt(path)
    if found is not None and not np.array_equal(found, pixels(1, "B01")):
        with rasterio.open(path) as file:
            assert np.array_equal(found, file.read(1))


@given(st.binary(max_size=600))
def test_anything_that_starts_as_a_tiff(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "a.tif"
    for magic in (b"II*\0", b"II*\0\x08\0\0\0", b"MM\0*", b"II+\0"):
        path.write_bytes(magic + tail)
        assert attempt(path) is None


def test_a_mutated_file_is_no_template(plain: Path, tmp_path: Path) -> None:
    """A refused file does not become the template by which the next one is accepted."""
    bad = tmp_path / "bad.tif"
    bad.write_bytes(plain.read_bytes() + b"junk")
    assert attempt(bad) is None
    good = tmp_path / "good.tif"
    shutil.copy(plain, good)
    found, place = read(good, 20)
    assert np.array_equal(found, pixels(1, "B01"))
    assert place == Place("EPSG:32629", *CORNER)
    assert attempt(bad) is None
