"""Download all files of an archive that are missing, if they fit on the disk."""

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
    """A file whose digest was checked. `state` is "there already", "downloaded", or "replaced" if it was damaged."""

    path: Path
    size: int
    digest: str
    state: str


def download(
    archive: Archive, root: str | Path, mirror: str | None = None, retries: RetryPolicy | None = None
) -> list[DownloadedFile]:
    """Download all files of an archive to the folder `root`. Call it again to resume.

    Args:
        archive: its files, from the catalogue.
        root: the folder, which is created if necessary.
        mirror: URL of a folder with files of the same names; digests are checked as well.
        retries: how often and how long failures are retried.

    Raises:
        BadInput: the disk is too small, the server lacks a file, a file has another size or digest, or too many tries fail.
    """
    root = Path(root)
    retries = retries or RetryPolicy()
    if mirror is not None and not mirror.startswith(("http://", "https://")):
        raise BadInput("--mirror", f"found '{mirror}', expected a URL that starts with https:// or http://")
    root.mkdir(parents=True, exist_ok=True)
    states = {file: _state(file, root / file.path) for file in archive.files}
    missing = {
        file: _size_there(file, _address(file, mirror), retries)
        for file in archive.files
        if states[file] != "there already"
    }
    _check_space(root, missing)
    for file, size in missing.items():
        path = root / file.path
        if states[file] == "replaced":
            print_line(f"{path}: differs from the published file; downloading it again")
        with _megabytes(path.name, size or 0) as advance:
            fetch(_address(file, mirror), path, file.digest, size, retries, advance)
    return [
        DownloadedFile(root / file.path, (root / file.path).stat().st_size, file.digest, state)
        for file, state in states.items()
    ]


def _address(file: RemoteFile, mirror: str | None) -> str:
    return file.url if mirror is None else f"{mirror.rstrip('/')}/{Path(file.path).name}"


def _state(file: RemoteFile, path: Path) -> str:
    """The state that is reported for a file at the end."""
    if not path.exists():
        return "downloaded"
    size = path.stat().st_size
    if file.size not in {None, size}:
        return "replaced"
    with _megabytes(f"check {path.name}", size) as advance:
        return "there already" if digest_matches(path, file.digest, advance) else "replaced"


def _size_there(file: RemoteFile, url: str, retries: RetryPolicy) -> int | None:
    """The size of a file in bytes, by the catalogue or the server; None if neither states it.

    Raises:
        BadInput: both state different sizes.
    """
    size = remote_size(url, retries)
    if size is not None and file.size is not None and size != file.size:
        raise BadInput(url, f"has {size:,} bytes, expected {file.size:,}")
    return size if file.size is None else file.size


def _check_space(root: Path, missing: dict[RemoteFile, int | None]) -> None:
    needed = sum(max(0, (size or 0) - _received(root / file.path)) for file, size in missing.items())
    free = shutil.disk_usage(root).free
    if needed > free:
        raise BadInput(root, f"{format_size(needed)} remain to be downloaded, but only {format_size(free)} are free")


def _received(path: Path) -> int:
    """Bytes of a file that earlier calls have downloaded."""
    partial = path.with_name(f".{path.name}.partial")
    return partial.stat().st_size if partial.exists() else 0


@contextmanager
def _megabytes(label: str, size: int) -> Iterator[Callable[[int], None]]:
    """A progress bar in whole megabytes over `size` bytes; yields a function that advances it by bytes."""
    done = 0
    with progress_bar(label, math.ceil(size / MEGABYTE), "MB") as advance:

        def more(length: int) -> None:
            nonlocal done
            before = done
            done += length
            advance(math.ceil(done / MEGABYTE) - math.ceil(before / MEGABYTE))

        yield more
