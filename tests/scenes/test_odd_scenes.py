"""Scenes that differ from a product as ESA distributes it: every command gives the result of the usual scene, or refuses.

`info` reads no pixels, so it cannot refuse numbers; it refuses grids and files as the others do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.transform import from_origin

from archives import GSD
from conftest import Answer, Cli
from landscale.cli import main
from landscale.models.classifier import Classifier
from landscale.models.weights import save_weights
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene
from landscale.store import open_store
from mapped import description_with
from products import CORNER, EPSG, noise, write_tiffs
from sharpening import save_random

pytestmark = [
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),  # raised by rasterio itself
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]
NAME = "S2A_MSIL2A_20190101T000000_N0301_R022_T33LTA_20190101T000000"  # of a baseline without offset
SIDE, EMPTY = 120, 12  # px of 10 m; rows without data at the top
COMMANDS = ("info", "predict", "prepare", "superres")
Bands = dict[str, NDArray[Any]]


def usual() -> Bands:
    bands = noise(SIDE)
    for band, values in bands.items():
        values[: EMPTY * 10 // GSD[band]] = 0
    return bands


def place(band: str, transform: Affine) -> Affine:
    return transform @ Affine.scale(GSD[band] / 10)


UTM = from_origin(*CORNER, 10, 10)


def rewritten(**how: Any) -> Callable[[Path], Path]:
    """A scene whose files have another profile; `transform` is that of 10 m."""

    def write(folder: Path) -> Path:
        for band, values in usual().items():
            own = dict(how)
            if "transform" in own:
                own["transform"] = place(band, own["transform"])
            write_tiffs(folder / band, NAME, {band: values}, **own)
            (folder / NAME).mkdir(exist_ok=True)
            (folder / band / NAME / f"{band}.tif").rename(folder / NAME / f"{band}.tif")
        return folder / NAME

    return write


def converted(change: Callable[[NDArray[Any]], NDArray[Any]], **how: Any) -> Callable[[Path], Path]:
    """A scene with other numbers."""
    return lambda folder: write_tiffs(folder, NAME, {band: change(v) for band, v in usual().items()}, **how)


def with_nodata(dtype: str, nodata: float) -> Callable[[Path], Path]:
    return converted(lambda v: np.where(v == 0, nodata, v.astype(dtype)).astype(dtype), nodata=nodata)


def declared_scale(folder: Path) -> Path:
    """GDAL's scale and offset tags, by which digital numbers of a product have an offset of 1000."""
    scene = write_tiffs(folder, "mine", {band: v + (v > 0) * np.uint16(1000) for band, v in usual().items()})
    for path in scene.iterdir():
        with rasterio.open(path, "r+") as file:
            file.scales, file.offsets = (1e-4,), (-0.1,)
    return scene


def one_band(change: Callable[[Bands], Mapping[str, NDArray[Any]]], band: str) -> Callable[[Path], Path]:
    return lambda folder: write_tiffs(folder, NAME, {**usual(), band: change(usual())[band]})


def shifted_band(folder: Path) -> Path:
    scene = write_tiffs(folder, NAME, usual())
    with rasterio.open(scene / "B03.tif", "r+") as file:
        file.transform = file.transform @ Affine.translation(3, 0)
    return scene


def without_band(folder: Path) -> Path:
    return write_tiffs(folder, NAME, {band: v for band, v in usual().items() if band != "B05"})


def vrt_named_tif(folder: Path) -> Path:
    scene = write_tiffs(folder, NAME, usual())
    (scene / "B03.tif").rename(folder / "hidden.tif")
    (scene / "B03.tif").write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>EPSG:{EPSG}</SRS><GeoTransform>{CORNER[0]},10,0,'
        f'{CORNER[1]},0,-10</GeoTransform><VRTRasterBand dataType="UInt16" band="1"><SimpleSource><SourceFilename>'
        f"{folder}/hidden.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return scene


def two_levels(folder: Path) -> Path:
    """A folder with the 10 m bands of Level-1C and the others of Level-2A."""
    first = {band: v for band, v in usual().items() if GSD[band] == 10}
    write_tiffs(folder / "both", NAME, {band: v for band, v in usual().items() if band not in first})
    write_tiffs(folder / "both", NAME.replace("MSIL2A", "MSIL1C"), first)
    return folder / "both"


