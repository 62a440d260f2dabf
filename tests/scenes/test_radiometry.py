"""The unit of a scene by dtype, declared scale, metadata and pixels, and the processing level of its product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from landscale.errors import BadInput
from landscale.scenes.pixels import ScenePixels, summary
from landscale.scenes.scene import open_scene
from landscale.scenes.tile import open_tiles

L2A = "S2A_MSIL2A_20170613T101031_N0205_R022_T33UUP_20170613T101608"
L1C = "S2A_MSIL1C_20170613T101031_N0205_R022_T33UUP_20170613T101608"
BANDS = ("B02", "B03", "B04")
SIDE = 120
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised by rasterio itself


def digital_numbers(low: int = 20, high: int = 6000) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, (len(BANDS), SIDE, SIDE))


def write_band(
    path: Path, values: np.ndarray, scale: float = 1, offset: float = 0, nodata: float | None = None
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 1, "dtype": values.dtype.name}
    place = {"crs": "EPSG:32633", "transform": from_origin(600_000, 5_000_000, 10, 10), "nodata": nodata}
    with rasterio.open(path, "w", **profile, **place) as file:
        file.write(values, 1)
        file.scales, file.offsets = (scale,), (offset,)


def write_scene(folder: Path, values: np.ndarray, **how: float) -> Path:
    for band, plane in zip(BANDS, values, strict=True):
        write_band(folder / f"{band}.tif", plane, **how)
    return folder


def read(folder: Path) -> np.ndarray:
    with ScenePixels(open_scene(folder), BANDS) as pixels:
        return np.stack([pixels.harmonise(pixels.read(band, 0, SIDE)) for band in BANDS])


def refused(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        (f"{L2A}.SAFE/GRANULE/L2A_T33UUP_A010313/IMG_DATA", "L2A"),
        (f"{L1C}.SAFE/GRANULE/L1C_T33UUP_A010313/IMG_DATA", "L1C"),
        (L1C, "L1C"),
        ("L2A_T33UUP_A010313/IMG_DATA", "L2A"),
        ("mybands", "unknown"),
        ("downloads_of_L2A/mybands", "unknown"),
    ],
)
def test_the_level_by_the_names_of_folders(tmp_path: Path, inside: str, expected: str) -> None:
    """Every folder from the product to the bands may be given; the name of a user's own folder around it does not count."""
    write_scene(tmp_path / inside, digital_numbers().astype(np.uint16))
    given = tmp_path / inside
    while given != tmp_path and given.name != "downloads_of_L2A":
        scene = open_scene(given)
        assert (scene.level, summary(scene)["level"]) == (expected, expected)
        given = given.parent


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_the_level_by_the_metadata_file(tmp_path: Path, level: str) -> None:
    write_scene(tmp_path / "mine", digital_numbers().astype(np.uint16))
    (tmp_path / "mine" / f"MTD_MSI{level}.xml").write_text("<x/>")
    assert (open_scene(tmp_path / "mine").level, open_scene(tmp_path / "mine").unit) == (level, "digital number")


@pytest.mark.parametrize(
    ("name", "dtype", "scale", "given", "expected"),
    [
        (L2A, "uint16", 1, None, "digital number"),
        ("mybands", "uint16", 1, None, "unknown"),
        ("mybands", "uint16", 1, 0, "digital number"),
        ("mybands", "int16", 1e-4, None, "digital number"),
        ("mybands", "uint8", 1, None, "8-bit"),
        (L2A, "uint8", 1, None, "8-bit"),
    ],
)
def test_the_unit_of_integers(
    tmp_path: Path, name: str, dtype: str, scale: float, given: int | None, expected: str
) -> None:
    values = digital_numbers(1, 250) if dtype == "uint8" else digital_numbers()
    scene = open_scene(write_scene(tmp_path / name, values.astype(dtype), scale=scale), given)
    assert (scene.unit, scene.pixel_unit, summary(scene)["unit"]) == (expected,) * 3


