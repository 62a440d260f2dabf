"""Pictures that would lose bits, fill the memory, or are of another format are refused; names are shown as they are."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.windows import Window

from conftest import Cli
from landscale.datasets.images import read_header, read_image
from landscale.errors import BadInput
from landscale.formats.geotiff import read_band


def png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("colour,channels", [(2, 3), (6, 4)])
def test_colour_pictures_of_16_bits_are_refused(tmp_path: Path, colour: int, channels: int) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(png(2, 2, 16, colour, 2 * (b"\0" + bytes(4 * channels))))
    with pytest.raises(BadInput, match="is a colour PNG of 16 bits, of which 8 would be lost"):
        read_header(str(file))


def test_grey_pictures_of_16_bits_are_read(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(png(2, 2, 16, 0, 2 * (b"\0" + bytes(4))))
    assert read_header(str(file)).dtype == "uint16"


@pytest.mark.parametrize("side", [16_385, 30_000])
def test_huge_pictures_are_refused_by_their_header(tmp_path: Path, side: int) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(png(side, side, 8, 2, b"0"))
    with pytest.raises(BadInput, match=r"px a side|could be decompression bomb"):
        read_header(str(file))


def test_names_with_markup_are_shown_as_they_are(tmp_path: Path, cli: Cli) -> None:
    names = ["[red]", "forest [dense]", "lake :smile:"]
    for name in names:
        (tmp_path / "[b]" / name).mkdir(parents=True)
        for k in range(3):
            Image.fromarray(np.full((8, 8, 3), 40 * k, np.uint8)).save(tmp_path / "[b]" / name / f"{k}.png")
    store = tmp_path / "[bold].h5"
    assert cli("prepare", "folder", tmp_path / "[b]", store, "--workers", 1).code == 0
    shown = cli("info", store)
    assert shown.code == 0
    assert all(name in shown.out for name in [*names, "[bold].h5"])


def test_a_tiff_with_more_after_its_pixels_is_read(tmp_path: Path) -> None:
    """As those of UC Merced, which end with the directory of an Exif block."""
    file = tmp_path / "x.tif"
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels).save(file)
    file.write_bytes(file.read_bytes() + b"Exif")
    found, _ = read_image(str(file))
    assert (found == pixels.transpose(2, 0, 1)).all()


RGB = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
REFUSED = {
    "a palette": ("x.png", lambda rgb: rgb.quantize(8), {}, "has a palette"),
    "alpha": ("x.png", lambda rgb: rgb.convert("RGBA"), {}, "has an alpha channel"),
    "grey with alpha": ("x.png", lambda rgb: rgb.convert("LA"), {}, "has an alpha channel"),
    "one bit": ("x.png", lambda rgb: rgb.convert("1"), {}, "has 1 bit a pixel"),
    "CMYK": ("x.jpg", lambda rgb: rgb.convert("CMYK"), {}, "is in CMYK"),
    "a palette in a TIFF": ("x.tif", lambda rgb: rgb.quantize(8), {}, "has a palette"),
    "one bit in a TIFF": ("x.tif", lambda rgb: rgb.convert("1"), {}, "has 1-bit pixels"),
    "CMYK in a TIFF": ("x.tif", lambda rgb: rgb.convert("CMYK"), {}, "is in CMYK"),
    "YCbCr in a TIFF": ("x.tif", lambda rgb: rgb.convert("YCbCr"), {}, "is in YCbCr"),
    "white as 0": ("x.tif", lambda rgb: rgb.convert("L"), {"tiffinfo": {262: 0}}, "stores white as 0"),
    "a turned TIFF": (
        "x.tif",
        lambda rgb: rgb,
        {"tiffinfo": {274: 6}},
        "is stored rotated or mirrored (orientation 6)",
    ),
    "pages": ("x.tif", lambda rgb: rgb, {"save_all": True, "append_images": [Image.fromarray(RGB)]}, "has 2 pages"),
    "a GIF": ("x.png", lambda rgb: rgb, {"format": "GIF"}, "is a GIF, expected a PNG or JPEG"),
    "a JPEG": ("x.tif", lambda rgb: rgb, {"format": "JPEG"}, "is a JPEG, expected a TIFF file"),
    "a TIFF": ("x.jpg", lambda rgb: rgb, {"format": "TIFF"}, "is a TIFF, expected a PNG or JPEG"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_pixels_that_are_no_values_of_bands_are_refused(case: str, tmp_path: Path) -> None:
    name, convert, how, problem = REFUSED[case]
    convert(Image.fromarray(RGB)).save(tmp_path / name, **how)
    with pytest.raises(BadInput) as caught:
        read_image(str(tmp_path / name))
    assert caught.value.problem.startswith(problem)


@pytest.mark.parametrize(
    "content,problem", [(b"", "is empty"), (b"404", "is not a PNG or JPEG: it begins with b'404'")]
)
def test_files_that_are_no_pictures(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    for read in (read_header, read_image):
        with pytest.raises(BadInput) as caught:
            read(str(tmp_path / "x.jpg"))
        assert caught.value.problem == problem


@pytest.mark.parametrize("turned", range(1, 9))
def test_pictures_are_turned_as_their_exif_data_require(turned: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.fromarray(RGB[:, :5]).save(tmp_path / "x.png", exif=exif)
    expected = {
        1: RGB[:, :5],
        2: RGB[:, :5][:, ::-1],
        3: RGB[:, :5][::-1, ::-1],
        4: RGB[:, :5][::-1],
        5: RGB[:, :5].transpose(1, 0, 2),
        6: np.rot90(RGB[:, :5], -1),
        7: RGB[:, :5].transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(RGB[:, :5]),
    }[turned]
    found, _ = read_image(str(tmp_path / "x.png"))
    assert np.array_equal(found, expected.transpose(2, 0, 1))
    assert read_header(str(tmp_path / "x.png")).shape == found.shape


@pytest.mark.parametrize("size", [{"width": 9000, "height": 8}, {"width": 8192, "height": 8192, "count": 9}])
def test_huge_rasters_are_refused_by_their_header(size: dict[str, int], tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "x.tif", "w", "GTiff", **{"count": 1} | size, dtype="uint8", sparse_ok=True, tiled=True
    ):
        pass
    with pytest.raises(BadInput, match="expected at most 8192 px a side and 536,870,912 bytes"):
        read_image(str(tmp_path / "x.tif"))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize(
    "how", [{"blockysize": 16}, {"blockxsize": 16, "blockysize": 16, "tiled": True}, {"bigtiff": "YES"}]
)
@pytest.mark.parametrize("compress", [None, "deflate"])
def test_omitted_blocks_are_zeros(compress: str | None, how: dict[str, Any], written: bool, tmp_path: Path) -> None:
    """GDAL's SPARSE_OK: strips and tiles of zeros have the offset 0."""
    expected = np.zeros((32, 32), np.uint16)
    path = str(tmp_path / "x.tif")
    profile = {"width": 32, "height": 32, "count": 1, "dtype": "uint16", "sparse_ok": True, "compress": compress}
    with rasterio.open(path, "w", "GTiff", **profile | how) as file:
        if written:
            expected[16:] = 7
            file.write(expected[None, 16:], window=Window(0, 16, 32, 16))
    band = np.ones((32, 32), np.uint16)
    read_band(path, band)
    image, _ = read_image(path)
    assert np.array_equal(band, expected)
    assert np.array_equal(image[0], expected)
