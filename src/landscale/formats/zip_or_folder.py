"""Read files from a folder or a zip in the same way: a location is a path, or `archive.zip::member`.

Where folders inside a zip have a meaning, as in Sentinel-2 products, a file in it is a path too, `archive.zip/folder/file`.
Such paths do not exist for the operating system; `split_zip` finds the archive in them.
"""

from __future__ import annotations

import functools
import os
import zipfile
import zlib
from collections.abc import Container
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from landscale.errors import BadInput, reason
from landscale.formats.content import MAX_FILE, read_content
from landscale.formats.walk import files_below
from landscale.runtime.files import check_regular


def list_members(path: str | Path, suffixes: Container[str]) -> list[tuple[PurePosixPath, str]]:
    """The files in a folder or zip with one of `suffixes` (lower case): relative path and location of each, sorted.

    Hidden files and folders are left out, links to folders are followed.

    Raises:
        BadInput: the path is neither a folder nor a complete zip.
    """
    path = Path(path)
    if path.is_dir():
        files = [(PurePosixPath(p.relative_to(path).as_posix()), str(p)) for p in files_below(path)]
    elif path.suffix.lower() == ".zip":
        if path.exists():
            check_regular(path)
        try:
            with zipfile.ZipFile(path) as archive:
                files = [(PurePosixPath(name), f"{path}::{name}") for name in archive.namelist()]
        except (OSError, zipfile.BadZipFile) as error:
            raise BadInput(path, f"is not a complete zip file ({error})") from None
    else:
        raise BadInput(path, "no such folder or zip")
    kept = [(m, location) for m, location in files if m.suffix.lower() in suffixes and not _is_hidden(m)]
    return sorted(kept, key=lambda file: file[1])


def _is_hidden(member: PurePosixPath) -> bool:
    """Whether a name is hidden: that of a file, or of a folder above it, begins with a dot, or macOS added it to a zip."""
    return any(part.startswith(".") or part == "__MACOSX" for part in member.parts)


def read_member(location: str, limit: int = MAX_FILE) -> bytes:
    """The content of the file at a location.

    Raises:
        BadInput: the file cannot be read, or has more than `limit` bytes; those of a member are decompressed only up to there.
    """
    archive, inside, member = location.partition("::")
    if not inside:
        return read_content(location, limit)
    try:
        opened = _zip(archive, os.getpid())
        if (size := opened.getinfo(member).file_size) > limit:
            raise BadInput(location, f"has {size:,} bytes, expected at most {limit:,}")
        with opened.open(member) as file:  # ends at the announced size
            return file.read()
    except (OSError, EOFError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error, LZMAError) as error:
        raise BadInput(location, f"cannot be read ({getattr(error, 'strerror', None) or reason(error)})") from None


@functools.cache
def _zip(path: str, _process: int) -> zipfile.ZipFile:
    """One open handle per zip and process, as handles must not be shared after a fork."""
    return zipfile.ZipFile(path)


def split_zip(path: Path) -> tuple[Path, str] | None:
    """The zip that a path is, or leads into, and the member in it; None for any other path."""
    for place in (path, *path.parents):
        if place.suffix.lower() == ".zip" and place.is_file():
            return place, path.relative_to(place).as_posix().removeprefix(".")
    return None


def member_size(archive: Path, member: str) -> int:
    """Bytes of a member of a zip once it is decompressed; -1 if there is no such member.

    Raises:
        BadInput: the zip cannot be read.
    """
    try:
        return _zip(str(archive), os.getpid()).getinfo(member).file_size
    except KeyError:
        return -1
    except (OSError, zipfile.BadZipFile) as error:
        raise BadInput(archive, f"is not a complete zip file ({error})") from None


def gdal_name(archive: Path, member: str, limit: int) -> str:
    """The name by which GDAL opens a member of a zip without unpacking it.

    Raises:
        BadInput: there is no such member, or it has more than `limit` bytes, is encrypted, or compressed as GDAL cannot read it.
    """
    place = archive / member
    if (size := member_size(archive, member)) < 0:
        raise BadInput(place, "no such file in the zip")
    if size > limit:
        raise BadInput(place, f"has {size:,} bytes, expected at most {limit:,}")
    info = _zip(str(archive), os.getpid()).getinfo(member)
    if info.flag_bits & 1:
        raise BadInput(place, "is encrypted; unpack the zip")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadInput(
            place, f"is compressed by method {info.compress_type} of the zip format, expected deflate; unpack the zip"
        )
    return f"/vsizip/{{{archive.absolute()}}}/{member}"
