"""Training of DSen2: its batches, better results than bicubic, the time limit, and resuming after a kill."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch

from conftest import Cli, command, outcome
from landscale.superres.network import DSen2, NetworkShape, stack_inputs
from landscale.superres.samples import (
    BATCH_SIZES,
    PATCH_SIDES,
    TrainingArea,
    draw_batch,
    draw_patch,
    read_training_areas,
)
from landscale.superres.train import NetworkTrainer, train_superres
from landscale.superres.wald import degrade
from landscale.training.checkpoint import load_checkpoint
from landscale.vocabulary.bands import BANDS
from launchers import run_until_killed
from sharpening import small_shape
from weights_folders import entries

# rasterio raises this warning in its own use of affine transforms.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture
def small(monkeypatch) -> None:
    """Training of small networks for a fixed number of steps."""
    monkeypatch.setattr("landscale.superres.train.network_shape", small_shape)
    monkeypatch.setattr("landscale.superres.train.MAX_STEPS", {20: 150, 60: 60})
    monkeypatch.setattr("landscale.superres.train.MAX_RATE", 5e-3)
    monkeypatch.setattr("landscale.superres.train.EMA_DECAY", 0.9)
    monkeypatch.setitem(PATCH_SIDES, 60, 24)


@pytest.mark.usefixtures("small")
def test_a_short_training_is_better_than_bicubic(cli: Cli, scene: Path, tmp_path: Path):
    """The result is better than bicubic. The same command again finds a finished training; other settings are refused."""
    out = tmp_path / "dsen2"
    answer = cli("superres", "train", scene, out, "--max-time", "1h", "--json")
    assert answer.code == 0, answer.lines
    assert (answer.json["steps_20m"], answer.json["steps_60m"]) == (150, 60)
    figures = cli("superres", "evaluate", out, scene, "--json").json
    assert figures["ratio_20m"] < 0.96
    assert figures["ratio_60m"] < 1.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dsen2"]  # no checkpoint is left
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    config = entries(out)
    assert config["networks"]["20m"]["inputs"][:4] == ["B04", "B03", "B02", "B08"]
    assert config["networks"]["60m"]["outputs"] == ["B01", "B09"]
    assert cli("superres", "train", scene, out, "--json").json == answer.json
    assert "B8A" in cli("info", out).out
    assert cli("info", out, "--json").json["kind"] == "superres"
    other = cli("superres", "train", scene, out, "--seed", 1)
    assert other.code == 2
    assert "another training" in other.lines[-1]


def test_batches_are_a_function_of_seed_and_step(scene: Path):
    areas = read_training_areas([scene])
    for gsd in (20, 60):
        inputs, target = draw_batch(areas, NetworkShape(gsd), seed=3, step=7)
        again = draw_batch(areas, NetworkShape(gsd), seed=3, step=7)
        assert torch.equal(inputs, again[0])
        assert torch.equal(target, again[1])
        assert not torch.equal(inputs, draw_batch(areas, NetworkShape(gsd), seed=3, step=8)[0])
        assert inputs.shape[1:] == (len(NetworkShape(gsd).inputs), *target.shape[2:])


def with_clouds(scene: Path, folder: Path, cloud: np.ndarray, gsd: int) -> Path:
    """A copy of the scene with a classification at `gsd`, with clouds where `cloud`, a mask with pixels of 60 m, is true."""
    shutil.copytree(scene, folder)
    (classes,) = (np.where(cloud, 9, 4).repeat(r, 0).repeat(r, 1).astype(np.uint8) for r in [60 // gsd])
    with rasterio.open(scene / "B02.tif") as file:
        georeference = {"crs": file.crs, "transform": file.transform @ rasterio.Affine.scale(gsd / 10)}
    profile = {"height": classes.shape[0], "width": classes.shape[1], "count": 1, "dtype": "uint8"}
    with rasterio.open(folder / f"SCL_{gsd}m.tif", "w", driver="GTiff", **profile, **georeference) as file:
        file.write(classes, 1)
    return folder


@pytest.mark.parametrize("gsd", [10, 20, 60])
def test_patches_avoid_clouds(gsd: int, scene: Path, tmp_path: Path, monkeypatch):
    """Patches are free of clouds where that is possible, else those with the fewest cloudy pixels."""
    monkeypatch.setitem(PATCH_SIDES, 60, 8)
    monkeypatch.setattr("landscale.superres.samples.turn", lambda values, k: values)
    cloud = np.zeros((40, 40), bool)
    cloud[:, 34:] = cloud[3, 5] = True
    (clear,) = read_training_areas([scene])
    (found,) = read_training_areas([with_clouds(scene, tmp_path / "scene", cloud, gsd)])
    assert all((found.bands[g] == clear.bands[g]).all() for g in clear.bands)
    assert not clear.cloud.any()
    np.testing.assert_array_equal(found.cloud, cloud.repeat(3, 0).repeat(3, 1))
    marked = TrainingArea({g: v.copy() for g, v in found.bands.items()}, found.cloud)
    for g, values in marked.bands.items():
        values[:] = 100
        values[:, cloud.repeat(60 // g, 0).repeat(60 // g, 1)] = 9999
    for target in (20, 60):
        patches = [draw_patch([marked], NetworkShape(target), 12, np.random.default_rng(seed)) for seed in range(40)]
        assert all(values.max() == 100 for patch in patches for values in patch.values())
        hidden = TrainingArea(marked.bands, np.ones_like(found.cloud))
        hidden.cloud[:, :60] = False
        patches = [draw_patch([hidden], NetworkShape(target), 30, np.random.default_rng(seed)) for seed in range(5)]
        assert all(values.min() > 0 for patch in patches for values in patch.values())


def test_a_scene_covered_by_clouds_is_refused(scene: Path, tmp_path: Path, cli: Cli):
    overcast = with_clouds(scene, tmp_path / "overcast", np.ones((40, 40), bool), 20)
    answer = cli("superres", "train", overcast, tmp_path / "w", "--max-time", "5s")
    assert answer.code == 2
    assert answer.lines == [
        f"landscale: {overcast}: is completely covered by clouds, according to its scene classification"
    ]
    assert len(read_training_areas([overcast, scene])) == 1
    half = with_clouds(scene, tmp_path / "half", np.zeros((20, 40), bool), 60)
    answer = cli("superres", "train", half, tmp_path / "w", "--max-time", "5s")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert (
        "SCL_60m.tif: covers 40×20 px of 60 m from (300000.0, 8400000.0), expected the area of its product"
        in answer.lines[0]
    )


@pytest.mark.parametrize("gsd", [20, 60])
def test_batches_follow_walds_protocol(scene: Path, gsd: int, monkeypatch):
    """Without augmentation a patch equals the degraded scene at its place, its borders included."""
    monkeypatch.setattr("landscale.superres.samples.MIXED_FRACTION", 0.0)
    monkeypatch.setattr("landscale.superres.samples.OFFSET_STD", 0.0)
    monkeypatch.setattr("landscale.superres.samples.turn", lambda values, k: values)
    monkeypatch.setitem(PATCH_SIDES, 60, 12)
    monkeypatch.setitem(BATCH_SIZES, gsd, 2)
    shape = NetworkShape(gsd)
    scale, areas = shape.scale, read_training_areas([scene])
    whole = {g: torch.from_numpy(values.astype(np.float32))[None] for g, values in areas[0].bands.items() if g <= gsd}
    inputs, target = draw_batch(areas, shape, seed=0, step=0)
    bands = whole[gsd][0] / 2000
    side = target.shape[-1]
    places = bands.unfold(1, side, 1).unfold(2, side, 1)  # (c, tops, lefts, side, side)
    for patch, answer in zip(inputs, target, strict=True):
        top, left = (places == answer[:, None, None]).all((0, 3, 4)).nonzero()[0].tolist()
        top, left = top - scale, left - scale  # a patch of `draw_batch` has lost a margin of `scale` pixels
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
        # Less exact, because bands at 20 m are degraded to 120 m in two steps.
        torch.testing.assert_close(patch, expected, rtol=0.02, atol=0.05)


@pytest.mark.usefixtures("small")
def test_training_ends_before_its_time_limit(scene: Path, tmp_path: Path, monkeypatch):
    """On a simulated clock a step takes 1 s. Of 43 s, 0.9 · (43 − 3) = 36 s are used: 27 s for 20 m and 9 s for 60 m."""
    now = 0.0
    train_step = NetworkTrainer.train_step

    def train_for_a_second(self, areas):
        nonlocal now
        now += 1.0
        return train_step(self, areas)

    monkeypatch.setattr("landscale.superres.train.MAX_STEPS", {20: 10**6, 60: 10**6})
    monkeypatch.setattr("landscale.superres.train.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(NetworkTrainer, "train_step", train_for_a_second)
    provenance = train_superres([scene], tmp_path / "dsen2", torch.device("cpu"), 43.0)
    assert (provenance["steps_20m"], provenance["steps_60m"], provenance["seconds"]) == (27, 9, 36.0)
    assert (tmp_path / "dsen2" / "config.json").exists()


def test_the_command_trains_networks_of_the_published_size(scene: Path, tmp_path: Path):
    answer = outcome(command("superres", "train", scene, tmp_path / "dsen2", "--max-time", "6s", "--json"))
    assert answer.code == 0, answer.lines
    assert answer.json["steps_20m"] > 0 < answer.json["steps_60m"]
    config = entries(tmp_path / "dsen2")
    assert config["networks"]["20m"] | {"inputs": [], "outputs": []} == {
        "inputs": [], "outputs": [], "scale": 2, "features": 128, "blocks": 6,
    }  # fmt: skip
    assert config["parameters"] == sum(p.numel() for gsd in (20, 60) for p in DSen2(NetworkShape(gsd)).parameters())


@pytest.mark.usefixtures("small")
def test_a_killed_training_resumes_to_the_same_weights(cli: Cli, scene: Path, tmp_path: Path, monkeypatch):
    settings = {
        "landscale.superres.train:network_shape": small_shape,
        "landscale.superres.train:MAX_STEPS": {20: 12, 60: 4},
        "landscale.superres.train:MAX_RATE": 5e-3,
        "landscale.superres.train:EMA_DECAY": 0.9,
        "landscale.superres.train:SAVE_EVERY": 0,
        "landscale.superres.samples:PATCH_SIDES": {20: 32, 60: 24},
    }
    words = ["superres", "train", scene, tmp_path / "killed", "--max-time", "1h"]
    assert run_until_killed(words, "landscale.superres.train:NetworkTrainer.train_step", 6, settings) == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["killed.checkpoint"]
    state = load_checkpoint(tmp_path / "killed.checkpoint", torch.device("cpu"))[1]
    assert state["done"]["20"]["steps"] == 5
    monkeypatch.setattr("landscale.superres.train.MAX_STEPS", {20: 12, 60: 4})
    weights = []
    for name in ("killed", "whole"):
        answer = cli("superres", "train", scene, tmp_path / name, "--max-time", "1h", "--json")
        assert answer.code == 0, answer.lines
        assert (answer.json["steps_20m"], answer.json["steps_60m"]) == (12, 4)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_an_interrupted_training_saves_a_checkpoint(cli: Cli, scene: Path, tmp_path: Path, monkeypatch):
    train_step = NetworkTrainer.train_step

    def train_and_stop(self, areas):
        loss = train_step(self, areas)
        if self.progress.steps == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(NetworkTrainer, "train_step", train_and_stop)
    monkeypatch.setitem(BATCH_SIZES, 20, 1)
    answer = cli("superres", "train", scene, tmp_path / "dsen2", "--max-time", "1h")
    assert answer.code == 130
    assert "run the same command again to resume" in answer.lines[-1]
    tensors, state = load_checkpoint(tmp_path / "dsen2.checkpoint", torch.device("cpu"))
    assert state["done"]["20"]["steps"] == 2
    assert tensors["20m.network.tail.weight"].abs().max() > 0
    assert cli("superres", "train", scene, tmp_path / "dsen2", "--deep").code == 2  # a checkpoint of another training
