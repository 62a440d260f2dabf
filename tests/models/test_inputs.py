"""The input stage: bands normalised by their statistics, in the order of the network, resampled to its input side."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject

from landscale.errors import LandscaleError, UnknownName
from landscale.loading.resize import cubic_weights, resize
from landscale.models.input_stage import UPSAMPLING, InputStage, measure_statistics, turn
from landscale.testing import make_store, sentinel_planes
from landscale.vocabulary.bands import BAND_SETS
from symmetries import symmetries

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised within rasterio
PLANES = {
    ("B02", "B03", "B04", "B08"): 24,
    ("B05", "B06", "B07", "B8A", "B11", "B12"): 12,
    ("B01", "B09"): 4,
}
ALL = BAND_SETS["s2-12"].names
STATISTICS = {band: (400.0 + 170 * k, 60.0 + 31 * k) for k, band in enumerate(ALL)}
DTYPES = {"uint16": torch.uint16, "uint8": torch.uint8, "float32": torch.float32, "int16": torch.int16}


def random_planes(dtype="uint16", n=3, seed=0, planes=PLANES):
    """Random pixels of n patches, one tensor (n, bands, side, side) per plane."""
    rng = np.random.default_rng(seed)
    end = {"uint8": 256, "int16": 30_000}.get(dtype, 65_536)
    return {
        names: torch.from_numpy(rng.integers(0, end, (n, len(names), side, side)).astype(dtype))
        for names, side in planes.items()
    }


def band_of(planes, band):
    """(n, side, side) float32 of one band, found by its name."""
    names, tensor = next((names, tensor) for names, tensor in planes.items() if band in names)
    return torch.from_numpy(tensor.numpy()[:, names.index(band)].astype(np.float32))


# ---- normalisation


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_band_is_normalised_by_its_own_statistics(dtype):
    planes = random_planes(dtype)
    assert all(t.dtype == DTYPES[dtype] for t in planes.values())
    out = InputStage(ALL, STATISTICS, upsample="nearest")(planes)
    assert out.shape == (3, 12, 24, 24)
    assert out.dtype == torch.float32
    for k, band in enumerate(ALL):
        mean, std = STATISTICS[band]
        values = band_of(planes, band)
        factor = 24 // values.shape[-1]
        expected = ((values - mean) / std).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        assert torch.equal(out[:, k], expected), band


def test_uint16_values_above_the_int16_range_are_read_correctly():
    planes = {("B02", "B03"): torch.full((1, 2, 4, 4), 65_535, dtype=torch.uint16)}
    out = InputStage(("B03",), {"B03": (0.0, 1.0)})(planes)
    assert torch.equal(out, torch.full((1, 1, 4, 4), 65_535.0))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_channels_are_selected_by_band_name_whatever_the_order_of_the_planes(seed):
    rng = np.random.default_rng(seed)
    planes = random_planes(seed=seed, n=2)
    bands = tuple(rng.permutation(ALL)[: rng.integers(1, 13)])
    reference = InputStage(ALL, STATISTICS, side=24)(planes)[:, [ALL.index(b) for b in bands]]
    shuffled = {}
    for names in rng.permutation(np.array([*planes, None], object)[:-1]):
        order = rng.permutation(len(names))
        shuffled[tuple(names[k] for k in order)] = torch.from_numpy(planes[names].numpy()[:, order])
    needed = {
        names: t for names, t in shuffled.items() if set(names) & set(bands)
    }  # the planes that `planes_for` selects
    assert torch.equal(InputStage(bands, STATISTICS, side=24)(needed), reference)
    assert torch.equal(InputStage(bands, STATISTICS, side=24)(shuffled), reference)


def test_without_a_side_the_output_has_the_side_of_the_finest_plane():
    planes = random_planes()
    assert InputStage(("B02", "B01"), STATISTICS)(planes).shape[-1] == 24
    coarse = {names: t for names, t in planes.items() if "B02" not in names}
    assert InputStage(("B05", "B01"), STATISTICS)(coarse).shape[-1] == 12


def test_missing_bands_statistics_and_methods_are_named_in_errors():
    planes = random_planes()
    del planes["B01", "B09"]
    with pytest.raises(LandscaleError, match=r"lacks B01, B09$"):
        InputStage(ALL, STATISTICS)(planes)
    with pytest.raises(LandscaleError, match=r"no statistics for B02; known: B01, B03"):
        InputStage(ALL, {k: v for k, v in STATISTICS.items() if k != "B02"})
    with pytest.raises(UnknownName, match="bilinear"):
        InputStage(ALL, STATISTICS, upsample="bilinaer")


def test_a_constant_band_is_normalised_to_zero():
    out = InputStage(("B02",), {"B02": (7.0, 0.0)})({("B02",): torch.full((1, 1, 4, 4), 7, dtype=torch.uint16)})
    assert torch.equal(out, torch.zeros(1, 1, 4, 4))


def test_statistics_are_buffers_that_are_not_saved_with_the_weights():
    stage = InputStage(ALL, STATISTICS)
    assert stage.state_dict() == {}
    assert {name for name, _ in stage.named_buffers()} == {"mean", "std", "positions", "low", "high"}


# ---- statistics and the logarithm


@pytest.mark.parametrize("scale", ["linear", "log", "both"])
def test_statistics_are_measured_on_the_usable_patches_of_the_train_split(tmp_path, scale):
    store = make_store(
        tmp_path / "s.h5", planes=sentinel_planes(12), splits={"test": 5, "train": 9, "val": 5}, bad=(7,)
    )
    bands = ("B8A", "B02", "B01")
    found = measure_statistics(store, bands, scale)
    rows = [5, 6, 8, 9, 10, 11, 12, 13]
    expected = {}
    for scaling in ("linear", "log") if scale == "both" else (scale,):
        for band in bands:
            plane = next(p for p in store.layout.planes if band in p.bands)
            pixels = store.pixels(plane.key, rows)[:, plane.bands.index(band)].astype(np.float64)
            values = pixels if scaling == "linear" else np.log(np.clip(pixels, 1, 15_000) + 100)
            expected["log " * (scaling == "log") + band] = (values.mean(), values.std())
    assert list(found) == list(expected) or scale != "linear"
    assert found.keys() == expected.keys()
    for name, numbers in expected.items():
        assert found[name] == pytest.approx(numbers, rel=1e-8)


def test_logarithms_are_exact_and_normalised_values_are_limited_to_five():
    statistics = {"B02": (900.0, 300.0), "B03": (800.0, 200.0), "log B02": (7.0, 0.4), "log B03": (6.5, 0.2)}
    values = np.array([0, 1, 100, 1000, 5000, 15_000, 40_000, 65_535, 996]).reshape(3, 3)
    planes = {("B03", "B02"): torch.from_numpy(np.stack([values, values[::-1]])[None].astype(np.uint16))}
    both = InputStage(("B02", "B03"), statistics, scale="both")
    assert both.channels == 4
    out = both(planes).numpy()[0]
    for k, (band, numbers) in enumerate((("B02", values[::-1]), ("B03", values))):
        mean, std = statistics[band]
        assert np.allclose(out[k], np.clip((numbers - mean) / std, -5, 5), atol=1e-4)
        mean, std = statistics[f"log {band}"]
        logs = np.log(np.clip(numbers, 1, 15_000) + 100)
        assert np.allclose(out[2 + k], np.clip((logs - mean) / std, -5, 5), atol=1e-4)
    assert out.max() == 5
    assert np.array_equal(InputStage(("B02", "B03"), statistics, scale="log")(planes).numpy()[0], out[2:])
    with pytest.raises(UnknownName, match="linear"):
        InputStage(("B02",), statistics, scale="linaer")
    with pytest.raises(LandscaleError, match="log B01"):
        InputStage(("B01",), {"B01": (1.0, 1.0)}, scale="log")


# ---- resampling


@pytest.mark.parametrize("side,out", [(12, 24), (4, 24), (20, 90), (60, 72)])
def test_bilinear_equals_torchs_with_align_corners_false(side, out):
    values = torch.randn(2, 3, side, side)
    expected = F.interpolate(values, size=(out, out), mode="bilinear", align_corners=False)
    assert torch.equal(resize(values, out, "bilinear"), expected)
    aligned = F.interpolate(values, size=(out, out), mode="bilinear", align_corners=True)
    assert not torch.allclose(resize(values, out, "bilinear"), aligned, atol=0.1)


def resize_with_gdal(values, out, method):
    side = values.shape[-1]
    result = np.zeros((out, out), np.float32)
    reproject(
        values,
        result,
        src_transform=from_origin(0, 0, 60 / side, 60 / side),
        dst_transform=from_origin(0, 0, 60 / out, 60 / out),
        src_crs="EPSG:32633",
        dst_crs="EPSG:32633",
        resampling=method,
    )
    return torch.from_numpy(result)


@pytest.mark.parametrize("side,out", [(12, 24), (4, 24), (20, 30)])
def test_bilinear_equals_gdals(side, out):
    values = torch.randn(side, side, generator=torch.Generator().manual_seed(side))
    found = resize(values[None, None], out, "bilinear")[0, 0]
    assert torch.allclose(found, resize_with_gdal(values.numpy(), out, Resampling.bilinear), atol=1e-4)


@pytest.mark.parametrize("side,out", [(12, 24), (4, 24), (3, 4), (60, 80), (20, 70)])
def test_nearest_upsampling_takes_a_nearest_pixel(side, out):
    """The chosen pixel's centre is at most half a pixel away; wide_resnet_eca_b3 resamples 60 px to 80."""
    ramp = torch.arange(side, dtype=torch.float32).expand(1, 1, side, side)
    chosen = resize(ramp, out, "nearest")[0, 0, 0] + 0.5  # centres, in source pixels
    ideal = (torch.arange(out) + 0.5) * side / out
    assert (chosen - ideal).abs().max() <= 0.5 + 1e-4


