"""Files and folders are written completely or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import numpy as np
import pytest

from landscale.errors import BadInput
from landscale.runtime.files import atomic_file, atomic_files, atomic_folder, exclusive_lock
from landscale.runtime.parts import resumable_parts


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_replaced_when_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:  # noqa: PT012
        temporary.write_text("half of two")
        raise RuntimeError
    assert path.read_text() == "one"
    assert names(path.parent) == ["a.txt"]


def test_a_folder_is_replaced_when_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    for content in ("one", "two"):
        with atomic_folder(path) as temporary:
            (temporary / "model").write_text(content)
            (temporary / content).mkdir()
    assert (path / "model").read_text() == "two"
    assert names(path) == ["model", "two"]
    with pytest.raises(RuntimeError), atomic_folder(path) as temporary:  # noqa: PT012
        (temporary / "model").write_text("half of three")
        raise RuntimeError
    assert (path / "model").read_text() == "two"
    assert names(tmp_path) == ["weights"]


def test_temporary_folders_of_a_killed_process_with_the_same_id_are_removed(tmp_path: Path) -> None:
    """In a container the same command gets the same process id again."""
    for end in ("partial", "old"):
        left = tmp_path / f".weights.{os.getpid()}.{end}"
        left.mkdir()
        (left / "junk").touch()
    for content in ("one", "two"):
        with atomic_folder(tmp_path / "weights") as temporary:
            (temporary / "model").write_text(content)
    assert names(tmp_path / "weights") == ["model"]
    assert names(tmp_path) == ["weights"]


def test_a_folder_that_cannot_be_renamed_leaves_the_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    with atomic_folder(path) as temporary:
        (temporary / "model").write_text("one")
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="Input/output"), atomic_folder(path) as temporary:
        (temporary / "model").write_text("two")
    assert (path / "model").read_text() == "one"
    assert names(tmp_path) == ["weights"]


def test_parts_are_kept_until_the_output_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error they are found again, but not with another plan or version, and not by two processes at once."""
    out, array = tmp_path / "deep" / "map.tif", np.arange(6).reshape(2, 3)
    with pytest.raises(RuntimeError), resumable_parts(out, {"a": 1}) as done:  # noqa: PT012
        assert done.get("x") is None
        done.put("x", array)
        raise RuntimeError
    with pytest.raises(RuntimeError), resumable_parts(out, {"a": 1}) as done:  # noqa: PT012
        np.testing.assert_array_equal(done.get("x"), array)
        with pytest.raises(BadInput, match="in use by another process"), resumable_parts(out, {"a": 1}):
            pass
        raise RuntimeError
    with pytest.raises(RuntimeError), resumable_parts(out, {"a": 2}) as done:  # noqa: PT012
        assert done.get("x") is None
        done.put("x", array)
        raise RuntimeError
    monkeypatch.setattr("landscale.runtime.parts.version", lambda _: "0.0.1")
    with resumable_parts(out, {"a": 2}) as done:
        assert done.get("x") is None
        done.put("x", array)
    assert names(out.parent) == []


def test_a_failure_before_the_first_part_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), resumable_parts(tmp_path / "map.tif", {}):
        raise RuntimeError
    assert names(tmp_path) == []


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    others = [".map.tif.7.old", ".map.tif.5.77.partial", ".map.tif.x.partial", "map.tif.7.partial", ".other.7.partial"]
    for name in (".map.tif.7.partial", ".map.tif.7.partial.plain", *others):
        (tmp_path / name).touch()
    (tmp_path / ".map.tif.8.partial").mkdir()
    (tmp_path / ".map.tif.8.partial" / "B01.tif").touch()
    with resumable_parts(out, {}):
        pass
    assert names(tmp_path) == sorted(others)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_reported_in_one_line(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_locks(_handle: int, _operation: int) -> None:
        raise OSError(number, os.strerror(number))

    with exclusive_lock(tmp_path / "lock"):
        assert capsys.readouterr().err == ""
        with pytest.raises(BadInput, match="is in use by another process"), exclusive_lock(tmp_path / "lock"):
            pass
    monkeypatch.setattr(fcntl, "flock", without_locks)
    with exclusive_lock(tmp_path / "lock"):
        (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"landscale: {tmp_path}: its file system has no locks ({os.strerror(number)})")


def test_several_files_appear_together_or_not_at_all(tmp_path):
    old, new = tmp_path / "old.txt", tmp_path / "deep" / "new.txt"
    old.write_text("before")
    with pytest.raises(FileNotFoundError), atomic_files([new, old]) as (first, _):
        first.write_text("after")  # and the other one is not written
    assert old.read_text() == "before"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [old]
    with atomic_files([new, old]) as (first, second):
        first.write_text("one")
        second.write_text("two")
    assert (new.read_text(), old.read_text()) == ("one", "two")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["new.txt", "old.txt"]


def test_parts_of_several_computations_do_not_meet(tmp_path):
    with resumable_parts(tmp_path / "map.tif", {}) as parts:
        parts.put("0", np.zeros(2))
        parts.part_of("a").put("0", np.ones(2))
        assert parts.part_of("b").get("0") is None
        assert (parts.part_of("a").get("0") == 1).all()
        assert (parts.get("0") == 0).all()
