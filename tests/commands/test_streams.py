"""Commands whose stdout or stderr is closed, full, a closed pipe, or of another encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from landscale.testing import make_store, rgbn_plane

PROGRAM = Path(sys.executable).with_name("landscale")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streams") / "s.h5"
    make_store(path, planes=rgbn_plane(12), splits={"train": 4})
    return path


def run(script: str, *words: object, **environment: str) -> tuple[int, str]:
    """Exit code and stderr of a shell script, in which `"$@"` is the command."""
    done = subprocess.run(
        ["bash", "-c", script, "bash", PROGRAM, *map(str, words)],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


def test_closed_stdout(store: Path) -> None:
    assert run('"$@" >&-', "info", store) == (0, "")


def test_full_stdout_is_one_line(store: Path) -> None:
    code, error = run('"$@" >/dev/full', "info", store, "--json")
    assert (code, error.count("\n")) == (2, 1)
    assert "No space left on device" in error


def test_a_closed_pipe_is_silent(store: Path) -> None:
    code, error = run('"$@" | true; exit ${PIPESTATUS[0]}', "models", "--json")
    assert code in (0, 141)
    assert error == ""


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_an_error_without_stderr_has_its_exit_code(redirection: str, tmp_path: Path) -> None:
    assert run(f'"$@" {redirection}', "info", tmp_path / "none.h5")[0] == 2


def test_an_encoding_that_lacks_characters(store: Path) -> None:
    assert run('"$@"', "info", store, PYTHONIOENCODING="ascii") == (0, "")
    code, error = run('"$@"', "info", store.with_name("\u4e16.h5"), PYTHONIOENCODING="ascii")
    assert (code, error.count("\n")) == (2, 1)
    assert "\\u4e16.h5" in error


def test_a_pipe_as_input_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    code, error = run('"$@"', "info", tmp_path / "pipe")
    assert (code, error.count("\n")) == (2, 1)
