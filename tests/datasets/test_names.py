"""Names of files and classes that are not text are refused before a store is written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Cli


def write_images(folder: Path, classes: list[bytes]) -> None:
    for name in classes:
        inside = folder / os.fsdecode(name)
        inside.mkdir(parents=True)
        for k in range(3):
            Image.fromarray(np.full((8, 8, 3), 40 * k, np.uint8)).save(inside / f"{k}.png")


@pytest.mark.parametrize("name", [b"A\xff", b"A\x1b[31m", b"A\tB", "A\x9b1m".encode()])
def test_a_class_that_is_not_utf8_or_has_control_characters(name: bytes, tmp_path: Path, cli: Cli) -> None:
    write_images(tmp_path / "images", [b"forest", name])
    answer = cli("prepare", "folder", tmp_path / "images", tmp_path / "s.h5", "--workers", 1)
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert "is not UTF-8 text" in answer.lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_negative_seed_and_an_empty_name(tmp_path: Path, cli: Cli) -> None:
    write_images(tmp_path / "images", [b"forest", b"lake"])
    answer = cli("prepare", "folder", tmp_path / "images", tmp_path / "s.h5", "--seed", -1)
    assert (answer.code, len(answer.lines)) == (2, 1)
    answer = cli("prepare", "folder", tmp_path / "images", "")
    assert (answer.code, answer.lines) == (2, ["landscale: prepare: found an empty name among inputs and store"])
