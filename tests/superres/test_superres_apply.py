"""Sharpen a scene: the order of bands, no seams between tiles, and finished strips that are used after a kill."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F

from conftest import Cli
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene
from landscale.superres import apply as apply_module
from landscale.superres import superresolver as superresolver_module
from landscale.superres.network import DSen2, NetworkShape
from landscale.superres.planes import ESA_ORDER, GROUPS, in_esa_order, interpolate, read_rows, upsample
from landscale.superres.superresolver import Superresolver
from landscale.superres.weights import save_networks
from landscale.vocabulary.bands import BANDS
from launchers import run_until_killed
from sharpening import read_bands, read_raster, save_random, write_mat, write_scene

# rasterio raises this warning in its own use of affine transforms.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.mark.parametrize("size", [(240, 240), (202, 134)])  # the second is not a multiple of 60 m
def test_tiles_leave_no_seams(cli: Cli, scene: Path, weights: Path, tmp_path: Path, monkeypatch, size):
    bands = {
        b: v[: -(-size[0] * 10 // BANDS[b].gsd), : -(-size[1] * 10 // BANDS[b].gsd)]
        for b, v in read_bands(scene).items()
    }
    cut = write_scene(tmp_path / "cut", bands)
    superresolver = Superresolver.load(weights)
    with ScenePixels(open_scene(cut), ESA_ORDER) as pixels:
        whole = read_rows(pixels, (10, 20, 60), 0, -(-size[0] // 6) * 6, superresolver.margin)
    expected = {gsd: superresolver.sharpen(whole, gsd, superresolver.margin)[0].numpy() for gsd in (20, 60)}
    for module in (apply_module, superresolver_module):
        monkeypatch.setattr(module, "TILE", 48)
    assert cli("superres", "apply", weights, cut, tmp_path / "out").code == 0
    for gsd, values in expected.items():
        for band, sharp in zip(GROUPS[gsd], values, strict=True):
            found = read_raster(tmp_path / "out" / f"{band}.tif")
            assert found.shape == size
            assert np.abs(found - sharp.clip(1, 65535)[: size[0], : size[1]]).max() < 1.0


def test_apply_keeps_bands_at_10_m_nodata_grid_and_offset(cli: Cli, scene: Path, bilinear: Path, tmp_path: Path):
    bands = {band: values + np.uint16(1000) for band, values in read_bands(scene).items()}
    bands["B05"][10, 20] = 0  # no data
    source = write_scene(tmp_path / "S2A_MSIL2A_20220706T085611_N0400_R007_T33NZA", bands)
    out = tmp_path / "out"
    result = cli("superres", "apply", bilinear, source, out, "--json").json
    assert result["bands"] == list(ESA_ORDER)
    assert result["offset"] == open_scene(out).offset == 1000
    assert not result["left_out"]
    with rasterio.open(out / "B05.tif") as file, rasterio.open(source / "B02.tif") as fine:
        assert (file.crs, file.transform, file.shape) == (fine.crs, fine.transform, fine.shape)
        assert file.profile["tiled"]
        assert file.profile["compress"] == "deflate"
    for band in GROUPS[10]:
        np.testing.assert_array_equal(read_raster(out / f"{band}.tif"), bands[band])
    for band, ratio in (("B11", 2), ("B09", 6)):
        native = torch.from_numpy((bands[band] - 1000).astype(np.float32))[None, None]
        expected = F.interpolate(native, scale_factor=ratio, mode="bilinear")[0, 0].numpy() + 1000
        assert np.abs(read_raster(out / f"{band}.tif") - expected).max() < 1
    empty = read_raster(out / "B05.tif") == 0
    assert empty[20:22, 40:42].all()
    assert empty.sum() == 4
    assert cli("info", out, "--json").json["pixel"] == 10
    again = cli("superres", "apply", bilinear, source, out)
    assert again.code == 0


def test_bands_are_in_the_order_that_the_networks_expect(cli: Cli, scene: Path, tmp_path: Path):
    """A hand-made network adds B02 to B05 and B8A to B12, so the result is right only if bands are in the right order."""
    network = DSen2(NetworkShape(20, features=2, blocks=0))
    with torch.no_grad():
        network.head.weight.zero_()
        for channel, band in enumerate(("B02", "B8A")):
            network.head.weight[channel, network.shape.inputs.index(band), 1, 1] = 1
        for channel, band in enumerate(("B05", "B12")):
            network.tail.weight[network.shape.outputs.index(band), channel, 1, 1] = 1
    assert network.shape.inputs == ("B04", "B03", "B02", "B08", "B05", "B06", "B07", "B8A", "B11", "B12")
    save_networks(tmp_path / "by_hand", {20: network}, {})
    bands = read_bands(scene)
    mat = write_mat(tmp_path / "scene.mat", bands)
    native = {band: torch.from_numpy(values.astype(np.float32))[None, None] for band, values in bands.items()}
    fine = {band: upsample(values, BANDS[band].gsd // 10) for band, values in native.items()}
    for source, out in ((scene, tmp_path / "a"), (mat, tmp_path / "b")):
        result = cli("superres", "apply", tmp_path / "by_hand", source, out, "--json").json
        assert result["left_out"] == ["B01", "B09"]  # the weights have no network for 60 m
        assert "B01" not in result["bands"]
        for band, added in (("B05", "B02"), ("B12", "B8A")):
            expected = (fine[band] + fine[added])[0, 0].numpy()
            np.testing.assert_allclose(read_raster(out / f"{band}.tif"), expected, rtol=0.01)
        np.testing.assert_allclose(read_raster(out / "B11.tif"), fine["B11"][0, 0].numpy(), atol=0.51)


def test_superresolver_sharpens_a_batch_of_a_store(scene: Path, weights: Path):
    bands = read_bands(scene)
    native = {}
    for gsd in (10, 20, 60):
        names = tuple(
            band for band in ESA_ORDER if BANDS[band].gsd == gsd
        )  # in the order of a store, which is not that of the networks
        side = 1200 // gsd
        cut = [[bands[b][k : k + side, k : k + side] for b in names] for k in (0, side)]
        native[names] = torch.from_numpy(np.array(cut))
    superresolver = Superresolver.load(weights)
    found = superresolver(native)
    assert found.shape == (2, 12, 120, 120)
    assert found.dtype == torch.uint16
    plain = interpolate(native, "bilinear")
    for values in (found, plain, interpolate(native, "bicubic")):
        np.testing.assert_array_equal(values[0, ESA_ORDER.index("B08")].numpy(), bands["B08"][:120, :120])
    b11 = torch.from_numpy(bands["B11"][:60, :60].astype(np.float32))[None, None]
    expected = F.interpolate(b11, scale_factor=2, mode="bilinear").round().numpy()[0, 0]
    np.testing.assert_array_equal(plain[0, ESA_ORDER.index("B11")].numpy(), expected)
    assert (found.int() - plain.int()).abs().max() > 20
    with pytest.raises(Exception, match="B01, B09 are missing"):
        superresolver({names: tensor for names, tensor in native.items() if "B01" not in names})
    bright = in_esa_order({gsd: torch.full((1, len(bands), 2, 2), 7e4) for gsd, bands in GROUPS.items()})
    assert bright.int().unique().tolist() == [65535]


@pytest.mark.parametrize("between", ["nothing", "another scene", "other weights"])
def test_finished_strips_survive_a_kill(
    cli: Cli, scene: Path, weights: Path, tmp_path: Path, monkeypatch, between: str
):
    """Two of five strips are finished when the process dies; they are used if scene and weights are still the same."""
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(scene, source)
    tiles = {"landscale.superres.apply:TILE": 48, "landscale.superres.superresolver:TILE": 48}
    words = ["superres", "apply", weights, source, out]
    assert run_until_killed(words, "landscale.superres.apply:sharpen_strip", 3, tiles) == -signal.SIGKILL
    assert not out.exists()
    assert len(list((tmp_path / ".out.parts").glob("*.npy"))) == 2
    if between == "another scene":
        with rasterio.open(source / "B05.tif", "r+") as file:
            file.write(np.full_like(file.read(1), 1234), 1)
    elif between == "other weights":
        save_random(tmp_path / "others", tail=0.01)
        weights = tmp_path / "others"
    for module in (apply_module, superresolver_module):
        monkeypatch.setattr(module, "TILE", 48)
    tops = []

    def record_top(*arguments):
        tops.append(arguments[4])
        return sharpened(*arguments)

    sharpened = apply_module.sharpen_strip
    monkeypatch.setattr(apply_module, "sharpen_strip", record_top)
    for folder in (out, tmp_path / "whole"):
        assert cli("superres", "apply", weights, source, folder).code == 0
    all_tops = [0, 48, 96, 144, 192]
    assert tops == (all_tops[2:] if between == "nothing" else all_tops) + all_tops
    for band in ESA_ORDER:
        assert (out / f"{band}.tif").read_bytes() == (tmp_path / "whole" / f"{band}.tif").read_bytes()
    assert not list(tmp_path.glob(".*.parts"))
