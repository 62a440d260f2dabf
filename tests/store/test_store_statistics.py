"""Sums of each patch, and mean and standard deviation of each band over the train split."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscale.store import (
    SPLITS,
    Layout,
    Plane,
    StoreWriter,
    create_store,
    moments,
    open_store,
)
from landscale.store.statistics import mean_and_deviation
from tiny import ATTRIBUTES, BANDS, CLASSES, content, table, write


@given(seed=st.integers(0, 99), n=st.integers(1, 12), dtype=st.sampled_from(["uint8", "uint16", "float32"]))
def test_statistics_are_numpys_over_the_train_split(tmp_path: Path, seed: int, n: int, dtype: str) -> None:
    layout = Layout(
        (Plane("data_10m", BANDS[:3], 4, 10, dtype), Plane("data_20m", BANDS[3:4], 2, 20, dtype)),
        CLASSES,
        "c",
        multi_label=True,
    )
    rng = np.random.default_rng(seed)
    splits = [SPLITS[k] for k in rng.integers(0, 4, n)]
    columns = write(tmp_path / "s.h5", layout, n, splits=splits, bad=[0])
    chosen = [k for k in range(1, n) if splits[k] == "train"]
    found = open_store(tmp_path / "s.h5").statistics
    if not chosen:
        assert found == {}
        return
    for plane in layout.planes:
        for b, band in enumerate(plane.bands):
            values = columns[plane.key][chosen, b].astype(np.float64)
            assert found[band] == pytest.approx((values.mean(), values.std()), rel=1e-12)


@given(
    numbers=st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=4)
    | st.lists(st.floats(-30, 30), min_size=1, max_size=4),
    often=st.sampled_from([1, 300, 1500]),
    seed=st.integers(0, 9),
)
def test_sums_of_integers_are_exact_in_any_order(numbers: list[float], often: int, seed: int) -> None:
    """Patches of one band and one pixel. Sums over all patches exceed 2⁵³, where float64 is no longer exact."""
    many = np.random.default_rng(seed).permutation(np.array(numbers, float).repeat(often))
    part = np.stack([many, np.zeros(len(many))], 1)[:, None]
    exact = sum(Fraction(v) for v in many.tolist())
    ((mean, _),) = mean_and_deviation([part, part[:0]], [1])
    assert mean == pytest.approx(float(exact / len(many)), rel=0 if all(v % 1 == 0 for v in numbers) else 1e-12)


def test_statistics_of_large_numbers_are_exact(tmp_path: Path) -> None:
    """The sum of squares of 30 patches of 120×120 px at 60,000 and one: float32, or a naive float64 variance, loses the one."""
    layout = Layout((Plane("data_10m", ("B02",), 120, 10),), CLASSES, "c", multi_label=True)
    n = 30
    create_store(tmp_path / "s.h5", layout, table(n, ["train"]), ATTRIBUTES)
    pixels = np.full((n, 1, 120, 120), 60_000, np.uint16)
    pixels[7, 0, 3, 4] = 60_001
    columns = content(layout, n) | {"data_10m": pixels, "moments": moments([pixels])}
    writer = StoreWriter(tmp_path / "s.h5")
    writer.put(0, columns)
    writer.finish()
    writer.close()
    mean, std = open_store(tmp_path / "s.h5").statistics["B02"]
    count = pixels.size
    assert mean == pytest.approx(60_000 + 1 / count, rel=1e-15)
    assert std == pytest.approx((1 / count - 1 / count**2) ** 0.5, rel=1e-12)


@given(
    n=st.integers(1, 5),
    bands=st.integers(1, 3),
    side=st.integers(1, 40),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    at_once=st.sampled_from([1, 1000, 1 << 19]),
    seed=st.integers(0, 9),
)
def test_moments_of_a_patch_do_not_depend_on_other_patches(n, bands, side, dtype, at_once, seed):
    rng = np.random.default_rng(seed)
    plane = rng.uniform(0, 255 if dtype == "uint8" else 65535, (n, bands, side, side)).astype(dtype)
    other = plane[:, :1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("landscale.store.band_sums._BLOCK", at_once)
        found = moments([plane, other])
    assert found.shape == (n, bands + 1, 2)
    values = plane.astype(np.float64)
    expected = np.stack([values.sum((2, 3)), np.square(values).sum((2, 3))], axis=2)
    np.testing.assert_allclose(found[:, :bands], expected, rtol=0 if dtype[0] == "u" else 1e-13)
    np.testing.assert_array_equal(found[:, bands:], found[:, :1])
    for i in range(n):
        np.testing.assert_array_equal(moments([plane[i : i + 1]])[0], found[i, :bands])


def test_moments_of_the_largest_numbers_are_exact():
    found = moments([np.full((1, 1, 300, 300), 65535, np.uint16)])
    assert found.tolist() == [[[90_000 * 65535, 90_000 * 65535**2]]]
