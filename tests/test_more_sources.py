"""Further sources, each in its published layout made small: every pixel, label and split stands in the store, by name."""

from __future__ import annotations

import pickle
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import h5py
import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image

from archives import CODES, image, pixels, write_band, write_eurosat, write_lists
from landscale.errors import BadInput, LandscaleError, UnknownName
from landscale.labels import EUROSAT10, IGBP10, LCZ17, NOMENCLATURES, UCMERCED17, UCMERCED21, colours, with_classes
from landscale.prepare import prepare
from landscale.sources import folder, sen12ms, so2sat, torchgeo, uc_merced
from landscale.sources.survey import DRAWN, Survey, draw_splits
from landscale.store import PatchStore, open_store

Stored = Callable[..., PatchStore]


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    def run(survey: Survey, workers: int = 1, name: str = "store.h5") -> PatchStore:
        assert pickle.loads(pickle.dumps(survey.read)) == survey.read
        outcome = prepare(survey, tmp_path / name, workers)
        assert outcome.written == len(survey.table)
        store = open_store(tmp_path / name)
        assert not any(damaged for _, damaged in store.damaged())
        return store

    return run


def rows(store: PatchStore) -> dict[str, int]:
    return {str(name): k for k, name in enumerate(store.column("name"))}


def labels(store: PatchStore, row: int) -> set[str]:
    return {store.layout.classes[c] for c in np.flatnonzero(store.classes[row])}


def band_of(store: PatchStore, row: int, band: str) -> np.ndarray:
    plane = next(p for p in store.layout.planes if band in p.bands)
    return store.planes[plane.key][row, plane.bands.index(band)]


def splits(store: PatchStore) -> dict[str, int]:
    return dict(zip(store.column("name").tolist(), store.splits.tolist(), strict=True))


def refused(survey: Callable[[], object], kind: type[Exception], *said: str) -> None:
    with pytest.raises(kind) as caught:
        survey()
    line = str(caught.value)
    assert "\n" not in line
    for word in said:
        assert word in line


# ---- nomenclatures


def test_every_nomenclature_is_found_by_its_classes_and_has_colours_of_its_own() -> None:
    assert {n.name: len(n.classes) for n in NOMENCLATURES.values()} == {
        "clc43": 43,
        "ben19": 19,
        "eurosat10": 10,
        "ucmerced21": 21,
        "ucmerced17": 17,
        "igbp10": 10,
        "lcz17": 17,
    }
    for n in NOMENCLATURES.values():
        assert with_classes(reversed(n.names)) is n
        assert colours(n.names) == [c.hex for c in n.classes]
        assert len({c.colour for c in n.classes}) == len(n.classes)
    assert with_classes(["Water"]) is None


def test_drawn_splits() -> None:
    groups = np.repeat([4, 0, 9], [10, 25, 1])
    found = draw_splits(groups, 0)
    assert np.array_equal(found, draw_splits(groups, 0))
    assert not np.array_equal(found, draw_splits(groups, 1))
    for group, size in ((4, 10), (0, 25)):
        counts = np.bincount(found[groups == group], minlength=4)
        assert counts.tolist() == [0, *(round(size * share) for share in DRAWN.values())]
    tenth = draw_splits(np.zeros(20, np.int64), 0, {"train": 0.9, "val": 0.1})
    assert np.bincount(tenth, minlength=4).tolist() == [0, 18, 2, 0]


# ---- folder


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
            row = rows(store)[f"{prefix}{name}/{k:03d}"]
            assert labels(store, row) == {name}
            for band in ("B02", "B8A", "B11"):
                assert np.array_equal(band_of(store, row, band), pixels(10 * c + k, band, (16, 16)))
            assert store.column("crs")[row] == "EPSG:32633"
            assert store.column("origin")[row].tolist() == [300_000 + 160 * (10 * c + k), 5_000_000]


def test_a_folder_a_class(tmp_path: Path, stored: Stored) -> None:
    """Bands by the GeoTIFFs' own descriptions; the split is drawn class by class."""
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


def test_bands_given(tmp_path: Path, stored: Stored) -> None:
    root = write_classes(tmp_path, described=False)
    check_folder(stored(folder.survey([(None, root)], bands="b2,b8a,b11")))
    store = stored(folder.survey([(None, root)]), name="rgb.h5")  # three bands without names are red, green, blue
    assert store.layout.bands == ("B04", "B03", "B02")
    refused(lambda: folder.survey([(None, root)], bands="B02,B03"), BadInput, "000.tif", "3 bands", "B02,B03")
    refused(lambda: folder.survey([(None, root)], bands="B02,B03,B99"), UnknownName, "B99")


