"""Words on the command line that no option can take are refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Cli


@pytest.mark.parametrize(
    "words,part",
    [
        (["benchmark", "scaling", "--store", "s.h5", "--epochs=--"], "argument --epochs: expected a value, found --"),
        (
            ["train", "--store", "s.h5", "--timeout", "-0.5"],
            "argument --timeout: found -0.5, expected a number above 0",
        ),
        (["train", "--store", "s.h5", "--timeout", "nan"], "found nan, expected a number above 0"),
        (["report", "run", "--out", "x", "--map", "m.tif"], "--scene and --map belong together"),
        (["prepare", "folder", "x", "."], "the store . is a folder"),
    ],
)
def test_they_are_named(words: list[str], part: str, cli: Cli) -> None:
    answer = cli(*words)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert part in answer.lines[0]


def test_a_name_that_is_not_utf_8(cli: Cli, tmp_path: Path, scene: Path, weights: Path) -> None:
    """GDAL takes only UTF-8."""
    answer = cli("superres", "apply", weights, scene, tmp_path / "\udcff")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "is not UTF-8 text; rename the file or folder" in answer.lines[0]


@pytest.mark.parametrize(
    "words", [["info", "\x1b[31mred.h5"], ["info", "x", "--\x1b[2J"], ["prepare", "\x1b]0;x\x07", "a", "b.h5"]]
)
def test_control_characters_do_not_reach_the_terminal(words: list[str], cli: Cli) -> None:
    answer = cli(*words)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "\x1b" not in answer.lines[0]
    assert "\\x1b" in answer.lines[0]
