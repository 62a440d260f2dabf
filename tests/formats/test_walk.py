"""Links to folders are followed, without end where they lead back; hidden folders are left out."""

from __future__ import annotations

import zipfile
from pathlib import Path

from landscale.formats.walk import files_below
from landscale.formats.zip_or_folder import list_members


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_links_are_followed_and_hidden_names_left_out(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("forest/a.png", "forest/.hidden.png", ".ipynb_checkpoints/a.png", "forest/.thumbs/a.png"):
        touch(data / name)
    touch(tmp_path / "elsewhere" / "b.png")
    (data / "lake").symlink_to(tmp_path / "elsewhere")
    (data / "again").symlink_to(data / "lake")
    (data / "forest" / "up").symlink_to(data)
    (data / "forest" / "self").symlink_to(data / "forest")
    found = [path.relative_to(data).as_posix() for path in files_below(data)]
    assert found == ["again/b.png", "forest/a.png", "lake/b.png"]
    (tmp_path / "link").symlink_to(data)
    assert [str(member) for member, _ in list_members(tmp_path / "link", {".png"})] == found


def test_hidden_members_of_a_zip_are_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("forest/a.png", "forest/._a.png", "__MACOSX/forest/a.png", ".Trash/a.png"):
            archive.writestr(name, b"x")
    assert [str(member) for member, _ in list_members(tmp_path / "x.zip", {".png"})] == ["forest/a.png"]
