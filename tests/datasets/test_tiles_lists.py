"""The patches of an archive, cut again from its tile by patch lists of all kinds: names, tables, coordinates, archives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from archives import GSD
from conftest import Cli
from landscale.datasets.synthetic.bigearthnet_archive import PRODUCT
from landscale.preparation import prepare_survey
from landscale.store import open_store
from landscapes import NAME, facts, refused, same, table_of
from products import CORNER, Bands, write_safe, write_tiffs


def test_an_archive_of_v2_as_patch_list_gives_the_same_patches(
    archive: Path, safe: Path, prepared: Callable[..., Path]
) -> None:
    expected = facts(prepared("bigearthnet", archive, name="ben.h5"))
    found = facts(prepared("tiles", safe, "--patch-list", archive, name="archive.h5"))
    same(found, expected)
    found = facts(prepared("tiles", safe, "--patch-list", archive / "metadata.parquet", name="table.h5"))
    same(found, expected)


def test_an_archive_of_v1_as_patch_list_gives_the_same_patches(
    archive_v1: Path, safe: Path, prepared: Callable[..., Path]
) -> None:
    """The patch list is made of its JSON files and lists. Names of v1 do not contain the tile."""
    expected = facts(prepared("bigearthnet", archive_v1, name="ben.h5"))
    for number, listed in enumerate((archive_v1, archive_v1 / "BigEarthNet-v1.0")):
        store = prepared("tiles", safe, "--patch-list", listed, "--labels", "clc43", name=f"{number}.h5")
        same(facts(store), expected)


@pytest.fixture(scope="module")
def truth(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The patches of the archive, by column and row."""
    from landscale.datasets.bigearthnet import folders as bigearthnet

    store = tmp_path_factory.mktemp("truth") / "s.h5"
    prepare_survey(bigearthnet.survey([(None, archive)]), store)
    return by_cell(facts(store))


def by_cell(table: pd.DataFrame) -> pd.DataFrame:
    found = table.copy()
    found.index = pd.Index([tuple(map(int, name.split("_")[-2:])) for name in table.index])
    return found.sort_index()


COLUMNS = ["pixels", "date", "tile", "origin", "crs"]


@pytest.mark.parametrize("kind", ["txt", "csv", "bz2", "v1", "v1 json"])
def test_lists_of_names(
    kind: str, archive: Path, safe: Path, clc: Path, truth: pd.DataFrame, tmp_path: Path, cli: Cli
) -> None:
    """As in the official lists: one name per line, followed by the name of its Sentinel-1 patch."""
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
    same(found[COLUMNS], truth.loc[found.index, COLUMNS])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("key", [["name"], ["product", "column", "row"], ["ulx", "uly"], ["ulx", "uly", "crs"]])
def test_tables_with_names_cells_or_coordinates(
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


def test_coordinates_off_the_grid_of_patches(bands: Bands, safe: Path, clc: Path, tmp_path: Path, cli: Cli) -> None:
    """A patch may start where a pixel of 60 m starts. Elsewhere its bands would cover different ground, so it is refused."""
    path = tmp_path / "list.csv"
    path.write_text(f"ulx,uly\n{CORNER[0] + 660},{CORNER[1] - 1320}\n")
    words = ("prepare", "tiles", safe, tmp_path / "s.h5", "--patch-list", path, "--corine", clc, "--workers", 1)
    assert cli(*words).code == 0
    (pixels,) = open_store(tmp_path / "s.h5").pixels("data_20m")
    assert (pixels[0] == bands["B05"][66:126, 33:93]).all()
    path.write_text(f"ulx,uly\n{CORNER[0] + 670},{CORNER[1] - 1320}\n")
    (tmp_path / "s.h5").unlink()
    refused(cli(*words), path, "does not start where a pixel of 60 m starts")


def test_patches_where_tiles_overlap(bands: Bands, tmp_path: Path, archive: Path, clc: Path, cli: Cli) -> None:
    """Two tiles of one data take: names of v1 are ambiguous without coordinates."""
    write_safe(tmp_path / "in", NAME.format("0500", "T33XXX"), bands, offset=1000)
    east = {band: values[:, 3060 // gsd :] for (band, values), gsd in zip(bands.items(), GSD.values(), strict=True)}
    write_safe(tmp_path / "in", NAME.format("0500", "T33XXY"), east, offset=1000, corner=(CORNER[0] + 3060, CORNER[1]))
    path = tmp_path / "list.csv"
    words = ("prepare", "tiles", tmp_path / "in", tmp_path / "s.h5", "--patch-list", path, "--corine", clc)
    words += ("--workers", 1)
    path.write_text("S2A_MSIL2A_20990101T000000_1_2\n")
    refused(cli(*words), path, "S2A_MSIL2A_20990101T000000_1_2", "T33XXX and ", "T33XXY", "coordinates")
    rows = [(f"S2A_MSIL2A_20990101T000000_{c}_2", CORNER[0] + 3060 * k + 1200 * c) for k in (0, 1) for c in (0, 1)]
    rows = rows[1:]  # the patches _0_2 of both tiles have the same name
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
    """As in a download of some tiles of BigEarthNet; a list without any patch of them is refused."""
    words = ("--patch-list", archive, "--workers", 1)
    products = sorted(country.glob("*.SAFE"))
    answer = cli("prepare", "tiles", products[0], safe, products[1], tmp_path / "s.h5", *words, "--json")
    assert answer.json["patches"] == 25
    path = tmp_path / "list.txt"
    path.write_text("S2B_MSIL2A_20180101T000000_N9999_R000_T29SND_00_00\n")
    answer = cli("prepare", "tiles", safe, tmp_path / "t.h5", "--patch-list", path, "--corine", country / "CLC.tif")
    refused(answer, path, "has no patch of the given tiles")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a,b\n1,2\n", "no patch of the given tiles"),  # a list without header, of unknown names
        ("patch_id\n{name}_09_00\n", "extends beyond the edge"),
        ("patch_id,split\n{name}_00_00,training day\n", "training day"),
        ("patch_id,labels\n{name}_00_00,Sea of tranquility\n", "row 1: unknown class"),
        ("product,column,row\n{name},1.5,2\n", "not a whole number"),
        ("product,column,row\n{name},-1,2\n", "not a whole number"),
        ("product,column,row\n{name},x,2\n", "values of the wrong type"),
        ("product,column,row\n{name},,2\n", "row 1 has no 'column'"),
        ("product,column,town\n{name},1,2\n", "expected patch_id"),
        ("ulx,uly\n300000,north\n", "values of the wrong type"),
        ("patch_id,contains_seasonal_snow\n{name}_00_00,rarely\n", "row 1 has no 'contains_seasonal_snow'"),
        ("patch_id\n{name}_00_00\n{name}_00_00\n", "more than once"),
    ],
)
def test_wrong_lists_are_refused(text: str, problem: str, safe: Path, clc: Path, tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text.format(name=PRODUCT))
    words = ("--patch-list", path, "--corine", clc, "--workers", 1)
    refused(cli("prepare", "tiles", safe, tmp_path / "s.h5", *words), problem)
