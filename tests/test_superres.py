"""DSen2: what is learned at the reduced scale, what is written at 10 m, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

from conftest import DATA, Cli, command, outcome
from landscale.bands import BANDS
from landscale.checkpoint import load_checkpoint
from landscale.sources.matlab import IMAGES
from landscale.sources.scene import ScenePixels, open_scene
from landscale.sources.synthetic import write_archive
from landscale.superres import apply as apply_room
from landscale.superres import superresolver as superresolver_room
from landscale.superres.evaluate import evaluate
from landscale.superres.network import DSen2, Shape, stack_inputs
from landscale.superres.planes import ESA_ORDER, GROUPS, interpolate, mirror, read_rows, stacked, upsample
from landscale.superres.samples import BATCH, SIDES, Ground, _patch, draw, read_grounds
from landscale.superres.superresolver import Superresolver
from landscale.superres.train import Learner, train
from landscale.superres.wald import degrade
from landscale.superres.weights import save_networks

REAL = DATA / "dsen2" / "S2A_MSIL1C_20170527_T33UUB.mat"
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio on its own affine


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic scene of 240×240 px at 10 m."""
    folder = tmp_path_factory.mktemp("synthetic") / "archive"
    write_archive(folder, patches=4)
    return next((folder / "scene").iterdir())


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def numbers(scene: Path) -> dict[str, np.ndarray]:
    return {band: read(scene / f"{band}.tif") for band in ESA_ORDER}


