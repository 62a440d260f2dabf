"""Whether a command may write its result to a path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from landscale.errors import BadInput, LandscaleError


def check_output(
    path: str | Path, expected: str, recognises: Callable[[Path], object], inputs: Iterable[str | Path] = ()
) -> None:
    """Refuse an output path, unless it is free or has an empty file or an older result of the same command.

    So a mistyped command replaces neither its input nor what another command wrote.

    Args:
        path: the output file.
        expected: what the command writes, for the error message, such as "a map of landscale".
        recognises: reads a file, and returns something false, or raises a LandscaleError or OSError, if this command did not
            write it.
        inputs: files and folders that the command reads. The output may be neither one of them nor inside one.

    Raises:
        BadInput: the path is a folder, a device or an input, or a file that the command did not write; nothing was changed.
    """
    path = Path(path)
    place = Path(os.path.realpath(path))  # unlike resolve, it raises no error for links that form a loop
    for given in inputs:
        source = Path(os.path.realpath(given))
        if place == source or _is_same_file(place, source):
            raise BadInput(path, "is an input of this command; choose another name for the output")
        if source.is_dir() and place.is_relative_to(source):
            raise BadInput(path, f"is inside the input {given}; choose another place for the output")
    if path.is_dir():
        raise BadInput(path, f"is a folder, expected the name of {expected}")
    if not path.exists():
        return
    if not path.is_file():
        raise BadInput(path, f"is not a regular file, expected the name of {expected}")
    if path.stat().st_size and not _recognised(path, recognises):
        raise BadInput(path, f"exists and is not {expected}; choose another name or remove it")


def _is_same_file(path: Path, other: Path) -> bool:
    """Whether two paths name one file, also through a hard link, or in other case where the file system ignores case."""
    try:
        return path.samefile(other)
    except OSError:
        return False


def begins_with(line: str) -> Callable[[Path], bool]:
    """Recognise text files by their first line, such as the title of a page."""

    def recognises(path: Path) -> bool:
        with path.open("rb") as file:
            return file.readline(1000).rstrip(b"\r\n") == line.encode()

    return recognises


def _recognised(path: Path, recognises: Callable[[Path], object]) -> bool:
    try:
        return bool(recognises(path))
    except (LandscaleError, OSError):
        return False
