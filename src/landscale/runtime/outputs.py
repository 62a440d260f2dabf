"""Whether a command may write its result to a path."""

from __future__ import annotations

from pathlib import Path

from landscale.errors import BadInput


def check_output(path: str | Path, signatures: tuple[bytes, ...], expected: str) -> None:
    """Refuse an output path, unless it is free or has an empty file or an older result of the same kind.

    So a mistyped command never replaces the data that the result is computed from.

    Args:
        path: the output file.
        signatures: how files of this kind begin, at most 4 bytes each.
        expected: the kind of file, for the error message, such as "a GeoTIFF".

    Raises:
        BadInput: the path is a folder, or a file of another kind; nothing was changed.
    """
    path = Path(path)
    if path.is_dir():
        raise BadInput(path, f"is a folder, expected the name of {expected}")
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(4)
        if start and not start.startswith(signatures):
            raise BadInput(path, f"exists and is not {expected}; choose another name or remove it")
