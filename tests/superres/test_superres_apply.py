"""DSen2 at 10 m: every band in its place, no seams, and nothing done twice after a kill."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F

from conftest import Cli
from landscale.scenes.scene import ScenePixels, open_scene
from landscale.superres import apply as apply_room
from landscale.superres import superresolver as superresolver_room
from landscale.superres.network import DSen2, Shape
from landscale.superres.planes import ESA_ORDER, GROUPS, interpolate, read_rows, stacked, upsample
from landscale.superres.superresolver import Superresolver
from landscale.superres.weights import save_networks
from landscale.vocabulary.bands import BANDS
from sharpening import numbers, read, save, write_mat, write_scene

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio on its own affine


@pytest.mark.parametrize("size", [(240, 240), (202, 134)])  # the second is no whole number of 60 m pixels
def test_tiles_leave_no_seams(cli: Cli, scene: Path, weights: Path, tmp_path: Path, monkeypatch, size):
    bands = {
        b: v[: -(-size[0] * 10 // BANDS[b].gsd), : -(-size[1] * 10 // BANDS[b].gsd)] for b, v in numbers(scene).items()
    }
    cut = write_scene(tmp_path / "cut", bands)
    superresolver = Superresolver.load(weights)
    with ScenePixels(open_scene(cut), ESA_ORDER) as pixels:
        whole = read_rows(pixels, (10, 20, 60), 0, -(-size[0] // 6) * 6, superresolver.margin)
    expected = {gsd: superresolver.sharpen(whole, gsd, superresolver.margin)[0].numpy() for gsd in (20, 60)}
    for room in (apply_room, superresolver_room):
        monkeypatch.setattr(room, "TILE", 48)
    assert cli("superres", "apply", weights, cut, tmp_path / "out").code == 0
    for gsd, values in expected.items():
        for band, sharp in zip(GROUPS[gsd], values, strict=True):
            found = read(tmp_path / "out" / f"{band}.tif")
            assert found.shape == size
            assert np.abs(found - sharp.clip(1, 65535)[: size[0], : size[1]]).max() < 1.0


def test_apply_keeps_numbers_grid_and_offset(cli: Cli, scene: Path, bilinear: Path, tmp_path: Path):
    bands = {band: values + np.uint16(1000) for band, values in numbers(scene).items()}
    bands["B05"][10, 20] = 0  # no data
    source = write_scene(tmp_path / "S2A_MSIL2A_20220706T085611_N0400_R007_T33NZA", bands)
    out = tmp_path / "out"
    said = cli("superres", "apply", bilinear, source, out, "--json").json
    assert said["bands"] == list(ESA_ORDER)
    assert said["offset"] == open_scene(out).offset == 1000
    assert not said["left_out"]
    with rasterio.open(out / "B05.tif") as file, rasterio.open(source / "B02.tif") as fine:
        assert (file.crs, file.transform, file.shape) == (fine.crs, fine.transform, fine.shape)
        assert file.profile["tiled"]
        assert file.profile["compress"] == "deflate"
    for band in GROUPS[10]:
        np.testing.assert_array_equal(read(out / f"{band}.tif"), bands[band])
    for band, ratio in (("B11", 2), ("B09", 6)):
        native = torch.from_numpy((bands[band] - 1000).astype(np.float32))[None, None]
        expected = F.interpolate(native, scale_factor=ratio, mode="bilinear")[0, 0].numpy() + 1000
        assert np.abs(read(out / f"{band}.tif") - expected).max() < 1
    empty = read(out / "B05.tif") == 0
    assert empty[20:22, 40:42].all()
    assert empty.sum() == 4
    assert cli("info", out, "--json").json["pixel"] == 10
    again = cli("superres", "apply", bilinear, source, out)
    assert again.code == 0


def test_each_band_reaches_its_own_channel(cli: Cli, scene: Path, tmp_path: Path):
    """A network made by hand adds B02 to B05 and B8A to B12: only with the right order that is what comes out."""
    network = DSen2(Shape(20, features=2, blocks=0))
    with torch.no_grad():
        network.head.weight.zero_()
        for channel, band in enumerate(("B02", "B8A")):
            network.head.weight[channel, network.shape.inputs.index(band), 1, 1] = 1
        for channel, band in enumerate(("B05", "B12")):
            network.tail.weight[network.shape.outputs.index(band), channel, 1, 1] = 1
    assert network.shape.inputs == ("B04", "B03", "B02", "B08", "B05", "B06", "B07", "B8A", "B11", "B12")
    save_networks(tmp_path / "by_hand", {20: network}, {})
    bands = numbers(scene)
    mat = write_mat(tmp_path / "scene.mat", bands)
    native = {band: torch.from_numpy(values.astype(np.float32))[None, None] for band, values in bands.items()}
    fine = {band: upsample(values, BANDS[band].gsd // 10) for band, values in native.items()}
    for source, out in ((scene, tmp_path / "a"), (mat, tmp_path / "b")):
        said = cli("superres", "apply", tmp_path / "by_hand", source, out, "--json").json
        assert said["left_out"] == ["B01", "B09"]  # no network for them
        assert "B01" not in said["bands"]
        for band, added in (("B05", "B02"), ("B12", "B8A")):
            expected = (fine[band] + fine[added])[0, 0].numpy()
            np.testing.assert_allclose(read(out / f"{band}.tif"), expected, rtol=0.01)
        np.testing.assert_allclose(read(out / "B11.tif"), fine["B11"][0, 0].numpy(), atol=0.51)


def test_superresolver_takes_batches_of_a_store(scene: Path, weights: Path):
    bands = numbers(scene)
    native = {}
    for gsd in (10, 20, 60):
        names = tuple(band for band in ESA_ORDER if BANDS[band].gsd == gsd)  # a store's order, not the network's
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
    bright = stacked({gsd: torch.full((1, len(bands), 2, 2), 7e4) for gsd, bands in GROUPS.items()})
    assert bright.int().unique().tolist() == [65535]


KILLED = """
import os, signal, sys
import landscale.superres.apply as room
import landscale.superres.superresolver as superresolver
from landscale.cli import main

