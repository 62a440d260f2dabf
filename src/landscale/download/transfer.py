"""One file over an unreliable line: resumed where it broke off, checked by its digest, whole or absent.

What has come so far lies in `.NAME.partial`, and beside it `.NAME.partial.version` says of which version of the remote file
it is (its ETag or date), so that halves of two versions are never put together. Both stay after a failure or a
Ctrl-C; the same call goes on from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from landscale.errors import BadInput, reason
from landscale.runtime.files import sync, write_text
from landscale.runtime.progress import console

CHUNK = 1 << 18
LONGEST_PAUSE = 60.0
PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses that may be gone on the next try


@dataclass(frozen=True)
class RetryPolicy:
    """How much of a bad line is borne: seconds without a byte, failures in a row without progress, the first pause in seconds."""

    timeout: float = 60.0
    failures: int = 7
    pause: float = 1.0


class _FailedTry(Exception):
    """Something that may be gone on the next try."""


class _NoSuchRange(_FailedTry):
    """There is nothing at that place of the file: it is shorter than what we have of it."""


def remote_size(url: str, patience: RetryPolicy) -> int | None:
    """The size in bytes that the server states; None where it states none without sending the file.

    Raises:
        BadInput: there is no such file, or no answer.
    """
    tries = _Tries(url, patience)
    while True:
        try:
            with _open(url, {}, patience.timeout, "HEAD") as response:
                return _length(response) or None  # 0 is said by servers that prepare no body for HEAD
        except _Refused as refused:
            if refused.status in {403, 405, 501}:  # of servers that know GET only
                return None
            raise
        except _FailedTry as failure:
            tries.failed(failure, at=0)


def fetch(
    url: str, path: str | Path, digest: str, size: int | None, patience: RetryPolicy, advance: Callable[[int], None]
) -> None:
    """Bring a file to its place.

    Args:
        digest: "md5:…" or "sha256:…".
        size: bytes, where known; a file of another size is refused before its first byte.
        advance: is told of the bytes that came earlier, as they are hashed, and of those that come for the first time.

    Raises:
        BadInput: the server has no such file, another file, or fails too often; or the digest is wrong.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _Partial.of(path, digest, advance) as partial:
        tries = _Tries(url, patience)
        furthest = partial.size

        def arrived() -> None:
            nonlocal furthest
            advance(max(0, partial.size - furthest))
            furthest = max(furthest, partial.size)

        whole = partial.size == size
        while not whole:
            try:
                _receive(url, partial, size, patience.timeout, arrived)
                whole = True
            except _FailedTry as failure:
                tries.failed(failure, at=partial.size)
        partial.finish(path)


def digest_matches(path: str | Path, digest: str, advance: Callable[[int], None]) -> bool:
    """Whether a file has that digest; `advance` is told of the bytes that were read."""
    kind, _, expected = digest.partition(":")
    hasher = hashlib.new(kind, usedforsecurity=False)
    with Path(path).open("rb") as file:
        while block := file.read(CHUNK):
            hasher.update(block)
            advance(len(block))
    return hasher.hexdigest() == expected


