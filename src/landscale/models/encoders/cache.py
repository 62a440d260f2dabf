"""Where converted weights of other people are kept: the folder LANDSCALE_CACHE, or the user's cache folder on this system."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from landscale.errors import BadInput, LandscaleError, reason
from landscale.models.weights import check_weights


def cache_folder() -> Path:
    """The cache folder; it may not exist."""
    if named := os.environ.get("LANDSCALE_CACHE"):
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "landscale"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "landscale"


def cached_weights(name: str, facts: str, make: Callable[[Path], None]) -> Path:
    """The folder of weights of a name, which is made once, by one process, and again if it is damaged.

    Args:
        name: by which the user takes the weights.
        facts: what the content depends on besides the name; other facts are other weights.
        make: writes a folder of weights, atomically.

    Raises:
        LandscaleError: `make` raised it, or the cache cannot be written.
    """
    readable = re.sub(r"[^\w.-]+", "-", name)[:100]
    digest = hashlib.sha256("\n".join((name, facts)).encode()).hexdigest()
    folder = cache_folder() / "encoders" / f"{readable}-{digest[:12]}"
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{folder.name}.lock")):
            if not _is_whole(folder):  # another process may have made it meanwhile
                make(folder)
    except OSError as error:
        raise BadInput(
            folder.parent, f"cannot be written ({reason(error)}); LANDSCALE_CACHE names another place"
        ) from None
    return folder


def _is_whole(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        check_weights(folder)
    except LandscaleError:
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; waits while another process holds it. Without locks, as on some network drives, nobody waits."""
    with path.open("ab") as file:
        with suppress(OSError):  # without locks, two processes do the same work, and each writes whole folders
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
