"""Tables of images as programs and spreadsheets write them: each is read as it is meant, or refused in one line."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from landscale.datasets import folder
from landscale.datasets.image_tables import read_image_table
from landscale.errors import BadInput

TWO, ONE = ("Forest", "Water"), ("Forest",)


def image_files(root: Path) -> None:
    for name in "ab":
        (root / f"{name}.tif").touch()


def table(root: Path, content: str | bytes) -> Path:
    image_files(root)
    path = root / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


READ = {
    "separated by ;": "path,labels\na.tif,Forest;Water\nb.tif,Forest\n",
    "separated by |": "path,labels\na.tif,Forest|Water\nb.tif,Forest\n",
    "lists of Python": "path,labels\na.tif,\"['Forest', 'Water']\"\nb.tif,['Forest']\n",
    "tuples of Python": "path,labels\na.tif,\"('Forest', 'Water')\"\nb.tif,\"('Forest',)\"\n",
    "arrays of NumPy": "path,labels\na.tif,['Forest' 'Water']\nb.tif,['Forest']\n",
    "arrays in two lines": "path,labels\na.tif,\"['Forest'\n 'Water']\"\nb.tif,['Forest']\n",
    "JSON": 'path,labels\na.tif,"[""Forest"", ""Water""]"\nb.tif,"[""Forest""]"\n',
    "capitals and blanks": " Path , LABELS \n a.tif , Forest ; Water \nb.tif,Forest\n",
    "semicolons": "path;labels\na.tif;Forest|Water\nb.tif;Forest\n",
    "tabs": "path\tlabels\na.tif\tForest;Water\nb.tif\tForest\n",
    "empty lines and CRLF": "\r\npath,labels\r\n\r\na.tif,Forest;Water\r\n,\r\nb.tif,Forest\r\n",
    "a byte order mark": codecs.BOM_UTF8 + b"path,labels\na.tif,Forest;Water\nb.tif,Forest\n",
    "UTF-16 of a spreadsheet": "path\tlabels\na.tif\tForest;Water\nb.tif\tForest\n".encode("utf-16"),
    "the index of pandas": ",path,labels\n0,a.tif,Forest;Water\n1,b.tif,Forest\n",
    "quotes": '"path","labels"\n"a.tif","Forest;Water"\n"b.tif","Forest"\n',
    "columns of 0 and 1": "path,Forest,Water\na.tif,1,1.0\nb.tif,True,0\n",
    "decimal commas": "path;Forest;Water\na.tif;1,0;1,0\nb.tif;1,0;0,0\n",
    "paths of Windows": "path,labels\n.\\a.tif,Forest;Water\n.\\b.tif,Forest\n",
}


@pytest.mark.parametrize("case", READ)
def test_several_classes_for_each_image(case: str, tmp_path: Path) -> None:
    found = read_image_table(table(tmp_path, READ[case]))
    assert (found.labels, found.classes, found.multi_label) == ([TWO, ONE], {*TWO}, True)
    assert [Path(file).resolve() for file in found.table["location"]] == [tmp_path / "a.tif", tmp_path / "b.tif"]


def test_names_with_commas_and_apostrophes(tmp_path: Path) -> None:
    text = 'path,labels\na.tif,"[""Côte d\'Azur"", \'Transitional woodland, shrub\']"\nb.tif,"Transitional woodland, shrub"\n'
    assert read_image_table(table(tmp_path, text)).labels == [
        ("Côte d'Azur", "Transitional woodland, shrub"),
        ("Transitional woodland, shrub",),
    ]


@pytest.mark.parametrize("name", ["label", "Label", " label", "CLASS", "category"])
@pytest.mark.parametrize("words", [("0", "1"), ("0.0", "1.0"), ("['0']", "[1]")])
def test_a_column_of_one_class_is_not_a_class(name: str, words: tuple[str, str], tmp_path: Path) -> None:
    found = read_image_table(table(tmp_path, f"path,{name},Split\na.tif,{words[0]},Train\nb.tif,{words[1]},test\n"))
    assert (found.labels, found.multi_label) == ([("0",), ("1",)], False)
    assert found.table["split"].tolist() == [1, 3]


REFUSED = {
    "no header": ("a.tif,0\nb.tif,1\n", "has no header: its first row is a.tif,0"),
    "commas between classes": (
        'path,labels\na.tif,"Forest,Water"\nb.tif,Forest\n',
        "'Forest,Water' may be one class or",
    ),
    "commas in the column of one": (
        'path,label\na.tif,"Forest, Water"\nb.tif,Forest\n',
        "'Forest, Water' may be one class",
    ),
    "blanks between classes": ("path,labels\na.tif,Forest Water\nb.tif,Forest\n", "'Forest Water' may be one class or"),
    "a bracket without quotes": ("path,labels\na.tif,[Forest Water]\nb.tif,[]\n", "can be read in two ways"),
    "a vector": ("path,labels\na.tif,[0 1 0]\nb.tif,[1 0 0]\n", "a cell has '0' twice"),
    "several in the column of one": ("path,label\na.tif,Forest;Water\nb.tif,Forest\n", "call the column 'labels'"),
    "a fraction": ("path,label\na.tif,0.5\nb.tif,1\n", "0.5 is neither a name nor a whole number"),
    "a column of 0 and 1": ("path,target\na.tif,0\nb.tif,1\n", "call it 'label' if these are two classes"),
    "two columns of classes": ("path,label,Labels\na.tif,x,x\nb.tif,x,x\n", "columns label and Labels"),
    "two columns of a name": ("path,Label,label\na.tif,x,x\nb.tif,x,x\n", "several columns called label"),
    "fewer cells": ("path,label,split\na.tif,x,train\nb.tif,y\n", "line 3 has 2 cells, the header has 3"),
    "more cells": ("path,label\na.tif,x\nb.tif,y,z\n", "line 3 has 3 cells, the header has 2"),
    "an open quote": ('path,label\na.tif,"x\nb.tif,y\n', "cannot be read as a table: line 3"),
    "Latin-1": ("path,label\na.tif,Gewässer\n".encode("latin-1"), "is not UTF-8 text (byte 0xe4 at 20)"),
    "missing images": ("path,label\nx/1.tif,x\nx/2.tif,y\nb.tif,y\n", "lists 3 images, of which 2 do not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused(case: str, tmp_path: Path) -> None:
    content, problem = REFUSED[case]
    with pytest.raises(BadInput) as caught:
        read_image_table(table(tmp_path, content))
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_classes_that_differ_in_capitals_only_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label\na.tif,Forest\nb.tif,forest\n")
    with pytest.raises(BadInput, match="classes 'Forest' and 'forest', which differ in capitals or blanks only"):
        folder.survey([(None, path)])


@pytest.mark.parametrize(
    "labels", [[["Forest", "Water"], ["Forest"]], [np.array(["Forest", "Water"]), np.array(["Forest"])], None]
)
def test_parquet(labels: list | None, tmp_path: Path) -> None:
    image_files(tmp_path)
    frame = pd.DataFrame({"Path": ["a.tif", "b.tif"], "Labels": labels or ["['Forest', 'Water']", "Forest"]})
    frame.set_index("Path").to_parquet(tmp_path / "t.parquet")
    assert read_image_table(tmp_path / "t.parquet").labels == [TWO, ONE]


def test_parquet_with_numbers(tmp_path: Path) -> None:
    image_files(tmp_path)
    pd.DataFrame({"path": ["a.tif", "b.tif"], "label": [10.0, 2.0]}).to_parquet(tmp_path / "t.parquet")
    assert read_image_table(tmp_path / "t.parquet").labels == [("10",), ("2",)]


def test_a_table_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(BadInput, match="is not a regular file"):
        read_image_table(tmp_path / "t.csv")
