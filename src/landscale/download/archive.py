"""A whole archive: what is there already, what is missing, whether it fits on the disk, and the way here."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from landscale.download.catalogue import Archive, RemoteFile, format_size
from landscale.download.transfer import RetryPolicy, digest_matches, fetch, print_line, remote_size
from landscale.errors import BadInput
from landscale.runtime.progress import progress_bar

MEGABYTE = 10**6


@dataclass(frozen=True)
class DownloadedFile:
    """A file in its place, its digest checked. `state` is "there already", "downloaded" or "replaced" (one that was damaged)."""

    path: Path
    size: int
    digest: str
    state: str


def download(
    archive: Archive, root: str | Path, mirror: str | None = None, patience: RetryPolicy | None = None
) -> list[DownloadedFile]:
    """Bring all files of an archive below `root`. Called again, it goes on where it stopped.

    Args:
        mirror: address below which files of the same names lie; digests are checked all the same.

    Raises:
        BadInput: no room on the disk, no such file there, a file of another size or digest, a line that fails too often.
    """
    root = Path(root)
    patience = patience or RetryPolicy()
    if mirror is not None and not mirror.startswith(("http://", "https://")):
        raise BadInput("--mirror", f"found '{mirror}', expected an address that begins with https:// or http://")
    root.mkdir(parents=True, exist_ok=True)
    states = {file: _state(file, root / file.path) for file in archive.files}
    missing = {
        file: _size_there(file, _address(file, mirror), patience)
        for file in archive.files
        if states[file] != "there already"
    }
    _check_room(root, missing)
    for file, size in missing.items():
        path = root / file.path
        if states[file] == "replaced":
            print_line(f"{path}: is not what was published; it comes again")
        with _megabytes(path.name, size or 0) as advance:
            fetch(_address(file, mirror), path, file.digest, size, patience, advance)
    return [
        DownloadedFile(root / file.path, (root / file.path).stat().st_size, file.digest, state)
        for file, state in states.items()
    ]


def _address(file: RemoteFile, mirror: str | None) -> str:
    return file.url if mirror is None else f"{mirror.rstrip('/')}/{Path(file.path).name}"


def _state(file: RemoteFile, path: Path) -> str:
    """What has to be said of a file at the end."""
    if not path.exists():
        return "downloaded"
    size = path.stat().st_size
    if file.size not in {None, size}:
        return "replaced"
    with _megabytes(f"check {path.name}", size) as advance:
        return "there already" if digest_matches(path, file.digest, advance) else "replaced"


def _size_there(file: RemoteFile, url: str, patience: RetryPolicy) -> int | None:
    """The size of a file in bytes: the catalogue's and the server's agree, or one of them does not say."""
    size = remote_size(url, patience)
    if size is not None and file.size is not None and size != file.size:
        raise BadInput(url, f"has {size:,} bytes, expected {file.size:,}")
    return size if file.size is None else file.size


def _check_room(root: Path, missing: dict[RemoteFile, int | None]) -> None:
    needed = sum(max(0, (size or 0) - _come(root / file.path)) for file, size in missing.items())
    free = shutil.disk_usage(root).free
    if needed > free:
        raise BadInput(root, f"{format_size(needed)} are still to come, but only {format_size(free)} are free there")


def _come(path: Path) -> int:
    """Bytes of a file that came in earlier calls."""
    partial = path.with_name(f".{path.name}.partial")
    return partial.stat().st_size if partial.exists() else 0


@contextmanager
def _megabytes(what: str, size: int) -> Iterator[Callable[[int], None]]:
    """A progress bar in whole megabytes over `size` bytes; its value takes bytes."""
    come = 0
    with progress_bar(what, math.ceil(size / MEGABYTE), "MB") as advance:

        def more(length: int) -> None:
            nonlocal come
            before = come
            come += length
            advance(math.ceil(come / MEGABYTE) - math.ceil(before / MEGABYTE))

        yield more
