"""Read a tar archive, plain or compressed, once from beginning to end, without unpacking it.

Reads POSIX.1-1988 (ustar), POSIX.1-2001 (pax) and GNU headers. Python's `tarfile` reads the same, but takes longer per member
than igzip takes to decompress it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from isal import isal_zlib

from landscale.errors import BadInput
from landscale.formats.decompression import DecompressedFile

_MAX_MEMBER = 1 << 20  # bytes; the largest members of BigEarthNet have 58 kB
_MAX_EXTENDED = 1 << 16  # bytes of an extended header, which has a long name
_MAX_DIGITS = 10  # digits of the length of a record in an extended header
_FILES, _FOLDER, _LINKS = frozenset((b"0", b"\0", b"7")), b"5", frozenset((b"1", b"2", b"K"))
_LONG_NAME, _PAX = b"L", b"x"
_EXTENDED = frozenset((_LONG_NAME, _PAX, b"g"))  # headers that describe the next members


class Tarball:
    """The members of a tar archive, in their order.

    Args:
        path: the archive, plain or compressed by gzip or Zstandard.
        block: bytes that are decompressed at a time, as for `DecompressedFile`.

    Raises:
        BadInput: the file cannot be read, is not a tar archive, or is truncated or damaged; or a member is a link or a device,
            has a name outside the archive's folder, or is larger than 1 MiB.
    """

    def __init__(self, path: str | Path, block: int | None = None) -> None:
        self._path = path = Path(path)
        self._file = DecompressedFile(path, block)
        self._block = memoryview(b"")
        self._at = 0  # position in the block
        self._before = 0  # bytes of the tar archive before the block

    def close(self) -> None:
        self._file.close()

    def consumed(self) -> int:
        """Compressed bytes that have been read so far."""
        return self._file.consumed()

    def _advance(self) -> bool:
        """Go to the next block; false at the end."""
        self._before += len(self._block)
        self._block, self._at = self._file.block(), 0
        return len(self._block) > 0

    def _take(self, size: int) -> memoryview:
        """The next `size` bytes, fewer only at the end; valid until the next call. The position advances to a multiple of 512."""
        begin, end = self._at, self._at + size
        after = end + -size % 512
        if after <= len(self._block):
            self._at = after
            return self._block[begin:end]
        joined = bytearray(self._block[begin:])
        while len(joined) < after - begin and self._advance():
            self._at = min(after - begin - len(joined), len(self._block))
            joined += self._block[: self._at]
        return memoryview(joined)[:size]

    def members(self) -> Generator[tuple[str, memoryview], None, None]:
        """Name and content of each file, without folders; the content is valid until the next iteration."""
        long_name = b""
        last, last_size = None, 0  # the last header of a long name and its size: the next one is mostly equal
        while True:
            header = self._take(512).tobytes()
            if header == last:
                size, kind = last_size, _LONG_NAME
            elif len(header) < 512:
                raise BadInput(self._path, "is truncated: it lacks the end marker of a tar archive")
            elif not any(header):
                return self._check_end()
            else:
                size, kind = self._size(header), header[156:157]
            if kind in _EXTENDED:
                at = self._header_at()
                content = self._content(size, _MAX_EXTENDED).tobytes()
                if kind == _LONG_NAME:
                    last, last_size = header, size
                    long_name = content.partition(b"\0")[0]
                elif kind == _PAX:
                    long_name = self._pax_path(content, at) or long_name
                continue
            name = self._check_name(kind, long_name or _name(header))
            long_name = b""
            data = self._content(size, _MAX_MEMBER, name)
            if kind in _FILES and not name.endswith("/"):
                yield name, data

    def _header_at(self) -> int:
        """Offset of the last header in the tar archive."""
        return self._before + self._at - 512

    def _content(self, size: int, limit: int, member: str = "") -> memoryview:
        """The content that follows a header, of a member or of an extended header."""
        at = self._before + self._at
        if size <= limit:
            data = self._take(size)
            if len(data) == size:
                return data
        what = f"member {member}" if member else f"header at byte {at - 512}"
        large = f"has {size} bytes, expected at most {limit}"
        raise BadInput(
            self._path, f"{what}: {large if size > limit else 'is truncated, as the archive ends within it'}"
        )

    def _size(self, header: bytes) -> int:
        """The size in bytes of the content that follows a header of 512 bytes."""
        try:
            if isal_zlib.adler32(header) & 0xFFFF == _adler(header[148:156]):
                return _number(header[124:136])
        except ValueError:
            pass
        at = self._header_at()
        raise BadInput(self._path, f"is damaged: no tar header at byte {at}" if at else "is not a tar archive")

    def _pax_path(self, content: bytes, at: int) -> bytes | None:
        """The path in an extended header, which consists of records `length key=value`."""
        path = None
        while content:
            digits, blank, _ = content.partition(b" ")
            if not (
                blank and digits.isdigit() and len(digits) < _MAX_DIGITS and len(digits) < int(digits) <= len(content)
            ):
                raise BadInput(self._path, f"is damaged: the extended header at byte {at} cannot be read")
            key, _, value = content[len(digits) + 1 : int(digits)].partition(b"=")
            content = content[int(digits) :]
            if key == b"path":
                path = value[:-1]  # without the newline
            elif key == b"size" or key.startswith(b"GNU.sparse"):
                raise BadInput(self._path, f"header at byte {at}: announces a huge or sparse member")
        return path

    def _check_name(self, kind: bytes, raw: bytes) -> str:
        """The name of a member, once it is neither a link nor a device and lies in the archive's folder."""
        name = raw.decode("utf-8", "replace").removeprefix("./")
        if kind not in _FILES and kind != _FOLDER:
            what = "a link" if kind in _LINKS else f"of the kind {kind!r}"
            raise BadInput(self._path, f"member {name}: is {what}, expected files and folders only")
        if name[:1] == "/" or "\0" in name or "\ufffd" in name or (".." in name and ".." in name.split("/")):
            raise BadInput(self._path, f"member {name!r}: has an unsafe name: absolute, with .., or not text")
        return name

    def _check_end(self) -> None:
        """Read to the end of the file, where the checksums of compressed files are; only padding may follow."""
        while True:
            if bytes(self._block[self._at :]).strip(b"\0"):
                raise BadInput(self._path, "holds data after the end of its tar archive")
            if not self._advance():
                return


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    if header[345] and header[257:263] == b"ustar\0":
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name


@lru_cache(1 << 12)
def _number(field: bytes) -> int:
    """A number in a tar header: octal digits, or binary if the first bit is set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits.isdigit():
        raise ValueError
    return int(digits, 8)


@lru_cache(1 << 16)
def _adler(field: bytes) -> int:
    """The lower half of a header's Adler-32 (1 + sum of its bytes, modulo 65521), from its checksum field.

    The field is the sum of the bytes of the header in which the field itself is eight blanks.
    """
    return (1 + _number(field) - 8 * ord(" ") + sum(field)) % 65521


def first_member(path: str | Path) -> str:
    """The name of the first file in an archive.

    Raises:
        BadInput: as `Tarball`, or there is no file.
    """
    with closing(Tarball(path, _MAX_MEMBER)) as tarball:
        for name, _ in tarball.members():
            return name
    raise BadInput(path, "holds no file")
