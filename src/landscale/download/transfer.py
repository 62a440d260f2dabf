"""Download one file over an unreliable connection: resumed after a failure, checked by its digest, complete or absent.

The bytes received so far are in `.NAME.partial`. `.NAME.partial.version` has the version of the remote file (its ETag or date),
so that parts of two versions are never combined. Both stay after a failure or Ctrl-C; the same call resumes.
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
LONGEST_PAUSE = 60.0  # seconds
RETRIED = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that may be temporary


@dataclass(frozen=True)
class RetryPolicy:
    """How failures are retried.

    timeout: seconds without a byte after which a try fails. failures: consecutive failures without progress that are retried.
    pause: seconds before the first retry; it doubles each time, up to 60.
    """

    timeout: float = 60.0
    failures: int = 7
    pause: float = 1.0


class _FailedTry(Exception):
    """A failure that may be temporary."""


class _NoSuchRange(_FailedTry):
    """The remote file is shorter than what was received already."""


def remote_size(url: str, retries: RetryPolicy) -> int | None:
    """The size in bytes that the server states in response to HEAD; None if it states none.

    Raises:
        BadInput: there is no such file, or too many tries fail.
    """
    tries = _Tries(url, retries)
    while True:
        try:
            with _open(url, {}, retries.timeout, "HEAD") as response:
                return _length(response) or None  # some servers answer HEAD with a length of 0
        except _Refused as refused:
            if refused.status in {403, 405, 501}:  # servers that support GET only
                return None
            raise
        except _FailedTry as failure:
            tries.failed(failure, at=0)


def fetch(
    url: str, path: str | Path, digest: str, size: int | None, retries: RetryPolicy, advance: Callable[[int], None]
) -> None:
    """Download a file to `path`.

    Args:
        url: its address.
        path: the local file; its folder is created if necessary.
        digest: "md5:…" or "sha256:…"; all of its digits, or as many of the first as are published.
        size: bytes, if known; a file of another size is refused before its first byte is received.
        retries: how failures are retried.
        advance: called with the number of bytes of earlier calls, while they are hashed, and of newly received bytes.

    Raises:
        BadInput: the server has no such file or one of another size, too many tries fail, or the digest differs.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _Partial.opened(path, digest, advance) as partial:
        tries = _Tries(url, retries)
        furthest = partial.size

        def arrived() -> None:
            nonlocal furthest
            advance(max(0, partial.size - furthest))
            furthest = max(furthest, partial.size)

        whole = partial.size == size
        while not whole:
            try:
                _receive(url, partial, size, retries.timeout, arrived)
                whole = True
            except _FailedTry as failure:
                tries.failed(failure, at=partial.size)
        partial.finish(path)


def digest_matches(path: str | Path, digest: str, advance: Callable[[int], None]) -> bool:
    """Whether a file has this digest; `advance` is called with the number of bytes read."""
    kind, _, expected = digest.partition(":")
    hasher = hashlib.new(kind, usedforsecurity=False)
    with Path(path).open("rb") as file:
        while block := file.read(CHUNK):
            hasher.update(block)
            advance(len(block))
    return hasher.hexdigest() == expected


