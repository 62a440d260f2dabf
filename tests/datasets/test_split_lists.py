"""Lists of splits: names with dots, `valid.txt`, and lists that match nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from landscale.datasets.splits import choose_splits, read_list, split_lists
from landscale.errors import BadInput
from landscale.store import SPLITS

NAMES = pd.Series(["Forest_0.5m_1", "Forest_0.5m_2", "Lake_1"])


def splits(folder: Path) -> list[str]:
    codes = choose_splits(NAMES, np.zeros(3, np.int64), (None, folder), folder, 0)
    return [SPLITS[code] for code in codes]


@pytest.mark.parametrize("suffix", ["", ".jpg", ".TIF"])
def test_a_dot_in_a_name_is_no_suffix(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "train.txt").write_text(f"classes/Forest_0.5m_1{suffix}\nLake_1{suffix}\n")
    assert read_list(tmp_path / "train.txt") == {"Forest_0.5m_1", "Lake_1"}
    assert splits(tmp_path) == ["train", "none", "train"]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_all_names_of_the_validation_list(tmp_path: Path, name: str) -> None:
    (tmp_path / f"my-{name}.txt").write_text("Lake_1\n")
    assert split_lists(tmp_path) == {"val": tmp_path / f"my-{name}.txt"}
    assert splits(tmp_path) == ["none", "none", "val"]


def test_lists_that_match_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("Lake-1\nLake-2\n")
    problem = r"none of the 2 listed names, such as Lake-1, is among the patches, such as Forest_0\.5m_1"
    with pytest.raises(BadInput, match=problem):
        splits(tmp_path)


LISTS = {
    "commas": "Lake_1.png,lake\n",
    "semicolons": "Lake_1.png;lake\n",
    "tabs": "Lake_1.png\tlake\n",
    "quotes": '"Lake_1.png","a, b"\n',
    "the index of pandas": ",name\n0,Lake_1\n",
    "a column of names": "split;File;x\ntrain;a/Lake_1.png;2\n",
    "UTF-16": "Lake_1\r\n".encode("utf-16"),
    "a mark and empty lines": b"\xef\xbb\xbf\r\n\r\nLake_1\r\n\r\n",
    "paths of Windows": "a\\Lake_1.png\n",
}


@pytest.mark.parametrize("case", LISTS)
def test_lists_as_programs_and_spreadsheets_write_them(case: str, tmp_path: Path) -> None:
    content = LISTS[case]
    (tmp_path / "train.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert splits(tmp_path) == ["none", "none", "train"]