SAME: dict[str, Callable[[Path], Path]] = {
    "nodata 65535": with_nodata("uint16", 65_535),
    "nodata -9999": with_nodata("int16", -9999),
    "reflectance": converted(lambda v: (v / 1e4).astype(np.float32)),
    "reflectance with NaN": converted(lambda v: np.where(v == 0, np.nan, v / 1e4).astype(np.float32), nodata=np.nan),
    "declared scale and offset": declared_scale,
}
REFUSED: dict[str, tuple[Callable[[Path], Path], str, tuple[str, ...]]] = {
    "south-up": (rewritten(transform=UTM @ Affine.scale(1, -1)), "is stored south-up", COMMANDS),
    "rotated": (rewritten(transform=UTM @ Affine.rotation(20)), "is rotated", COMMANDS),
    "degrees": (rewritten(crs="EPSG:4326", transform=from_origin(15, 45, 1e-4, 1e-4)), "is in degrees", COMMANDS),
    "feet": (rewritten(crs="EPSG:2263"), "foot", COMMANDS),
    "Web Mercator": (rewritten(crs="EPSG:3857"), "is in Web Mercator", COMMANDS),
    "no georeference": (rewritten(crs=None), "has no coordinate reference system", COMMANDS),
    "negative": (converted(lambda v: v.astype(np.int16) - 5), "holds numbers from -5", COMMANDS[1:]),
    "8-bit": (converted(lambda v: (v // 64).astype(np.uint8)), "8-bit", COMMANDS[1:]),
    "half a band": (one_band(lambda b: {"B05": b["B05"][:30]}, "B05"), "which does not fit", COMMANDS),
    "a shifted band": (shifted_band, "not where the other bands lie", COMMANDS),
    "a missing band": (without_band, "B05", ("predict", "superres")),
    "a VRT named .tif": (vrt_named_tif, "cannot be read", COMMANDS),
    "two levels": (two_levels, "holds more than one scene", ("info", "predict", "superres")),
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a classifier and of super-resolution for digital numbers."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    units = dict.fromkeys(GSD, "digital number")
    save_weights(folder / "classifier", Classifier(description_with(tuple(GSD), units=units)).eval(), {})
    save_random(folder / "dsen2", tail=0.02)
    return folder


def calls(networks: Path, scene: Path, out: Path) -> dict[str, tuple[object, ...]]:
    """The words of every command."""
    out.mkdir()
    return {
        "info": ("info", scene, "--json"),
        "predict": ("predict", networks / "classifier", scene, out / "map.tif", "--probabilities"),
        "prepare": ("prepare", "tiles", scene, out / "s.h5", "--labels", "none", "--workers", 1),
        "superres": ("superres", "apply", networks / "dsen2", scene, out / "fine"),
    }


def answers(cli: Cli, networks: Path, scene: Path, out: Path, commands: tuple[str, ...]) -> dict[str, Answer]:
    return {command: cli(*words) for command, words in calls(networks, scene, out).items() if command in commands}


def results(out: Path) -> dict[str, NDArray[Any]]:
    """All pixels that the commands wrote, and where they lie.

    `superres` leaves the offset in its files, so that they may have numbers below it; those are 1 here, as without an offset.
    """
    found: dict[str, NDArray[Any]] = {}
    for path in sorted(out.rglob("*.tif")):
        with rasterio.open(path) as file:
            found[path.name] = file.read()
            found[f"{path.name} place"] = np.array([*file.transform, file.crs.to_epsg()])
    with ScenePixels(open_scene(out / "fine"), tuple(GSD)) as pixels:
        for band in GSD:
            stored = pixels.read(band, 0, pixels.height)
            found[f"{band}.tif"] = np.where(stored == 0, 0, pixels.harmonise(stored.copy()).clip(1))
    store = open_store(out / "s.h5")
    return found | {plane.key: store.pixels(plane.key) for plane in store.layout.planes}


@pytest.fixture(scope="module")
def expected(networks: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[Any]]:
    folder = tmp_path_factory.mktemp("usual")
    for words in calls(networks, write_tiffs(folder, NAME, usual()), folder / "out").values():
        assert main([str(word) for word in words]) == 0
    return results(folder / "out")


@pytest.mark.parametrize("kind", SAME)
def test_the_result_is_that_of_the_usual_scene(
    kind: str, cli: Cli, networks: Path, expected: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    found = answers(cli, networks, SAME[kind](tmp_path), tmp_path / "out", COMMANDS)
    assert {command: answer.code for command, answer in found.items()} == dict.fromkeys(COMMANDS, 0)
    values = results(tmp_path / "out")
    assert values.keys() == expected.keys()
    for key, pixels in expected.items():
        assert np.array_equal(values[key], pixels), key


@pytest.mark.parametrize("kind", REFUSED)
def test_all_commands_refuse_in_one_line_and_write_nothing(kind: str, cli: Cli, networks: Path, tmp_path: Path) -> None:
    write, problem, commands = REFUSED[kind]
    scene = write(tmp_path)
    for command, answer in answers(cli, networks, scene, tmp_path / "out", commands).items():
        assert answer.code == 2, command
        assert problem in answer.lines[-1], command
        assert sum(line.startswith("landscale: ") for line in answer.lines) == 1, command
        assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()], command


@pytest.mark.parametrize("side", [SIDE, 60, 6])
def test_a_scene_without_data_or_smaller_than_a_patch_has_no_patch_and_is_mapped(
    side: int, cli: Cli, networks: Path, tmp_path: Path
) -> None:
    """Without data if it is as large as a patch. The windows of the map have 12 px, and a scene of 6 px is less than one."""
    bands = {band: v[: len(v) * side // SIDE, : len(v) * side // SIDE] for band, v in noise(SIDE).items()}
    scene = write_tiffs(tmp_path, NAME, {band: v * np.uint16(side < SIDE) for band, v in bands.items()})
    found = answers(cli, networks, scene, tmp_path / "out", COMMANDS)
    codes = {"info": 0, "predict": 0, "prepare": 2, "superres": 0}
    assert {command: answer.code for command, answer in found.items()} == codes
    assert "has no patch to use" in found["prepare"].lines[-1]
    assert not (tmp_path / "out" / "s.h5").exists()
    with rasterio.open(tmp_path / "out" / "map.tif") as file:
        classes = file.read(1)
    assert classes.shape == (side, side)
    assert (classes == 255).all() == (side == SIDE)
    for band in bands:
        with rasterio.open(tmp_path / "out" / "fine" / f"{band}.tif") as file:
            assert file.shape == (side, side)
            assert (file.read(1) == 0).all() == (side == SIDE)
