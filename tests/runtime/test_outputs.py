"""A result replaces only an older result of the same command, and never an input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from landscale.errors import BadInput, LandscaleError
from landscale.runtime.outputs import begins_with, check_output

PAGE = begins_with("# Results")


@pytest.mark.parametrize("content", [None, b"", b"# Results\nolder page", b"# Results\r\n"])
def test_new_names_empty_files_and_older_results_may_be_written(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    if content is not None:
        path.write_bytes(content)
    check_output(str(path), "a page", PAGE, [tmp_path / "store.h5"])
    assert (path.read_bytes() if path.exists() else None) == content


@pytest.mark.parametrize("content", [b"I", b"{}", b"\x89HDF", b" # Results", b"# Results of others\n"])
def test_other_files_are_left(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"page\.md: exists and is not a page; choose another name or remove it"):
        check_output(path, "a page", PAGE)
    assert path.read_bytes() == content


@pytest.mark.parametrize("error", [LandscaleError("damaged"), OSError("no")])
def test_a_file_that_cannot_be_read_is_left(error: Exception, tmp_path: Path) -> None:
    def fail(path: Path) -> bool:
        raise error

    (tmp_path / "x").write_text("something")
    with pytest.raises(BadInput, match="exists and is not a map"):
        check_output(tmp_path / "x", "a map", fail)


def test_folders_and_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder, expected the name of a page"):
        check_output(tmp_path, "a page", PAGE)
    os.mkfifo(tmp_path / "pipe")
    for device in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(BadInput, match="is not a regular file"):
            check_output(device, "a page", PAGE)


def test_inputs_are_left_also_by_another_name(tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    scene.mkdir()
    band = scene / "B02.tif"
    band.write_text("# Results\n")
    (tmp_path / "link.tif").symlink_to(band)
    (tmp_path / "other").symlink_to(scene)
    for path in (band, tmp_path / "link.tif", tmp_path / "other" / "new.tif", scene / "sub" / ".." / "new.tif"):
        with pytest.raises(BadInput, match="is inside the input"):
            check_output(path, "a page", PAGE, [scene])
    with pytest.raises(BadInput, match="is an input of this command"):
        check_output(band, "a page", PAGE, [str(band)])


def test_links_that_form_a_loop_are_no_unexpected_error(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    check_output(loop, "a map", lambda _: False, inputs=[tmp_path / "scene"])
    check_output(tmp_path / "map.tif", "a map", lambda _: False, inputs=[loop])