def test_a_folder_of_pictures_with_splits(tmp_path: Path, stored: Stored) -> None:
    """PNG and JPEG together, the same names in either split; classes of EuroSAT are recognised."""
    write_eurosat(tmp_path / "a", each=2)
    write_eurosat(tmp_path / "b", each=1)
    train, test = tmp_path / "a/EuroSAT_RGB", tmp_path / "b/EuroSAT_RGB"
    Image.fromarray(image(7, "Forest")).save(train / "Forest/extra.PNG")
    store = stored(folder.survey([("train", train), ("test", test)]))
    assert (store.layout.classes, store.layout.nomenclature) == (EUROSAT10.names, "eurosat10")
    assert store.split_sizes() == {"train": 21, "test": 10}
    row = rows(store)["train/Forest/extra"]
    for plane, band in enumerate(("B04", "B03", "B02")):
        assert np.array_equal(band_of(store, row, band), image(7, "Forest")[..., plane])
    assert labels(store, rows(store)["test/River/River_1"]) == {"River"}


def test_a_folder_by_lists(tmp_path: Path, stored: Stored) -> None:
    root = write_eurosat(tmp_path, each=2, classes=["Forest", "River"])
    lists = write_lists(
        tmp_path / "lists", {"train": ["Forest_1.jpg", "River_2.jpg"], "my-test": ["River_1.jpg"]}, "txt"
    )
    found = splits(stored(folder.survey([(None, root)], lists=lists)))
    assert found == {"Forest/Forest_1": 1, "Forest/Forest_2": 0, "River/River_1": 3, "River/River_2": 1}
    same = write_classes(tmp_path / "same")
    refused(lambda: folder.survey([(None, same)], lists=lists), BadInput, "lists", "several are called 000")


def write_table(root: Path, kind: str) -> Path:
    """Six images in no folder of classes, labels and splits in a table."""
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
def test_a_table(kind: str, tmp_path: Path, stored: Stored) -> None:
    store = stored(folder.survey([(None, write_table(tmp_path, kind))]))
    assert (store.layout.classes, store.layout.multi_label) == (("ice", "land", "sea"), True)
    assert store.layout.bands == ("VV", "VH")
    found = [labels(store, rows(store)[f"images/i{k}"]) for k in range(6)]
    assert found == [{"sea"}, {"ice", "sea"}, set(), {"land"}, {"land", "ice"}, {"sea", "land"}]
    assert [splits(store)[f"images/i{k}"] for k in range(6)] == [1, 1, 2, 3, 3, 1]
    for k in range(6):
        for band in ("VV", "VH"):
            assert np.array_equal(band_of(store, rows(store)[f"images/i{k}"], band), pixels(k, band, (16, 16)))


def test_a_table_of_one_label_a_patch(tmp_path: Path, stored: Stored) -> None:
    root = write_eurosat(tmp_path, each=5, classes=["Forest", "River"])
    files = sorted(root.rglob("*.jpg"))
    table = pd.DataFrame({"path": files, "label": ["wood" if "Forest" in str(p) else "water" for p in files]})
    table.to_csv(tmp_path / "t.csv", index=False)
    store = stored(folder.survey([(None, tmp_path / "t.csv")]))
    assert (store.layout.classes, store.layout.multi_label) == (("water", "wood"), False)
    assert all(labels(store, row) == {"wood" if "Forest" in name else "water"} for name, row in rows(store).items())
    assert store.split_sizes() == {"train": 6, "val": 2, "test": 2}


