"""Images of data sets: formats are recognised by content, headers have band names and metres per pixel, errors name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from archives import write_band
from landscale.datasets.images import name_bands, open_raster, read_header, read_image, read_image_into
from landscale.errors import BadInput

VALUES = np.arange(3 * 5 * 7, dtype=np.uint8).reshape(3, 5, 7)


def write_picture(path: Path, values: np.ndarray, **options: object) -> str:
    Image.fromarray(values).save(path, **options)
    return str(path)


def test_a_picture_has_a_header_without_names_and_metres_per_pixel(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", VALUES.transpose(1, 2, 0))
    header = read_header(path)
    assert (header.shape, header.dtype, header.band_names, header.gsd) == ((3, 5, 7), "uint8", (), None)
    pixels, place = read_image(path)
    assert np.array_equal(pixels, VALUES)
    assert place.crs == ""


@pytest.mark.parametrize(("dtype", "mode"), [("uint8", "L"), ("uint16", "I;16")])
def test_pictures_of_one_band(dtype: str, mode: str, tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", VALUES[0].astype(dtype) * 2)
    with Image.open(path) as image:
        assert image.mode == mode
    assert (read_header(path).shape, read_header(path).dtype) == ((1, 5, 7), dtype)
    assert np.array_equal(read_image(path)[0], VALUES[:1].astype(dtype) * 2)


def test_a_geotiff_has_names_of_bands_and_metres_per_pixel(tmp_path: Path) -> None:
    write_band(tmp_path / "a.tif", VALUES, (300_000, 5_000_000), 2.5, 32633)
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.descriptions = ("B02", "", "B8A")
    header = read_header(str(tmp_path / "a.tif"))
    assert (header.shape, header.dtype, header.band_names, header.gsd) == ((3, 5, 7), "uint8", ("B02", "", "B8A"), 2.5)
    pixels, place = read_image(str(tmp_path / "a.tif"))
    assert np.array_equal(pixels, VALUES)
    assert place == ("EPSG:32633", 300_000, 5_000_000)


def test_metres_per_pixel_of_rotated_and_oblong_pixels_are_the_root_of_their_area(tmp_path: Path) -> None:
    grids = {
        "rotated": rasterio.Affine.rotation(30) @ rasterio.Affine.scale(4, -4),
        "oblong": rasterio.Affine.scale(2, -8),
    }
    for name, grid in grids.items():
        size = {"height": 5, "width": 7, "count": 3, "dtype": "uint8"}
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", crs="EPSG:32633", transform=grid, **size
        ) as file:
            file.write(VALUES)
        assert read_header(str(tmp_path / f"{name}.tif")).gsd == 4


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_of_another_format_is_refused(suffix: str, tmp_path: Path) -> None:
    """Pillow recognises many formats by content; only PNG and JPEG are opened."""
    path = write_picture(tmp_path / f"a.{suffix}", VALUES.transpose(1, 2, 0), format="BMP")
    for read in (read_header, read_image):
        with pytest.raises(BadInput, match=rf"a\.{suffix}: is a BMP, expected a PNG or JPEG"):
            read(path)


def test_a_jpeg_named_png_is_read(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", VALUES.transpose(1, 2, 0), format="JPEG")
    assert read_header(path).shape == (3, 5, 7)


def test_a_raster_is_opened_by_the_driver_of_its_suffix_only(tmp_path: Path) -> None:
    size = {"height": 5, "width": 7, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(tmp_path / "a.img", "w", driver="HFA", transform=from_origin(0, 50, 10, 10), **size) as file:
        file.write(VALUES)
    with open_raster(tmp_path / "a.img") as image:
        assert np.array_equal(image.read(), VALUES)
    (tmp_path / "a.img").rename(tmp_path / "a.tif")
    with pytest.raises(BadInput, match=r"a\.tif: cannot be decoded as GTiff"), open_raster(tmp_path / "a.tif"):
        pass
    (tmp_path / "a.tif").rename(tmp_path / "a.vrt")
    with pytest.raises(BadInput, match=r"a\.vrt: has the wrong suffix"), open_raster(tmp_path / "a.vrt"):
        pass


def test_an_image_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", VALUES.transpose(1, 2, 0))
    for shape, expected in (((3, 7, 5), "expected 5×7 RGB"), ((1, 5, 7), "expected 7×5 L")):
        with pytest.raises(BadInput, match=f"is 7×5 RGB, {expected}"):
            read_image_into(path, np.empty(shape, np.uint8))


def test_names_of_bands_by_choice_by_description_and_rgb() -> None:
    assert name_bands("a.tif", 2, ["x", "y"], "B03,B8A") == ("B03", "B8A")
    assert name_bands("a.tif", 3, [" b8a ", "B02", "vv"], None) == ("B8A", "B02", "VV")
    assert name_bands("a.tif", 3, ["B02", "B02", "B03"], None) == ("B04", "B03", "B02")
    with pytest.raises(BadInput, match="has 3 bands, but --bands names 2"):
        name_bands("a.tif", 3, [], "B03,B8A")
    with pytest.raises(BadInput, match="has 2 bands without names"):
        name_bands("a.tif", 2, ["B02", "B02"], None)
