"""Fixtures and helpers for the tests of DSen2: a synthetic scene, small networks, and writers of the formats they read."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from landscale.datasets.synthetic.bigearthnet_archive import write_archive
from landscale.scenes.matlab import IMAGES
from landscale.vocabulary.bands import BAND_SETS, BANDS

if TYPE_CHECKING:
    from landscale.superres.network import DSen2, NetworkShape


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic scene of 240×240 px at 10 m."""
    folder = tmp_path_factory.mktemp("synthetic") / "archive"
    write_archive(folder, patches=4)
    return next((folder / "scene").iterdir())


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Small networks whose result differs much from plain upsampling."""
    return save_random(tmp_path / "weights", tail=0.02)


@pytest.fixture
def bilinear(tmp_path: Path) -> Path:
    """Untrained networks, which upsample bilinearly."""
    return save_random(tmp_path / "bilinear", tail=0.0)


def save_random(folder: Path, tail: float) -> Path:
    from landscale.superres.weights import save_networks

    save_networks(folder, random_networks(tail), {})
    return folder


def random_networks(tail: float) -> dict[int, DSen2]:
    import torch  # here, because many tests need no torch

    from landscale.superres.network import DSen2, NetworkShape

    torch.manual_seed(1)
    networks = {gsd: DSen2(NetworkShape(gsd, features=8, blocks=2)) for gsd in (20, 60)}
    for network in networks.values():
        torch.nn.init.normal_(network.tail.weight, std=tail)
    return networks


def small_shape(gsd: int, *, deep: bool) -> NetworkShape:
    """Replaces `network_shape` where a network must train quickly."""
    from landscale.superres.network import NetworkShape

    return NetworkShape(gsd, 16, 1)


def read_raster(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def read_bands(scene: Path) -> dict[str, np.ndarray]:
    return {band: read_raster(scene / f"{band}.tif") for band in BAND_SETS["s2-12"].names}


def write_scene(folder: Path, bands: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for band, values in bands.items():
        gsd = BANDS[band].gsd
        profile = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": values.dtype}
        georeference = {"crs": "EPSG:32633", "transform": from_origin(300_000, 8_400_000, gsd, gsd)}
        with rasterio.open(folder / f"{band}.tif", "w", driver="GTiff", **profile, **georeference) as file:
            file.write(values, 1)
    return folder


def write_mat(path: Path, bands: dict[str, np.ndarray], images: dict[str, tuple[str, ...]] = IMAGES) -> Path:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, names in images.items():
            file[name] = np.stack([bands[band].T for band in names]).astype(np.float32)
    return path


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