def print_line(line: str) -> None:
    """Print a line on stderr, above a progress bar."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


@dataclass
class _Tries:
    """Counts consecutive failures. Only bytes beyond the furthest position reset the count, so retrying always ends."""

    url: str
    retries: RetryPolicy
    count: int = 0
    furthest: int = -1

    def failed(self, failure: _FailedTry, at: int) -> None:
        """Wait before the next try.

        Raises:
            BadInput: there were too many failures.
        """
        self.count = self.count + 1 if at <= self.furthest else 1
        self.furthest = max(self.furthest, at)
        if self.count > self.retries.failures:
            raise BadInput(self.url, f"{failure}, {self.count} times in a row; run the same command again to resume")
        pause = min(self.retries.pause * 2 ** (self.count - 1), LONGEST_PAUSE)
        print_line(f"{self.url}: {failure}; trying again in {pause:.0f} s")
        time.sleep(pause)


@dataclass
class _Partial:
    """The received part of a file: its bytes, their digest, and the version of the remote file."""

    path: Path
    file: IO[bytes]
    digest: str
    version: str = ""
    size: int = 0
    hasher: hashlib._Hash = field(init=False)

    @classmethod
    @contextmanager
    def opened(cls, path: Path, digest: str, advance: Callable[[int], None]) -> Iterator[_Partial]:
        """Open the partial file of `path` and hash its bytes; `advance` is called with their number.

        Raises:
            BadInput: another process is writing it.
        """
        partial_path = path.with_name(f".{path.name}.partial")
        with partial_path.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadInput(partial_path, "is being written by another landscale download") from None
            except OSError:  # some file systems of clusters do not support locks
                pass
            partial = cls(partial_path, file, digest)
            partial._hash_received(advance)
            try:
                yield partial
            finally:
                if not partial.size:
                    partial._discard()

    def _hash_received(self, advance: Callable[[int], None]) -> None:
        self.hasher = self._new_hasher()
        with contextlib.suppress(OSError, ValueError):
            self.version = self._version_file.read_text(encoding="utf-8")
        self.file.seek(0)
        while block := self.file.read(CHUNK):
            self.hasher.update(block)
            self.size += len(block)
            advance(len(block))

    def _discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._version_file.unlink(missing_ok=True)

    @property
    def _version_file(self) -> Path:
        return self.path.with_name(f"{self.path.name}.version")

    def _new_hasher(self) -> hashlib._Hash:
        return hashlib.new(self.digest.partition(":")[0], usedforsecurity=False)

    def begin(self, version: str) -> None:
        """Discard all bytes; the next ones belong to `version`."""
        self.file.truncate(0)  # before the version, so that a kill in between does not leave bytes with a wrong version
        self.size, self.hasher, self.version = 0, self._new_hasher(), version
        write_text(self._version_file, version)

    def append(self, block: bytes) -> None:
        self.file.write(block)
        self.hasher.update(block)
        self.size += len(block)

    def finish(self, path: Path) -> None:
        """Rename the partial file to `path`.

        Raises:
            BadInput: the digest differs; the bytes are removed.
        """
        kind, _, expected = self.digest.partition(":")
        if not (found := self.hasher.hexdigest()).startswith(expected):
            self._discard()
            raise BadInput(path, f"the downloaded file has {kind} {found}, expected {expected}; it was removed")
        self.file.flush()
        sync(self.path)
        self.path.replace(path)
        self._version_file.unlink(missing_ok=True)
        sync(path.parent)


def _receive(url: str, partial: _Partial, size: int | None, timeout: float, arrived: Callable[[], None]) -> None:
    """One try: request the missing bytes and append them; when it returns the file is complete.

    Raises:
        _FailedTry: the try failed.
        BadInput: no further try can succeed.
    """
    headers = {}
    if partial.size:
        headers["Range"] = f"bytes={partial.size}-"
        if partial.version:
            headers["If-Range"] = partial.version
    try:
        response = _open(url, headers, timeout)
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
                raise _FailedTry("the file on the server has changed")
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
    """An HTTP status that is not temporary."""

    def __init__(self, url: str, status: int, words: str) -> None:
        super().__init__(url, f"the server answers {status} {words}")
        self.status = status


def _open(url: str, headers: dict[str, str], timeout: float, method: str = "GET") -> HTTPResponse:
    """The response to a request; redirects and proxies are handled by urllib.

    Raises:
        _FailedTry: there is no response, or the failure may be temporary.
        BadInput: the failure is permanent.
    """
    headers = {"User-Agent": "landscale", "Accept-Encoding": "identity", **headers}
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers, method=method), timeout=timeout)
    except HTTPError as error:
        with error:
            if error.code == 416:
                raise _NoSuchRange("the file on the server is shorter now") from None
            if error.code in RETRIED:
                raise _FailedTry(f"the server answers {error.code} {error.reason}") from None
            raise _Refused(url, error.code, error.reason) from None
    except (InvalidURL, ValueError) as error:
        raise BadInput(url, f"is not a valid URL ({reason(error)})") from None
    except (OSError, HTTPException) as error:
        cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise BadInput(url, f"its certificate is not trusted ({cause.verify_message})") from None
        raise _FailedTry(_describe(cause)) from None
    return response


def _read(response: HTTPResponse, length: int) -> bytes:
    """The next available bytes, none at the end.

    Raises:
        _FailedTry: the connection failed.
    """
    try:
        return response.read1(length)  # read() would lose the bytes before a failure
    except (OSError, HTTPException) as error:
        raise _FailedTry(_describe(error)) from None


def _describe(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else reason(error)


def _length(response: HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _version(response: HTTPResponse) -> str:
    """The version of the remote file for If-Range: a strong ETag, else the date of its last change, else empty."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _content_range(response: HTTPResponse) -> tuple[int, int | None]:
    """Offset of the first byte and total size, from the header of a partial response; an offset of −1 if it is invalid."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not match:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])
