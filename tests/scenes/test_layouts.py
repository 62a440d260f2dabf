"""Every layout of a product is read by every command as its `.SAFE` folder is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from archives import GSD
from conftest import Cli
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene
from layouts import HARMONISED, LAYOUTS, OFFSET, SIDE, Pixels, safe
from products import noise
from sharpening import save_random

pytestmark = pytest.mark.filterwarnings(
    "ignore::PendingDeprecationWarning"
)  # of rasterio, in its own affine transforms
WEIGHTS = "bundled:bigearthnet-s2-12"


@dataclass(frozen=True)
class Seen:
    """What the commands see of a scene; offset: that which was subtracted."""

    info: dict[str, Any]
    offset: int
    pixels: dict[str, NDArray[Any]]
    map: NDArray[Any]
    patches: dict[str, NDArray[Any]]
    sharp: dict[str, NDArray[Any]]


def see(cli: Cli, scene: Path, out: Path) -> Seen:
    def run(*words: object) -> Any:
        answer = cli(*words)
        assert answer.code == 0, answer.lines
        return answer

    info = run("info", scene, "--json").json
    predicted = run("predict", WEIGHTS, scene, out / "map.tif", "--json").json
    run("prepare", "tiles", scene, out / "store.h5", "--labels", "none", "--workers", 1)
    sharpened = run("superres", "apply", save_random(out / "networks", tail=0.02), scene, out / "sharp", "--json").json
    assert info["offset"] == predicted["offset"] == sharpened["offset"]
    with ScenePixels(open_scene(scene), list(GSD)) as opened:
        pixels = {band: opened.harmonise(opened.read(band, 0, SIDE)) for band in GSD}
    with h5py.File(out / "store.h5") as store:
        patches = {key: store[key][:] for key in ("data_10m", "data_20m", "data_60m", "origin", "name", "crs")}
    with rasterio.open(out / "map.tif") as file:
        drawn = file.read()
    sharp = {}
    for band in GSD:
        with rasterio.open(out / "sharp" / f"{band}.tif") as file:
            sharp[band] = (file.read(1).astype(int) - info["offset"]).clip(1)  # 1: the least that is no nodata
    kept = {key: value for key, value in info.items() if key not in ("path", "offset", "bands")}
    return Seen({**kept, "bands": sorted(info["bands"])}, info["offset"], pixels, drawn, patches, sharp)


@pytest.fixture(scope="module")
def product() -> Pixels:
    return noise(SIDE)


@pytest.fixture(scope="module")
def of_safe(product: Pixels, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Cli], Seen]:
    """What the commands see of the `.SAFE` folder, seen once."""
    seen: list[Seen] = []

    def look(cli: Cli) -> Seen:
        if not seen:
            folder = tmp_path_factory.mktemp("safe")
            seen.append(see(cli, safe(folder, product), folder))
        return seen[0]

    return look


def same(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> bool:
    return found.keys() == expected.keys() and all(np.array_equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_every_command_reads_every_layout(
    write: Callable[[Path, Pixels], Path], product: Pixels, of_safe: Callable[[Cli], Seen], cli: Cli, tmp_path: Path
) -> None:
    expected = of_safe(cli)
    assert same(expected.pixels, product)
    assert (expected.offset, expected.info["level"], expected.info["unit"]) == (OFFSET, "L2A", "digital number")
    found = see(cli, write(tmp_path / "given", product), tmp_path)
    assert found.info == expected.info
    assert found.offset == (0 if write in HARMONISED else OFFSET)
    assert same(found.pixels, product)
    assert np.array_equal(found.map, expected.map)
    assert same(found.patches, expected.patches)
    assert all(np.abs(found.sharp[band] - expected.sharp[band]).max() <= 1 for band in GSD)
