"""The files of a product: a folder, or a zip that is never unpacked. A file in a zip is a path such as `X.SAFE.zip/X.SAFE/…`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath

from landscale.formats.content import decode_text, read_content
from landscale.formats.walk import files_below
from landscale.formats.zip_or_folder import list_members, member_size, read_member, split_zip

_SUFFIXES = {".tif", ".tiff", ".jp2", ".xml", ".json", ".safe"}
MAX_METADATA = 16 << 20  # bytes of a file of metadata; those of a granule have 0.6 MB
_MAX_BAND = 1 << 30  # bytes of a file whose digest is computed; a band of a whole product as float64 has 0.96 GB


def root_of(path: Path) -> Path:
    """The folder of a product: the path itself; of a zip the one `.SAFE` folder in it, or the one folder at its top.

    Raises:
        BadInput: the zip cannot be read.
    """
    zipped = split_zip(path)
    if zipped is None or zipped[1]:
        return path
    members = [member for member, _ in list_members(path, _SUFFIXES)]
    products = {folder for member in members for folder in member.parents if folder.suffix.upper() == ".SAFE"}
    tops = {PurePosixPath(*member.parts[:1]) if len(member.parts) > 1 else PurePosixPath() for member in members}
    only = products if len(products) == 1 else tops
    return path / only.pop() if len(only) == 1 else path


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, a zip, or a folder in a zip."""
    zipped = split_zip(path)
    return path.is_dir() or (zipped is not None and member_size(*zipped) < 0)


def files_of(folder: Path) -> list[Path]:
    """All files below a folder, in the order of their paths; hidden ones are left out, and in a zip those without pixels or text.

    Raises:
        BadInput: the folder is in a zip that cannot be read.
    """
    zipped = split_zip(folder)
    if zipped is None:
        return list(files_below(folder))
    archive, inside = zipped
    paths = (archive / member for member, _ in list_members(archive, _SUFFIXES) if ".." not in member.parts)
    return [path for path in paths if path.is_relative_to(archive / inside)]


def files_in(folder: Path) -> list[Path]:
    """The files in a folder itself, in the order of their names."""
    if split_zip(folder) is not None:
        return [path for path in files_of(folder) if path.parent == folder]
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
    except OSError:  # a folder above the product that may not be listed
        return []


def read_metadata_text(path: Path) -> str:
    """The text of a file of metadata.

    Raises:
        BadInput: it is missing, has more than `MAX_METADATA` bytes, or is no text.
    """
    return decode_text(path, read_file(path, MAX_METADATA))


def read_file(path: Path, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes.

    Raises:
        BadInput: it is missing, larger, or damaged.
    """
    zipped = split_zip(path)
    return read_content(path, limit) if zipped is None else read_member("::".join(map(str, zipped)), limit)


def is_file(path: Path) -> bool:
    """Whether a path is a file, in a folder or in a zip."""
    try:
        return path.is_file() or size_of(path) >= 0
    except OSError:  # the name is too long
        return False


def size_of(path: Path) -> int:
    """Bytes of a file; -1 if it is missing."""
    zipped = split_zip(path)
    if zipped is not None:
        return member_size(*zipped)
    return path.stat().st_size if path.exists() else -1


def digest_of(path: Path, algorithm: str) -> str:
    """The digest of a file by an algorithm of hashlib, in hexadecimal.

    Raises:
        BadInput: the file is in a zip, and damaged.
    """
    if split_zip(path) is not None:
        return hashlib.new(algorithm, read_file(path, _MAX_BAND)).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def stat_of(path: Path) -> os.stat_result:
    """Size and time of change of a file, or of the zip that holds it."""
    zipped = split_zip(path)
    return (zipped[0] if zipped else path).stat()
