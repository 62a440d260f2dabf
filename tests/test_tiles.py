"""Tiles → store: the pixels of the published patches, whatever the product's format, the list, or the number of workers."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.warp import transform

from archives import CODES, GSD
from conftest import DATA, Answer, Cli, command, outcome
from landscale.errors import BadInput, LandscaleError
from landscale.geotiff import read_band
from landscale.labels import CLC43, nomenclature
from landscale.prepare import plan, prepare
from landscale.sources import corine, tiles
from landscale.sources.clearness import Limits
from landscale.sources.country import write_country
from landscale.sources.scene import ScenePixels
from landscale.sources.survey import Survey
from landscale.sources.synthetic import PRODUCT, write_archive
from landscale.sources.tile import open_tiles
from landscale.store import PENDING, SHARES, WHOLE, open_store
from products import (
    CORNER,
    EPSG,
    Bands,
    classification,
    image,
    noise,
    read,
    read_folder,
    write_jp2,
    write_manifest,
    write_safe,
    write_tiffs,
)

NAME = "S2A_MSIL2A_20990101T000000_N{}_R000_{}_20990101T000000"
SIDE = 600  # px of the archive's scene: 5 × 5 patches
FACTS = ("checksum", "classes", "split", "date", "tile", "snow", "cloud", "crs", "origin")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "v2"
    write_archive(folder, 25, seed=1)
    return folder


@pytest.fixture(scope="module")
def archive_v1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "v1"
    write_archive(folder, 25, seed=1, layout="v1")
    return folder


@pytest.fixture(scope="module")
def bands(archive: Path) -> Bands:
    return read_folder(archive / "scene" / PRODUCT)


@pytest.fixture(scope="module")
def safe(tmp_path_factory: pytest.TempPathFactory, bands: Bands) -> Path:
    """The archive's scene as a product of baseline 05.00, whose numbers are 1000 higher."""
    folder = tmp_path_factory.mktemp("safe")
    return write_safe(folder, NAME.format("0500", "T33XXX"), bands, classification(SIDE), offset=1000)


