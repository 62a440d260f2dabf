"""Folders and tables of images of any origin: every pixel, label and split is stored under the name of its patch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image

from archives import image, pixels, write_band, write_eurosat, write_lists
from landscale.datasets import folder
from landscale.errors import BadInput, LandscaleError, UnknownName
from landscale.preparation import prepare_survey
from landscale.store import PatchStore
from landscale.vocabulary.nomenclatures import EUROSAT10
from surveys import Stored, band_of, labels, refused, row_of, splits


def write_tif(path: Path, k: int, bands: tuple[str, ...], described: bool = True, side: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.stack([pixels(k, band, (side, side)) for band in bands])
    write_band(path, values, (300_000 + 160 * k, 5_000_000), 10, 32633)
    if described:
        with rasterio.open(path, "r+") as file:
            file.descriptions = bands


def write_classes(root: Path, bands: tuple[str, ...] = ("B02", "B8A", "B11"), described: bool = True) -> Path:
    for c, name in enumerate(("water", "crops", "bare")):
        for k in range(5):
            write_tif(root / name / f"{k:03d}.tif", 10 * c + k, bands, described)
    return root


def check_folder(store: PatchStore, prefix: str = "") -> None:
    assert store.layout.classes == ("bare", "crops", "water")
    assert (store.layout.nomenclature, store.layout.multi_label) == ("custom", False)
    for c, name in enumerate(("water", "crops", "bare")):
        for k in range(5):
            row = row_of(store)[f"{prefix}{name}/{k:03d}"]
            assert labels(store, row) == {name}
            for band in ("B02", "B8A", "B11"):
                assert np.array_equal(band_of(store, row, band), pixels(10 * c + k, band, (16, 16)))
            assert store.column("crs")[row] == "EPSG:32633"
            assert store.column("origin")[row].tolist() == [300_000 + 160 * (10 * c + k), 5_000_000]


def test_a_folder_for_each_class(tmp_path: Path, stored: Stored) -> None:
    """Bands are named by the descriptions in the GeoTIFFs; the split is drawn in each class."""
    root = write_classes(tmp_path / "mine")
    (root / "README.md").touch()
    (root / "crops" / "._000.tif").touch()
    store = stored(folder.survey([(None, root)]))
    check_folder(store)
    for name in ("bare", "crops", "water"):
        assert sorted(split for patch, split in splits(store).items() if patch.startswith(name)) == [1, 1, 1, 2, 3]
    packed = Path(shutil.make_archive(str(tmp_path / "mine"), "zip", tmp_path, "mine"))
    zipped = stored(folder.survey([(None, packed)]), 2, name="zip.h5")
    assert zipped.path.read_bytes() == store.path.read_bytes()


@pytest.mark.parametrize(
    ("pixel", "epsg", "expected"), [(0.5, 32633, 0.5), (2, 2225, 0.609601), (8.983153e-5, 4326, 10), (1e-5, 4326, 1.11)]
)
def test_metres_per_pixel_are_read_from_the_images(tmp_path: Path, pixel: float, epsg: int, expected: float) -> None:
    """EPSG:2225 is in US survey feet; degrees (EPSG:4326) become metres as along the equator."""
    for name in ("water", "crops"):
        (tmp_path / name).mkdir()
        write_band(tmp_path / name / "1.tif", np.ones((3, 8, 8), np.uint8), (30, 50), pixel, epsg)
    survey = folder.survey([(None, tmp_path)])
    (plane,) = survey.layout.planes
    assert (plane.gsd, plane.key) == (expected, f"data_{expected:g}m")
    assert survey.layout.ground == 8 * expected
    assert "gsd" not in survey.provenance


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_metres_per_pixel_are_assumed_if_the_images_lack_them_and_the_store_records_that(
    tmp_path: Path, suffix: str
) -> None:
    for name in ("water", "crops"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.ones((8, 8, 3), np.uint8)).save(tmp_path / name / f"1.{suffix}")
    survey = folder.survey([(None, tmp_path)])
    (plane,) = survey.layout.planes
    assert (plane.gsd, plane.key) == (10, "data_10m")
    assert survey.provenance["gsd"] == "not in the files; 10 m a pixel are assumed"


@pytest.mark.parametrize(
    ("dtype", "scale", "expected"),
    [("uint8", 1, "8-bit"), ("uint16", 1, "unknown"), ("uint16", 1e-4, "digital number"), ("float32", 1, "unknown")],
)
def test_the_unit_is_that_of_the_dtype_and_the_declared_scale(
    tmp_path: Path, dtype: str, scale: float, expected: str
) -> None:
    for name in ("forest", "water"):
        (tmp_path / name).mkdir()
        write_band(tmp_path / name / "1.tif", np.ones((3, 8, 8), dtype), (30, 50), 10, 32633)
        with rasterio.open(tmp_path / name / "1.tif", "r+") as file:
            file.scales = (scale,) * 3
    (plane,) = folder.survey([(None, tmp_path)]).layout.planes
    assert plane.unit == expected


def test_bands_are_named_by_the_user_or_are_red_green_and_blue(tmp_path: Path, stored: Stored) -> None:
    root = write_classes(tmp_path, described=False)
    check_folder(stored(folder.survey([(None, root)], bands="b2,b8a,b11")))
    store = stored(folder.survey([(None, root)]), name="rgb.h5")  # three bands without names are red, green and blue
    assert store.layout.bands == ("B04", "B03", "B02")
    refused(lambda: folder.survey([(None, root)], bands="B02,B03"), BadInput, "000.tif", "3 bands", "B02,B03")
    refused(lambda: folder.survey([(None, root)], bands="B02,B03,B99"), UnknownName, "B99")


def test_pictures_in_folders_of_two_splits(tmp_path: Path, stored: Stored) -> None:
    """PNG and JPEG together, and the same names in both splits; classes of EuroSAT are recognised."""
    write_eurosat(tmp_path / "a", each=2)
    write_eurosat(tmp_path / "b", each=1)
    train, test = tmp_path / "a/EuroSAT_RGB", tmp_path / "b/EuroSAT_RGB"
    Image.fromarray(image(7, "Forest")).save(train / "Forest/extra.PNG")
    store = stored(folder.survey([("train", train), ("test", test)]))
    assert (store.layout.classes, store.layout.nomenclature) == (EUROSAT10.names, "eurosat10")
    assert store.split_sizes() == {"train": 21, "test": 10}
    row = row_of(store)["train/Forest/extra"]
    for plane, band in enumerate(("B04", "B03", "B02")):
        assert np.array_equal(band_of(store, row, band), image(7, "Forest")[..., plane])
    assert labels(store, row_of(store)["test/River/River_1"]) == {"River"}


def test_splits_by_lists(tmp_path: Path, stored: Stored) -> None:
    root = write_eurosat(tmp_path, each=2, classes=["Forest", "River"])
    lists = write_lists(
        tmp_path / "lists", {"train": ["Forest_1.jpg", "River_2.jpg"], "my-test": ["River_1.jpg"]}, "txt"
    )
    found = splits(stored(folder.survey([(None, root)], lists=lists)))
    assert found == {"Forest/Forest_1": 1, "Forest/Forest_2": 0, "River/River_1": 3, "River/River_2": 1}
    same = write_classes(tmp_path / "same")
    refused(lambda: folder.survey([(None, same)], lists=lists), BadInput, "lists", "several files have the name 000")


def write_table(root: Path, kind: str) -> Path:
    """Six images in one folder, with their labels and splits in a table."""
    for k in range(6):
        write_tif(root / "images" / f"i{k}.tif", k, ("VV", "VH"))
    files, split = [f"images/i{k}.tif" for k in range(6)], ["train", "train", "validation", "test", "test", "train"]
    sets = [["sea"], ["ice", "sea"], [], ["land"], ["land", "ice"], ["sea", "land"]]
    table = pd.DataFrame({"file": files, "split": split})
    if kind == "columns":
        for name in ("sea", "land", "ice"):
            table[name] = [int(name in row) for row in sets]
    else:
        separator = {"semicolon": "; ", "bar": "|"}.get(kind)
        table["labels"] = [separator.join(row) for row in sets] if separator else sets
    path = root / f"{kind}.{'parquet' if kind == 'lists' else 'csv'}"
    table.to_parquet(path) if kind == "lists" else table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("kind", ["semicolon", "bar", "columns", "lists"])
def test_labels_and_splits_from_a_table(kind: str, tmp_path: Path, stored: Stored) -> None:
    store = stored(folder.survey([(None, write_table(tmp_path, kind))]))
    assert (store.layout.classes, store.layout.multi_label) == (("ice", "land", "sea"), True)
    assert store.layout.bands == ("VV", "VH")
    found = [labels(store, row_of(store)[f"images/i{k}"]) for k in range(6)]
    assert found == [{"sea"}, {"ice", "sea"}, set(), {"land"}, {"land", "ice"}, {"sea", "land"}]
    assert [splits(store)[f"images/i{k}"] for k in range(6)] == [1, 1, 2, 3, 3, 1]
    for k in range(6):
        for band in ("VV", "VH"):
            assert np.array_equal(band_of(store, row_of(store)[f"images/i{k}"], band), pixels(k, band, (16, 16)))


def test_a_table_with_one_label_for_each_patch(tmp_path: Path, stored: Stored) -> None:
    root = write_eurosat(tmp_path, each=5, classes=["Forest", "River"])
    files = sorted(root.rglob("*.jpg"))
    table = pd.DataFrame({"path": files, "label": ["wood" if "Forest" in str(p) else "water" for p in files]})
    table.to_csv(tmp_path / "t.csv", index=False)
    store = stored(folder.survey([(None, tmp_path / "t.csv")]))
    assert (store.layout.classes, store.layout.multi_label) == (("water", "wood"), False)
    assert all(labels(store, row) == {"wood" if "Forest" in name else "water"} for name, row in row_of(store).items())
    assert store.split_sizes() == {"train": 6, "val": 2, "test": 2}


TABLES = {
    "no images": ("file,labels\nx.txt,a\n", "x.txt"),
    "no rows": ("file,labels\n", "has no rows"),
    "one column": ("file\na.tif\n", "only one column"),
    "neither 0 nor 1": ("file,a,b\na.tif,0,2\n", "'2' in the column b"),
    "no label": ("file,label\na.tif,x\nb.tif, \n", "no label for b.tif"),
    "an unknown split": ("file,labels,split\na.tif,x,trian\n", "split 'trian'"),
    "twice": ("file,labels\na.tif,x\na.tif,y\n", "patch a more than once"),
    "not text": (b"\xff\xfe\0", "is not UTF-8 text"),
    "no file": ("file,labels\ngone.tif,x\n", "lists 1 images, of which 1 do not exist"),
}


@pytest.mark.parametrize("case", TABLES)
def test_unusable_tables_are_refused(case: str, tmp_path: Path) -> None:
    text, problem = TABLES[case]
    path = tmp_path / "t.csv"
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).touch()
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    refused(lambda: folder.survey([(None, path)]), BadInput, problem)


def test_unusable_folders_and_images_are_refused(tmp_path: Path) -> None:
    def surveying(name: str, *, bands: str | None = None) -> Callable[[], object]:
        return lambda: prepare_survey(folder.survey([(None, tmp_path / name)], bands), tmp_path / f"{name}.h5")

    refused(surveying("nowhere"), BadInput, "nowhere: no such folder or zip")
    (tmp_path / "empty/a").mkdir(parents=True)
    refused(surveying("empty"), BadInput, "empty: has no", "classes")
    (tmp_path / "empty/a/0.tif").touch()
    refused(surveying("empty"), BadInput, "0.tif: is empty")
    (tmp_path / "empty/a/0.tif").write_text("no image")
    refused(surveying("empty"), BadInput, "0.tif: is not a TIFF file: it begins with b'no image'")
    write_tif(tmp_path / "two/a/0.tif", 0, ("x", "B02"))
    refused(surveying("two"), BadInput, "0.tif: has 2 bands", "--bands")
    for split in ("train", "val"):
        write_classes(tmp_path / "nested" / split)
    refused(surveying("nested"), BadInput, f"train={tmp_path / 'nested/train'}", f"val={tmp_path / 'nested/val'}")
    write_tif(tmp_path / "differs/a/0.tif", 0, ("B02", "B03"))
    write_tif(tmp_path / "differs/a/1.tif", 0, ("B02", "B03"), side=17)
    refused(surveying("differs"), BadInput, "1.tif: is 17×17×2 uint16, but", "0.tif is 16×16×2 uint16")
    write_tif(tmp_path / "differs/b/2.tif", 0, ("B02", "B03"))
    refused(surveying("differs"), LandscaleError, "1.tif: is 17×17 uint16, expected 16×16 uint16")
    (tmp_path / "signed/a").mkdir(parents=True)
    write_band(tmp_path / "signed/a/0.tif", np.ones((3, 8, 8), np.int16), (0, 0), 1, 32633)
    refused(surveying("signed"), BadInput, "0.tif: has int16 pixels, expected uint8, uint16, float32")
    (tmp_path / "oblong/a").mkdir(parents=True)
    write_band(tmp_path / "oblong/a/0.tif", np.ones((3, 8, 9), np.uint8), (0, 0), 1, 32633)
    refused(surveying("oblong"), BadInput, "0.tif: is 9×8, expected a square")
    (tmp_path / "nan/a").mkdir(parents=True)
    write_band(tmp_path / "nan/a/0.tif", np.full((3, 8, 8), np.nan, np.float32), (0, 0), 1, 32633)
    shutil.copytree(tmp_path / "nan/a", tmp_path / "nan/b")
    refused(surveying("nan"), LandscaleError, "0.tif: has pixels that are not a number")
    (tmp_path / "palette/a").mkdir(parents=True)
    Image.fromarray(image(0, "x")).convert("P").save(tmp_path / "palette/a/0.png")
    refused(surveying("palette"), BadInput, "0.png: has a palette")
    both = [(None, write_classes(tmp_path / "single")), (None, write_table(tmp_path / "multi", "bar"))]
    refused(lambda: folder.survey(both), BadInput, "bar.csv", "prepare a store from each")
