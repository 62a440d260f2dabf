"""EuroSAT, prepared by the command: every pixel, label and split is stored under the name of its patch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from archives import MS_ORDER, pixels, write_eurosat, write_lists
from conftest import Cli
from landscale.datasets import eurosat as eurosat_source
from landscale.datasets.splits import DRAWN_FRACTIONS, draw_splits
from landscale.store import open_store
from landscale.vocabulary.nomenclatures import EUROSAT10
from surveys import band_of, labels, row_of, splits

Prepared = Callable[..., Path]


def test_pixels_and_classes_of_the_rgb_images(eurosat: Path, prepared: Prepared) -> None:
    store = open_store(prepared("eurosat", eurosat))
    assert len(store) == 50
    assert store.layout.classes == EUROSAT10.names
    assert not store.layout.multi_label
    assert store.summary()["bands"] == ["B02", "B03", "B04"]
    assert store.layout.side == 64
    assert ({*store.layout.units().values()}, store.layout.level) == ({"8-bit"}, "L1C")
    assert store.layout.stretches() == {"data_10m": 2750}
    for name, row in row_of(store).items():
        assert labels(store, row) == {name.split("_")[0]}
        with Image.open(eurosat / name.split("_")[0] / f"{name}.jpg") as image:
            red, green, blue = np.asarray(image).transpose(2, 0, 1)
        assert np.array_equal(band_of(store, row, "B04"), red)
        assert np.array_equal(band_of(store, row, "B03"), green)
        assert np.array_equal(band_of(store, row, "B02"), blue)
        assert not np.array_equal(red, blue)


def test_a_folder_a_zip_and_a_parent_folder_give_the_same_store(
    eurosat: Path, eurosat_zip: Path, prepared: Prepared
) -> None:
    folder = prepared("eurosat", eurosat, name="folder.h5").read_bytes()
    assert prepared("eurosat", eurosat_zip, name="zip.h5").read_bytes() == folder
    assert prepared("eurosat", eurosat.parent, name="parent.h5").read_bytes() == folder


def test_the_13_bands_are_stored_by_name(eurosat_ms: Path, prepared: Prepared, tmp_path: Path) -> None:
    store = open_store(prepared("eurosat", eurosat_ms))
    assert len(store) == 20
    assert ({*store.layout.units().values()}, store.layout.level) == ({"digital number"}, "L1C")
    assert store.summary()["bands"] == [f"B{k:02d}" for k in range(1, 9)] + ["B8A", "B09", "B10", "B11", "B12"]
    for name, row in row_of(store).items():
        klass, k = name.split("_")
        seed = 100 * EUROSAT10.names.index(klass) + int(k)
        assert labels(store, row) == {klass}
        for band in MS_ORDER:
            assert np.array_equal(band_of(store, row, band), pixels(seed, band, (64, 64)))
        assert store.column("crs")[row] == "EPSG:32631"
        assert store.column("origin")[row].tolist() == [341_280.39 + int(k), 5_709_712.74]
    packed = Path(shutil.make_archive(str(tmp_path / "EuroSAT_MS"), "zip", eurosat_ms.parent, eurosat_ms.name))
    assert prepared("eurosat", packed, name="zip.h5").read_bytes() == store.path.read_bytes()


def test_extra_files_in_a_zip_from_macos_are_ignored(eurosat: Path, tmp_path: Path, prepared: Prepared) -> None:
    shutil.copytree(eurosat / "River", tmp_path / "x/EuroSAT_RGB/River")
    extra = tmp_path / "x/__MACOSX/EuroSAT_RGB/River/._River_1.jpg"
    extra.parent.mkdir(parents=True)
    extra.write_bytes(b"\0\5\x16\7")
    store = open_store(prepared("eurosat", shutil.make_archive(str(tmp_path / "mac"), "zip", tmp_path / "x")))
    assert sorted(row_of(store)) == [f"River_{k}" for k in range(1, 6)]


def test_splits_by_lists(eurosat: Path, tmp_path: Path, prepared: Prepared) -> None:
    """The lists of Neumann et al. have file names with suffixes."""
    names = sorted(p.name for p in eurosat.rglob("*.jpg"))
    lists = {"eurosat-train": names[:30], "eurosat-val": names[30:35], "eurosat-test": names[35:49]}
    folder = write_lists(tmp_path / "lists", lists, "txt")
    found = splits(open_store(prepared("eurosat", eurosat, "--lists", folder)))
    assert [found[name.removesuffix(".jpg")] for name in names] == [1] * 30 + [2] * 5 + [3] * 14 + [0]


def test_an_input_may_be_given_a_split(eurosat: Path, eurosat_zip: Path, tmp_path: Path, prepared: Prepared) -> None:
    other = write_eurosat(tmp_path / "o", each=1, classes=["Forest"])
    (other / "Forest/Forest_1.jpg").rename(other / "Forest/Forest_99.jpg")
    store = open_store(prepared("eurosat", f"train={eurosat_zip}", f"test={other}"))
    assert store.split_sizes() == {"train": 50, "test": 1}
    assert splits(store)["Forest_99"] == 3


def test_splits_are_drawn_by_the_seed_in_each_class(eurosat: Path, prepared: Prepared) -> None:
    first, again, other = (
        splits(open_store(prepared("eurosat", eurosat, "--seed", seed, name=f"{k}.h5")))
        for k, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert first != other
    for found in (first, other):
        for name in EUROSAT10.names:
            class_splits = [split for patch, split in found.items() if patch.split("_")[0] == name]
            assert sorted(class_splits) == [1, 1, 1, 2, 3]


@settings(max_examples=25)
@given(st.data())
def test_drawn_splits_do_not_depend_on_the_order_of_files(tmp_path: Path, data: st.DataObject) -> None:
    """They depend only on the seed and on the names of the patches of a class."""
    sizes = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    members = [
        (f"{EUROSAT10.names[c]}_{k}", f"{c}/{k}", c, ".jpg") for c, size in enumerate(sizes) for k in range(size)
    ]
    seed = data.draw(st.integers(0, 5))

    def survey_splits(listed: list[tuple[str, str, int, str]]) -> dict[str, int]:
        with pytest.MonkeyPatch.context() as patch:
            files = [(f"{w.split('/')[0]}", n) for n, w, *_ in listed]
            patch.setattr(
                "landscale.formats.zip_or_folder.files_below",
                lambda folder: [folder / EUROSAT10.names[int(c)] / f"{n}.jpg" for c, n in files],
            )
            survey = eurosat_source.survey([(None, tmp_path)], None, seed)
        return dict(zip(survey.table["name"], survey.table["split"].tolist(), strict=True))

    shuffled = data.draw(st.permutations(members))
    found = survey_splits(members)
    assert survey_splits(shuffled) == found
    for c, size in enumerate(sizes):
        counts = np.bincount([s for n, s in found.items() if n.startswith(EUROSAT10.names[c])], minlength=4)
        assert counts[0] == 0
        assert np.abs(counts[1:] - size * np.array([0.6, 0.2, 0.2])).max() <= 1


EUROSAT_REFUSED = {
    "an unknown class": ("Foresst/Foresst_1.jpg", "did you mean Forest"),
    "JPEG and GeoTIFF": ("Forest/Forest_9.tif", "has both JPEGs and GeoTIFFs"),
}


@pytest.mark.parametrize("case", EUROSAT_REFUSED)
def test_wrong_folders_and_files_are_refused(case: str, tmp_path: Path, cli: Cli) -> None:
    extra, problem = EUROSAT_REFUSED[case]
    root = write_eurosat(tmp_path, each=1, classes=["Forest"])
    (root / extra).parent.mkdir(exist_ok=True)
    (root / extra).touch()
    answer = cli("prepare", "eurosat", root, tmp_path / "s.h5")
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert problem in answer.lines[0]


def test_inputs_without_images_are_refused(eurosat: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "empty").mkdir()
    for path, problem in (
        (tmp_path / "empty", "has no .jpg or .tif"),
        (tmp_path / "nowhere.zip", "not a complete zip"),
        (tmp_path / "nowhere", "no such folder or zip"),
    ):
        answer = cli("prepare", "eurosat", path, tmp_path / "s.h5")
        assert (answer.code, len(answer.lines)) == (2, 1)
        assert answer.lines[0].startswith(f"landscale: {path}: ")
        assert problem in answer.lines[0]
    answer = cli("prepare", "eurosat", eurosat, tmp_path / "s.h5", "--lists", tmp_path / "empty")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert answer.lines[0].startswith(f"landscale: {tmp_path / 'empty'}: ")
    assert "list named train, val or test" in answer.lines[0]


def test_draw_splits_by_group_and_fraction() -> None:
    groups = np.repeat([4, 0, 9], [10, 25, 1])
    found = draw_splits(groups, 0)
    assert np.array_equal(found, draw_splits(groups, 0))
    assert not np.array_equal(found, draw_splits(groups, 1))
    for group, size in ((4, 10), (0, 25)):
        counts = np.bincount(found[groups == group], minlength=4)
        assert counts.tolist() == [0, *(round(size * fraction) for fraction in DRAWN_FRACTIONS.values())]
    tenth = draw_splits(np.zeros(20, np.int64), 0, {"train": 0.9, "val": 0.1})
    assert np.bincount(tenth, minlength=4).tolist() == [0, 18, 2, 0]