@pytest.fixture(scope="module")
def country(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tiles, in two rows."""
    folder = tmp_path_factory.mktemp("country") / "land"
    write_country(folder, tiles=3, side=600)
    return folder


@pytest.fixture(scope="module")
def clc(country: Path) -> Path:
    return country / "CLC.tif"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, country: Path, clc: Path) -> Path:
    """What one worker makes of the country in one go."""
    store = tmp_path_factory.mktemp("whole") / "s.h5"
    answer = outcome(command("prepare", "tiles", country, store, "--corine", clc, "--workers", 1))
    assert answer.code == 0, answer.lines
    return store


def facts(store: Path, keys: tuple[str, ...] = FACTS) -> pd.DataFrame:
    """What a store holds of its whole patches, by their names."""
    opened = open_store(store)
    columns = {key: list(opened.column(key)) for key in keys}
    table = pd.DataFrame({key: [np.asarray(v).tolist() for v in values] for key, values in columns.items()})
    table.index = pd.Index(opened.column("name"), name="name")
    table["pixels"] = [hash(tuple(plane[i].tobytes() for plane in opened.planes.values())) for i in range(len(table))]
    return table[opened.states == WHOLE].sort_index()


def same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(a, b)


def refused(answer: Answer, *said: object) -> None:
    assert answer.code == 2, answer
    assert len(answer.lines) == 1, answer.lines
    assert answer.lines[0].startswith("landscale: ")
    for part in said:
        assert str(part) in answer.lines[0], answer.lines[0]


# ---- formats


FORMATS = {
    "plain": {},
    "lzw": {"compress": "lzw", "tiled": True, "blockxsize": 256, "blockysize": 256},
    "deflate": {"compress": "deflate", "predictor": 2},
    "zstd": {"compress": "zstd", "tiled": True, "blockxsize": 64, "blockysize": 64},
    "cog": {"driver": "COG", "blocksize": 128, "compress": "lzw"},
}


def test_every_format_gives_the_same_patches(
    bands: Bands, safe: Path, clc: Path, tmp_path: Path, prepared: Callable[..., Path]
) -> None:
    first = facts(prepared("tiles", safe, "--corine", clc))
    assert len(first) == 25
    scl = classification(SIDE)
    for name, how in FORMATS.items():
        product = write_tiffs(tmp_path / name, PRODUCT, bands, scl, **how)
        found = facts(prepared("tiles", product, "--corine", clc, name=f"{name}.h5"))
        found.index = found.index.str.replace("N9999", "N0500")
        same(found, first)


def test_the_patches_are_the_tiles_pixels(bands: Bands, safe: Path, clc: Path, prepared: Callable[..., Path]) -> None:
    """Against numpy, patch by patch: the offset is gone, rows and columns are where the names say."""
    store = open_store(prepared("tiles", safe, "--corine", clc))
    for i, name in enumerate(store.column("name")):
        column, row = map(int, name.split("_")[-2:])
        for plane in store.layout.planes:
            here = np.s_[row * plane.side : (row + 1) * plane.side, column * plane.side : (column + 1) * plane.side]
            for pixels, band in zip(store.planes[plane.key][i], plane.bands, strict=True):
                assert (pixels == bands[band][here]).all()
        assert store.column("origin")[i].tolist() == [CORNER[0] + 1200 * column, CORNER[1] - 1200 * row]
    assert set(store.column("crs")) == {f"EPSG:{EPSG}"}


def test_a_band_also_at_other_resolutions(
    bands: Bands, clc: Path, tmp_path: Path, prepared: Callable[..., Path]
) -> None:
    """Products hold B02 at 20 m and at 60 m too, and masks whose names end like a band's."""
    product = write_safe(tmp_path, NAME.format("0300", "T33XXX"), bands)
    expected = facts(prepared("tiles", product, "--corine", clc))
    folder = image(product, "B05").parent
    write_jp2(folder / "T33XXX_20990101T000000_B02_20m.jp2", bands["B05"], 20)
    write_jp2(product / "GRANULE/L2A/QI_DATA/MSK_DETFOO_B03.jp2", np.ones((600, 600), np.uint8), 10)
    write_manifest(product)
    same(facts(prepared("tiles", product, "--corine", clc, name="more.h5")), expected)


def test_offset(bands: Bands, tmp_path: Path, clc: Path, prepared: Callable[..., Path]) -> None:
    """1000 in the metadata; in the name alone; and none, whatever the numbers."""
    told = write_safe(tmp_path / "told", NAME.format("0500", "T33XXX"), bands, offset=1000)
    named = write_tiffs(
        tmp_path / "named",
        NAME.format("0400", "T33XXX"),
        {band: values + np.uint16(1000) for band, values in bands.items()},
    )
    plain = write_tiffs(tmp_path / "plain", NAME.format("0214", "T33XXX"), bands)
    pixels = [
        sorted(facts(prepared("tiles", product, "--corine", clc, name=f"{product.parent.name}.h5"))["pixels"])
        for product in (told, named, plain)
    ]
    assert pixels[0] == pixels[1] == pixels[2]
    unharmonised = write_tiffs(
        tmp_path / "raw",
        NAME.format("0214", "T33XXX"),
        {band: values + np.uint16(1000) for band, values in bands.items()},
    )
    assert not {*pixels[0]} & {*facts(prepared("tiles", unharmonised, "--corine", clc, name="raw.h5"))["pixels"]}


def test_nodata_stays_nodata(tmp_path: Path, clc: Path, prepared: Callable[..., Path]) -> None:
    """Also in a product whose other numbers have an offset; patches without any data are left out."""
    bands = noise(480)
    for band, gsd in GSD.items():
        bands[band][:, 1800 // gsd :] = 0  # from the middle of the second column of patches
    product = write_safe(tmp_path, NAME.format("0500", "T33XXX"), bands, offset=1000)
    store = open_store(prepared("tiles", product, "--corine", clc))
    names = store.column("name")
    assert sorted({int(name.split("_")[-2]) for name in names}) == [0, 1]
    np.testing.assert_array_equal(store.column("nodata_share"), [0.5 if "_01_" in name[-6:] else 0 for name in names])
    assert np.isnan(store.column("cloud_share")).all()
    for i, name in enumerate(names):
        pixels = store.planes["data_10m"][i]
        assert (pixels[..., 60:] == 0).all() == ("_01_" in name[-6:])
        assert (pixels[..., :60] == bands_of(bands, name)[..., :60]).all()
    edge = open_store(prepared("tiles", product, "--corine", clc, "--max-nodata", 0.4, name="less.h5"))
    assert len(edge) == 4


def bands_of(bands: Bands, name: str) -> NDArray[np.generic]:
    column, row = map(int, name.split("_")[-2:])
    here = np.s_[row * 120 : (row + 1) * 120, column * 120 : (column + 1) * 120]
    return np.stack([bands[band][here] for band in ("B02", "B03", "B04", "B08")])


# ---- the published patches, rebuilt


def test_v2_rebuilt(archive: Path, safe: Path, prepared: Callable[..., Path]) -> None:
    expected = facts(prepared("bigearthnet", archive, name="ben.h5"))
    found = facts(prepared("tiles", safe, "--patch-list", archive, name="archive.h5"))
    same(found, expected)
    found = facts(prepared("tiles", safe, "--patch-list", archive / "metadata.parquet", name="table.h5"))
    same(found, expected)


def test_v1_rebuilt(archive_v1: Path, safe: Path, prepared: Callable[..., Path]) -> None:
    """By its JSON files and lists; in the product's folder of v1, names have no tile."""
    expected = facts(prepared("bigearthnet", archive_v1, name="ben.h5"))
    for number, listed in enumerate((archive_v1, archive_v1 / "BigEarthNet-v1.0")):
        store = prepared("tiles", safe, "--patch-list", listed, "--labels", "clc43", name=f"{number}.h5")
        same(facts(store), expected)


@pytest.fixture(scope="module")
def truth(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The archive's patches by column and row."""
    from landscale.sources import bigearthnet

    store = tmp_path_factory.mktemp("truth") / "s.h5"
    prepare(bigearthnet.survey([(None, archive)]), store)
    return by_cell(facts(store))


def by_cell(table: pd.DataFrame) -> pd.DataFrame:
    found = table.copy()
    found.index = pd.Index([tuple(map(int, name.split("_")[-2:])) for name in table.index])
    return found.sort_index()


TABLE = ["pixels", "date", "tile", "origin", "crs"]


@pytest.mark.parametrize("kind", ["txt", "csv", "bz2", "v1", "v1 json"])
def test_names(kind: str, archive: Path, safe: Path, clc: Path, truth: pd.DataFrame, tmp_path: Path, cli: Cli) -> None:
    """Lists as the official ones: a name a line, maybe with its partner, its suffix, or a folder."""
    names = pd.read_parquet(archive / "metadata.parquet")["patch_id"]
    chosen = list(names[::3])
    if kind.startswith("v1"):
        chosen = [f"S2A_MSIL2A_20990101T0000_{c}_{r}" for c, r in (map(int, n.split("_")[-2:]) for n in chosen)]
        chosen = [name.replace("T0000_", "T000000_") for name in chosen]
    lines = [f"{name},S1A_{k}" for k, name in enumerate(chosen)]
    path = tmp_path / f"list.{'csv.bz2' if kind == 'bz2' else kind[:3] if kind[:2] != 'v1' else 'csv'}"
    text = "".join(f"{line}\n" for line in lines)
    if kind == "bz2":
        import bz2

        path.write_bytes(bz2.compress(text.encode()))
    else:
        path.write_text(text)
    answer = cli("prepare", "tiles", safe, tmp_path / "s.h5", "--patch-list", path, "--corine", clc, "--workers", 1)
    assert answer.code == 0, answer.lines
    found = facts(tmp_path / "s.h5")
    assert sorted(found.index) == sorted(chosen)
    found = by_cell(found)
    same(found[TABLE], truth.loc[found.index, TABLE])


def table_of(archive: Path) -> pd.DataFrame:
    table = pd.read_parquet(archive / "metadata.parquet")
    cells = table["patch_id"].str.rsplit("_", n=2)
    column, row = cells.str[1].astype(int), cells.str[2].astype(int)
    table = table.assign(product=cells.str[0], column=column, row=row)
    table["ulx"], table["uly"] = CORNER[0] + 1200 * column, CORNER[1] - 1200 * row
    return table.assign(crs=f"EPSG:{EPSG}", text=table["labels"].map(";".join))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("key", [["name"], ["product", "column", "row"], ["ulx", "uly"], ["ulx", "uly", "crs"]])
def test_tables(
    key: list[str], suffix: str, archive: Path, safe: Path, truth: pd.DataFrame, tmp_path: Path, cli: Cli
) -> None:
    table = table_of(archive)
    flags = ["split", "country", "contains_seasonal_snow", "contains_cloud_or_shadow"]
    part = table.rename(columns={"patch_id": "name"}).sample(frac=1, random_state=0)
    part = part[[*key, *flags, "text" if suffix == "csv" else "labels"]].rename(columns={"text": "labels"})
    path = tmp_path / f"list.{suffix}"
    part.to_csv(path, index=False) if suffix == "csv" else part.to_parquet(path)
    answer = cli("prepare", "tiles", safe, tmp_path / "s.h5", "--patch-list", path, "--workers", 1)
    assert answer.code == 0, answer.lines
    found = facts(tmp_path / "s.h5")
    if "ulx" in key:
        assert all("px_" in name for name in found.index)
        found.index = pd.Index(
            [(int(n.split("_")[-2][:-2]) // 120, int(n.split("_")[-1][:-2]) // 120) for n in found.index]
        )
    else:
        found = by_cell(found)
    same(found.sort_index(), truth)


@pytest.mark.skipif(not (DATA / "bigearthnet-v2").is_dir(), reason="needs shared/data")
def test_names_are_places_in_the_published_patches() -> None:
    """Real patches of 20 tiles: column and row count from one corner for each tile, the corner of its grid of 60 m."""
    corners: dict[str, set[tuple[float, float]]] = {}
    for folder in (DATA / "bigearthnet-v2" / "BigEarthNet-S2").glob("*/*"):
        place = read_band(str(folder / f"{folder.name}_B01.tif"), np.empty((20, 20), np.uint16))
        *_, tile, column, row = folder.name.split("_")
        corners.setdefault(tile, set()).add((place.x - 1200 * int(column), place.y + 1200 * int(row)))
    assert len(corners) > 10
    assert all(len(found) == 1 for found in corners.values())
    assert corners["T33UUP"] == {(300_000, 5_400_000)}


def test_names_of_folders_that_end_in_numbers(
    bands: Bands, clc: Path, tmp_path: Path, cli: Cli, truth: pd.DataFrame
) -> None:
    product = write_tiffs(tmp_path, "town_2018_06", bands)
    path = tmp_path / "list.txt"
    path.write_text("town_2018_06_03_02\n")
    words = ("--patch-list", path, "--corine", clc, "--workers", 1)
    assert cli("prepare", "tiles", product, tmp_path / "s.h5", *words).code == 0
    found = facts(tmp_path / "s.h5")
    assert found["pixels"].tolist() == [truth.loc[(3, 2), "pixels"]]
    assert found["date"].tolist() == [""]


def test_places_off_the_patch_grid(bands: Bands, safe: Path, clc: Path, tmp_path: Path, cli: Cli) -> None:
    """Anywhere where pixels of 60 m begin; elsewhere it is refused, as the bands would not agree."""
    path = tmp_path / "list.csv"
    path.write_text(f"ulx,uly\n{CORNER[0] + 660},{CORNER[1] - 1320}\n")
    words = ("prepare", "tiles", safe, tmp_path / "s.h5", "--patch-list", path, "--corine", clc, "--workers", 1)
    assert cli(*words).code == 0
    (pixels,) = open_store(tmp_path / "s.h5").planes["data_20m"]
    assert (pixels[0] == bands["B05"][66:126, 33:93]).all()
    path.write_text(f"ulx,uly\n{CORNER[0] + 670},{CORNER[1] - 1320}\n")
    (tmp_path / "s.h5").unlink()
    refused(cli(*words), path, "does not begin where pixels of 60 m begin")


def test_tiles_that_overlap(bands: Bands, tmp_path: Path, archive: Path, clc: Path, cli: Cli) -> None:
    """Two tiles of one data take: names of v1 are ambiguous, unless their places tell; those of v2 are not."""
    write_safe(tmp_path / "in", NAME.format("0500", "T33XXX"), bands, offset=1000)
    east = {band: values[:, 3060 // gsd :] for (band, values), gsd in zip(bands.items(), GSD.values(), strict=True)}
    write_safe(tmp_path / "in", NAME.format("0500", "T33XXY"), east, offset=1000, corner=(CORNER[0] + 3060, CORNER[1]))
    path = tmp_path / "list.csv"
    words = ("prepare", "tiles", tmp_path / "in", tmp_path / "s.h5", "--patch-list", path, "--corine", clc)
    words += ("--workers", 1)
    path.write_text("S2A_MSIL2A_20990101T000000_1_2\n")
    refused(cli(*words), path, "S2A_MSIL2A_20990101T000000_1_2", "T33XXX and ", "T33XXY", "coordinates")
    rows = [(f"S2A_MSIL2A_20990101T000000_{c}_2", CORNER[0] + 3060 * k + 1200 * c) for k in (0, 1) for c in (0, 1)]
    rows = rows[1:]  # _0_2 of the one and of the other are one name
    path.write_text("name,ulx,uly\n" + "".join(f"{n},{x},{CORNER[1] - 2400}\n" for n, x in rows))
    refused(cli(*words), "more than once")
    path.write_text("name,ulx,uly\n" + "".join(f"{n},{x},{CORNER[1] - 2400}\n" for n, x in rows[:2]))
    assert cli(*words).code == 0
    found = facts(tmp_path / "s.h5")
    assert found["origin"].str[0].tolist() == [CORNER[0] + 3060, CORNER[0] + 1200]
    assert found["tile"].tolist() == ["T33XXY", "T33XXX"]


def test_patches_of_other_tiles_are_left_out(
    archive: Path, country: Path, safe: Path, tmp_path: Path, cli: Cli
) -> None:
    """As when some tiles of BigEarthNet are at hand; a list that knows none of them is refused."""
    words = ("--patch-list", archive, "--workers", 1)
    products = sorted(country.glob("*.SAFE"))
    answer = cli("prepare", "tiles", products[0], safe, products[1], tmp_path / "s.h5", *words, "--json")
    assert answer.json["patches"] == 25
    path = tmp_path / "list.txt"
    path.write_text("S2B_MSIL2A_20180101T000000_N9999_R000_T29SND_00_00\n")
    answer = cli("prepare", "tiles", safe, tmp_path / "t.h5", "--patch-list", path, "--corine", country / "CLC.tif")
    refused(answer, path, "has no patch of these tiles")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "no patch of these tiles"),  # a list without header, of names unknown
        ("patch_id\n{name}_09_00\n", "reaches beyond the edge"),
        ("patch_id,split\n{name}_00_00,training day\n", "training day"),
        ("patch_id,labels\n{name}_00_00,Sea of tranquility\n", "row 1: unknown class"),
        ("product,column,row\n{name},1.5,2\n", "no whole numbers"),
        ("product,column,row\n{name},-1,2\n", "no whole numbers"),
        ("product,column,row\n{name},x,2\n", "not what its columns say"),
        ("product,column,row\n{name},,2\n", "row 1: has no 'column'"),
        ("product,column,town\n{name},1,2\n", "expected patch_id"),
        ("ulx,uly\n300000,north\n", "not what its columns say"),
        ("patch_id,contains_seasonal_snow\n{name}_00_00,rarely\n", "row 1: has no 'contains_seasonal_snow'"),
        ("patch_id\n{name}_00_00\n{name}_00_00\n", "more than once"),
    ],
)
def test_lists_that_are_refused(text: str, said: str, safe: Path, clc: Path, tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text.format(name=PRODUCT))
    words = ("--patch-list", path, "--corine", clc, "--workers", 1)
    refused(cli("prepare", "tiles", safe, tmp_path / "s.h5", *words), said)


# ---- what can be seen


@pytest.fixture(scope="module")
def tile(safe: Path) -> tiles.Tile:
    return open_tiles(safe)[0]


def shares_of(scl: NDArray[np.generic], y: int, x: int) -> list[float]:
    here = scl[y // 2 : y // 2 + 60, x // 2 : x // 2 + 60]
    return [float(np.isin(here, classes).mean()) for classes in ((0,), (8, 9, 10), (3,), (11,))]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), min_size=1, max_size=5))
def test_shares_anywhere(tile: tiles.Tile, places: list[tuple[int, int]]) -> None:
    corners = np.array(places) * 6
    expected = [shares_of(classification(SIDE), y, x) for y, x in corners.tolist()]
    np.testing.assert_allclose(tiles.shares(tile, corners, 120), expected, atol=1e-6)


def test_shares_and_flags_are_kept(safe: Path, clc: Path, prepared: Callable[..., Path], cli: Cli) -> None:
    store = open_store(prepared("tiles", safe, "--corine", clc))
    origin = store.column("origin")
    y, x = (CORNER[1] - origin[:, 1]) / 10, (origin[:, 0] - CORNER[0]) / 10
    expected = np.array([shares_of(classification(SIDE), int(v), int(u)) for v, u in zip(y, x, strict=True)])
    found = np.stack([store.column(key) for key in SHARES], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (store.column("snow") == (expected[:, 3] >= 0.05)).all()
    assert (store.column("cloud") == (expected[:, 1] + expected[:, 2] >= 0.05)).all()
    for option, share in (
        ("--max-cloud", expected[:, 1] + expected[:, 2]),
        ("--max-snow", expected[:, 3]),
        ("--max-nodata", expected[:, 0]),
    ):
        limit = float(np.median(share))
        less = open_store(prepared("tiles", safe, "--corine", clc, option, limit + 1e-6, name=f"{option}.h5"))
        assert {*less.column("name")} == {*store.column("name")[share <= limit + 1e-6]}
        assert less.attributes["provenance"]["left_out"]["by limits"] == 25 - len(less)


def test_the_classification_is_a_geotiff_too(
    bands: Bands, clc: Path, tmp_path: Path, prepared: Callable[..., Path]
) -> None:
    product = write_tiffs(tmp_path, PRODUCT, bands, classification(SIDE), compress="lzw")
    store = open_store(prepared("tiles", product, "--corine", clc))
    assert store.column("cloud_share").max() > 0.1


@pytest.mark.parametrize("option", ["--max-cloud", "--max-snow"])
def test_limits_need_a_classification(option: str, bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    product = write_tiffs(tmp_path, PRODUCT, bands)
    answer = cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc, option, 0.1, "--workers", 1)
    refused(answer, product, "has no scene classification", option)


def test_a_classification_of_another_place_is_refused(bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    product = write_tiffs(tmp_path, PRODUCT, bands, classification(SIDE - 40))
    refused(cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc), product / "SCL.tif", "280×280")


@pytest.mark.parametrize(
    "words", [("--max-cloud", 20), ("--max-snow", -0.1), ("--max-nodata", "nan"), ("--min-share", 5)]
)
def test_shares_that_are_none(words: tuple[object, ...], safe: Path, clc: Path, tmp_path: Path, cli: Cli) -> None:
    """Percents, say."""
    refused(cli("prepare", "tiles", safe, tmp_path / "s.h5", "--corine", clc, *words), words[0], "0 to 1")


# ---- labels


@pytest.mark.parametrize(("labels", "min_share"), [("ben19", 0), ("clc43", 0), ("clc43", 0.1)])
def test_labels_from_corine(
    labels: str, min_share: float, safe: Path, clc: Path, prepared: Callable[..., Path]
) -> None:
    """Against the map's cell under each of the patch's 14,400 pixels."""
    store = open_store(prepared("tiles", safe, "--corine", clc, "--labels", labels, "--min-share", min_share))
    target, codes = nomenclature(labels), sorted(corine.CODES)
    cells = read(clc)
    import rasterio

    with rasterio.open(clc) as file:
        inverse = ~file.transform
    at = np.arange(120) * 10 + 5
    unsure = 0
    for origin, row in zip(store.column("origin"), store.classes, strict=True):
        x, y = np.meshgrid(origin[0] + at, origin[1] - at)
        u, v = transform(f"EPSG:{EPSG}", "EPSG:3035", x.ravel(), y.ravel())
        column, line = (np.floor(part).astype(int) for part in inverse * (np.array(u), np.array(v)))
        share = np.zeros(len(target.classes))
        for rank, count in zip(*np.unique(cells[line, column], return_counts=True), strict=True):
            names = [c.name for c in CLC43.classes if c.code == codes[rank - 1]]
            share[target.columns(names)] += count / 14_400
        expected = (share > 0) & (share >= min_share)
        sure = np.abs(share - max(min_share, 0.001)) > 0.002
        assert (row[sure] == expected[sure]).all()
        unsure += int((~sure).sum() - (~sure & (share == 0)).sum())
    assert unsure < 0.02 * store.classes.size
    assert store.layout.nomenclature == labels
    assert store.attributes["provenance"]["corine"] == clc.name


def test_the_country_is_labelled_as_it_was_drawn(whole: Path) -> None:
    store = open_store(whole)
    assert store.attributes["provenance"]["synthetic"] is True
    assert (store.classes.sum(1) > 0).all()
    assert (store.classes.sum(0) > 0).sum() > 10
    assert 0 < store.column("nodata_share").max() < 1


def test_patches_beyond_the_map_are_left_out(bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    part = tmp_path / "part.tif"
    import rasterio

    with rasterio.open(clc) as file:
        cells, profile = file.read(1), file.profile
    cells[:, cells.shape[1] // 3 :] = 0
    with rasterio.open(part, "w", **profile) as file:
        file.write(cells, 1)
    product = write_tiffs(tmp_path, PRODUCT, bands)
    answer = cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", part, "--json", "--workers", 1)
    left_out = open_store(tmp_path / "s.h5").attributes["provenance"]["left_out"]["not on the map"]
    assert answer.json["patches"] == 25 - left_out < 25
    far = write_tiffs(tmp_path / "far", PRODUCT, bands, corner=(CORNER[0], CORNER[1] - 900_000))
    refused(
        cli("prepare", "tiles", far, tmp_path / "t.h5", "--corine", part), far, "gives no patch", "'not on the map': 25"
    )


def test_nobody_knows_the_labels(safe: Path, tmp_path: Path, cli: Cli) -> None:
    refused(cli("prepare", "tiles", safe, tmp_path / "s.h5"), "no labels", "--corine MAP", "--patch-list")


# ---- splits


def test_blocks_of_the_ground_share_a_split(whole: Path, tmp_path: Path, clc: Path) -> None:
    """Blocks of 6 × 6 patches, on the same ground for tiles that overlap: none of one is near another's."""
    opened = open_store(whole)
    splits = {tuple(o): s for o, s in zip(opened.column("origin").tolist(), opened.splits.tolist(), strict=True)}
    blocks: dict[tuple[float, float], set[int]] = {}
    for (x, y), split in splits.items():
        blocks.setdefault((x // 7200, (-y // 1200) // 6), set()).add(split)
    assert all(len(found) == 1 for found in blocks.values())
    assert {*opened.splits.tolist()} == {1, 2, 3}
    west = write_tiffs(tmp_path, "west", noise(1200))
    east = write_tiffs(tmp_path, "east", noise(1200), corner=(CORNER[0] + 6000, CORNER[1]))
    survey = tiles.survey([(None, west), (None, east)], corine=clc)
    assert isinstance(survey, Survey)
    places = {(n, y, x + 600 * n): s for (n, y, x), s in zip(survey.table["where"], survey.table["split"], strict=True)}
    both = [(places[0, y, x], s) for (n, y, x), s in places.items() if n == 1 and (0, y, x) in places]
    assert len(both) > 20
    assert all(a == b for a, b in both)


def test_splits_by_input_and_by_lists(country: Path, clc: Path, tmp_path: Path, cli: Cli) -> None:
    one, two, three = sorted(country.glob("*.SAFE"))
    words = ("--corine", clc, "--workers", 1)
    answer = cli("prepare", "tiles", f"train={one}", f"val={two}", f"test={three}", tmp_path / "s.h5", *words)
    assert answer.code == 0, answer.lines
    found = facts(tmp_path / "s.h5", ("split", "tile"))
    expected = {"T33XAA": CODES["train"], "T33XAB": CODES["val"], "T33XAC": CODES["test"]}
    assert {*zip(found["tile"], found["split"], strict=True)} == {*expected.items()}
    lists = tmp_path / "lists"
    lists.mkdir()
    for k, split in enumerate(("train", "val", "test")):
        (lists / f"{split}.csv").write_text("".join(f"{name}\n" for name in found.index[k::4]))
    assert cli("prepare", "tiles", country, tmp_path / "l.h5", *words, "--lists", lists).code == 0
    listed = facts(tmp_path / "l.h5", ("split",))["split"].tolist()
    assert listed == [(1, 2, 3, 0)[k % 4] for k in range(len(found))]
    (tmp_path / "none").mkdir()
    answer = cli("prepare", "tiles", country, tmp_path / "n.h5", *words, "--lists", tmp_path / "none")
    refused(answer, tmp_path / "none", "holds no list")
    refused(cli("prepare", "tiles", f"tain={one}", tmp_path / "n.h5", *words), "tain")


def test_several_inputs_are_one_country(country: Path, whole: Path, clc: Path, tmp_path: Path, cli: Cli) -> None:
    products = sorted(country.glob("*.SAFE"), reverse=True)
    answer = cli("prepare", "tiles", *products, tmp_path / "s.h5", "--corine", clc, "--workers", 1)
    assert answer.code == 0, answer.lines
    same(facts(tmp_path / "s.h5"), facts(whole))


# ---- what does not fit


def test_tiles_with_other_bands_are_refused(bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    write_tiffs(tmp_path / "in", "a", bands)
    fewer = {band: values for band, values in bands.items() if band != "B02"}
    write_tiffs(tmp_path / "in", "b", fewer)
    refused(
        cli("prepare", "tiles", tmp_path / "in", tmp_path / "s.h5", "--corine", clc), tmp_path / "in" / "b", "a has B01"
    )


@pytest.mark.parametrize("keep", [["B02", "B03", "B04"], ["B05", "B11"], ["B09"], ["B04", "B8A", "B01"]])
def test_some_bands(keep: list[str], bands: Bands, clc: Path, tmp_path: Path, prepared: Callable[..., Path]) -> None:
    """Whatever a folder has; also none of 10 m."""
    some = {band: bands[band] for band in keep}
    store = open_store(prepared("tiles", write_tiffs(tmp_path, PRODUCT, some), "--corine", clc))
    assert len(store) == 25
    assert {*store.layout.bands} == {*keep}
    for plane in store.layout.planes:
        here = np.s_[2 * plane.side : 3 * plane.side, 3 * plane.side : 4 * plane.side]
        (i,) = np.flatnonzero([name.endswith("_03_02") for name in store.column("name")])
        assert all((store.planes[plane.key][i, b] == bands[band][here]).all() for b, band in enumerate(plane.bands))


def test_a_resolution_that_is_not_the_bands_is_refused(bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    write_tiffs(tmp_path, "a", {"B02": bands["B02"], "B05": bands["B05"]})
    write_band_at(tmp_path / "a" / "B05.tif", bands["B02"], 10)
    answer = cli("prepare", "tiles", tmp_path / "a", tmp_path / "s.h5", "--corine", clc)
    refused(answer, tmp_path / "a" / "B05.tif", "10 m, expected 20 m")


def write_band_at(path: Path, values: NDArray[np.generic], gsd: int) -> None:
    from archives import write_band

    write_band(path, values, CORNER, gsd, EPSG)


def test_a_band_that_the_manifest_has_and_the_product_not(bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    product = write_safe(tmp_path, NAME.format("0500", "T33XXX"), bands, offset=1000)
    image(product, "B06").unlink()
    refused(cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc), "_B06_20m.jp2", "is missing")


# ---- damage


@pytest.fixture
def product(safe: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(safe, tmp_path / safe.name))


def flip(path: Path, at: float = 0.6, count: int = 40) -> None:
    content = bytearray(path.read_bytes())
    for k in range(count):
        content[int(len(content) * at) + k] ^= 0xA5
    path.write_bytes(content)


@pytest.mark.parametrize("key", ["B03", "B12", "B01"])
def test_flipped_bytes_are_noticed_by_the_manifest(
    key: str, product: Path, clc: Path, tmp_path: Path, cli: Cli
) -> None:
    flip(image(product, key))
    words = ("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc, "--workers", 1)
    refused(cli(*words), image(product, key), "is damaged", "--skip-bad")
    answer = cli(*words, "--skip-bad")
    refused(answer, image(product, key), "none of 25 patches")


def test_so_is_a_cut_end(product: Path, clc: Path, tmp_path: Path, cli: Cli) -> None:
    path = image(product, "B8A")
    os.truncate(path, path.stat().st_size - 1)
    refused(
        cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc), path, "bytes, the product's manifest says"
    )


@pytest.mark.parametrize("name", ["MTD_MSIL2A.xml", "SCL"])
def test_so_are_metadata_and_the_classification(name: str, product: Path, clc: Path, tmp_path: Path, cli: Cli) -> None:
    path = image(product, "SCL") if name == "SCL" else product / name
    flip(path, count=1)
    refused(cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc), path, "is damaged")


def test_one_bad_tile_of_several(country: Path, whole: Path, clc: Path, tmp_path: Path, cli: Cli) -> None:
    bad = Path(shutil.copytree(country, tmp_path / "in")) / sorted(p.name for p in country.glob("*.SAFE"))[1]
    flip(image(bad, "B04"))
    words = ("prepare", "tiles", tmp_path / "in", tmp_path / "s.h5", "--corine", clc, "--skip-bad")
    answer = outcome(command(*words, "--workers", 2, "--json"))
    assert answer.code == 0, answer.lines
    expected = facts(whole)
    same(facts(tmp_path / "s.h5"), expected[expected["tile"] != "T33XAB"])
    assert len(answer.json["skipped"]) == (expected["tile"] == "T33XAB").sum()


def test_patches_of_undamaged_blocks_are_kept(bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    """Without a manifest, a truncated file is noticed where it cannot be decoded: there, and there alone."""
    product = write_safe(tmp_path, NAME.format("0500", "T33XXX"), bands, offset=1000, manifest=False)
    words = ("prepare", "tiles", product, "--corine", clc, "--workers", 1)
    assert cli(*words, tmp_path / "whole.h5").code == 0
    victim = image(product, "B03")
    os.truncate(victim, int(victim.stat().st_size * 0.75))
    refused(cli(*words, tmp_path / "s.h5"), victim, "cannot be decoded")
    answer = cli(*words, tmp_path / "s.h5", "--skip-bad", "--json")
    assert answer.code == 0, answer.lines
    skipped = answer.json["skipped"]
    assert all(str(victim) in line for line in answer.lines)
    expected = facts(tmp_path / "whole.h5")
    same(facts(tmp_path / "s.h5"), expected.drop(index=skipped))
    # Blocks of 256 px, in the file from north to south: the first row of them is whole, the last is lost.
    assert 5 <= len(skipped) <= 15
    assert not [name for name in skipped if int(name.split("_")[-1]) < 2]
    with pytest.raises(LandscaleError):
        list(tiles_read(product, clc))


def tiles_read(product: Path, clc: Path) -> list[object]:
    survey = tiles.survey([(None, product)], corine=clc)
    planes = survey.layout.buffers(len(survey.table))
    assert survey.classes is not None
    found = list(survey.read(list(survey.table["where"]), planes, survey.classes))
    for one in found:
        if isinstance(one, LandscaleError):
            raise one
    return found


@pytest.mark.parametrize("how", ["cut", "rubbish", "missing"])
@pytest.mark.parametrize("suffix", ["tif", "jp2"])
def test_a_file_that_is_no_raster(suffix: str, how: str, bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    if suffix == "tif":
        product = write_tiffs(tmp_path, PRODUCT, bands)
        path = product / "B11.tif"
    else:
        product = write_safe(tmp_path, NAME.format("0500", "T33XXX"), bands, manifest=False)
        path = image(product, "B11")
    if how == "cut":
        os.truncate(path, 60)
    elif how == "rubbish":
        path.write_bytes(random.Random(0).randbytes(5000))
    else:
        path.unlink()
        path.symlink_to("nowhere")
    refused(cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc), path)


# ---- workers, kills, and each block once


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bytes(
    workers: int, country: Path, clc: Path, whole: Path, tmp_path: Path
) -> None:
    answer = outcome(command("prepare", "tiles", country, tmp_path / "s.h5", "--corine", clc, "--workers", workers))
    assert (answer.code, answer.lines) == (0, [])
    assert (tmp_path / "s.h5").read_bytes() == whole.read_bytes()


def test_workers_share_a_tile(clc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are more of them than tiles: in parts, one below the other, that give the same patches."""
    monkeypatch.setattr(tiles, "_PART", 240)
    product = write_tiffs(tmp_path, PRODUCT, noise(600), tiled=True, blockxsize=256, blockysize=256)
    one, two = (tiles.survey([(None, product)], corine=clc, workers=workers) for workers in (1, 2))
    assert one.table["job"].nunique() == 1
    assert two.table["job"].nunique() == 2
    assert one.table.drop(columns="job").equals(two.table.drop(columns="job"))
    assert (np.diff(two.table["job"]) >= 0).all()
    prepare(one, tmp_path / "1.h5")
    prepare(two, tmp_path / "2.h5")
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_killed_in_mid_tile_then_resumed(country: Path, clc: Path, whole: Path, tmp_path: Path, cli: Cli) -> None:
    store, partial = tmp_path / "s.h5", tmp_path / "s.h5.partial"
    words = ("prepare", "tiles", country, store, "--corine", clc, "--workers", 2)
    kept = []
    for _ in range(2):
        process = command(*words)
        before, end = count(partial), time.monotonic() + 60
        while count(partial) <= before and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kept.append(count(partial))
    if not store.exists():
        assert 0 < kept[0] < len(open_store(whole))
        answer = outcome(command(*words))
        assert answer.code == 0, answer.lines
    assert store.read_bytes() == whole.read_bytes()


def test_interrupted_between_any_chunks(
    country: Path, clc: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of four patches, so that it happens within a tile and within a row of patches."""
    monkeypatch.setattr(plan, "CHUNK", 4)
    survey = tiles.survey([(None, country)], corine=clc)
    allowed: list[int] = []

    def read(*arguments: Any) -> Any:
        if not allowed:
            raise KeyboardInterrupt
        allowed.pop()
        return survey.read(*arguments)

    for chunks in (1, 3, 5):
        allowed.extend(range(chunks))
        with pytest.raises(KeyboardInterrupt):
            prepare(dataclasses.replace(survey, read=read), tmp_path / "s.h5")
    assert count(tmp_path / "s.h5.partial") == 25 + 3 + 4  # chunks end at whole multiples of their size
    prepare(survey, tmp_path / "s.h5")
    assert (tmp_path / "s.h5").read_bytes() == whole.read_bytes()


def count(partial: Path) -> int:
    try:
        return int((open_store(partial, unfinished=True).states != PENDING).sum())
    except LandscaleError:
        return 0


Reads = list[tuple[str, int, int, int, int]]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Every window of a band that is decoded: file, rows, columns."""
    found: Reads = []
    read = ScenePixels.read

    def counting(self: ScenePixels, band: str, row: int, rows: int, column: int, columns: int) -> NDArray[np.uint16]:
        found.append((self.files[band].name, row, row + rows, column, column + columns))
        return read(self, band, row, rows, column, columns)

    monkeypatch.setattr(ScenePixels, "read", counting)
    return found


@pytest.mark.parametrize("step", [1, 7])
@pytest.mark.parametrize("block", [256, 16, 1024])
def test_each_block_is_decoded_once(
    block: int, step: int, reads: Reads, clc: Path, tmp_path: Path, prepared: Callable[..., Path]
) -> None:
    """Though patches lie across blocks, and chunks of patches end within their rows."""
    how = {"tiled": True, "blockxsize": block, "blockysize": block, "compress": "lzw"}
    product = write_tiffs(tmp_path, PRODUCT, noise(1560), **how)
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{PRODUCT}_{k % 13:02d}_{k // 13:02d}\n" for k in range(0, 169, step)))
    clear = tiles.survey([(None, product)], corine=clc, patch_list=listed)
    planes = clear.layout.buffers(64)
    wheres = list(clear.table["where"])
    for start in range(0, len(wheres), 64):
        part = wheres[start : start + 64]
        outs = {key: plane[: len(part)] for key, plane in planes.items()}
        assert clear.classes is not None
        list(clear.read(part, outs, clear.classes[start : start + 64]))
    seen: dict[str, NDArray[np.int64]] = {}
    for file, top, bottom, left, right in reads:
        side = noise(1560)["B02"].shape[0] if "B02" in file else 1560
        blocks = seen.setdefault(file, np.zeros((side // block + 1, side // block + 1), int))
        blocks[top // block : -(-bottom // block), left // block : -(-right // block)] += 1
    assert len(seen) == 12
    assert all(blocks.max() == 1 for blocks in seen.values())


def test_memory_is_bounded_for_a_whole_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,980 px a side, blocks as in real products: what is held at once, by the sizes of the arrays."""
    from landscale.sources.strips import Strips

    class File:
        def __init__(self, side: int, block: int) -> None:
            self.height, self.block_shapes = side, [(block, block)]

    class Pixels:
        def __init__(self) -> None:
            blocks = {10: 1024, 20: 640, 60: 192}
            self.files = {band: File(109_800 // gsd, blocks[gsd]) for band, gsd in GSD.items()}

        def read(self, band: str, row: int, rows: int, column: int, columns: int) -> NDArray[np.uint16]:
            return np.zeros((rows, columns), np.uint16)

        def harmonise(self, values: NDArray[np.uint16]) -> NDArray[np.uint16]:
            return values

    strips = Strips(Pixels(), 0, 10_920)  # type: ignore[arg-type]
    most = 0
    for top in range(0, 10_920, 120):
        for band, gsd in GSD.items():
            strips.rows(band, top * 10 // gsd, (top + 120) * 10 // gsd)
        most = max(most, sum(values.nbytes for _, values in strips._held.values()))
    assert most < 240e6


def test_another_reader_of_the_same_tile(safe: Path, clc: Path, archive: Path, tmp_path: Path) -> None:
    """In one process, one after the other: what is open of the one is not the other's."""
    listed = tmp_path / "list.txt"
    listed.write_text(f"{PRODUCT}_03_02\n")
    for patch_list, index in ((None, 13), (listed, 0), (None, 13)):
        survey = tiles.survey([(None, safe)], corine=clc, patch_list=patch_list)
        planes = survey.layout.buffers(len(survey.table))
        assert survey.classes is not None
        list(survey.read(list(survey.table["where"]), planes, survey.classes))
        scene = read(archive / "scene" / PRODUCT / "B02.tif")
        assert (planes["data_10m"][index, 0] == scene[240:360, 360:480]).all()


# ---- mutations


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped, replaced, cut out, doubled, or the end cut off."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, size = rng.randrange(len(found) or 1), rng.choice((1, 1, 2, 4, 30))
        kind = rng.randrange(6)
        if kind == 0:
            found[at : at + size] = rng.randbytes(size)
        elif kind == 1 and found:
            found[min(at, len(found) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del found[at : at + size]
        elif kind == 3:
            found[at:at] = found[at : at + size]
        elif kind == 4:
            found[at : at + size] = rng.choice(
                [b"-1", b"nan", b"\x00", b"\xff\xff", b"9" * 25, b"<", b",", b"\n", b"'"]
            )
        elif rng.random() < 0.3:
            del found[at:]
    return bytes(found)


def survive(victim: Path, number: int, attempt: Callable[[], object], inside: Path) -> int:
    """Mutate a file again and again: the attempt is to succeed, or be refused with one line that names something there."""
    original, rng = victim.read_bytes(), random.Random(victim.name)
    refusals: list[str] = []
    for _ in range(number):
        content = mutated(original, rng)
        victim.unlink()  # GDAL may still have the old one open
        victim.write_bytes(content)
        try:
            attempt()
        except BadInput as error:
            refusals.append(str(error))
    victim.write_bytes(original)
    assert not [line for line in refusals if str(inside) not in line or "\n" in line]
    return len(refusals)


MUTATIONS = ["jp2", "SCL", "manifest.safe", "MTD_MSIL2A.xml", "csv", "parquet", "txt", "json"]


def mutations(kind: str, number: int, archive_v1: Path, archive: Path, clc: Path, folder: Path) -> None:
    bands = {
        band: values[: 2400 // gsd, : 2400 // gsd]
        for (band, values), gsd in zip(noise(600).items(), GSD.values(), strict=True)
    }
    some = {band: bands[band] for band in ("B02", "B05", "B01")}
    name = NAME.format("0500", "T33XXX")
    product = write_safe(folder, name, some, classification(240), 1000, manifest=kind == "manifest.safe")
    listed = folder / f"list.{kind}"
    if kind == "jp2":
        victim = image(product, "B02")
    elif kind == "SCL":
        victim = image(product, "SCL")
    elif kind in ("manifest.safe", "MTD_MSIL2A.xml"):
        victim = product / kind
    elif kind == "json":
        listed = folder / "v1"
        source = next(archive_v1.glob("BigEarthNet-v1.0/*_0_0"))
        victim = Path(shutil.copytree(source, listed / source.name)) / f"{source.name}_labels_metadata.json"
    else:
        victim = listed
        table = table_of(archive)
        table = table[(table["column"] < 2) & (table["row"] < 2)]
        if kind == "txt":
            victim.write_text("\n".join(table["patch_id"]))
        elif kind == "parquet":
            table[["patch_id", "labels", "split", "ulx", "uly", "crs", "contains_seasonal_snow"]].to_parquet(victim)
        else:
            part = table.drop(columns=["labels", "patch_id"]).rename(columns={"text": "labels"})
            part.to_csv(victim, index=False)
    is_list = kind in ("csv", "parquet", "txt", "json")

    def attempt() -> None:
        listing = {"patch_list": listed, "labels": "clc43" if kind == "json" else None} if is_list else {}
        survey = tiles.survey([(None, product)], corine=clc, limits=Limits(1, 1, 1), **listing)  # type: ignore[arg-type]
        if is_list:
            return
        planes = survey.layout.buffers(len(survey.table))
        assert survey.classes is not None
        for found in survey.read(list(survey.table["where"]), planes, survey.classes):
            if isinstance(found, LandscaleError):
                raise found

    assert survive(victim, number, attempt, folder) > number // 100


@pytest.mark.parametrize("kind", MUTATIONS)
def test_40_mutations(kind: str, archive_v1: Path, archive: Path, clc: Path, tmp_path: Path) -> None:
    mutations(kind, 40, archive_v1, archive, clc, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MUTATIONS)
def test_2000_mutations(kind: str, archive_v1: Path, archive: Path, clc: Path, tmp_path: Path) -> None:
    mutations(kind, 2000, archive_v1, archive, clc, tmp_path)


# ---- the country itself


def test_a_country_is_the_same_every_time(country: Path, tmp_path: Path) -> None:
    write_country(tmp_path / "again", tiles=3, side=600)
    files = sorted(p.relative_to(country) for p in country.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    for path in files:
        assert (country / path).read_bytes() == (tmp_path / "again" / path).read_bytes(), path
    write_country(country, tiles=3, side=600)  # is there already
    with pytest.raises(BadInput, match="expected"):
        write_country(country, tiles=2, side=600)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    with pytest.raises(BadInput, match="no synthetic country"):
        write_country(tmp_path / "else")
    with pytest.raises(BadInput, match="of 700 px"):
        write_country(tmp_path / "odd", side=700)
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_a_country_is_one_landscape(country: Path) -> None:
    """Neighbouring tiles continue each other, their numbers have the offset, and nodata has none."""
    one, two, below = open_tiles(country)
    assert (two.left - one.left, one.top - below.top) == (6000, 6000)
    assert [tile.mgrs for tile in (one, two, below)] == ["T33XAA", "T33XAB", "T33XAC"]
    for tile in (one, two, below):
        assert tile.scene.offset == 1000
        b02, scl = read(tile.scene.files["B02"]), read(image(tile.scene.folder, "SCL"))
        assert ((b02 == 0) == (scl == 0).repeat(2, 0).repeat(2, 1)).all()
        assert b02[b02 > 0].min() > 1000
    west, east = (read(tile.scene.files["B08"]).astype(float) for tile in (one, two))
    seam = np.abs(west[:, -1] - east[:, 0]).mean()
    assert seam < 1.5 * np.abs(np.diff(west[:, -100:], axis=1)).mean()