def print_line(line: str) -> None:
    """A line on stderr, above a progress bar."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


@dataclass
class _Tries:
    """Counts failures in a row. Only bytes that nobody had before end a row, so there is an end to it in any case."""

    url: str
    patience: RetryPolicy
    count: int = 0
    furthest: int = -1

    def failed(self, failure: _FailedTry, at: int) -> None:
        """Wait before the next try.

        Raises:
            BadInput: there were too many.
        """
        self.count = self.count + 1 if at <= self.furthest else 1
        self.furthest = max(self.furthest, at)
        if self.count > self.patience.failures:
            raise BadInput(self.url, f"{failure}, {self.count} times in a row; the same command goes on from here")
        pause = min(self.patience.pause * 2 ** (self.count - 1), LONGEST_PAUSE)
        print_line(f"{self.url}: {failure}; again in {pause:.0f} s")
        time.sleep(pause)


@dataclass
class _Partial:
    """What has come so far of a file: its bytes, their digest, the version of the remote file that they are of."""

    path: Path
    file: IO[bytes]
    digest: str
    version: str = ""
    size: int = 0
    hasher: hashlib._Hash = field(init=False)

    @classmethod
    @contextmanager
    def of(cls, path: Path, digest: str, advance: Callable[[int], None]) -> Iterator[_Partial]:
        """The partial file of `path`, hashed as far as it goes; `advance` is told of the bytes that were.

        Raises:
            BadInput: another process is writing it.
        """
        place = path.with_name(f".{path.name}.partial")
        with place.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadInput(place, "is being written by another landscale download") from None
            except OSError:  # some file systems of clusters have no locks
                pass
            partial = cls(place, file, digest)
            partial._take_stock(advance)
            try:
                yield partial
            finally:
                if not partial.size:
                    partial._discard()

    def _take_stock(self, advance: Callable[[int], None]) -> None:
        self.hasher = self._new_hasher()
        with contextlib.suppress(OSError, ValueError):
            self.version = self._label.read_text(encoding="utf-8")
        self.file.seek(0)
        while block := self.file.read(CHUNK):
            self.hasher.update(block)
            self.size += len(block)
            advance(len(block))

    def _discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._label.unlink(missing_ok=True)

    @property
    def _label(self) -> Path:
        return self.path.with_name(f"{self.path.name}.version")

    def _new_hasher(self) -> hashlib._Hash:
        return hashlib.new(self.digest.partition(":")[0], usedforsecurity=False)

    def begin(self, version: str) -> None:
        """Forget all bytes; those that come now are of `version`."""
        self.file.truncate(0)  # before the version: a kill in between leaves nothing under a wrong name
        self.size, self.hasher, self.version = 0, self._new_hasher(), version
        write_text(self._label, version)

    def append(self, block: bytes) -> None:
        self.file.write(block)
        self.hasher.update(block)
        self.size += len(block)

    def finish(self, path: Path) -> None:
        """Take the place of `path`.

        Raises:
            BadInput: the digest is wrong; nothing is left of the bytes then.
        """
        kind, _, expected = self.digest.partition(":")
        if (found := self.hasher.hexdigest()) != expected:
            self._discard()
            raise BadInput(path, f"what came has {kind} {found}, expected {expected}; it was removed")
        self.file.flush()
        sync(self.path)
        self.path.replace(path)
        self._label.unlink(missing_ok=True)
        sync(path.parent)


def _receive(url: str, partial: _Partial, size: int | None, timeout: float, arrived: Callable[[], None]) -> None:
    """One try: ask for what is missing, append what comes; after it the file is complete.

    Raises:
        _FailedTry: it is not.
        BadInput: it never will be.
    """
    wanted = {}
    if partial.size:
        wanted["Range"] = f"bytes={partial.size}-"
        if partial.version:
            wanted["If-Range"] = partial.version
    try:
        response = _open(url, wanted, timeout)
    except _NoSuchRange:
        partial.begin("")
        raise
    with response:
        version = _version(response)
        total = _length(response)
        if response.status == 206:
            begin, total = _content_range(response)
            if begin != partial.size or (version and partial.version and version != partial.version):
                partial.begin("")
                raise _FailedTry("the file there is another one by now")
        if size is not None and total is not None and total != size:
            raise BadInput(url, f"has {total:,} bytes, expected {size:,}")
        if response.status != 206:  # a first request, a server without ranges, or another version
            partial.begin(version)
        end = size if size is not None else total
        while end is None or partial.size < end:
            block = _read(response, CHUNK if end is None else min(CHUNK, end - partial.size))
            if not block:
                break
            partial.append(block)
            arrived()
    if end is not None and partial.size < end:
        raise _FailedTry(f"the connection ended after {partial.size:,} of {end:,} bytes")


class _Refused(BadInput):
    """A status that no further try will change."""

    def __init__(self, url: str, status: int, words: str) -> None:
        super().__init__(url, f"the server answers {status} {words}")
        self.status = status


def _open(url: str, headers: dict[str, str], timeout: float, method: str = "GET") -> HTTPResponse:
    """The answer to a request, redirects followed and proxies used as urllib does.

    Raises:
        _FailedTry: no answer, or one that may be another on the next try.
        BadInput: an answer that will not change.
    """
    headers = {"User-Agent": "landscale", "Accept-Encoding": "identity", **headers}
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers, method=method), timeout=timeout)
    except HTTPError as error:
        with error:
            if error.code == 416:
                raise _NoSuchRange("the file there is shorter by now") from None
            if error.code in PASSING:
                raise _FailedTry(f"the server answers {error.code} {error.reason}") from None
            raise _Refused(url, error.code, error.reason) from None
    except (InvalidURL, ValueError) as error:
        raise BadInput(url, f"is no address ({reason(error)})") from None
    except (OSError, HTTPException) as error:
        cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise BadInput(url, f"its certificate is not trusted ({cause.verify_message})") from None
        raise _FailedTry(_words(cause)) from None
    return response


def _read(response: HTTPResponse, length: int) -> bytes:
    """The next bytes, as many as are there; none at the end. A failure of the line is a failed try, one of our disk is not."""
    try:
        return response.read1(length)  # read() would lose what came before a break
    except (OSError, HTTPException) as error:
        raise _FailedTry(_words(error)) from None


def _words(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else reason(error)


def _length(response: HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _version(response: HTTPResponse) -> str:
    """What names this version of the remote file, as If-Range takes it: a strong ETag, else the date, else nothing."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _content_range(response: HTTPResponse) -> tuple[int, int | None]:
    """First byte and size of the whole, of a partial answer; a first byte of −1 where it is none."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not match:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])