def test_floats_become_digital_numbers(tmp_path: Path) -> None:
    """Reflectance of 0 to 1 and numbers of 0 to 10,000; 0, NaN and the file's own nodata value become 0, negative ones 1."""
    expected = digital_numbers()
    expected[0, 0, :3], expected[1, 0, 0] = 0, 1
    reflectance = (expected / 1e4).astype(np.float32)
    reflectance[0, 0, :2], reflectance[1, 0, 0] = (np.nan, -9999), -0.02
    write_scene(tmp_path / "reflectance", reflectance, nodata=-9999)
    assert np.array_equal(read(tmp_path / "reflectance"), expected)
    scene = open_scene(tmp_path / "reflectance")
    assert (scene.unit, scene.pixel_unit) == ("reflectance", "digital number")
    write_scene(tmp_path / "numbers", expected.astype(np.float32))
    assert np.array_equal(read(tmp_path / "numbers"), expected)
    assert open_scene(tmp_path / "numbers").unit == "digital number"


def test_a_declared_scale_and_offset_of_another_unit_count(tmp_path: Path) -> None:
    """Reflectance = number · 0.0000275 − 0.2, as in products of Landsat."""
    expected = digital_numbers()
    stored = np.rint((expected / 1e4 + 0.2) / 2.75e-5).astype(np.uint16)
    write_scene(tmp_path / "scene", stored, scale=2.75e-5, offset=-0.2)
    assert np.abs(read(tmp_path / "scene").astype(int) - expected).max() <= 1
    scene = open_scene(tmp_path / "scene")
    assert (scene.unit, scene.offset) == ("reflectance", 0)


def test_reflectance_in_a_product_with_an_offset_is_not_shifted_twice(tmp_path: Path) -> None:
    """Whoever computed it may have removed the offset: it counts if the numbers look shifted, and only if it is given."""
    name = L2A.replace("N0205", "N0509")
    numbers = digital_numbers()
    write_scene(tmp_path / "right" / name, (numbers / 1e4).astype(np.float32))
    assert np.array_equal(read(tmp_path / "right" / name), numbers)
    shifted = write_scene(tmp_path / "shifted" / name, ((numbers + 1000) / 1e4).astype(np.float32))
    with ScenePixels(open_scene(shifted), BANDS) as pixels, pytest.raises(BadInput, match="give --offset 1000"):
        pixels.check_offset()
    with ScenePixels(open_scene(shifted, 1000), BANDS) as pixels:
        assert np.array_equal(pixels.harmonise(pixels.read("B02", 0, SIDE)), numbers[0])


def test_floats_of_no_unit_of_reflectance_are_refused(tmp_path: Path) -> None:
    values = digital_numbers()
    percent = write_scene(tmp_path / "percent", (values / 100).astype(np.float32))
    assert ".tif: holds values from 0.7" in refused(percent)
    decibels = write_scene(tmp_path / "decibels", (-values / 300).astype(np.float32))
    assert "expected reflectance (0 to 1) or digital numbers" in refused(decibels)
    twice = write_scene(
        tmp_path / "twice", (values / 1e4).astype(np.float32), scale=1e-4
    )  # the scale of the original file
    assert "holds values from" in refused(twice)
    empty = write_scene(tmp_path / "empty", np.zeros_like(values, np.float32))
    assert not read(empty).any()
    fill = (values / 1e4).astype(np.float32)
    fill[0, 5, 5] = -9999
    assert "declare it (gdal_edit.py -a_nodata)" in refused(write_scene(tmp_path / "fill", fill))


def test_bands_of_two_units_are_refused(tmp_path: Path) -> None:
    folder = write_scene(tmp_path / "mixed", digital_numbers().astype(np.uint16), scale=1e-4)
    write_band(folder / "B03.tif", digital_numbers(1, 250)[0].astype(np.uint8))
    assert "B03.tif: holds 8-bit picture values, but B04 holds digital numbers" in refused(folder)


def test_a_dark_band_has_the_unit_of_the_others(tmp_path: Path) -> None:
    """Cirrus, or short waves over water, may reach 30 only; but values of less than 1 are reflectance among digital numbers."""
    values = digital_numbers().astype(np.float32)
    values[1] /= 200
    assert np.array_equal(read(write_scene(tmp_path / "dark", values)), np.rint(values).clip(1))
    values[1] /= 200
    assert "holds" in refused(write_scene(tmp_path / "mixed", values))


def test_8_bit_tiles_are_refused(tmp_path: Path) -> None:
    folder = write_scene(tmp_path / L2A, digital_numbers(1, 250).astype(np.uint8))
    with pytest.raises(BadInput, match="holds 8-bit picture values, expected digital numbers"):
        open_tiles(folder)
