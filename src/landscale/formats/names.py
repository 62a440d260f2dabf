"""Names of files, patches and classes: whether they are text, and which are those of tar archives."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from landscale.errors import BadInput

# Control characters, with which a name could change a terminal, and surrogates, which stand for bytes that are not UTF-8.
_NO_TEXT = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.zst")


def is_archive(path: Path) -> bool:
    """Whether a path has the name of a tar archive, and is not a folder."""
    return path.name.endswith(_ARCHIVES) and not path.is_dir()


def check_text(names: Iterable[str], path: Path) -> None:
    """Refuse names that cannot be written as UTF-8, as file names with bytes of another encoding, or with control characters.

    Raises:
        BadInput: naming `path`.
    """
    names = list(names)
    if _NO_TEXT.search("".join(names)):  # once, as there may be 600,000
        name = next(filter(_NO_TEXT.search, names))
        raise BadInput(
            path,
            f"holds the name {name!r}, which is not UTF-8 text without control characters; rename the file or folder",
        )
