"""BigEarthNet folders, prepared by the command: every pixel, label, split and flag is stored under its patch's name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from archives import (
    CODES,
    GSD,
    PLANES,
    Patch,
    metadata,
    pixels,
    write_band,
    write_lists,
    write_v1,
    write_v2,
)
from conftest import Cli
from landscale.store import open_store
from landscale.vocabulary.nomenclatures import BEN19, CLC43
from surveys import band_of, dataset, labels, row_of

Prepared = Callable[..., Path]


def expected_columns(p: Patch) -> dict[str, object]:
    """The columns of a patch that both versions have, without its labels."""
    place = {"crs": f"EPSG:{p.epsg}", "origin": list(map(float, p.corner)), "tile": p.tile}
    return place | {"date": p.date, "snow": int(p.snow), "cloud": int(p.cloud)}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_every_pixel_of_every_band(
    version: str, patches: list[Patch], prepared: Prepared, request: pytest.FixtureRequest
) -> None:
    store = open_store(prepared("bigearthnet", request.getfixturevalue(version)))
    rows = row_of(store)
    assert sorted(rows) == sorted(getattr(p, version) for p in patches)
    for patch in patches:
        for band in GSD:
            assert np.array_equal(band_of(store, rows[getattr(patch, version)], band), pixels(patch.k, band))


def test_the_store_has_the_keys_of_sedona_2019(v2: Path, prepared: Prepared) -> None:
    store = open_store(prepared("bigearthnet", v2))
    assert {plane.key: store.pixels(plane.key).shape for plane in store.layout.planes} == {
        "data_10m": (12, 4, 120, 120),
        "data_20m": (12, 6, 60, 60),
        "data_60m": (12, 2, 20, 20),
    }
    for plane in store.layout.planes:
        assert plane.bands == tuple(b for b, gsd in GSD.items() if gsd == PLANES[plane.key])
        assert (plane.dtype, plane.unit) == ("uint16", "digital number")
    assert store.layout.level == "L2A"
    assert store.classes.shape == (12, 19)
    assert store.summary()["bands"] == list(GSD)


def test_all_columns_of_v2(v2: Path, patches: list[Patch], prepared: Prepared) -> None:
    store = open_store(prepared("bigearthnet", v2))
    rows = row_of(store)
    assert store.layout.classes == BEN19.names
    columns = {key: store.column(key) for key in ("crs", "origin", "tile", "date", "country", "snow", "cloud")}
    for p in patches:
        row = rows[p.v2]
        assert labels(store, row) == set(p.ben)
        assert store.splits[row] == CODES[p.split]
        found = {key: column[row].tolist() for key, column in columns.items()}
        assert found == expected_columns(p) | {"country": p.country}


def test_all_columns_of_v1(v1: Path, patches: list[Patch], prepared: Prepared) -> None:
    """Patches with snow or cloud are in no split; the lists are bz2 files."""
    store = open_store(prepared("bigearthnet", v1))
    rows = row_of(store)
    assert store.layout.classes == CLC43.names
    columns = {key: store.column(key) for key in ("crs", "origin", "tile", "date", "snow", "cloud")}
    for p in patches:
        row = rows[p.v1]
        assert labels(store, row) == set(p.clc)
        assert store.splits[row] == (0 if p.snow or p.cloud else CODES[p.split])
        found = {key: column[row].tolist() for key, column in columns.items()}
        assert found == expected_columns(p)
    assert store.split_sizes() == {"none": 3, "train": 4, "val": 2, "test": 3}


def test_v1_with_19_classes(v1: Path, patches: list[Patch], prepared: Prepared) -> None:
    store = open_store(prepared("bigearthnet", v1, "--labels", "ben19"))
    rows = row_of(store)
    assert store.layout.classes == BEN19.names
    for p in patches:
        expected = {BEN19.sources[name] for name in p.clc} - {None}
        assert labels(store, rows[p.v1]) == expected
    assert labels(store, rows[Patch(3).v1]) == set()


def test_v2_has_no_43_classes(v2: Path, tmp_path: Path, cli: Cli) -> None:
    answer = cli("prepare", "bigearthnet", v2, tmp_path / "s.h5", "--labels", "clc43")
    assert answer.code == 2
    assert "metadata.parquet" in answer.lines[0]


@pytest.mark.parametrize("suffix", ["csv", "txt", "csv.bz2"])
def test_lists_of_every_format_in_another_folder(suffix: str, v1: Path, tmp_path: Path, prepared: Prepared) -> None:
    names = [Patch(k).v1 for k in range(12)]
    lists = {"train": names[:5], "my-val": names[5:7], "patches_with_seasonal_snow": names[1:2]}
    folder = write_lists(tmp_path / "lists", lists, suffix)
    store = open_store(prepared("bigearthnet", v1, "--lists", folder))
    rows = row_of(store)
    assert [int(store.splits[rows[name]]) for name in names] == [1] * 5 + [2] * 2 + [0] * 5
    assert [name for name in names if store.column("snow")[rows[name]]] == names[1:2]
    assert not store.column("cloud").any()


def test_lists_with_a_second_column(v1: Path, tmp_path: Path, prepared: Prepared) -> None:
    """The multimodal lists have the Sentinel-1 patch in the second column."""
    lines = [f"{Patch(k).v1},S1A_IW_GRDH_{k}" for k in range(4)]
    store = open_store(prepared("bigearthnet", v1, "--lists", write_lists(tmp_path / "lists", {"test": lines}, "csv")))
    assert store.split_sizes() == {"none": 8, "test": 4}


@pytest.mark.parametrize("inner", ["BigEarthNet-v1.0", "BigEarthNet-S2"])
def test_the_inner_folder_is_an_input_too(inner: str, v1: Path, v2: Path, prepared: Prepared) -> None:
    root = v1 if inner == "BigEarthNet-v1.0" else v2
    whole = prepared("bigearthnet", root, name="whole.h5")
    part = prepared("bigearthnet", root / inner, name="inner.h5")
    assert whole.read_bytes() == part.read_bytes()


def test_a_whole_input_becomes_a_split(v2: Path, prepared: Prepared) -> None:
    store = open_store(prepared("bigearthnet", f"validation={v2}"))
    assert store.split_sizes() == {"val": 12}


def test_two_inputs_together(tmp_path: Path, prepared: Prepared) -> None:
    for name, ks in (("a", range(3)), ("b", range(3, 5))):
        write_v2(tmp_path / name, [Patch(k) for k in ks])
    store = open_store(prepared("bigearthnet", f"train={tmp_path / 'a'}", f"test={tmp_path / 'b'}"))
    rows = row_of(store)
    assert store.split_sizes() == {"train": 3, "test": 2}
    for k in range(5):
        row = rows[Patch(k).v2]
        assert store.splits[row] == (1 if k < 3 else 3)
        assert labels(store, row) == set(Patch(k).ben)
        assert np.array_equal(band_of(store, row, "B11"), pixels(k, "B11"))


def test_two_inputs_of_v1(tmp_path: Path, prepared: Prepared) -> None:
    for name, ks in (("a", range(2)), ("b", range(2, 4))):
        write_v1(tmp_path / name, [Patch(k) for k in ks])
    store = open_store(prepared("bigearthnet", tmp_path / "a", f"test={tmp_path / 'b'}"))
    assert store.split_sizes() == {"train": 2, "test": 2}
    assert labels(store, row_of(store)[Patch(2).v1]) == set(Patch(2).clc)


def test_an_input_whose_path_has_an_equals_sign(tmp_path: Path, prepared: Prepared) -> None:
    write_v2(tmp_path / "year=2017", [Patch(0)])
    assert open_store(prepared("bigearthnet", tmp_path / "year=2017")).split_sizes() == {"train": 1}


def test_lists_may_be_empty(v1: Path, tmp_path: Path, prepared: Prepared) -> None:
    folder = write_lists(tmp_path / "lists", {"train": [Patch(0).v1], "test": []}, "csv.bz2")
    assert open_store(prepared("bigearthnet", v1, "--lists", folder)).split_sizes() == {"none": 11, "train": 1}


def test_a_missing_patch(tmp_path: Path, prepared: Prepared, cli: Cli) -> None:
    """Patches of v2's metadata without folder are left out and counted; lists of v1 may name patches that are not there."""
    write_v1(tmp_path / "v1", [Patch(0), Patch(1)])
    write_lists(tmp_path / "v1/metadata", {"train": [Patch(0).v1, Patch(1).v1, Patch(9).v1]}, "csv.bz2")
    assert open_store(prepared("bigearthnet", tmp_path / "v1")).split_sizes() == {"train": 2}
    write_v2(tmp_path / "v2", [Patch(0), Patch(1)])
    shutil.rmtree(tmp_path / "v2/BigEarthNet-S2" / Patch(1).product)
    answer = cli("prepare", "bigearthnet", tmp_path / "v2", tmp_path / "s.h5", "--workers", 1)
    assert answer.code == 0
    assert "has 1 of the 2 patches that metadata.parquet lists; the others are left out" in answer.lines[0]
    assert open_store(tmp_path / "s.h5").column("name").tolist() == [Patch(0).v2]
    shutil.rmtree(tmp_path / "v2/BigEarthNet-S2" / Patch(0).product)
    answer = cli("prepare", "bigearthnet", tmp_path / "v2", tmp_path / "none.h5", "--workers", 1)
    assert answer.code == 2
    assert "has none of the 2 patches that metadata.parquet lists" in answer.lines[0]
    assert not (tmp_path / "none.h5.partial").exists()


