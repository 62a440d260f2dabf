"""Read whole files of limited size: regular files only, decompressed only up to a limit, text decoded by its byte order mark."""

from __future__ import annotations

import bz2
import codecs
from pathlib import Path

from landscale.errors import BadInput, reason
from landscale.runtime.files import check_regular

MAX_FILE = 512 << 20  # bytes of an image of a patch, compressed or not: 8192×8192 px of 8 bands, 8 bits each
MAX_TEXT = 64 << 20  # bytes of a list or csv; the list of all 590,326 patches of BigEarthNet has 22 MB
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_KINDS = {  # first bytes of a file → its format, for error messages
    b"\x89PNG\r\n\x1a\n": "a PNG",
    b"\xff\xd8\xff": "a JPEG",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"II+\0": "a BigTIFF",
    b"MM\0+": "a BigTIFF",
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"RIFF": "a WebP or another RIFF file",
    b"\0\0\0\x0cjP": "a JPEG 2000",
    b"\x89HDF": "an HDF5 file",
    b"SQLite format 3\0": "an SQLite database",
    b"PK\3\4": "a zip",
    b"\x1f\x8b": "gzip",
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
}


def read_content(path: str | Path, limit: int = MAX_FILE) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        BadInput: the file is missing, no regular file, larger, or cannot be read.
    """
    path = Path(path)
    check_regular(path, limit)
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(path, f"cannot be read ({error.strerror})") from None


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark; that of a `.bz2` is decompressed.

    Raises:
        BadInput: as `read_content`; the text has more than `limit` bytes, is in another encoding, or its compression is damaged.
    """
    data = read_content(path, limit)
    if path.suffix == ".bz2":
        try:
            data = _decompress_bz2(data, limit)
        except (OSError, EOFError, ValueError) as error:
            raise BadInput(path, f"cannot be decompressed ({reason(error)})") from None
    return decode_text(path, data)


def decode_text(path: Path, data: bytes) -> str:
    """The text in the bytes of a file, in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        BadInput: it is in another encoding, or no text.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        found = f"byte {data[error.start]:#04x} at {error.start}"
        raise BadInput(path, f"is not UTF-8 text ({found}); save it in this encoding") from None
    if "\0" in text:
        raise BadInput(path, "is not text: it holds a NUL")
    return text


def _decompress_bz2(data: bytes, limit: int) -> bytes:
    """All streams of a bz2 file. Python's `bz2.decompress` silently ignores everything after a damaged header.

    Raises:
        ValueError: more than `limit` bytes. EOFError, OSError: the file is damaged.
    """
    parts: list[bytes] = []
    size = 0
    while data or not parts:
        stream = bz2.BZ2Decompressor()
        while not stream.eof:
            parts.append(stream.decompress(data, limit + 1 - size))
            data = b""
            size += len(parts[-1])
            if size > limit:
                raise ValueError(f"it has more than {limit:,} bytes")
            if stream.needs_input and not stream.eof:
                raise EOFError("it is cut off")
        data = stream.unused_data
    return b"".join(parts)


def wrong_format(data: bytes, expected: str) -> str:
    """The problem with a file that is not of the format `expected`, such as "a TIFF file", by its first bytes."""
    kind = next((kind for start, kind in _KINDS.items() if data.startswith(start)), None)
    return f"is {kind}, expected {expected}" if kind else f"is not {expected}: it begins with {data[:16]!r}"
