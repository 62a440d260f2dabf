"""JSON files are read as they were written, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from landscale.errors import BadInput
from landscale.runtime.documents import read_json, read_json_object, write_json


def test_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"name": "Wälder", "count": 3})
    assert (
        read_json(path) == read_json_object(str(path), "a count", ("name", "count")) == {"name": "Wälder", "count": 3}
    )
    assert "Wälder" in path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_invalid_json_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.json: is not valid JSON") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_json(tmp_path / "none.json")
    with pytest.raises(BadInput, match="is not a regular file"):
        read_json(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], r"is not a count: found JSON of type list, expected an object"),
        (None, r"is not a count: found JSON of type NoneType, expected an object"),
        ({"b": 1}, r"is not a count: it lacks a, c"),
    ],
)
def test_other_json_than_expected_is_refused(content: object, problem: str, tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", content)
    with pytest.raises(BadInput, match=problem):
        read_json_object(tmp_path / "a.json", "a count", ("a", "b", "c"))