def keys_cubic(x, a=-0.5):
    """The kernel of cubic convolution (Keys 1981) with the a of tf.image.resize, GDAL and Pillow."""
    x = np.abs(x)
    inner, outer = ((a + 2) * x - (a + 3)) * x * x + 1, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))


@pytest.mark.parametrize("side,out", [(12, 24), (4, 24), (20, 30), (120, 90), (24, 8), (2, 5)])
def test_bicubic_equals_cubic_convolution_without_pixels_outside_the_image(side, out):
    """As tf.image.resize computes it, enlarging and shrinking: four pixels each, weights scaled to the sum 1 at the edges."""
    weights = np.zeros((out, side))
    centres = (np.arange(out) + 0.5) * side / out - 0.5
    for k, x in enumerate(centres):
        for tap in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            if 0 <= tap < side:
                weights[k, tap] = keys_cubic(x - tap)
    weights /= weights.sum(1, keepdims=True)
    values = torch.randn(1, 2, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(side))
    expected = torch.from_numpy(weights @ values.numpy() @ weights.T)
    assert torch.allclose(resize(values, out, "bicubic"), expected, atol=1e-12)


def test_bicubic_has_the_weights_of_a_equal_to_one_half():
    """Twice the side: the weights of Keys 1981 at distances of 1/4 and 3/4 of a pixel. With torch's a they differ."""
    row = cubic_weights(8, 16)[8]
    expected = [0, 0, -0.0234375, 0.2265625, 0.8671875, -0.0703125, 0, 0]
    assert row.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("side, out", [(60, 90), (60, 120), (7, 20)])
