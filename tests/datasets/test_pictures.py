"""Pictures that would lose bits, fill the memory, or are of another format are refused; names are shown as they are."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Cli
from landscale.datasets.images import read_header, read_image
from landscale.errors import BadInput


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
