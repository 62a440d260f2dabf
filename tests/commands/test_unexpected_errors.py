"""An unexpected error ends in one line and a file with the traceback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import landscale.store


@pytest.fixture
def broken(monkeypatch, tmp_path):
    def fail(path):
        raise KeyError("unforeseen\nin two lines")

    monkeypatch.setattr(landscale.store, "open_store", fail)
    monkeypatch.chdir(tmp_path)


def test_it_is_one_line_with_the_file_of_the_traceback(broken, tmp_path, cli):
    answer = cli("info", tmp_path / "x.h5")
    assert answer.code == 70
    (line,) = answer.lines
    found = re.fullmatch(r"landscale: unexpected error \(KeyError: .*\); please report it with (.*)", line)
    assert found
    report = Path(found[1]).read_text()
    assert Path(found[1]).parent == tmp_path
    assert "Traceback" in report
    assert "unforeseen" in report


@pytest.mark.parametrize("words", [["--debug", "info"], ["info", "--debug"]])
def test_debug_shows_the_traceback(broken, words, cli):
    with pytest.raises(KeyError):
        cli(*words, "x.h5")