TABLES = {
    "no files": ("file,labels\nx.txt,a\n", "x.txt"),
    "nothing": ("file,labels\n", "holds no row"),
    "one column": ("file\na.tif\n", "no column beside the first"),
    "a count": ("file,a,b\na.tif,0,2\n", "'2' in the column b"),
    "no label": ("file,label\na.tif,x\nb.tif, \n", "no label for b.tif"),
    "no split": ("file,labels,split\na.tif,x,trian\n", "split 'trian'"),
    "twice": ("file,labels\na.tif,x\na.tif,y\n", "patch a more than once"),
    "no text": (b"\xff\xfe\0", "no table of images"),
    "no file": ("file,labels\na.tif,x\n", "a.tif: cannot be read"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_refused(case: str, tmp_path: Path) -> None:
    text, said = TABLES[case]
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    refused(lambda: folder.survey([(None, path)]), BadInput, said)


def test_folders_refused(tmp_path: Path) -> None:
    def of(name: str, *, bands: str | None = None) -> Callable[[], object]:
        return lambda: prepare(folder.survey([(None, tmp_path / name)], bands), tmp_path / f"{name}.h5")

    refused(of("nowhere"), BadInput, "nowhere: no such folder or zip")
    (tmp_path / "empty/a").mkdir(parents=True)
    refused(of("empty"), BadInput, "empty: holds no", "classes")
    (tmp_path / "empty/a/0.tif").touch()
    refused(of("empty"), BadInput, "0.tif: is empty")
    (tmp_path / "empty/a/0.tif").write_text("no image")
    refused(of("empty"), BadInput, "0.tif: cannot be decoded")
    write_tif(tmp_path / "two/a/0.tif", 0, ("x", "B02"))
    refused(of("two"), BadInput, "0.tif: has 2 bands", "--bands")
    for split in ("train", "val"):
        write_classes(tmp_path / "nested" / split)
    refused(of("nested"), BadInput, f"train={tmp_path / 'nested/train'}", f"val={tmp_path / 'nested/val'}")
    write_tif(tmp_path / "differs/a/0.tif", 0, ("B02", "B03"))
    write_tif(tmp_path / "differs/a/1.tif", 0, ("B02", "B03"), side=17)
    refused(of("differs"), LandscaleError, "1.tif: is 17×17 uint16, expected 16×16 uint16")
    (tmp_path / "signed/a").mkdir(parents=True)
    write_band(tmp_path / "signed/a/0.tif", np.ones((3, 8, 8), np.int16), (0, 0), 1, 32633)
    refused(of("signed"), BadInput, "0.tif: is int16, expected uint8, uint16, float32")
    (tmp_path / "oblong/a").mkdir(parents=True)
    write_band(tmp_path / "oblong/a/0.tif", np.ones((3, 8, 9), np.uint8), (0, 0), 1, 32633)
    refused(of("oblong"), BadInput, "0.tif: is 9×8, expected a square")
    (tmp_path / "nan/a").mkdir(parents=True)
    write_band(tmp_path / "nan/a/0.tif", np.full((3, 8, 8), np.nan, np.float32), (0, 0), 1, 32633)
    refused(of("nan"), LandscaleError, "0.tif: holds pixels that are not a number")
    (tmp_path / "palette/a").mkdir(parents=True)
    Image.fromarray(image(0, "x")).convert("P").save(tmp_path / "palette/a/0.png")
    refused(of("palette"), BadInput, "0.png: is a picture of mode P")
    both = [(None, write_classes(tmp_path / "single")), (None, write_table(tmp_path / "multi", "bar"))]
    refused(lambda: folder.survey(both), BadInput, "bar.csv", "prepare it apart")


# ---- UC Merced

SIZES = {("airplane", 1): (242, 257), ("river", 0): (256, 250)}  # width, height


def write_uc_merced(root: Path, each: int = 5) -> Path:
    for c, name in enumerate(UCMERCED21.names):
        for k in range(each):
            width, height = SIZES.get((name, k), (256, 256))
            path = root / "UCMerced_LandUse/Images" / name / f"{name}{k:02d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(aerial(c, k)[:height, :width]).save(path)
    return root / "UCMerced_LandUse"


def aerial(c: int, k: int) -> np.ndarray:
    y, x = np.mgrid[:260, :260]
    return np.stack([(x + 3 * c) % 251, (y + 7 * k) % 241, (x + y + c + k) % 239], axis=-1).astype(np.uint8)


def write_multi_labels(path: Path, each: int = 5) -> None:
    """Tabs, the classes' order not ours, and a tab too many at the end, as spreadsheets write it."""
    names = UCMERCED17.names[::-1]
    lines = ["\t".join(["IMAGE\\LABEL", *names, ""])]
    for c, folder_name in enumerate(UCMERCED21.names):
        for k in range(each):
            flags = ["1" if names.index(n) in multi(c, k) else "0" for n in names]
            lines.append("\t".join([f"{folder_name}{k:02d}", *flags, ""]))
    path.write_text("\r\n".join(lines) + "\r\n")


def multi(c: int, k: int) -> set[int]:
    return {c % 17, (c + 5 * k) % 17}


def test_uc_merced(tmp_path: Path, stored: Stored) -> None:
    root = write_uc_merced(tmp_path)
    store = stored(uc_merced.survey([(None, root)]))
    assert (store.layout.classes, store.layout.multi_label) == (UCMERCED21.names, False)
    assert store.split_sizes() == {"train": 63, "val": 21, "test": 21}
    for c, name in enumerate(UCMERCED21.names):
        for k in range(5):
            row = rows(store)[f"{name}{k:02d}"]
            assert labels(store, row) == {name}
            width, height = (min(256, side) for side in SIZES.get((name, k), (256, 256)))
            for plane, band in enumerate(("B04", "B03", "B02")):
                found, expected = band_of(store, row, band), aerial(c, k)[:256, :256, plane]
                assert np.array_equal(found[:height, :width], expected[:height, :width])
                assert (found[:, width:] == found[:, width - 1 : width]).all()
                assert (found[height:] == found[height - 1 : height]).all()
    packed = Path(shutil.make_archive(str(tmp_path / "UCMerced_LandUse"), "zip", tmp_path, "UCMerced_LandUse"))
    zipped = stored(uc_merced.survey([(None, packed)]), name="zip.h5")
    assert zipped.path.read_bytes() == store.path.read_bytes()


@pytest.mark.parametrize(
    "place",
    ["LandUse_Multilabeled.txt", "UCMerced_LandUse/LandUse_Multilabeled.txt", "multilabels/LandUse_Multilabeled.txt"],
)
def test_uc_merceds_multi_labels(place: str, tmp_path: Path, stored: Stored) -> None:
    root = write_uc_merced(tmp_path, each=2)
    refused(lambda: uc_merced.survey([(None, root)], "ucmerced17"), BadInput, "has no LandUse_Multilabeled.txt")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    write_multi_labels(tmp_path / place, each=2)
    store = stored(uc_merced.survey([(None, root)], "ucmerced17"))
    assert (store.layout.classes, store.layout.multi_label) == (UCMERCED17.names, True)
    for c, name in enumerate(UCMERCED21.names):
        for k in range(2):
            assert labels(store, rows(store)[f"{name}{k:02d}"]) == {UCMERCED17.names[::-1][i] for i in multi(c, k)}


def test_uc_merced_by_lists_and_refusals(tmp_path: Path) -> None:
    root = write_uc_merced(tmp_path, each=2)
    names = [f"{name}{k:02d}.tif" for name in UCMERCED21.names for k in range(2)]
    lists = write_lists(
        tmp_path / "l",
        {"uc_merced-train": names[:30], "uc_merced-val": names[30:36], "uc_merced-test": names[36:]},
        "txt",
    )
    table = uc_merced.survey([(None, root)], lists=lists).table.set_index("name")["split"]
    assert [table[name.removesuffix(".tif")] for name in names] == [1] * 30 + [2] * 6 + [3] * 6
    refused(lambda: uc_merced.survey([(None, root)], "ucm17"), UnknownName, "did you mean")
    write_multi_labels(tmp_path / "LandUse_Multilabeled.txt", each=1)
    refused(lambda: uc_merced.survey([(None, root)], "ucmerced17"), BadInput, "does not list agricultural01")
    path = root / "Images/forest/forest00.tif"
    Image.fromarray(aerial(0, 0)[:200, :256]).save(path)
    refused(
        lambda: prepare(uc_merced.survey([(None, root)]), tmp_path / "s.h5"),
        LandscaleError,
        "forest00.tif: is 256×200×3",
    )
    path.rename(root / "Images/forests.tif")
    refused(lambda: uc_merced.survey([(None, root)]), BadInput, "forests.tif")


# ---- So2Sat


def write_so2sat(root: Path, sizes: dict[str, int]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for stem, size in sizes.items():
        rng = np.random.default_rng(len(stem))
        with h5py.File(root / f"{stem}.h5", "w") as file:
            sen1 = rng.normal(0, 0.3, (size, 32, 32, 8))
            sen1[..., 4:6] = rng.uniform(0.001, [0.1, 0.9], (size, 32, 32, 2))
            file["sen1"] = sen1
            file["sen2"] = rng.uniform(0.01, np.linspace(0.2, 2.8, 10), (size, 32, 32, 10))
            file["label"] = np.eye(17)[(np.arange(size) * 5 + len(stem)) % 17]
    return root


def test_so2sat(tmp_path: Path, stored: Stored) -> None:
    """By slices that cross chunks and files; VH stands before VV in the files, intensities become decibels."""
    sizes = {"training": 150, "validation": 20, "testing": 7}
    root = write_so2sat(tmp_path / "so2sat", sizes)
    store = stored(so2sat.survey([(None, root)]))
    assert (store.layout.classes, store.layout.multi_label) == (LCZ17.names, False)
    assert store.split_sizes() == {"train": 150, "val": 20, "test": 7}
    names = rows(store)
    for stem, size in sizes.items():
        with h5py.File(root / f"{stem}.h5") as file:
            sen1, sen2, label = (file[key][...] for key in ("sen1", "sen2", "label"))
        row = [names[f"{stem}_{k:06d}"] for k in range(size)]
        assert np.array_equal(store.classes[row], label)
        numbers, decibels = store.planes["data_10m"][row], store.planes["data_s1"][row]
        for plane, band in enumerate(("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")):
            found = numbers[:, store.layout.planes[0].bands.index(band)]
            assert np.array_equal(found, np.round(sen2[..., plane] * 10_000))
        for plane, band in ((4, "VH"), (5, "VV")):
            found = decibels[:, store.layout.planes[1].bands.index(band)]
            assert np.allclose(found, 10 * np.log10(sen1[..., plane]), atol=1e-5)
    whole = store.path.read_bytes()
    files = [("train", root / "training.h5"), ("val", root / "validation.h5"), (None, root / "testing.h5")]
    assert stored(so2sat.survey(files), name="files.h5").path.read_bytes() == whole


def test_so2sats_odd_numbers(tmp_path: Path, stored: Stored) -> None:
    """No intensity becomes −50 dB, and reflectance above 6.5535 the largest number; what is no number spoils its patch alone."""
    root = write_so2sat(tmp_path, {"training": 5})
    with h5py.File(root / "training.h5", "r+") as file:
        file["sen1"][0, 3, 4, 5] = 0
        file["sen2"][1, 0, 0, 2] = 7
        file["sen2"][1, 0, 1, 2] = -0.01
    store = stored(so2sat.survey([(None, root)]))
    assert band_of(store, 0, "VV")[3, 4] == -50
    assert band_of(store, 1, "B04")[0, :2].tolist() == [65535, 0]
    with h5py.File(root / "training.h5", "r+") as file:
        file["sen2"][2, 0, 0, 2] = np.nan
        file["sen1"][4, 0, 0, 4] = np.inf
    outcome = prepare(so2sat.survey([(None, root)]), tmp_path / "s.h5", skip_bad=True)
    assert [name for name, _ in outcome.skipped] == ["training_000002", "training_000004"]
    assert all("training.h5::" in said and "not a number" in said for _, said in outcome.skipped)


def test_a_damaged_file_of_so2sat(tmp_path: Path) -> None:
    """Patches that can be read are."""
    root = write_so2sat(tmp_path, {"training": 6})
    path = root / "training.h5"
    with h5py.File(path, "r+") as file:
        values = file["sen2"][...]
        del file["sen2"]
        file.create_dataset("sen2", data=values, chunks=(1, 32, 32, 10), fletcher32=True)
        offset = file["sen2"].id.get_chunk_info(3).byte_offset
    with path.open("r+b") as file:
        file.seek(offset + 100)
        file.write(b"\xff\xff\xff")
    outcome = prepare(so2sat.survey([(None, root)]), tmp_path / "s.h5", skip_bad=True)
    assert [name for name, _ in outcome.skipped] == ["training_000003"]
    assert "training.h5::3: cannot be read" in outcome.skipped[0][1]


def test_so2sat_refused(tmp_path: Path) -> None:
    refused(lambda: so2sat.survey([(None, tmp_path)]), BadInput, "holds none of training.h5")
    refused(lambda: so2sat.survey([(None, tmp_path / "training.h5")]), BadInput, "training.h5: is no HDF5 file")
    write_so2sat(tmp_path, {"training": 3, "other": 2})
    refused(lambda: so2sat.survey([(None, tmp_path / "other.h5")]), BadInput, "split 'other'")
    with h5py.File(tmp_path / "training.h5", "r+") as file:
        file["label"][1] = 0
    refused(lambda: so2sat.survey([(None, tmp_path)]), BadInput, "training.h5::1: has a label that is not one-hot")
    with h5py.File(tmp_path / "training.h5", "r+") as file:
        del file["sen2"]
    refused(
        lambda: so2sat.survey([(None, tmp_path)]), BadInput, "training.h5: has sen2 nowhere, expected (3, 32, 32, 10)"
    )


# ---- SEN12MS

SCENES = [(season, scene) for season in sen12ms.SEASONS for scene in (1, 17, 146, 20, 33)]
# The ten classes and how many of the 17 of IGBP each gathers, in their order (Schmitt and Wu 2021).
RUNS = {
    "Forests": 5,
    "Shrubland": 2,
    "Savanna": 2,
    "Grassland": 1,
    "Wetlands": 1,
    "Croplands": 1,
    "Urban/Built-up": 1,
    "mosaic": 1,
    "Snow/Ice": 1,
    "Barren": 1,
    "Water": 1,
}
SIMPLE = [name.replace("mosaic", "Croplands") for name, run in RUNS.items() for _ in range(run)]


def write_triplet(root: Path, season: str, scene: int, patch: int, k: int) -> str:
    corner = (390_000 + 100 * k, 8_000_000)
    s2 = np.stack([pixels(k, band, (256, 256)) for band in sen12ms.S2.bands])
    s1 = np.stack([-pixels(k, band, (256, 256)).astype(np.float32) / 500 for band in ("VV", "VH")])
    for kind, values in (("s2", s2), ("s1", s1), ("lc", cover(k))):
        path = root / season / f"{kind}_{scene}" / f"{season}_{kind}_{scene}_p{patch}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_band(path, values, corner, 10, 32737)
    return f"{season}_s2_{scene}_p{patch}"


def cover(k: int) -> np.ndarray:
    """40 % one class, 30 % and 15 % of two more, 9 % of a fourth, the rest unclassified; other bands to mislead."""
    igbp = np.full(256 * 256, 255, np.uint16)
    first, *others = quarters(k)
    edges = (np.cumsum([0.4, 0.3, 0.15, 0.09]) * igbp.size).astype(int)
    for begin, end, number in zip([0, *edges], edges, [first, *others], strict=False):
        igbp[begin:end] = number
    return np.stack([igbp, igbp * 0 + 11, igbp * 0 + 12, igbp * 0 + 13]).reshape(4, 256, 256)


def quarters(k: int) -> list[int]:
    return [1 + (k + step) % 17 for step in (0, 9, 4, 13)]


@pytest.fixture(scope="module")
def triplets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sen12ms")
    for k, (season, scene) in enumerate(SCENES[:7]):
        for patch in (30, 31):
            write_triplet(root, season, scene, patch, 2 * k + patch - 30)
    return root


@pytest.mark.parametrize("kind", ["igbp10", "igbp10-single"])
def test_sen12ms(kind: str, triplets: Path, stored: Stored) -> None:
    store = stored(sen12ms.survey([(None, triplets)], kind))
    assert store.layout.classes == IGBP10.names
    assert store.layout.multi_label == (kind == "igbp10")
    names = rows(store)
    for k, (season, scene) in enumerate(SCENES[:7]):
        for patch in (30, 31):
            seed, row = 2 * k + patch - 30, names[f"{season}_s2_{scene}_p{patch}"]
            for band in sen12ms.S2.bands:
                assert np.array_equal(band_of(store, row, band), pixels(seed, band, (256, 256)))
            for band in ("VV", "VH"):
                assert np.array_equal(
                    band_of(store, row, band), -pixels(seed, band, (256, 256)).astype(np.float32) / 500
                )
            shares: dict[str, float] = {}
            for number, share in zip(quarters(seed), (0.4, 0.3, 0.15, 0.09), strict=True):
                shares[SIMPLE[number - 1]] = shares.get(SIMPLE[number - 1], 0) + share
            many = {name for name, share in shares.items() if share >= 0.1}
            assert labels(store, row) == (many if kind == "igbp10" else {max(shares, key=lambda name: shares[name])})
            assert store.column("crs")[row] == "EPSG:32737"
            assert store.column("origin")[row].tolist() == [390_000 + 100 * seed, 8_000_000]
            assert store.column("tile")[row] == f"{season[4:8]}_{scene}"


def names_only(root: Path) -> Path:
    """Folders and empty files: a survey reads none."""
    for season, scene in SCENES:
        folder_path = root / season / f"s2_{scene}"
        folder_path.mkdir(parents=True)
        for patch in range(20):
            (folder_path / f"{season}_s2_{scene}_p{patch}.tif").touch()
    (root / "ROIs1868_summer/s2_146/ROIs1868_summer_s2_146_p202.tif").touch()  # damaged as published
    return root


def test_sen12ms_draws_whole_scenes(tmp_path: Path) -> None:
    table = sen12ms.survey([(None, names_only(tmp_path))]).table
    assert len(table) == 400
    scenes = table.groupby("tile")["split"]
    assert (scenes.nunique() == 1).all()
    for season in ("1158", "1868", "1970", "2017"):
        assert sorted(split for tile, split in scenes.first().items() if tile.startswith(season)) == [1, 1, 1, 2, 3]
    other = sen12ms.survey([(None, tmp_path)], seed=1).table
    assert not table["split"].equals(other["split"])


@pytest.mark.parametrize("inner", ["", "splits", "elsewhere"])
def test_sen12ms_by_the_official_lists(inner: str, tmp_path: Path) -> None:
    """`val` names part of `train`; some lists name the radar images; without `val`, whole scenes of `train` are drawn."""
    root = names_only(tmp_path / "data")
    table = sen12ms.survey([(None, root)]).table
    test, val = table["tile"].isin(["1158_1", "2017_33"]), table["tile"].isin(["1868_17"])
    where = root / inner if inner != "elsewhere" else tmp_path / inner
    listed = {"train_list": table["name"][~test], "test_list": table["name"][test].str.replace("_s2_", "_s1_")}
    write_lists(where, {key: [f"{n}.tif" for n in names] for key, names in listed.items()}, "txt")

    def found() -> pd.Series:
        return sen12ms.survey([(None, root)], lists=where if inner == "elsewhere" else None).table["split"]

    drawn = found()
    assert (drawn[test] == CODES["test"]).all()
    assert (drawn[~test] != CODES["test"]).all()
    tiles = table["tile"][drawn == CODES["val"]].value_counts()
    assert (tiles == 20).all()
    assert len(tiles) == 2  # of 18
    write_lists(where, {"val_list": [f"{n}.tif" for n in table["name"][val]]}, "txt")
    assert found().tolist() == np.select([test, val], [3, 2], 1).tolist()
    write_lists(where, {"train_list": list(table["name"])}, "txt")
    refused(found, BadInput, "train_list.txt: lists", "'test' has already")


def test_sen12ms_refused(tmp_path: Path, triplets: Path) -> None:
    def run(change: Callable[[Path], object]) -> Callable[[], object]:
        shutil.rmtree(tmp_path / "x", ignore_errors=True)
        shutil.copytree(triplets / "ROIs1158_spring", tmp_path / "x/ROIs1158_spring")
        change(tmp_path / "x/ROIs1158_spring")
        (tmp_path / "s.h5.partial").unlink(missing_ok=True)
        return lambda: prepare(sen12ms.survey([(None, tmp_path / "x")]), tmp_path / "s.h5")

    refused(lambda: sen12ms.survey([(None, tmp_path / "nowhere")]), BadInput, "no such folder")
    refused(lambda: sen12ms.survey([(None, tmp_path)]), BadInput, "ROIs1158_spring/s2_1")
    refused(lambda: sen12ms.survey([(None, triplets)], "clc43"), UnknownName, "igbp10")
    refused(lambda: sen12ms.survey([(None, triplets)], lists=tmp_path), BadInput, "holds no train_list.txt")
    radar = "s1_17/ROIs1158_spring_s1_17_p30.tif"
    refused(run(lambda root: (root / radar).unlink()), LandscaleError, f"{radar}: cannot be read")
    nothing = np.zeros((4, 256, 256), np.uint16)
    land = "lc_1/ROIs1158_spring_lc_1_p31.tif"
    refused(
        run(lambda root: write_band(root / land, nothing, (0, 0), 10, 32737)),
        LandscaleError,
        f"{land}: holds no class of IGBP",
    )
    refused(
        run(lambda root: write_band(root / land, nothing[:1], (0, 0), 10, 32737)),
        LandscaleError,
        "is 1×256×256, expected 4×256×256",
    )
    optical = "s2_1/ROIs1158_spring_s2_1_p30.tif"
    refused(
        run(lambda root: write_band(root / optical, np.zeros((12, 256, 256), np.uint16), (0, 0), 10, 32737)),
        LandscaleError,
        f"{optical}: has 12 bands, expected 13",
    )


# ---- TorchGeo


class Fake:
    """A dataset as TorchGeo's: what it needs of torch is that a sample becomes an array."""

    classes = ("sea", "land", "ice")
    all_band_names = ("B02", "B8A")
    sizes = MappingProxyType({"train": 9, "val": 3, "test": 2})

    def __init__(self, root: str = "data", split: str = "train", download: bool = False) -> None:
        assert split in self.sizes
        if not Path(root).is_dir():
            raise FileNotFoundError(f"Dataset not found in `root={root!r}`")
        assert not download
        self.split, self.size = split, self.sizes[split]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return {"image": self.image(k), "label": np.array(k % 3)}

    def image(self, k: int) -> np.ndarray:
        seed = 100 * list(self.sizes).index(self.split) + k
        return np.stack([pixels(seed, band, (8, 8)) for band in self.all_band_names]).astype(np.float32)


class FakeMulti(Fake):
    """No splits of its own, multi-hot labels, reflectance, three bands without names."""

    all_band_names = ("x", "y", "z")

    def __init__(self, root: str = "data") -> None:
        super().__init__(root)

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return {"image": self.image(k) / 10_000, "label": np.array([k % 2, 1, k == 4])}


class FakeMasks(Fake):
    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return {"image": self.image(k), "mask": self.image(k)[0]}


class FakeBad(Fake):
    """The last image of the train split is not as the first ones are."""

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        if self.split == "train" or k == 0:
            return super().__getitem__(k)
        return {"image": self.image(k) + 0.5, "label": np.array(k % 3)}


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    package, datasets = types.ModuleType("torchgeo"), types.ModuleType("torchgeo.datasets")
    package.__version__, package.datasets = "0.0", datasets  # type: ignore[attr-defined]
    kinds = (Fake, FakeMulti, FakeMasks, FakeBad)
    datasets.__all__ = [kind.__name__ for kind in kinds]  # type: ignore[attr-defined]
    for kind in kinds:
        setattr(datasets, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "torchgeo", package)
    monkeypatch.setitem(sys.modules, "torchgeo.datasets", datasets)
    torchgeo._dataset.cache_clear()


@pytest.mark.usefixtures("fakes")
def test_torchgeo(tmp_path: Path, stored: Stored) -> None:
    store = stored(torchgeo.survey([(None, Path("Fake")), (None, tmp_path)]))
    assert (store.layout.classes, store.layout.multi_label) == (("sea", "land", "ice"), False)
    assert (store.layout.bands, store.layout.planes[0].dtype) == (("B02", "B8A"), "uint16")
    assert store.split_sizes() == Fake.sizes
    for name, row in rows(store).items():
        split, _, k = name.partition("_")
        assert labels(store, row) == {Fake.classes[int(k) % 3]}
        for band in ("B02", "B8A"):
            expected = pixels(100 * list(Fake.sizes).index(split) + int(k), band, (8, 8))
            assert np.array_equal(band_of(store, row, band), expected)


@pytest.mark.usefixtures("fakes")
def test_torchgeo_multi_label_without_splits(tmp_path: Path, stored: Stored) -> None:
    store = stored(torchgeo.survey([(None, Path("FakeMulti")), (None, tmp_path)], bands="B11,B12,B8A"))
    assert (store.layout.bands, store.layout.planes[0].dtype) == (("B11", "B12", "B8A"), "float32")
    assert store.layout.multi_label
    assert store.split_sizes() == {"train": 5, "val": 2, "test": 2}
    for k in range(9):
        row = rows(store)[f"{k}"]
        assert labels(store, row) == {"land"} | ({"sea"} if k % 2 else set()) | ({"ice"} if k == 4 else set())
        assert np.array_equal(band_of(store, row, "B12"), pixels(k, "y", (8, 8)).astype(np.float32) / 10_000)


@pytest.mark.usefixtures("fakes")
def test_torchgeo_refused(tmp_path: Path) -> None:
    def of(name: str, root: Path = tmp_path) -> Callable[[], object]:
        return lambda: prepare(torchgeo.survey([(None, Path(name)), (None, root)]), tmp_path / "s.h5")

    refused(of("Fakes"), UnknownName, "dataset of TorchGeo 'Fakes'", "Fake")
    refused(of("Fake", tmp_path / "nowhere"), BadInput, "nowhere: TorchGeo does not find Fake there")
    refused(of("FakeMasks"), BadInput, "FakeMasks train[0]: holds image, mask")
    refused(of("FakeBad"), LandscaleError, "FakeBad val[1]: holds pixels that are no whole numbers")
    refused(lambda: torchgeo.survey([(None, Path("Fake"))]), LandscaleError, "a dataset and its folder")


def test_without_torchgeo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchgeo.datasets", None)
    inputs = [(None, Path("EuroSAT")), (None, tmp_path)]
    refused(lambda: torchgeo.survey(inputs), LandscaleError, "pip install torchgeo")
