"""Folders and zips of images with one subfolder for each class, or without subfolders and labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from landscale.datasets.image_tables import LabelledImages
from landscale.datasets.images import IMAGE_SUFFIXES
from landscale.errors import BadInput
from landscale.formats.names import check_text
from landscale.formats.zip_or_folder import list_members
from landscale.store import SPLITS

_SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_FEW, _MANY = 2, 20  # a class of at most this many images is odd if most classes have at least that many
_SHOWN = 5  # names in a note


def find_class_folders(path: Path) -> LabelledImages:
    """The images of a folder or zip with one subfolder for each class; these may have further subfolders.

    Images in no subfolder have no labels. If there are others, they are left out; otherwise all of them are returned, in train.

    Raises:
        BadInput: no images, images of one class only, or subfolders of splits.
    """
    members = list_members(path, IMAGE_SUFFIXES)
    found = [(member, location) for member, location in members if len(member.parts) > 1]
    outside = [member for member, _ in members if len(member.parts) == 1]
    # Many zips have a single folder at the top.
    while (
        path.suffix == ".zip" and len({m.parts[0] for m, _ in found}) == 1 and all(len(m.parts) > 2 for m, _ in found)
    ):
        found = [(PurePosixPath(*member.parts[1:]), location) for member, location in found]
    if not members:
        raise BadInput(
            path, f"has no {', '.join(sorted(IMAGE_SUFFIXES))}, in folders named after classes or without any"
        )
    check_text((str(member) for member, _ in found or members), path)
    if not found:
        return _unlabelled(path, members)
    labels = [(member.parts[0],) for member, _ in found]
    counts = Counter(label for (label,) in labels)
    _check_folders(path, sorted(counts), {member for member, _ in found})
    names = [member.with_suffix("").as_posix() for member, _ in found]
    table = pd.DataFrame({"name": names, "location": [location for _, location in found]})
    notes = tuple(_notes(path, counts, [member for member, _ in found], outside))
    return LabelledImages(table, labels, {*counts}, multi_label=False, notes=notes)


def _unlabelled(path: Path, members: list[tuple[PurePosixPath, str]]) -> LabelledImages:
    names = [member.stem for member, _ in members]
    table = pd.DataFrame({"name": names, "location": [location for _, location in members]})
    table["split"] = np.uint8(SPLITS.index("train"))
    note = f"{path}: {len(names):,} images in no folder of a class: they have no labels, and can be used by `landscale pretrain`"
    return LabelledImages(table, [()] * len(names), set(), multi_label=True, notes=(note,))


def _check_folders(path: Path, classes: list[str], members: set[PurePosixPath]) -> None:
    splits = [name for name in classes if name.lower() in _SPLIT_FOLDERS]
    if len(splits) > 1 or splits == classes:
        inputs = " ".join(f"{name.lower()}={path / name}" for name in splits)
        raise BadInput(path, f"has folders of splits, not of classes; give each as an input: {inputs}")
    if len(classes) == 1 and all(len(member.parts) > 2 for member in members):
        problem = f"has one folder with images, {classes[0]!r}, which would be the only class"
        raise BadInput(path, f"{problem}; if its folders are the classes, give {path / classes[0]}")


def _notes(path: Path, counts: Counter[str], members: list[PurePosixPath], outside: list[PurePosixPath]) -> list[str]:
    """What may not be meant: images outside the classes, classes of few images, and classes that consist of folders."""
    notes = []
    if outside:
        notes.append(f"{path}: {len(outside):,} images in no folder of a class are left out, such as {outside[0]}")
    usual = float(np.median(list(counts.values())))
    if few := [name for name, count in sorted(counts.items()) if count <= _FEW and usual >= _MANY]:
        notes.append(
            f"{path}: the folder {few[0]} has {counts[few[0]]} images, most have {usual:.0f}; it is a class, too"
        )
    inner: dict[str, set[str]] = {}
    for member in members:
        inner.setdefault(member.parts[0], set()).add(member.parts[1] if len(member.parts) > 2 else "")
    for name, folders in sorted(inner.items()):
        if len(folders) > 1 and "" not in folders:
            some = ", ".join(sorted(folders)[:_SHOWN])
            notes.append(f"{path}: the images in {len(folders)} folders of {name} ({some}) are all of the class {name}")
            break
    return notes