def write_scene(folder: Path, bands: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for band, values in bands.items():
        gsd = BANDS[band].gsd
        about = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": values.dtype}
        place = {"crs": "EPSG:32633", "transform": from_origin(300_000, 8_400_000, gsd, gsd)}
        with rasterio.open(folder / f"{band}.tif", "w", driver="GTiff", **about, **place) as file:
            file.write(values, 1)
    return folder


def write_mat(path: Path, bands: dict[str, np.ndarray], images: dict[str, tuple[str, ...]] = IMAGES) -> Path:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, names in images.items():
            file[name] = np.stack([bands[band].T for band in names]).astype(np.float32)
    return path


def random_networks(features: int = 8, blocks: int = 2, tail: float = 0.02) -> dict[int, DSen2]:
    torch.manual_seed(1)
    networks = {gsd: DSen2(Shape(gsd, features, blocks)) for gsd in (20, 60)}
    for network in networks.values():
        torch.nn.init.normal_(network.tail.weight, std=tail)
    return networks


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Small networks that change much: what they do is not plain upsampling."""
    save_networks(tmp_path / "weights", random_networks(), {})
    return tmp_path / "weights"


@pytest.fixture
def bilinear(tmp_path: Path) -> Path:
    """Networks as they are before training."""
    save_networks(tmp_path / "bilinear", random_networks(tail=0.0), {})
    return tmp_path / "bilinear"


# ---- the reduced scale


@pytest.mark.parametrize("scale", [2, 6])
def test_degrading_is_a_gaussian_and_a_block_mean(scale):
    values = np.random.default_rng(0).uniform(0, 9000, (3, 36, 48)).astype(np.float32)
    blurred = np.stack([gaussian_filter(band, 1 / scale) for band in values])
    expected = blurred.reshape(3, 36 // scale, scale, 48 // scale, scale).mean((2, 4))
    found = degrade(torch.from_numpy(values)[None], scale)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mirror_is_numpys_symmetric_padding():
    values = np.arange(20).reshape(4, 5)
    for margin in (1, 4, 11):
        expected = np.pad(values, margin, mode="symmetric")
        np.testing.assert_array_equal(mirror(torch.from_numpy(values), margin).numpy(), expected)


def test_evaluate_gives_the_papers_figures(cli: Cli, scene: Path, bilinear: Path):
    figures = cli("superres", "evaluate", bilinear, scene, "--json").json
    bands = numbers(scene)
    for gsd, scale in ((20, 2), (60, 6)):
        side = bands[GROUPS[gsd][0]].shape[0] // scale * scale
        truth = torch.from_numpy(np.stack([bands[b][:side, :side] for b in GROUPS[gsd]]).astype(np.float32))[None]
        small = degrade(truth, scale)
        for key, mode in (("rmse", "bilinear"), ("bicubic_rmse", "bicubic")):
            guess = F.interpolate(small, scale_factor=scale, mode=mode)
            expected = (guess - truth).square().mean().sqrt().item()
            assert figures[f"{key}_{gsd}m"] == pytest.approx(expected, rel=1e-4 if key == "rmse" else 0.02)
        assert figures[f"ratio_{gsd}m"] == figures[f"rmse_{gsd}m"] / figures[f"bicubic_rmse_{gsd}m"]
        for key in ("sre", "sam", "ergas"):
            assert figures[f"{key}_{gsd}m"] > 0
            assert figures[f"bicubic_{key}_{gsd}m"] > 0
    assert [row["name"] for row in figures["bands"]] == [*GROUPS[20], *GROUPS[60]]
    assert all(row["rmse"] > 0 and row["bicubic_rmse"] > 0 and row["sre"] > 0 for row in figures["bands"])
    assert "ERGAS" in cli("superres", "evaluate", bilinear, scene).out


def test_figures_by_hand():
    from landscale.superres.evaluate import Errors

    errors = Errors(2)
    truth = torch.tensor([[[[100.0, 0.0]], [[100.0, 0.0]]]])  # the second pixel has no data
    errors.add(truth, truth + torch.tensor([10.0, 0.0]).view(1, 2, 1, 1))
    found = errors.overall(2)
    assert found["rmse"] == pytest.approx(np.sqrt(50))
    assert errors.by_band()["sre"][0] == pytest.approx(20.0)
    assert found["sam"] == pytest.approx(np.degrees(np.arctan2(110, 100) - np.pi / 4))
    assert found["ergas"] == pytest.approx(50 * np.sqrt(0.01 / 2))


# ---- at 10 m


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


# ---- MATLAB


def test_a_matlab_file_is_a_scene(cli: Cli, scene: Path, tmp_path: Path):
    bands = {band: values[: len(values) // 2] for band, values in numbers(scene).items()}  # not square: axes show
    mat = write_mat(tmp_path / "scene.mat", bands)
    opened = open_scene(mat)
    assert (opened.summary()["width"], opened.summary()["height"], opened.summary()["pixel"]) == (240, 120, 10)
    assert opened.offset == 0
    with ScenePixels(opened, ESA_ORDER) as pixels:
        for band, values in bands.items():
            np.testing.assert_array_equal(pixels.read(band, 0, 10_000), values)


def test_level_1c_tells_its_offset(scene: Path, tmp_path: Path):
    product = tmp_path / "product"
    shutil.copytree(scene, product)
    assert open_scene(product).offset == 0
    (product / "MTD_MSIL1C.xml").write_text('<RADIO_ADD_OFFSET band_id="0">-1000</RADIO_ADD_OFFSET>')
    assert open_scene(product).offset == 1000


# ---- training


@pytest.fixture
def small(monkeypatch) -> None:
    """Training of small networks for a fixed number of steps."""
    monkeypatch.setattr("landscale.superres.train.shape", lambda gsd, deep: Shape(gsd, 16, 1))
    monkeypatch.setattr("landscale.superres.train.MOST_STEPS", {20: 150, 60: 60})
    monkeypatch.setattr("landscale.superres.train.RATE", 5e-3)
    monkeypatch.setattr("landscale.superres.train.AVERAGE", 0.9)
    monkeypatch.setitem(SIDES, 60, 24)


@pytest.mark.usefixtures("small")
def test_training_learns(cli: Cli, scene: Path, tmp_path: Path):
    """Better than bicubic on the synthetic scene; the same command again finds it done, another one is refused."""
    out = tmp_path / "dsen2"
    answer = cli("superres", "train", scene, out, "--max-time", "1h", "--json")
    assert answer.code == 0, answer.lines
    assert (answer.json["steps_20m"], answer.json["steps_60m"]) == (150, 60)
    figures = cli("superres", "evaluate", out, scene, "--json").json
    assert figures["ratio_20m"] < 0.96
    assert figures["ratio_60m"] < 1.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dsen2"]  # no checkpoint is left
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((out / "config.json").read_text())
    assert config["networks"]["20m"]["inputs"][:4] == ["B04", "B03", "B02", "B08"]
    assert config["networks"]["60m"]["outputs"] == ["B01", "B09"]
    assert cli("superres", "train", scene, out, "--json").json == answer.json
    assert "B8A" in cli("info", out).out
    assert cli("info", out, "--json").json["kind"] == "superres"
    other = cli("superres", "train", scene, out, "--seed", 1)
    assert other.code == 2
    assert "another training" in other.lines[-1]


def test_batches_are_a_function_of_seed_and_step(scene: Path):
    grounds = read_grounds([scene])
    for gsd in (20, 60):
        inputs, target = draw(grounds, Shape(gsd), seed=3, step=7)
        again = draw(grounds, Shape(gsd), seed=3, step=7)
        assert torch.equal(inputs, again[0])
        assert torch.equal(target, again[1])
        assert not torch.equal(inputs, draw(grounds, Shape(gsd), seed=3, step=8)[0])
        assert inputs.shape[1:] == (len(Shape(gsd).inputs), *target.shape[2:])


def with_clouds(scene: Path, folder: Path, cloud: np.ndarray, gsd: int) -> Path:
    """The scene with a classification at `gsd`, cloud where `cloud`, a mask of squares of 60 m, is true."""
    shutil.copytree(scene, folder)
    (classes,) = (np.where(cloud, 9, 4).repeat(r, 0).repeat(r, 1).astype(np.uint8) for r in [60 // gsd])
    with rasterio.open(scene / "B02.tif") as file:
        place = {"crs": file.crs, "transform": file.transform @ rasterio.Affine.scale(gsd / 10)}
    about = {"height": classes.shape[0], "width": classes.shape[1], "count": 1, "dtype": "uint8"}
    with rasterio.open(folder / f"SCL_{gsd}m.tif", "w", driver="GTiff", **about, **place) as file:
        file.write(classes, 1)
    return folder


@pytest.mark.parametrize("gsd", [10, 20, 60])
def test_clouds_teach_nothing(gsd: int, scene: Path, tmp_path: Path, monkeypatch):
    """Where there is enough clear ground, patches are of it; where clouds are everywhere, they are those with least."""
    monkeypatch.setitem(SIDES, 60, 8)
    monkeypatch.setattr("landscale.superres.samples.turn", lambda values, k: values)
    cloud = np.zeros((40, 40), bool)
    cloud[:, 34:] = cloud[3, 5] = True
    (clear,) = read_grounds([scene])
    (found,) = read_grounds([with_clouds(scene, tmp_path / "scene", cloud, gsd)])
    assert all((found.bands[g] == clear.bands[g]).all() for g in clear.bands)
    assert not clear.cloud.any()
    np.testing.assert_array_equal(found.cloud, cloud.repeat(3, 0).repeat(3, 1))
    marked = Ground({g: v.copy() for g, v in found.bands.items()}, found.cloud)
    for g, values in marked.bands.items():
        values[:] = 100
        values[:, cloud.repeat(60 // g, 0).repeat(60 // g, 1)] = 9999
    for target in (20, 60):
        patches = [_patch([marked], Shape(target), 12, np.random.default_rng(seed)) for seed in range(40)]
        assert all(values.max() == 100 for patch in patches for values in patch.values())
        hidden = Ground(marked.bands, np.ones_like(found.cloud))
        hidden.cloud[:, :60] = False
        patches = [_patch([hidden], Shape(target), 30, np.random.default_rng(seed)) for seed in range(5)]
        assert all(values.min() > 0 for patch in patches for values in patch.values())


def test_a_scene_of_clouds_teaches_nothing(scene: Path, tmp_path: Path, cli: Cli):
    overcast = with_clouds(scene, tmp_path / "overcast", np.ones((40, 40), bool), 20)
    answer = cli("superres", "train", overcast, tmp_path / "w", "--max-time", "5s")
    assert answer.code == 2
    assert answer.lines == [f"landscale: {overcast}: shows nothing but clouds, by its scene classification"]
    assert len(read_grounds([overcast, scene])) == 1
    half = with_clouds(scene, tmp_path / "half", np.zeros((20, 40), bool), 60)
    answer = cli("superres", "train", half, tmp_path / "w", "--max-time", "5s")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert (
        "SCL_60m.tif: lies at (300000.0, 8400000.0) with 40×20 px of 60 m, which is not where its product lies"
        in answer.lines[0]
    )


@pytest.mark.parametrize("gsd", [20, 60])
def test_batches_are_the_reduced_scale(scene: Path, gsd: int, monkeypatch):
    """Without other spectra and turns, a patch is what degrading the scene gives at its place, its borders included."""
    monkeypatch.setattr("landscale.superres.samples.BLENDED", 0.0)
    monkeypatch.setattr("landscale.superres.samples.SHIFT", 0.0)
    monkeypatch.setattr("landscale.superres.samples.turn", lambda values, k: values)
    monkeypatch.setitem(SIDES, 60, 12)
    monkeypatch.setitem(BATCH, gsd, 2)
    shape = Shape(gsd)
    scale, grounds = shape.scale, read_grounds([scene])
    whole = {g: torch.from_numpy(values.astype(np.float32))[None] for g, values in grounds[0].bands.items() if g <= gsd}
    inputs, target = draw(grounds, shape, seed=0, step=0)
    bands = whole[gsd][0] / 2000
    side = target.shape[-1]
    places = bands.unfold(1, side, 1).unfold(2, side, 1)  # (c, tops, lefts, side, side)
    for patch, answer in zip(inputs, target, strict=True):
        top, left = (places == answer[:, None, None]).all((0, 3, 4)).nonzero()[0].tolist()
        top, left = top - scale, left - scale  # with the margin that was cut
        cut = {
            g: v[
                ...,
                top * gsd // g : (top + side + 2 * scale) * gsd // g,
                left * gsd // g : (left + side + 2 * scale) * gsd // g,
            ]
            for g, v in whole.items()
        }
        expected = stack_inputs({g: degrade(v, scale) for g, v in cut.items()}, shape)[0, :, scale:-scale, scale:-scale]
        kept = [k for k, band in enumerate(shape.inputs) if gsd == 20 or BANDS[band].gsd != 20]
        torch.testing.assert_close(patch[kept], expected[kept], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(patch, expected, rtol=0.02, atol=0.05)  # 20 m bands go to 120 m in two steps


def test_training_keeps_its_time(scene: Path, tmp_path: Path, small, monkeypatch):
    monkeypatch.setattr("landscale.superres.train.MOST_STEPS", {20: 10**6, 60: 10**6})
    begun = time.monotonic()
    provenance = train([scene], tmp_path / "dsen2", torch.device("cpu"), 7.0)
    assert 1.0 < time.monotonic() - begun < 7.0
    assert provenance["steps_20m"] > 1 < provenance["steps_60m"]
    assert (tmp_path / "dsen2" / "config.json").exists()


def test_the_command_trains_what_is_published(scene: Path, tmp_path: Path):
    answer = outcome(command("superres", "train", scene, tmp_path / "dsen2", "--max-time", "6s", "--json"))
    assert answer.code == 0, answer.lines
    assert answer.json["steps_20m"] > 0 < answer.json["steps_60m"]
    config = json.loads((tmp_path / "dsen2" / "config.json").read_text())
    assert config["networks"]["20m"] | {"inputs": [], "outputs": []} == {
        "inputs": [], "outputs": [], "scale": 2, "features": 128, "blocks": 6,
    }  # fmt: skip
    assert config["parameters"] == sum(p.numel() for gsd in (20, 60) for p in DSen2(Shape(gsd)).parameters())


KILLED = """
import os, signal, sys
import landscale.superres.train as room
from landscale.cli import main
from landscale.superres.network import Shape
from landscale.superres.samples import SIDES

room.shape = lambda gsd, deep: Shape(gsd, 16, 1)
room.MOST_STEPS, room.RATE, room.AVERAGE, room.SAVE_EVERY, SIDES[60] = {20: 12, 60: 4}, 5e-3, 0.9, 0, 24
learn = room.Learner.learn
room.torch.set_num_threads(1)

def learn_and_die(self, grounds):
    if self.progress.steps == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return learn(self, grounds)

room.Learner.learn = learn_and_die
main(sys.argv[1:])
"""


@pytest.mark.usefixtures("small")
def test_killed_training_ends_with_the_weights_of_one_that_was_not(cli: Cli, scene: Path, tmp_path: Path, monkeypatch):
    words = ["superres", "train", str(scene), str(tmp_path / "killed"), "--max-time", "1h"]
    died = subprocess.run([sys.executable, "-c", KILLED, *words], check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["killed.checkpoint"]
    state = load_checkpoint(tmp_path / "killed.checkpoint", torch.device("cpu"))[1]
    assert state["done"]["20"]["steps"] == 5
    monkeypatch.setattr("landscale.superres.train.MOST_STEPS", {20: 12, 60: 4})
    weights = []
    for name in ("killed", "whole"):
        answer = cli("superres", "train", scene, tmp_path / name, "--max-time", "1h", "--json")
        assert answer.code == 0, answer.lines
        assert (answer.json["steps_20m"], answer.json["steps_60m"]) == (12, 4)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_interrupted_training_saves_first(cli: Cli, scene: Path, tmp_path: Path, monkeypatch):
    learn = Learner.learn

    def learn_and_stop(self, grounds):
        loss = learn(self, grounds)
        if self.progress.steps == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(Learner, "learn", learn_and_stop)
    monkeypatch.setitem(BATCH, 20, 1)
    answer = cli("superres", "train", scene, tmp_path / "dsen2", "--max-time", "1h")
    assert answer.code == 130
    assert "the same command goes on" in answer.lines[-1]
    tensors, state = load_checkpoint(tmp_path / "dsen2.checkpoint", torch.device("cpu"))
    assert state["done"]["20"]["steps"] == 2
    assert tensors["20m.network.tail.weight"].abs().max() > 0
    assert cli("superres", "train", scene, tmp_path / "dsen2", "--deep").code == 2  # a checkpoint of another training


# ---- Keras


def write_keras(
    path: Path, inputs: int, outputs: int, first: int, features: int = 8, blocks: int = 2
) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(inputs)
    channels = [inputs, *[features] * (2 * blocks + 1), outputs]
    layers = []
    with h5py.File(path, "w") as file:
        file["optimizer_weights/training/conv2d_1/kernel:0"] = np.zeros(3)
        for k, (a, b) in enumerate(pairwise(channels)):
            kernel, bias = rng.normal(0, 0.2, (3, 3, a, b)).astype("f4"), rng.normal(0, 0.1, b).astype("f4")
            name = f"conv2d_{first + k}" if first + k else "conv2d"
            file[f"model_weights/{name}/{name}/kernel:0"], file[f"model_weights/{name}/{name}/bias:0"] = kernel, bias
            layers.append((kernel, bias))
        file.create_group("model_weights/lambda_1")
    return layers


def test_keras_weights_give_the_same_numbers(cli: Cli, tmp_path: Path):
    files = {20: tmp_path / "s2_032.hdf5", 60: tmp_path / "s2_030.hdf5"}
    layers = {20: write_keras(files[20], 10, 6, 0), 60: write_keras(files[60], 12, 2, 7)}  # conv2d_9 before conv2d_10
    answer = cli("superres", "convert", files[60], files[20], tmp_path / "weights", "--json")
    assert answer.code == 0, answer.lines
    assert answer.json["networks"] == ["20m", "60m"]
    for gsd, network in Superresolver.load(tmp_path / "weights").networks.items():
        x = torch.rand(1, len(network.shape.inputs), 12, 12)

        def conv(values, layer, gsd=gsd):
            kernel, bias = (torch.from_numpy(a) for a in layers[gsd][layer])
            return F.conv2d(values, kernel.permute(3, 2, 0, 1), bias, padding=1)

        y = conv(x, 0).relu()
        for k in (1, 3):
            y = y + 0.1 * conv(conv(y, k).relu(), k + 1)
        expected = conv(y, 5) + x[:, -len(network.shape.outputs) :]
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)


def test_inputs_are_upsampled_and_divided():
    planes = {10: torch.full((1, 4, 12, 12), 2000.0), 20: torch.full((1, 6, 6, 6), 4000.0)}
    stack = stack_inputs(planes, Shape(20))
    assert stack.shape == (1, 10, 12, 12)
    assert stack[:, :4].unique().tolist() == [1.0]
    assert stack[:, 4:].unique().tolist() == [2.0]


# ---- what is refused


def bad(name: str, tmp_path: Path, scene: Path, weights: Path) -> tuple[list[object], str]:
    """A command that cannot work, and what its one line says."""
    evaluate, apply = ["superres", "evaluate", weights], ["superres", "apply", weights]
    bands = numbers(scene)
    if name == "no scene":
        return [*evaluate, tmp_path / "none"], "no such scene"
    if name == "missing band":
        return [*evaluate, write_scene(tmp_path / "s", {k: v for k, v in bands.items() if k != "B8A"})], "lacks B8A"
    if name == "half of 60 m":
        return [*evaluate, write_scene(tmp_path / "s", {k: v for k, v in bands.items() if k != "B09"})], "lacks B09"
    if name == "not native":
        half = bands | {"B05": bands["B05"].repeat(2, 0).repeat(2, 1)}
        folder = write_scene(tmp_path / "s", half)
        with rasterio.open(folder / "B05.tif", "r+") as file:
            file.transform = from_origin(300_000, 8_400_000, 10, 10)
        return [*apply, folder, tmp_path / "out"], "expected B05 at 20 m"
    if name == "no weights":
        return ["superres", "apply", tmp_path / "none", scene, tmp_path / "out"], "holds no weights"
    if name == "truncated weights":
        file = weights / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        return [*apply, scene, tmp_path / "out"], "is damaged"
    if name == "foreign weights":
        config = json.loads((weights / "config.json").read_text())
        config["networks"]["20m"]["inputs"].reverse()
        (weights / "config.json").write_text(json.dumps(config))
        return [*apply, scene, tmp_path / "out"], "describes another"
    if name == "occupied":
        shutil.copytree(scene, tmp_path / "out")
        return [*apply, scene, tmp_path / "out"], "was not written by superres apply"
    if name == "old mat":
        (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(600))
        return [*evaluate, tmp_path / "a.mat"], "is no MATLAB file of version 7.3"
    if name == "empty mat":
        return [*evaluate, write_mat(tmp_path / "a.mat", bands, {"x": ("B02",)})], "holds none of im10"
    if name == "other mat":
        return [*evaluate, write_mat(tmp_path / "a.mat", bands, {"im10": ("B02", "B03")})], "im10 has shape"
    if name == "reflectances":
        return [
            *evaluate,
            write_mat(tmp_path / "a.mat", {k: v / 1e4 for k, v in bands.items()}),
        ], "holds reflectances"
    if name == "negative":
        return [
            *evaluate,
            write_mat(tmp_path / "a.mat", {k: -1.0 * v for k, v in bands.items()}),
        ], "digital numbers of 16"
    if name == "mat without 20 m":
        return [*evaluate, write_mat(tmp_path / "a.mat", bands, {"im10": IMAGES["im10"]})], "lacks B05"
    if name == "tiny":
        tiny = write_scene(tmp_path / "s", {k: v[: 60 // BANDS[k].gsd * 2] for k, v in bands.items()})
        return ["superres", "train", tiny, tmp_path / "w"], "to train on"
    if name == "time":
        return ["superres", "train", scene, tmp_path / "w", "--max-time", "soon"], "--max-time"
    if name == "no keras":
        return ["superres", "convert", scene / "B02.tif", tmp_path / "w"], "is no HDF5 file of Keras"
    write_keras(tmp_path / "k.h5", 3, 3, 1)
    return ["superres", "convert", tmp_path / "k.h5", tmp_path / "w"], "takes 3 bands and gives 3"


@pytest.mark.parametrize(
    "name",
    ["no scene", "missing band", "half of 60 m", "not native", "no weights", "truncated weights", "foreign weights",
     "occupied", "old mat", "empty mat", "other mat", "reflectances", "negative", "mat without 20 m", "tiny", "time", "no keras",
     "other keras"],
)  # fmt: skip
def test_bad_input_is_one_line(cli: Cli, tmp_path: Path, scene: Path, weights: Path, name: str):
    words, expected = bad(name, tmp_path, scene, weights)
    answer = cli(*words)
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert expected in answer.lines[0]
    assert not (tmp_path / "w").exists()


# ---- a real scene


@pytest.mark.skipif(not REAL.exists(), reason=f"the published scene is not at {REAL}")
def test_the_published_scene(cli: Cli, bilinear: Path):
    with ScenePixels(open_scene(REAL), ESA_ORDER) as pixels:
        means = {band: pixels.read(band, 0, 600).mean() for band in GROUPS[10]}
    assert {band: round(float(mean)) for band, mean in means.items()} == {
        "B04": 790,
        "B03": 1020,
        "B02": 1003,
        "B08": 3544,
    }
    figures = cli("superres", "evaluate", bilinear, REAL, "--json").json
    assert figures["bicubic_rmse_20m"] == pytest.approx(152.04, abs=0.1)
    assert figures["rmse_20m"] > figures["bicubic_rmse_20m"]


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason=f"the published scene is not at {REAL}")
def test_what_one_scene_teaches_holds_on_others(cli: Cli, tmp_path: Path):
    """Two minutes with one scene of level 1C; patches of level 2A from twenty other tiles in nine countries."""
    answer = cli("superres", "train", REAL, tmp_path / "dsen2", "--max-time", "2m")
    assert answer.code == 0, answer.lines
    superresolver = Superresolver.load(tmp_path / "dsen2")
    squares = np.zeros(2)
    for patch in sorted((DATA / "bigearthnet-v2" / "BigEarthNet-S2").glob("*/*"))[::5]:
        figures = evaluate(superresolver, patch)
        squares += [figures["rmse_20m"] ** 2, figures["bicubic_rmse_20m"] ** 2]
    ours, bicubic = np.sqrt(squares)
    assert ours < 0.6 * bicubic