room.TILE = superresolver.TILE = 48
sharpened = room._sharpened
calls = []

def sharpen_and_die(*words):
    calls.append(words)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return sharpened(*words)

room._sharpened = sharpen_and_die
main(sys.argv[1:])
"""


@pytest.mark.parametrize("between", ["nothing", "another scene", "other weights"])
def test_a_kill_costs_one_strip(cli: Cli, scene: Path, weights: Path, tmp_path: Path, monkeypatch, between: str):
    """Of five strips two are done when the process dies; they count as long as scene and weights are the same."""
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(scene, source)
    died = subprocess.run([sys.executable, "-c", KILLED, "superres", "apply", weights, source, out], check=False)
    assert died.returncode == -signal.SIGKILL
    assert not out.exists()
    assert len(list((tmp_path / ".out.parts").glob("*.npy"))) == 2
    if between == "another scene":
        with rasterio.open(source / "B05.tif", "r+") as file:
            file.write(np.full_like(file.read(1), 1234), 1)
    elif between == "other weights":
        save(tmp_path / "others", tail=0.01)
        weights = tmp_path / "others"
    for room in (apply_room, superresolver_room):
        monkeypatch.setattr(room, "TILE", 48)
    tops = []

    def noted(*words):
        tops.append(words[4])
        return sharpened(*words)

    sharpened = apply_room._sharpened
    monkeypatch.setattr(apply_room, "_sharpened", noted)
    for folder in (out, tmp_path / "whole"):
        assert cli("superres", "apply", weights, source, folder).code == 0
    everywhere = [0, 48, 96, 144, 192]
    assert tops == (everywhere[2:] if between == "nothing" else everywhere) + everywhere
    for band in ESA_ORDER:
        assert (out / f"{band}.tif").read_bytes() == (tmp_path / "whole" / f"{band}.tif").read_bytes()
    assert not list(tmp_path.glob(".*.parts"))
