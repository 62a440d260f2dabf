"""Names of files, patches and classes that are text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from landscale.errors import BadInput

_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # surrogates stand for bytes that are not UTF-8


def check_text(names: Iterable[str], path: Path) -> None:
    """Refuse names that cannot be written as UTF-8, as file names with bytes of another encoding, and those with a NUL.

    Raises:
        BadInput: naming `path`.
    """
    names = list(names)
    if _NO_TEXT.search("".join(names)):  # once, as there may be 600,000
        name = next(filter(_NO_TEXT.search, names))
        raise BadInput(path, f"holds the name {name!r}, which is not UTF-8 text; rename the file or folder")
