"""A tar archive, plain or compressed, read once from front to back and never unpacked.

POSIX.1-1988 (ustar), POSIX.1-2001 (pax) and GNU headers; Python's `tarfile` reads them too, but takes more time for each
member than igzip takes to decompress it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from isal import isal_zlib

from landscale.errors import BadInput
from landscale.formats.decompression import DecompressedFile

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst")
_LARGEST = 1 << 20  # bytes of a member; the largest of BigEarthNet's have 58 kB
_LONGEST = 1 << 16  # bytes of a header that says a long name
_DIGITS = 10  # of the length of a line there, at most
_FILES, _FOLDER, _LINKS = frozenset((b"0", b"\0", b"7")), b"5", frozenset((b"1", b"2", b"K"))
_LONG_NAME, _PAX = b"L", b"x"
_ABOUT_OTHERS = frozenset((_LONG_NAME, _PAX, b"g"))  # headers that say more of the next members


def is_archive(path: str | Path) -> bool:
    path = Path(path)
    return path.name.endswith(SUFFIXES) and not path.is_dir()


class Tarball:
    """The members of an archive, in its order; `block` as for `Decompressed`.

    Raises:
        BadInput: it cannot be read, is no tar archive, is truncated or damaged; or a member is a link or a device, has a name
            that would lead out of the archive's folder, or is larger than any of BigEarthNet's.
    """

    def __init__(self, path: str | Path, block: int | None = None) -> None:
        self._path = path = Path(path)
        self._file = DecompressedFile(path, block)
        self._block = memoryview(b"")
        self._at = 0  # bytes of the block that were taken
        self._before = 0  # bytes of the tar before the block

    def close(self) -> None:
        self._file.close()

    def consumed(self) -> int:
        """Bytes of the file that have been read so far."""
        return self._file.consumed()

    def _advance(self) -> bool:
        """Go on to the next block; false at the end."""
        self._before += len(self._block)
        self._block, self._at = self._file.block(), 0
        return len(self._block) > 0

    def _take(self, size: int) -> memoryview:
        """The next bytes of the tar, fewer only at its end; valid until the next call, which begins at a multiple of 512."""
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
        """Name and content of each file; the content is valid until the next one is asked for. Folders are passed over."""
        long_name = b""
        last, said = None, 0  # header of a long name, and the size there: the next is mostly the same
        while True:
            header = self._take(512).tobytes()
            if header == last:
                size, kind = said, _LONG_NAME
            elif len(header) < 512:
                raise BadInput(self._path, "is truncated: it ends without the mark that ends a tar archive")
            elif not any(header):
                return self._check_end()
            else:
                size, kind = self._size(header), header[156:157]
            if kind in _ABOUT_OTHERS:
                at = self._header_at()
                content = self._content(size, _LONGEST).tobytes()
                if kind == _LONG_NAME:
                    last, said = header, size
                    long_name = content.partition(b"\0")[0]
                elif kind == _PAX:
                    long_name = self._pax_path(content, at) or long_name
                continue
            name = self._checked(kind, long_name or _name(header))
            long_name = b""
            data = self._content(size, _LARGEST, name)
            if kind in _FILES and not name.endswith("/"):
                yield name, data

    def _header_at(self) -> int:
        """Where the header that was taken last begins in the tar."""
        return self._before + self._at - 512

    def _content(self, size: int, most: int, member: str = "") -> memoryview:
        """What follows a header: that of a member, or one that says more of the next."""
        at = self._before + self._at
        if size <= most:
            data = self._take(size)
            if len(data) == size:
                return data
        what = f"member {member}" if member else f"header at byte {at - 512}"
        large = f"has {size} bytes, expected at most {most}"
        raise BadInput(self._path, f"{what}: {large if size > most else 'is truncated, as the archive ends in it'}")

    def _size(self, header: bytes) -> int:
        """Of the content that follows a header of 512 bytes."""
        try:
            if isal_zlib.adler32(header) & 0xFFFF == _adler(header[148:156]):
                return _number(header[124:136])
        except ValueError:
            pass
        at = self._header_at()
        raise BadInput(self._path, f"is damaged: no tar header at byte {at}" if at else "is no tar archive")

    def _pax_path(self, content: bytes, at: int) -> bytes | None:
        """The path in an extended header, which is lines of `length key=value`."""
        path = None
        while content:
            digits, blank, _ = content.partition(b" ")
            if not (blank and digits.isdigit() and len(digits) < _DIGITS and len(digits) < int(digits) <= len(content)):
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
        if name[:1] == "/" or "\0" in name or "\ufffd" in name or (".." in name and ".." in name.split("/")):
            raise BadInput(self._path, f"member {name!r}: has a name that is not safe")
        return name

    def _check_end(self) -> None:
        """Read on to the end of the file: only there are its checksums, and nothing may follow but padding."""
        while True:
            if bytes(self._block[self._at :]).strip(b"\0"):
                raise BadInput(self._path, "holds something after the end of its tar archive")
            if not self._advance():
                return


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    if header[345] and header[257:263] == b"ustar\0":
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name


@lru_cache(1 << 12)
def _number(field: bytes) -> int:
    """A number as tar writes it: octal digits, or, with the first bit set, binary."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits.isdigit():
        raise ValueError
    return int(digits, 8)


@lru_cache(1 << 16)
def _adler(field: bytes) -> int:
    """What Adler-32 counts of a header (its bytes and one, modulo 65521), where `field` tells the sum of its bytes.

    In that sum the field itself is eight blanks.
    """
    return (1 + _number(field) - 8 * ord(" ") + sum(field)) % 65521


def first_member(path: str | Path) -> str:
    """The name of the first file of an archive.

    Raises:
        BadInput: as `Tarball`, or it holds none.
    """
    with closing(Tarball(path, _LARGEST)) as tarball:
        for name, _ in tarball.members():
            return name
    raise BadInput(path, "holds no file")