def test_bicubic_enlargement_equals_pillows(side, out):
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, side, side)).astype(np.float32))
    expected = np.array(Image.fromarray(values[0, 0].numpy()).resize((out, out), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(resize(values, out, "bicubic")[0, 0].numpy(), expected, atol=1e-4)


def test_bicubic_resamples_the_bands_at_10_m_too_when_the_input_is_smaller():
    planes = random_planes(n=2)
    out = InputStage(ALL, STATISTICS, side=18, upsample="bicubic")(planes)
    names = next(iter(planes))
    mean, std = (torch.tensor([STATISTICS[band][k] for band in names])[:, None, None] for k in (0, 1))
    normalised = (planes[names].float() - mean) / std
    assert normalised.shape[-1] > 18
    weights = cubic_weights(normalised.shape[-1], 18).float()
    chosen = [ALL.index(band) for band in names]
    assert torch.allclose(out[:, chosen], weights @ normalised @ weights.T, atol=1e-4)


@pytest.mark.parametrize("method", UPSAMPLING)
@pytest.mark.parametrize("side", [6, 8, 12, 24, 30, 48])
def test_every_plane_is_resampled_to_the_input_side_and_constants_are_kept(method, side):
    planes = random_planes(n=2)
    out = InputStage(ALL, STATISTICS, side=side, upsample=method)(planes)
    assert out.shape == (2, 12, side, side)
    assert torch.isfinite(out).all()
    flat = {names: torch.full_like(t.view(torch.int16), 500).view(torch.uint16) for names, t in planes.items()}
    constant = InputStage(ALL, STATISTICS, side=side, upsample=method)(flat)
    means = torch.tensor([(500 - STATISTICS[b][0]) / STATISTICS[b][1] for b in ALL])
    assert torch.allclose(constant, means[None, :, None, None].expand_as(constant), atol=1e-4)


@pytest.mark.parametrize("factor", [2, 3])
def test_downsampling_by_a_whole_factor_averages_blocks(factor):
    values = torch.randn(1, 2, 24, 24)
    blocks = values.reshape(1, 2, 24 // factor, factor, 24 // factor, factor).mean((3, 5))
    assert torch.allclose(resize(values, 24 // factor, "nearest"), blocks, atol=1e-6)
    assert resize(values, 24, "bicubic") is values


# ---- turns


@pytest.mark.parametrize("side, out", [(120, 90), (120, 70), (60, 56)])
def test_downsampling_by_other_factors_equals_pillows_antialiased_bilinear(side, out):
    """Without antialiasing, some input pixels would have no effect."""
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 2, side, side)).astype(np.float32))
    found = resize(values, out, "bilinear")
    for k in range(2):
        expected = np.array(Image.fromarray(values[0, k].numpy()).resize((out, out), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(found[0, k].numpy(), expected, atol=1e-4)


def test_turn_gives_the_eight_symmetries_of_the_square():
    image = torch.arange(2 * 25).reshape(2, 5, 5)
    turned = [turn(image, k).numpy() for k in range(8)]
    assert {t.tobytes() for t in turned} == {s.tobytes() for s in symmetries(image)}
    assert len({t.tobytes() for t in turned}) == 8
    assert torch.equal(turn(image, 0), image)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [12, 20, 24, 36])
def test_turning_commutes_with_the_input_stage(method, side):
    planes = random_planes(n=2, seed=5)
    stage = InputStage(ALL, STATISTICS, side=side, upsample=method)
    unturned = stage(planes)
    for k in range(8):
        turned = {names: turn(t.view(torch.int16), k).contiguous().view(torch.uint16) for names, t in planes.items()}
        assert torch.allclose(stage(turned), turn(unturned, k), rtol=1e-4, atol=1e-3), k
