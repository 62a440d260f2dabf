"""Fractions of nodata, cloud, shadow and snow in a patch by the scene classification, flags from them, and limits on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conftest import Cli
from landscale.datasets.synthetic.bigearthnet_archive import PRODUCT
from landscale.datasets.tiles.quality_masks import Limits, mask_fractions
from landscale.scenes.tile import Tile, open_tiles
from landscale.store import SHARES, open_store
from landscapes import SIDE, refused
from products import CORNER, Bands, classification, write_tiffs


@pytest.fixture(scope="module")
def tile(safe: Path) -> Tile:
    return open_tiles(safe)[0]


def counted_fractions(scl: NDArray[np.generic], y: int, x: int) -> list[float]:
    """Fractions of nodata, cloud, shadow and snow in the patch at (y, x) px of 10 m; `scl` has pixels of 20 m."""
    patch = scl[y // 2 : y // 2 + 60, x // 2 : x // 2 + 60]
    return [float(np.isin(patch, values).mean()) for values in ((0,), (8, 9, 10), (3,), (11,))]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), min_size=1, max_size=5))
def test_fractions_of_patches_anywhere_on_the_grid_of_60_m(tile: Tile, places: list[tuple[int, int]]) -> None:
    corners = np.array(places) * 6
    expected = [counted_fractions(classification(SIDE), y, x) for y, x in corners.tolist()]
    np.testing.assert_allclose(mask_fractions(tile, corners, 120), expected, atol=1e-6)


def test_without_a_scene_classification_only_nodata_is_known(bands: Bands, tmp_path: Path) -> None:
    """A third of the first patch is nodata: its rows of 60 m at the top are 0 in all bands."""
    empty = {band: values.copy() for band, values in bands.items()}
    for values in empty.values():
        values[: 40 * len(values) // SIDE] = 0
    (tile,) = open_tiles(write_tiffs(tmp_path, PRODUCT, empty))
    fractions = mask_fractions(tile, np.array([[0, 0], [120, 0]]), 120)
    np.testing.assert_allclose(fractions[:, 0], [6 / 20, 0])  # 40 px of 10 m are 6 whole pixels of 60 m
    assert np.isnan(fractions[:, 1:]).all()


def test_fractions_and_flags_are_stored_and_limits_leave_patches_out(
    safe: Path, clc: Path, prepared: Callable[..., Path], cli: Cli
) -> None:
    store = open_store(prepared("tiles", safe, "--corine", clc))
    origin = store.column("origin")
    y, x = (CORNER[1] - origin[:, 1]) / 10, (origin[:, 0] - CORNER[0]) / 10
    expected = np.array([counted_fractions(classification(SIDE), int(v), int(u)) for v, u in zip(y, x, strict=True)])
    found = np.stack([store.column(key) for key in SHARES], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (store.column("snow") == (expected[:, 3] >= 0.05)).all()
    assert (store.column("cloud") == (expected[:, 1] + expected[:, 2] >= 0.05)).all()
    for option, fraction in (
        ("--max-cloud", expected[:, 1] + expected[:, 2]),
        ("--max-snow", expected[:, 3]),
        ("--max-nodata", expected[:, 0]),
    ):
        limit = float(np.median(fraction))
        kept = open_store(prepared("tiles", safe, "--corine", clc, option, limit + 1e-6, name=f"{option}.h5"))
        assert {*kept.column("name")} == {*store.column("name")[fraction <= limit + 1e-6]}
        assert kept.attributes["provenance"]["left_out"]["by limits"] == 25 - len(kept)


def test_limits_are_inclusive_and_patches_without_data_are_never_kept(tmp_path: Path) -> None:
    """Columns: nodata, cloud, shadow, snow."""
    fractions = np.array(
        [[0, 0.25, 0.25, 0], [0, 0.25, 0.5, 0], [0, 0, 0, 0.5], [0.5, 0, 0, 0], [1, 0, 0, 0]], np.float32
    )
    assert Limits().keep(fractions, tmp_path).tolist() == [True, True, True, True, False]
    assert Limits(cloud=0.5).keep(fractions, tmp_path).tolist() == [True, False, True, True, False]
    assert Limits(snow=0.25).keep(fractions, tmp_path).tolist() == [True, True, False, True, False]
    assert Limits(nodata=0.5).keep(fractions, tmp_path).tolist() == [True, True, True, True, False]
    assert Limits(nodata=0.25).keep(fractions, tmp_path).tolist() == [True, True, True, False, False]


def test_the_classification_may_be_a_geotiff(
    bands: Bands, clc: Path, tmp_path: Path, prepared: Callable[..., Path]
) -> None:
    product = write_tiffs(tmp_path, PRODUCT, bands, classification(SIDE), compress="lzw")
    store = open_store(prepared("tiles", product, "--corine", clc))
    assert store.column("cloud_share").max() > 0.1


def test_the_classification_may_be_a_band_of_a_stack(tile: Tile, bands: Bands, tmp_path: Path) -> None:
    """Numbers are uint16 as those of the bands, and the nodata value of the raster stands for code 0."""
    with rasterio.open(write_tiffs(tmp_path, PRODUCT, bands) / "B02.tif") as file:
        profile = file.profile | {"count": 2, "nodata": 65_535}
    scl = classification(SIDE).repeat(2, 0).repeat(2, 1).astype(np.uint16)
    scl[scl == 0] = 65_535
    with rasterio.open(tmp_path / f"{PRODUCT}.tif", "w", **profile) as file:
        file.write(np.stack([bands["B02"], scl]))
        file.descriptions = "B02", "SCL"
    (stack,) = open_tiles(tmp_path / f"{PRODUCT}.tif")
    corners = np.array([[0, 0], [60, 120]])
    assert np.array_equal(mask_fractions(stack, corners, 120), mask_fractions(tile, corners, 120))


@pytest.mark.parametrize("option", ["--max-cloud", "--max-snow"])
def test_limits_on_cloud_and_snow_need_a_classification(
    option: str, bands: Bands, clc: Path, tmp_path: Path, cli: Cli
) -> None:
    product = write_tiffs(tmp_path, PRODUCT, bands)
    answer = cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc, option, 0.1, "--workers", 1)
    refused(answer, product, "has no scene classification", option)


def test_a_classification_that_covers_another_area_is_refused(
    bands: Bands, clc: Path, tmp_path: Path, cli: Cli
) -> None:
    product = write_tiffs(tmp_path, PRODUCT, bands, classification(SIDE - 40))
    refused(cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc), product / "SCL.tif", "280×280")


@pytest.mark.parametrize(
    "words", [("--max-cloud", 20), ("--max-snow", -0.1), ("--max-nodata", "nan"), ("--min-share", 5)]
)
def test_fractions_outside_0_to_1_are_refused(
    words: tuple[object, ...], safe: Path, clc: Path, tmp_path: Path, cli: Cli
) -> None:
    """As when a user gives percentages."""
    refused(cli("prepare", "tiles", safe, tmp_path / "s.h5", "--corine", clc, *words), words[0], "0 to 1")
