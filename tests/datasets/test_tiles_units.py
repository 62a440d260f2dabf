"""Stores of tiles hold digital numbers whatever the files hold, and record their unit and level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import Cli
from landscale.datasets.synthetic.bigearthnet_archive import PRODUCT
from landscale.store import open_store
from landscapes import refused
from products import Bands, write_tiffs

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised by rasterio itself


def test_reflectance_and_digital_numbers_give_the_same_patches(
    bands: Bands, clc: Path, tmp_path: Path, cli: Cli
) -> None:
    stores = {}
    for dtype, factor, unit in (("uint16", 1, "digital number"), ("float32", 1e-4, "digital number")):
        values = {band: (pixels * factor).astype(dtype) for band, pixels in bands.items()}
        product = write_tiffs(tmp_path / dtype, PRODUCT, values)
        answer = cli("prepare", "tiles", product, tmp_path / f"{dtype}.h5", "--corine", clc, "--workers", 1)
        assert answer.code == 0, answer.lines
        converted = [line for line in answer.lines if "reflectance (0 to 1) converted into digital numbers" in line]
        assert len(converted) == (dtype == "float32")
        store = stores[dtype] = open_store(tmp_path / f"{dtype}.h5")
        assert ({*store.layout.units().values()}, store.layout.level) == ({unit}, "L2A")
    for plane in stores["uint16"].layout.planes:
        assert np.array_equal(*(store.pixels(plane.key) for store in stores.values()))


def test_bands_without_a_product_have_an_unknown_unit(bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    product = write_tiffs(tmp_path, "mybands", bands)
    assert cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc, "--workers", 1).code == 0
    store = open_store(tmp_path / "s.h5")
    assert ({*store.layout.units().values()}, store.layout.level) == ({"unknown"}, "unknown")


def test_tiles_of_two_levels_are_refused(bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    for name in (PRODUCT, PRODUCT.replace("MSIL2A", "MSIL1C")):
        write_tiffs(tmp_path / "tiles", name, bands)
    answer = cli("prepare", "tiles", tmp_path / "tiles", tmp_path / "s.h5", "--corine", clc)
    refused(answer, "is of level L", "MSIL1C", "MSIL2A", "prepare a store from the products of one level")
