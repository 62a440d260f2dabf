"""DSen2: errors by Wald's protocol, MATLAB scenes, Keras weights, and refused input."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from rasterio.transform import from_origin
from safetensors.torch import load_file, save_file
from scipy.ndimage import gaussian_filter

from conftest import Cli
from landscale.scenes.matlab import IMAGES
from landscale.scenes.pixels import ScenePixels, summary
from landscale.scenes.scene import open_scene
from landscale.superres.network import NetworkShape, stack_inputs
from landscale.superres.planes import ESA_ORDER, GROUPS, pad_by_reflection
from landscale.superres.superresolver import Superresolver
from landscale.superres.wald import degrade
from landscale.vocabulary.bands import BANDS
from sharpening import read_bands, write_keras, write_mat, write_scene
from weights_folders import entries, seal

# rasterio raises this warning in its own use of affine transforms.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.mark.parametrize("scale", [2, 6])
def test_degrade_equals_a_gaussian_blur_and_a_block_mean_of_scipy_and_numpy(scale):
    values = np.random.default_rng(0).uniform(0, 9000, (3, 36, 48)).astype(np.float32)
    blurred = np.stack([gaussian_filter(band, 1 / scale) for band in values])
    expected = blurred.reshape(3, 36 // scale, scale, 48 // scale, scale).mean((2, 4))
    found = degrade(torch.from_numpy(values)[None], scale)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("how", ["left over", "not finite"])
def test_sealed_tensors_that_do_not_fit_are_refused(cli: Cli, weights: Path, how: str):
    tensors = load_file(weights / "model.safetensors")
    if how == "left over":
        tensors["30m.head.weight"] = torch.zeros(3)
    else:
        tensors["20m.tail.bias"][0] = float("nan")
    save_file(tensors, weights / "model.safetensors")
    seal(weights)
    answer = cli("info", weights)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert ("unexpected tensor 30m.head.weight" if how == "left over" else "not finite, in tensor 20m.tail.bias") in (
        answer.lines[0]
    )


def test_networks_with_a_file_that_is_not_theirs_are_refused(cli: Cli, weights: Path):
    (weights / "more.txt").touch()
    answer = cli("info", weights)
    assert answer.lines == [
        f"landscale: {weights}/more.txt: is not part of these weights: config.json does not list it; move it away"
    ]


def test_padding_equals_symmetric_padding_of_numpy():
    values = np.arange(20).reshape(4, 5)
    for margin in (1, 4, 11):
        expected = np.pad(values, margin, mode="symmetric")
        np.testing.assert_array_equal(pad_by_reflection(torch.from_numpy(values), margin).numpy(), expected)


def test_evaluate_reports_the_errors_of_the_paper(cli: Cli, scene: Path, bilinear: Path):
    figures = cli("superres", "evaluate", bilinear, scene, "--json").json
    bands = read_bands(scene)
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


def test_errors_computed_by_hand():
    from landscale.superres.evaluate import ErrorSums

    errors = ErrorSums(2)
    truth = torch.tensor([[[[100.0, 0.0]], [[100.0, 0.0]]]])  # the second pixel has no data
    errors.add(truth, truth + torch.tensor([10.0, 0.0]).view(1, 2, 1, 1))
    found = errors.overall(2)
    assert found["rmse"] == pytest.approx(np.sqrt(50))
    assert errors.by_band()["sre"][0] == pytest.approx(20.0)
    assert found["sam"] == pytest.approx(np.degrees(np.arctan2(110, 100) - np.pi / 4))
    assert found["ergas"] == pytest.approx(50 * np.sqrt(0.01 / 2))


# ---- MATLAB


def test_a_matlab_file_is_a_scene(cli: Cli, scene: Path, tmp_path: Path):
    # Not square, to detect swapped axes.
    bands = {band: values[: len(values) // 2] for band, values in read_bands(scene).items()}
    mat = write_mat(tmp_path / "scene.mat", bands)
    opened = open_scene(mat)
    assert (summary(opened)["width"], summary(opened)["height"], summary(opened)["pixel"]) == (240, 120, 10)
    assert opened.offset == 0
    with ScenePixels(opened, ESA_ORDER) as pixels:
        for band, values in bands.items():
            np.testing.assert_array_equal(pixels.read(band, 0, 10_000), values)


def test_offset_of_a_level_1c_product(scene: Path, tmp_path: Path):
    product = tmp_path / "product"
    shutil.copytree(scene, product)
    assert open_scene(product).offset == 0
    (product / "MTD_MSIL1C.xml").write_text('<RADIO_ADD_OFFSET band_id="0">-1000</RADIO_ADD_OFFSET>')
    assert open_scene(product).offset == 1000


# ---- Keras


def test_converted_keras_weights_give_the_output_of_the_keras_network(cli: Cli, tmp_path: Path):
    files = {20: tmp_path / "s2_032.hdf5", 60: tmp_path / "s2_030.hdf5"}
    # Layers are numbered from 7: conv2d_9 must come before conv2d_10.
    layers = {20: write_keras(files[20], 10, 6, 0), 60: write_keras(files[60], 12, 2, 7)}
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


def test_inputs_are_upsampled_bilinearly_and_divided_by_2000():
    planes = {10: torch.full((1, 4, 12, 12), 2000.0), 20: torch.full((1, 6, 6, 6), 4000.0)}
    stack = stack_inputs(planes, NetworkShape(20))
    assert stack.shape == (1, 10, 12, 12)
    assert stack[:, :4].unique().tolist() == [1.0]
    assert stack[:, 4:].unique().tolist() == [2.0]


# ---- refused input


def bad_command(name: str, tmp_path: Path, scene: Path, weights: Path) -> tuple[list[object], str]:
    """A command that must fail, and part of its error message."""
    evaluate, apply = ["superres", "evaluate", weights], ["superres", "apply", weights]
    bands = read_bands(scene)
    if name == "missing scene":
        return [*evaluate, tmp_path / "none"], "no such scene"
    if name == "missing band":
        return [*evaluate, write_scene(tmp_path / "s", {k: v for k, v in bands.items() if k != "B8A"})], "lacks B8A"
    if name == "one of two bands at 60 m":
        return [*evaluate, write_scene(tmp_path / "s", {k: v for k, v in bands.items() if k != "B09"})], "lacks B09"
    if name == "band not at its native resolution":
        half = bands | {"B05": bands["B05"].repeat(2, 0).repeat(2, 1)}
        folder = write_scene(tmp_path / "s", half)
        with rasterio.open(folder / "B05.tif", "r+") as file:
            file.transform = from_origin(300_000, 8_400_000, 10, 10)
        return [*apply, folder, tmp_path / "out"], "expected B05 at 20 m"
    if name == "missing weights":
        return ["superres", "apply", tmp_path / "none", scene, tmp_path / "out"], "holds no weights"
    if name == "truncated weights":
        file = weights / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        return [*apply, scene, tmp_path / "out"], "is damaged"
    if name == "weights of another version":
        networks = entries(weights)["networks"]
        networks["20m"]["inputs"].reverse()
        seal(weights, networks=networks)
        return [*apply, scene, tmp_path / "out"], "cannot build"
    if name == "output folder of something else":
        shutil.copytree(scene, tmp_path / "out")
        return [*apply, scene, tmp_path / "out"], "was not written by superres apply"
    if name == "MATLAB file of version 5":
        (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(600))
        return [*evaluate, tmp_path / "a.mat"], "is not a MATLAB file of version 7.3"
    if name == "MATLAB file without bands":
        return [*evaluate, write_mat(tmp_path / "a.mat", bands, {"x": ("B02",)})], "holds none of im10"
    if name == "MATLAB array of another shape":
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
        ], "16-bit digital numbers"
    if name == "MATLAB file without 20 m":
        return [*evaluate, write_mat(tmp_path / "a.mat", bands, {"im10": IMAGES["im10"]})], "lacks B05"
    if name == "scene smaller than a patch":
        tiny = write_scene(tmp_path / "s", {k: v[: 60 // BANDS[k].gsd * 2] for k, v in bands.items()})
        return ["superres", "train", tiny, tmp_path / "w"], "to train on"
    if name == "time limit that is not a time":
        return ["superres", "train", scene, tmp_path / "w", "--max-time", "soon"], "--max-time"
    if name == "not a Keras file":
        return ["superres", "convert", scene / "B02.tif", tmp_path / "w"], "is no HDF5 file of Keras"
    write_keras(tmp_path / "k.h5", 3, 3, 1)
    return ["superres", "convert", tmp_path / "k.h5", tmp_path / "w"], "takes 3 bands and gives 3"


@pytest.mark.parametrize(
    "name",
    [
        "missing scene",
        "missing band",
        "one of two bands at 60 m",
        "band not at its native resolution",
        "missing weights",
        "truncated weights",
        "weights of another version",
        "output folder of something else",
        "MATLAB file of version 5",
        "MATLAB file without bands",
        "MATLAB array of another shape",
        "reflectances",
        "negative",
        "MATLAB file without 20 m",
        "scene smaller than a patch",
        "time limit that is not a time",
        "not a Keras file",
        "Keras file of another network",
    ],
)
def test_bad_input_is_refused_with_one_line(cli: Cli, tmp_path: Path, scene: Path, weights: Path, name: str):
    words, expected = bad_command(name, tmp_path, scene, weights)
    answer = cli(*words)
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert expected in answer.lines[0]
    assert not (tmp_path / "w").exists()
