"""Fixtures: a synthetic scene as archive and as product, a country of three tiles with its map; helpers to compare stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import Answer, command, outcome
from landscale.datasets.synthetic.bigearthnet_archive import PRODUCT, write_archive
from landscale.datasets.synthetic.products_and_map import write_country
from landscale.store import WHOLE, open_store
from products import CORNER, EPSG, Bands, classification, read_folder, write_safe
from surveys import dataset

NAME = "S2A_MSIL2A_20990101T000000_N{}_R000_{}_20990101T000000"
SIDE = 600  # px of the archive's scene: 5 × 5 patches
FACTS = ("checksum", "classes", "split", "date", "tile", "snow", "cloud", "crs", "origin")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "v2"
    write_archive(folder, 25, seed=1)
    return folder


@pytest.fixture(scope="session")
def archive_v1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "v1"
    write_archive(folder, 25, seed=1, layout="v1")
    return folder


@pytest.fixture(scope="session")
def bands(archive: Path) -> Bands:
    return read_folder(archive / "scene" / PRODUCT)


@pytest.fixture(scope="session")
def safe(tmp_path_factory: pytest.TempPathFactory, bands: Bands) -> Path:
    """The scene of `archive` as a product of baseline 05.00, whose digital numbers are 1000 higher."""
    folder = tmp_path_factory.mktemp("safe")
    return write_safe(folder, NAME.format("0500", "T33XXX"), bands, classification(SIDE), offset=1000)


@pytest.fixture(scope="session")
def country(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of products: three tiles in two rows, and their land-cover map."""
    folder = tmp_path_factory.mktemp("country") / "land"
    write_country(folder, tiles=3, side=600)
    return folder


@pytest.fixture(scope="session")
def clc(country: Path) -> Path:
    return country / "CLC.tif"


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, country: Path, clc: Path) -> Path:
    """The store of the country, written by one worker without interruption."""
    store = tmp_path_factory.mktemp("whole") / "s.h5"
    answer = outcome(command("prepare", "tiles", country, store, "--corine", clc, "--workers", 1))
    assert answer.code == 0, answer.lines
    return store


def facts(store: Path, keys: tuple[str, ...] = FACTS) -> pd.DataFrame:
    """Columns and a hash of the pixels of the whole patches of a store, by name."""
    opened = open_store(store)
    columns = {key: list(dataset(opened, key)) for key in keys}
    table = pd.DataFrame({key: [np.asarray(v).tolist() for v in values] for key, values in columns.items()})
    table.index = pd.Index(opened.column("name"), name="name")
    table["pixels"] = [
        hash(tuple(opened.pixels(plane.key, [i]).tobytes() for plane in opened.layout.planes))
        for i in range(len(table))
    ]
    return table[opened.states == WHOLE].sort_index()


def same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(a, b)


def refused(answer: Answer, *parts: object) -> None:
    assert answer.code == 2, answer
    assert len(answer.lines) == 1, answer.lines
    assert answer.lines[0].startswith("landscale: ")
    for part in parts:
        assert str(part) in answer.lines[0], answer.lines[0]


def table_of(archive: Path) -> pd.DataFrame:
    """All columns that a list of patches may have, for each patch of an archive."""
    table = pd.read_parquet(archive / "metadata.parquet")
    cells = table["patch_id"].str.rsplit("_", n=2)
    column, row = cells.str[1].astype(int), cells.str[2].astype(int)
    table = table.assign(product=cells.str[0], column=column, row=row)
    table["ulx"], table["uly"] = CORNER[0] + 1200 * column, CORNER[1] - 1200 * row
    return table.assign(crs=f"EPSG:{EPSG}", text=table["labels"].map(";".join))
