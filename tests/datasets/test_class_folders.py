"""Folders of classes: the layout is that of most images, and folders that are something else are refused or reported."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Cli
from landscale.datasets import folder
from landscale.errors import BadInput
from landscale.store import open_store
from landscale.testing import check_store


def picture(path: Path, side: int = 8, value: int = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(path)


def classes(root: Path, each: int = 4) -> Path:
    for name in ("lake", "wood"):
        for k in range(each):
            picture(root / name / f"{k}.png")
    return root


def odd(path: Path) -> None:
    picture(path, 5)


@pytest.mark.parametrize(
    "spoil,problem", [(lambda path: path.write_bytes(b""), "is empty"), (odd, "is 5×5 RGB, expected 8×8 RGB")]
)
def test_a_bad_or_odd_first_image_does_not_decide(spoil: object, problem: str, tmp_path: Path, cli: Cli) -> None:
    root = classes(tmp_path / "in")
    spoil(root / "lake/0.png")  # type: ignore[operator]
    words = ("prepare", "folder", root, tmp_path / "s.h5", "--workers", 1)
    strict = cli(*words)
    assert (strict.code, problem in strict.lines[0], "--skip-bad" in strict.lines[0]) == (2, True, True)
    answer = cli(*words, "--skip-bad", "--json")
    assert (answer.code, answer.json["patches"]) == (0, 8)
    assert answer.json["skipped"] == ["lake/0"]
    assert open_store(tmp_path / "s.h5").layout.side == 8


def test_a_bad_first_image_of_a_table(tmp_path: Path, cli: Cli) -> None:
    root = classes(tmp_path / "in")
    (root / "lake/0.png").write_text("404")
    files = sorted(root.glob("*/*.png"))
    (root / "t.csv").write_text("\n".join(["path,label", *(f"{p.relative_to(root)},{p.parent.name}" for p in files)]))
    answer = cli("prepare", "folder", root / "t.csv", tmp_path / "s.h5", "--workers", 1, "--skip-bad", "--json")
    assert (answer.code, answer.json["skipped"]) == (0, ["lake/0"])


def test_two_kinds_of_images_are_refused(tmp_path: Path) -> None:
    root = classes(tmp_path)
    for k in range(4):
        odd(root / "wood" / f"{k}.png")
    with pytest.raises(
        BadInput, match=r"wood/0\.png: is 5×5×3 uint8, but .*lake/0\.png is 8×8×3 uint8; prepare a store"
    ):
        folder.survey([(None, root)])


def test_no_image_that_can_be_read(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").touch()
    with pytest.raises(BadInput, match=r"a/0\.png: is empty"):
        folder.survey([(None, tmp_path)])


def test_a_folder_above_the_classes_is_refused(tmp_path: Path) -> None:
    classes(tmp_path / "EuroSAT")
    with pytest.raises(BadInput, match=r"one folder with images, 'EuroSAT', .* give .*/EuroSAT"):
        folder.survey([(None, tmp_path)])


def test_images_of_one_class_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "lake/0.png")
    with pytest.raises(BadInput, match="has images of one class only, 'lake'"):
        folder.survey([(None, tmp_path)])


def test_folders_of_splits_beside_another_folder_are_refused(tmp_path: Path) -> None:
    for name in ("train", "test"):
        classes(tmp_path / name)
    picture(tmp_path / "docs/figure.png")
    with pytest.raises(BadInput, match=r"has folders of splits, not of classes; give each as an input: test=.* train="):
        folder.survey([(None, tmp_path)])


def test_a_folder_of_two_data_sets_is_reported(tmp_path: Path) -> None:
    classes(tmp_path / "EuroSAT")
    classes(tmp_path / "UCMerced")
    (note,) = folder.survey([(None, tmp_path)]).notes
    assert note == f"{tmp_path}: the images in 2 folders of EuroSAT (lake, wood) are all of the class EuroSAT"


def test_images_outside_the_classes_and_odd_classes_are_reported(tmp_path: Path, cli: Cli) -> None:
    root = classes(tmp_path / "in", each=20)
    picture(root / "overview.png")
    picture(root / "docs/figure.png")
    answer = cli("prepare", "folder", root, tmp_path / "s.h5", "--workers", 1)
    assert answer.code == 0
    assert answer.lines[-2:] == [
        f"note: {root}: 1 images in no folder of a class are left out, such as overview.png",
        f"note: {root}: the folder docs has 1 images, most have 20; it is a class, too",
    ]


def test_ordinary_folders_have_no_notes(tmp_path: Path) -> None:
    assert folder.survey([(None, classes(tmp_path))]).notes == ()


@pytest.mark.parametrize("packed", [False, True])
def test_images_without_folders_give_a_store_without_labels_for_training_without_them(
    packed: bool, tmp_path: Path, cli: Cli
) -> None:
    root, store, run = tmp_path / "tiles", tmp_path / "s.h5", tmp_path / "run"
    for k in range(8):
        picture(root / f"{k}.png", value=20 * k)
    given = Path(shutil.make_archive(str(root), "zip", root)) if packed else root
    answer = cli("prepare", "folder", given, store, "--workers", 1)
    note = (
        f"note: {given}: 8 images in no folder of a class: they have no labels, and can be used by `landscale pretrain`"
    )
    assert (answer.code, note in answer.lines) == (0, True)
    opened = open_store(store)
    check_store(opened)
    assert (opened.layout.classes, opened.layout.nomenclature, opened.split_sizes()) == ((), "none", {"train": 8})
    assert "no labels" in cli("info", store).out
    assert cli("verify", store).code == 0
    words = ("--store", store, "--bands", "rgb", "--epochs", 1, "--batch", 4)
    assert cli("pretrain", *words, "--run", run, "--expander", 8).code == 0
    assert "no classes" in cli("info", run).out
    refusal = cli("train", *words, "--run", tmp_path / "other")
    assert (refusal.code, "has no classes to learn" in refusal.lines[-1], (tmp_path / "other").exists()) == (
        2,
        True,
        False,
    )


def test_the_split_of_images_without_labels_may_be_given(tmp_path: Path) -> None:
    for k in range(4):
        picture(tmp_path / f"{k}.png")
    assert [*folder.survey([("val", tmp_path)]).table["split"]] == [2, 2, 2, 2]


def test_inputs_with_and_without_labels_are_refused(tmp_path: Path) -> None:
    labelled = classes(tmp_path / "in")
    picture(tmp_path / "out/0.png")
    with pytest.raises(BadInput, match="in: some inputs have labels and others have none"):
        folder.survey([("val", tmp_path / "out"), ("train", labelled)])


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no \.jpeg"):
        folder.survey([(None, tmp_path)])
