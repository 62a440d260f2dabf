"""A small UC Merced in its published layout: every pixel, label and split is stored under the name of its patch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archives import write_lists
from landscale.datasets import uc_merced
from landscale.errors import BadInput, LandscaleError, UnknownName
from landscale.preparation import prepare_survey
from landscale.vocabulary.nomenclatures import UCMERCED17, UCMERCED21
from surveys import Stored, band_of, labels, refused, row_of

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
    """The table as spreadsheets write it: tabs, the classes in another order, and one tab too many at the end of a line."""
    names = UCMERCED17.names[::-1]
    lines = ["\t".join(["IMAGE\\LABEL", *names, ""])]
    for c, folder_name in enumerate(UCMERCED21.names):
        for k in range(each):
            flags = ["1" if names.index(n) in multi_label_columns(c, k) else "0" for n in names]
            lines.append("\t".join([f"{folder_name}{k:02d}", *flags, ""]))
    path.write_text("\r\n".join(lines) + "\r\n")


def multi_label_columns(c: int, k: int) -> set[int]:
    return {c % 17, (c + 5 * k) % 17}


def test_pixels_classes_and_size_of_ground(tmp_path: Path, stored: Stored) -> None:
    root = write_uc_merced(tmp_path)
    store = stored(uc_merced.survey([(None, root)]))
    assert (store.layout.classes, store.layout.multi_label) == (UCMERCED21.names, False)
    assert store.layout.ground == pytest.approx(256 * 0.3048)  # one foot per pixel
    assert [plane.key for plane in store.layout.planes] == ["data_0.3048m"]
    assert (store.layout.planes[0].unit, store.layout.level) == ("8-bit", "not applicable")
    assert store.split_sizes() == {"train": 63, "val": 21, "test": 21}
    for c, name in enumerate(UCMERCED21.names):
        for k in range(5):
            row = row_of(store)[f"{name}{k:02d}"]
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
def test_multi_labels_are_read_from_the_table(place: str, tmp_path: Path, stored: Stored) -> None:
    root = write_uc_merced(tmp_path, each=2)
    refused(lambda: uc_merced.survey([(None, root)], "ucmerced17"), BadInput, "has no LandUse_Multilabeled.txt")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    write_multi_labels(tmp_path / place, each=2)
    store = stored(uc_merced.survey([(None, root)], "ucmerced17"))
    assert (store.layout.classes, store.layout.multi_label) == (UCMERCED17.names, True)
    for c, name in enumerate(UCMERCED21.names):
        for k in range(2):
            assert labels(store, row_of(store)[f"{name}{k:02d}"]) == {
                UCMERCED17.names[::-1][i] for i in multi_label_columns(c, k)
            }


def test_splits_by_lists(tmp_path: Path) -> None:
    root = write_uc_merced(tmp_path, each=2)
    names = [f"{name}{k:02d}.tif" for name in UCMERCED21.names for k in range(2)]
    lists = write_lists(
        tmp_path / "l",
        {"uc_merced-train": names[:30], "uc_merced-val": names[30:36], "uc_merced-test": names[36:]},
        "txt",
    )
    table = uc_merced.survey([(None, root)], lists=lists).table.set_index("name")["split"]
    assert [table[name.removesuffix(".tif")] for name in names] == [1] * 30 + [2] * 6 + [3] * 6


def test_wrong_names_and_images_are_refused(tmp_path: Path) -> None:
    root = write_uc_merced(tmp_path, each=2)
    refused(lambda: uc_merced.survey([(None, root)], "ucm17"), UnknownName, "did you mean")
    write_multi_labels(tmp_path / "LandUse_Multilabeled.txt", each=1)
    refused(lambda: uc_merced.survey([(None, root)], "ucmerced17"), BadInput, "does not list agricultural01")
    path = root / "Images/forest/forest00.tif"
    Image.fromarray(aerial(0, 0)[:200, :256]).save(path)
    refused(
        lambda: prepare_survey(uc_merced.survey([(None, root)]), tmp_path / "s.h5"),
        LandscaleError,
        "forest00.tif: is 256×200×3",
    )
    path.rename(root / "Images/forests.tif")
    refused(lambda: uc_merced.survey([(None, root)]), BadInput, "forests.tif")
