"""What can be seen of a patch: shares of nodata, cloud, shadow and snow, and limits on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conftest import Cli
from landscale.datasets.synthetic.bigearthnet_archive import PRODUCT
from landscale.datasets.tiles import survey as tiles
from landscale.scenes.tile import open_tiles
from landscale.store import SHARES, open_store
from landscapes import SIDE, refused
from products import CORNER, Bands, classification, write_tiffs


@pytest.fixture(scope="module")
def tile(safe: Path) -> tiles.Tile:
    return open_tiles(safe)[0]


def shares_of(scl: NDArray[np.generic], y: int, x: int) -> list[float]:
    here = scl[y // 2 : y // 2 + 60, x // 2 : x // 2 + 60]
    return [float(np.isin(here, classes).mean()) for classes in ((0,), (8, 9, 10), (3,), (11,))]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), min_size=1, max_size=5))
def test_shares_anywhere(tile: tiles.Tile, places: list[tuple[int, int]]) -> None:
    corners = np.array(places) * 6
    expected = [shares_of(classification(SIDE), y, x) for y, x in corners.tolist()]
    np.testing.assert_allclose(tiles.shares(tile, corners, 120), expected, atol=1e-6)


def test_shares_and_flags_are_kept(safe: Path, clc: Path, prepared: Callable[..., Path], cli: Cli) -> None:
    store = open_store(prepared("tiles", safe, "--corine", clc))
    origin = store.column("origin")
    y, x = (CORNER[1] - origin[:, 1]) / 10, (origin[:, 0] - CORNER[0]) / 10
    expected = np.array([shares_of(classification(SIDE), int(v), int(u)) for v, u in zip(y, x, strict=True)])
    found = np.stack([store.column(key) for key in SHARES], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (store.column("snow") == (expected[:, 3] >= 0.05)).all()
    assert (store.column("cloud") == (expected[:, 1] + expected[:, 2] >= 0.05)).all()
    for option, share in (
        ("--max-cloud", expected[:, 1] + expected[:, 2]),
        ("--max-snow", expected[:, 3]),
        ("--max-nodata", expected[:, 0]),
    ):
        limit = float(np.median(share))
        less = open_store(prepared("tiles", safe, "--corine", clc, option, limit + 1e-6, name=f"{option}.h5"))
        assert {*less.column("name")} == {*store.column("name")[share <= limit + 1e-6]}
        assert less.attributes["provenance"]["left_out"]["by limits"] == 25 - len(less)


def test_the_classification_is_a_geotiff_too(
    bands: Bands, clc: Path, tmp_path: Path, prepared: Callable[..., Path]
) -> None:
    product = write_tiffs(tmp_path, PRODUCT, bands, classification(SIDE), compress="lzw")
    store = open_store(prepared("tiles", product, "--corine", clc))
    assert store.column("cloud_share").max() > 0.1


@pytest.mark.parametrize("option", ["--max-cloud", "--max-snow"])
def test_limits_need_a_classification(option: str, bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    product = write_tiffs(tmp_path, PRODUCT, bands)
    answer = cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc, option, 0.1, "--workers", 1)
    refused(answer, product, "has no scene classification", option)


def test_a_classification_of_another_place_is_refused(bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    product = write_tiffs(tmp_path, PRODUCT, bands, classification(SIDE - 40))
    refused(cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc), product / "SCL.tif", "280×280")


@pytest.mark.parametrize(
    "words", [("--max-cloud", 20), ("--max-snow", -0.1), ("--max-nodata", "nan"), ("--min-share", 5)]
)
def test_shares_that_are_none(words: tuple[object, ...], safe: Path, clc: Path, tmp_path: Path, cli: Cli) -> None:
    """Percents, say."""
    refused(cli("prepare", "tiles", safe, tmp_path / "s.h5", "--corine", clc, *words), words[0], "0 to 1")
