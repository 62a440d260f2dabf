"""Statistics of the logarithm of bands; they are computed in several reads of 64 patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from landscale.models.input_stage import measure_statistics
from landscale.store import open_store
from landscale.testing import make_store, rgbn_plane


@pytest.mark.parametrize("patches", [64, 65, 130])
def test_log_statistics_use_every_patch_of_the_train_split_once(patches: int, tmp_path: Path) -> None:
    planes = rgbn_plane(2)
    make_store(tmp_path / "s.h5", planes=planes, splits={"train": patches, "val": 3}, seed=1)
    store = open_store(tmp_path / "s.h5")
    bands = planes[0].bands
    found = measure_statistics(store, bands, "log")
    pixels = store.pixels(planes[0].key, store.patches("train")).astype(np.float64)
    values = np.log(np.clip(pixels, 1, 15_000) + 100)
    assert list(found) == [f"log {band}" for band in bands]
    for k, band in enumerate(bands):
        expected = values[:, k].mean(), values[:, k].std()
        assert found[f"log {band}"] == pytest.approx(expected, rel=1e-9)
