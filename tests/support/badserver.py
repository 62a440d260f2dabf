"""A local HTTP server that breaks connections, stalls or returns wrong data as a test requires."""

from __future__ import annotations

import hashlib
import http.server
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landscale.download.transfer import RetryPolicy

CONTENT = np.random.default_rng(1).bytes(100_000)
OTHER = np.random.default_rng(2).bytes(100_000)  # another version, of the same size
QUICK = RetryPolicy(timeout=0.3, failures=3, pause=0.001)


def digest(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


class Answer(http.server.BaseHTTPRequestHandler):
    """Serves a file, with ranges, unless the server's `plan` has another response for this GET."""

    server: Server

    def do_HEAD(self) -> None:
        self.server.requests.append(("HEAD", self.path, dict(self.headers)))
        self.server.head(self)

    def do_GET(self) -> None:
        self.server.requests.append(("GET", self.path, dict(self.headers)))
        plan = self.server.plan
        (plan.pop(0) if plan else Answer.send_file)(self)

    def send_file(
        self, until: int | None = None, ranges: bool = True, size: int | None = None, body: bool = True
    ) -> None:
        """Send the file from the requested byte on, at most `until` bytes; `size`: a wrong Content-Length to send."""
        content, tag = self.server.content, self.server.tag
        requested = self.headers.get("Range") if ranges else None
        if self.headers.get("If-Range", tag) not in (tag, self.server.modified):
            requested = None
        begin = int(requested.removeprefix("bytes=").removesuffix("-")) if requested else 0
        if begin >= len(content):
            self.status(416)
            return
        self.send_response(206 if requested else 200)
        if requested:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin if size is None else size))
        if tag:
            self.send_header("ETag", tag)
        if self.server.modified:
            self.send_header("Last-Modified", self.server.modified)
        self.end_headers()
        if body:
            self.wfile.write(content[begin:][:until])
            self.close_connection = True

    def status(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.over = threading.Event()
        self.reset()

    def reset(self) -> None:
        self.content = CONTENT
        self.tag = '"one"'
        self.modified = ""
        self.plan: list[Callable[[Answer], None]] = []
        self.head: Callable[[Answer], None] = lambda answer: answer.send_file(body=False)
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def received(self, header: str = "Range") -> list[str | None]:
        return [headers.get(header) for method, _, headers in self.requests if method == "GET"]

    def handle_error(self, *_: Any) -> None:
        pass  # the tests make clients close the connection


def drop(after: int, ranges: bool = True) -> Callable[[Answer], None]:
    return lambda answer: answer.send_file(until=after, ranges=ranges)


def reset(after: int) -> Callable[[Answer], None]:
    def act(answer: Answer) -> None:
        answer.send_file(until=after)
        answer.wfile.flush()
        answer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        answer.connection.close()

    return act


def status(code: int) -> Callable[[Answer], None]:
    return lambda answer: answer.status(code)


def stall(after: int) -> Callable[[Answer], None]:
    def act(answer: Answer) -> None:
        answer.send_file(until=after)
        answer.wfile.flush()
        answer.server.over.wait(20)

    return act


def change(content: bytes, tag: str, then: Callable[[Answer], None] = Answer.send_file) -> Callable[[Answer], None]:
    def act(answer: Answer) -> None:
        answer.server.content, answer.server.tag = content, tag
        then(answer)

    return act


@pytest.fixture(scope="session")
def running() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("no_proxy", "*")
    running.reset()
    return running


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.01)
