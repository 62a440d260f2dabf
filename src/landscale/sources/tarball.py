"""A tar archive, plain or compressed by gzip or Zstandard, read once from front to back and never unpacked.

A thread decompresses ahead into blocks that are used again, while the caller has the members, one after the other.
POSIX.1-1988 (ustar), POSIX.1-2001 (pax) and GNU headers; Python's `tarfile` reads them too, but takes more time for each
member than igzip takes to decompress it.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import pyarrow as pa
from isal import igzip
from isal.igzip_lib import IsalError

from landscale.errors import BadInput, reason

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst")
_BLOCK = 8 << 20  # bytes decompressed at a time: seldom enough that the thread hardly waits for Python's lock
_AHEAD = 4  # blocks
_LARGEST = 1 << 20  # bytes of a member; the largest of BigEarthNet's have 58 kB
_LONGEST = 1 << 16  # bytes of a header that says a long name
_FILES, _FOLDER, _LINKS = b"0\07", b"5", b"12K"
_LONG_NAME, _PAX, _PAX_OF_ALL = b"L", b"x", b"g"
_PROBED = 4 << 20  # bytes, decompressed to see how well an archive is compressed


def is_archive(path: Path) -> bool:
    return path.name.endswith(SUFFIXES) and not path.is_dir()


class Member(NamedTuple):
    """A file in an archive; `data` is valid until the next one is asked for."""

    name: str
    data: memoryview


class _File(Protocol):
    def tell(self) -> int: ...
    def close(self) -> None: ...


class _Stream(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


def _open(path: Path) -> tuple[_File, _Stream]:
    """The file, and what it says when it is decompressed."""
    file = path.open("rb")
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return file, igzip.IGzipFile(fileobj=file)  # type: ignore[no-untyped-call]
    if magic == b"\x28\xb5\x2f\xfd":
        file.close()
        raw = pa.OSFile(str(path))  # which Arrow reads without Python's lock
        return raw, pa.CompressedInputStream(raw, "zstd")
    if not magic:
        raise BadInput(path, "is empty")
    return file, cast(_Stream, file)


def _fill(path: Path, stream: _Stream, block: memoryview) -> memoryview:
    """The part of `block` that could be filled: all of it but at the end of the stream."""
    filled = 0
    try:
        while filled < len(block) and (more := stream.readinto(block[filled:])):
            filled += more
    except (OSError, EOFError, ValueError, IsalError) as error:  # type: ignore[misc]
        raise BadInput(path, f"cannot be decompressed ({reason(error)})") from None
    return block[:filled]


class Tarball:
    """The members of an archive, in its order.

    Raises:
        BadInput: it cannot be read, is no tar archive, is truncated or damaged; or a member is a link or a device, has a name
            that would lead out of the archive's folder, or is larger than any of BigEarthNet's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file, self._stream = _open(path)
        except OSError as error:
            raise BadInput(path, f"cannot be read ({error.strerror})") from None
        self._pool = ThreadPoolExecutor(1, "decompress")
        self._coming: deque[Future[memoryview]] = deque()
        self._block = self._rest = memoryview(b"")
        self._position = 0
        for _ in range(_AHEAD):
            self._fetch(memoryview(bytearray(_BLOCK)))

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._file.close()

    def consumed(self) -> int:
        """Bytes of the file that have been read so far."""
        return self._file.tell()

    def _fetch(self, block: memoryview) -> None:
        self._coming.append(self._pool.submit(_fill, self._path, self._stream, block))

    def _advance(self) -> bool:
        """Go on to the next block; false at the end of the stream."""
        if not self._coming:
            return False
        if self._block.obj:
            self._fetch(memoryview(self._block.obj))
        self._block = self._rest = self._coming.popleft().result()
        if len(self._block) < _BLOCK:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._coming.clear()
        return len(self._block) > 0

    def _take(self, size: int) -> memoryview:
        """The next bytes of the tar, fewer only at its end; valid until the next call."""
        self._position += size
        if size <= len(self._rest):
            taken, self._rest = self._rest[:size], self._rest[size:]
            return taken
        joined = bytearray(self._rest)
        while len(joined) < size and self._advance():
            more = size - len(joined)
            joined += self._rest[:more]
            self._rest = self._rest[more:]
        return memoryview(joined)

    def members(self) -> Generator[Member, None, None]:
        """All files; folders are passed over."""
        long_name = None
        while True:
            at = self._position
            header = bytes(self._take(512))
            if len(header) < 512:
                raise BadInput(self._path, "is truncated: it ends without the mark that ends a tar archive")
            if not any(header):
                return self._check_end()
            kind, name, size = self._parse(header, at)
            name = long_name or name
            if kind in (_LONG_NAME, _PAX, _PAX_OF_ALL):
                content = bytes(self._content(f"header at byte {at}", size, _LONGEST))
                if kind == _LONG_NAME:
                    long_name = content.partition(b"\0")[0]
                elif kind == _PAX:
                    long_name = self._pax_path(content, at) or long_name
                continue
            long_name = None
            member = self._checked(kind, name)
            data = self._content(f"member {member}", size, _LARGEST)
            if kind in _FILES and not member.endswith("/"):
                yield Member(member, data)

    def _content(self, what: str, size: int, most: int) -> memoryview:
        if size > most:
            raise BadInput(self._path, f"{what}: has {size} bytes, expected at most {most}")
        data = self._take(-(-size // 512) * 512)
        if len(data) < size:
            raise BadInput(self._path, f"{what}: is truncated, as the archive ends in it")
        return data[:size]

    def _parse(self, header: bytes, at: int) -> tuple[bytes, bytes, int]:
        """Kind, name and size by a header of 512 bytes."""
        try:
            # The sum of all bytes, modulo 65521, with the field of the sum itself taken as blanks.
            total = (zlib.adler32(header[:148] + b"        " + header[156:]) - 1) & 0xFFFF
            if total != _number(header[148:156]) % 65521:
                raise ValueError
            size = _number(header[124:136])
        except ValueError:
            what = "is no tar archive" if at == 0 else f"is damaged: no tar header at byte {at}"
            raise BadInput(self._path, what) from None
        name = header[:100].partition(b"\0")[0]
        if header[257:263] == b"ustar\0" and header[345]:
            name = header[345:500].partition(b"\0")[0] + b"/" + name
        return header[156:157], name, size

    def _pax_path(self, content: bytes, at: int) -> bytes | None:
        """The path in an extended header, which is lines of `length key=value`."""
        path = None
        while content:
            digits, blank, _ = content.partition(b" ")
            if not (blank and digits.isdigit() and len(digits) < int(digits) <= len(content)):
                raise BadInput(self._path, f"is damaged: the extended header at byte {at} cannot be read")
            key, _, value = content[len(digits) + 1 : int(digits)].partition(b"=")
            content = content[int(digits) :]
            if key == b"path":
                path = value[:-1]  # without the line's end
            elif key == b"size" or key.startswith(b"GNU.sparse"):
                raise BadInput(self._path, f"header at byte {at}: announces a huge or sparse member")
        return path

    def _checked(self, kind: bytes, raw: bytes) -> str:
        """The name of a member that is neither a link nor a device and stays in the archive's folder."""
        name = raw.decode("utf-8", "replace").removeprefix("./")
        if kind not in _FILES and kind != _FOLDER:
            what = "a link" if kind in _LINKS else f"of the kind {kind!r}"
            raise BadInput(self._path, f"member {name}: is {what}, expected files and folders only")
        if name.startswith("/") or "\0" in name or "\ufffd" in name or (".." in name and ".." in name.split("/")):
            raise BadInput(self._path, f"member {name!r}: has a name that is not safe")
        return name

    def _check_end(self) -> None:
        """Read on to the end of the file: only there are its checksums, and nothing may follow but padding."""
        while True:
            if bytes(self._rest).strip(b"\0"):
                raise BadInput(self._path, "holds something after the end of its tar archive")
            if not self._advance():
                return


def _number(field: bytes) -> int:
    """A number as tar writes it: octal digits, or, with the first bit set, binary."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits.isdigit():
        raise ValueError
    return int(digits, 8)


def estimated_size(path: Path) -> int:
    """About how many bytes an archive has when it is decompressed: by the ratio of its beginning, exact if that is all."""
    file, stream = _open(path)
    with closing(file):
        size = len(_fill(path, stream, memoryview(bytearray(_PROBED))))
        return size if size < _PROBED else size * path.stat().st_size // max(file.tell(), 1)


def first_member(path: Path) -> str:
    """The name of the first file of an archive.

    Raises:
        BadInput: as `Tarball`, or it holds none.
    """
    with closing(Tarball(path)) as tarball:
        for member in tarball.members():
            return member.name
    raise BadInput(path, "holds no file")