REFUSED = {
    "v1 and v2": ((["{v1}", "{v2}"], []), "another version of BigEarthNet"),
    "v1 with 19 classes and v2": ((["{v1}", "{v2}"], ["--labels", "ben19"]), "another version of BigEarthNet"),
    "the same twice": ((["{v2}", "test={v2}"], []), "more than once"),
    "an unknown split": ((["trian={v2}"], []), "split 'trian', expected train, val, test"),
    "no folder": ((["{v2}/nowhere"], []), "no such folder"),
    "a file": ((["{v2}/metadata.parquet"], []), "no such folder"),
    "no archive": ((["{v1}/metadata"], []), "is no BigEarthNet archive"),
    "no lists": ((["{v1}"], ["--lists", "{v1}/nowhere"]), "nowhere: holds no list"),
    "lists for v2": ((["{v2}"], ["--lists", "{v1}/metadata"]), "lists are for BigEarthNet v1"),
    "an unknown nomenclature": ((["{v1}"], ["--labels", "ben43"]), "did you mean ben19"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_inputs_and_options_are_refused(case: str, v1: Path, v2: Path, tmp_path: Path, cli: Cli) -> None:
    words, problem = REFUSED[case]
    inputs, flags = ([word.format(v1=v1, v2=v2) for word in some] for some in words)
    answer = cli("prepare", "bigearthnet", *inputs, tmp_path / "s.h5", *flags)
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert problem in answer.lines[0]
    assert not (tmp_path / "s.h5").exists()


def test_a_name_in_two_lists_is_refused(v1: Path, tmp_path: Path, cli: Cli) -> None:
    """Test patches in the train split would make every score too high."""
    folder = write_lists(tmp_path / "lists", {"train": [Patch(0).v1, Patch(1).v1], "test": [Patch(1).v1]}, "csv")
    answer = cli("prepare", "bigearthnet", v1, tmp_path / "s.h5", "--lists", folder)
    assert answer.code == 2
    assert Patch(1).v1 in answer.lines[0]
    assert "train.csv: " in answer.lines[0]


@pytest.mark.parametrize("column", ["split", "country", "contains_seasonal_snow", "labels"])
def test_metadata_with_an_empty_field(column: str, tmp_path: Path, cli: Cli) -> None:
    patches = [Patch(0), Patch(1)]
    write_v2(tmp_path, patches)
    table = metadata(patches).astype({column: object})
    table.at[1, column] = None
    table.to_parquet(tmp_path / "metadata.parquet")
    answer = cli("prepare", "bigearthnet", tmp_path, tmp_path / "s.h5", "--workers", 1)
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert f"metadata.parquet: patch {Patch(1).v2}: the field {column} is empty" in answer.lines[0]


@pytest.mark.parametrize(
    ("column", "values", "problem"),
    [
        ("contains_cloud_or_shadow", ["no", "yes"], "string, expected bool"),
        ("contains_seasonal_snow", [0, 2], "holds int64, expected bool"),
        ("labels", ["Pastures", "Arable land"], "string to list"),
        ("labels", [["Pastures"], [None]], f"patch {Patch(1).v2}: unknown class of ben19 'None'"),
        ("patch_id", [Patch(0).v2, None], "patch None: the field patch_id is empty"),
    ],
)
def test_metadata_with_other_values(column: str, values: list[object], problem: str, tmp_path: Path, cli: Cli) -> None:
    patches = [Patch(0), Patch(1)]
    write_v2(tmp_path, patches)
    metadata(patches).assign(**{column: values}).to_parquet(tmp_path / "metadata.parquet")
    answer = cli("prepare", "bigearthnet", tmp_path, tmp_path / "s.h5", "--workers", 1)
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert f"landscale: {tmp_path}/metadata.parquet: " in answer.lines[0]
    assert problem in answer.lines[0]


def test_metadata_of_other_types_and_in_parts(tmp_path: Path, prepared: Prepared) -> None:
    """Text as categories and several row groups, as other programs write the same table."""
    patches = [Patch(i) for i in range(6)]
    write_v2(tmp_path, patches)
    plain = open_store(prepared("bigearthnet", tmp_path))
    table = metadata(patches).astype({"split": "category", "country": "category"})
    table.to_parquet(tmp_path / "metadata.parquet", row_group_size=2)
    other = open_store(prepared("bigearthnet", tmp_path, name="other.h5"))
    for key in ("name", "split", "country", "snow", "cloud", "tile", "date", "classes", "checksum"):
        np.testing.assert_array_equal(dataset(other, key), dataset(plain, key))


def test_bands_at_another_place_are_refused(tmp_path: Path, cli: Cli) -> None:
    """As when a file of another patch has the name of a band of this one."""
    write_v2(tmp_path, [Patch(0), Patch(2)])
    where = {k: tmp_path / "BigEarthNet-S2" / Patch(k).product / Patch(k).v2 / f"{Patch(k).v2}_B05.tif" for k in (0, 2)}
    shutil.copy(where[0], where[2])
    answer = cli("prepare", "bigearthnet", tmp_path, tmp_path / "s.h5", "--workers", 1)
    assert answer.code == 2
    assert str(where[2]) in answer.lines[0]


def test_compressed_files_give_the_same_store(tmp_path: Path, prepared: Prepared) -> None:
    """Files that a user compressed are read by rasterio instead of the fast decoder, and give the same pixels."""
    write_v2(tmp_path / "plain", [Patch(0), Patch(1)])
    shutil.copytree(tmp_path / "plain", tmp_path / "packed")
    for path in (tmp_path / "packed").rglob("*_B*.tif"):
        with rasterio.open(path) as file:
            values, corner = file.read(1), (file.transform.c, file.transform.f)
            gsd, epsg = file.transform.a, file.crs.to_epsg()
        write_band(path, values, corner, gsd, epsg, compress="deflate", predictor=2, nodata=0)
    one, two = (prepared("bigearthnet", tmp_path / name, name=f"{name}.h5") for name in ("plain", "packed"))
    assert one.read_bytes() == two.read_bytes()


def test_the_installed_command(v2: Path, tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("landscale"), "prepare", "bigearthnet", v2, tmp_path / "s.h5"]
    done = subprocess.run([*map(str, command), "--workers", "2", "--json"], capture_output=True, text=True, check=True)
    content = json.loads(done.stdout)
    assert content == {"store": str(tmp_path / "s.h5"), "patches": 12, "written": 12, "skipped": [], "notes": []}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5"]
